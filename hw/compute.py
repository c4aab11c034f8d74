"""The compute engine: GEMM, MATMUL and ALU, and what is loaded into its own scratchpads."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import FaultCode
from ..isa.formats import OPCODE_BITS
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine
from .acc_reader import acc_group
from .accumulators import Accumulators
from .arrival import bank_count, write_parts, write_signatures
from .axi import read_client_signature
from .box_reader import BoxReader
from .boxes import box_of
from .execute import Execute
from .form import Form, delayed
from .interfaces import (
    Activity,
    Fault,
    Issue,
    input_signature,
    read_signature,
    yielding_read_signature,
)
from .parameters import Parameters, store_read
from .scratchpad import Scratchpad
from .steps import Steps

IN_FLIGHT = 63
"""Instructions that are accepted before the first of them is complete."""


class ComputeEngine(wiring.Component):
    """Executes GEMM, MATMUL, ALU, and LOAD of UOP, ACC, ACC8 and QNT, in order.

    Instructions with steps follow one another without a gap, a step a cycle, and so do loads,
    as fast as their data come; between the two kinds everything before is completed first. An
    instruction without steps takes a cycle. From ``i`` to the write of the first step it takes
    :attr:`latency` cycles.

    What the load engine fills of the engine's scratchpads it writes beside all that, and no step
    ever waits for it: tokens keep both apart, element by element. It waits itself while a LOAD is
    under way, or in a cycle in which a step writes to the same bank of :class:`Accumulators`.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes and extensions.
    form : Form
        How the arithmetic is built.

    Members
    -------
    i : :py:`In(Issue)`
        Instructions, statically legal, whose tokens have been taken.
    inp, wgt : :py:`Out(input_signature(config))`, :py:`Out(read_signature(...))`
        The load engine's scratchpads.
    bus : :py:`Out(read_client_signature(config))`
        DRAM.
    load_uop, load_acc, load_qnt : :py:`In(write_signature(...))`
        Those of the engine's scratchpads that the load engine fills, too.
    store_acc, store_qnt : :py:`In(yielding_read_signature(...))`, :py:`In(store_read(config))`
        The store engine's view of the accumulators and, with ``requantize``, of the parameters;
        steps of the ALU that read the same bank go first, and those that read parameters at all
        unless lanes take turns.
    done : :py:`Out(1)`
        An instruction is complete, in order; a read enabled in this cycle sees its results.
    fault : :py:`Out(Fault)`
        SRAM_RANGE or BUS_READ, after everything before the instruction is complete. Held until
        reset; nothing completes any more.
    activity : :py:`Out(Activity)`
        BUSY: a step is issued. LOAD: a load writes. WAIT_MEMORY: a load waits for DRAM. DRAIN:
        an instruction is there, but none of these.
    idle : :py:`Out(1)`
        No instruction is there.
    gemm_step, alu_step : :py:`Out(1)`
        A step that multiplies in the matrix unit, or a step of the ALU, is issued.

    Attributes
    ----------
    latency : int
        Cycles from ``i`` to the first step's result.
    filled : tuple of str
        The scratchpads that have a ``load_`` port.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self.config = config
        instructions = InstructionSet(config)
        self._memories, self._formats = instructions.loads(Engine.COMPUTE)
        own = {memory.scratchpad for memory in self._memories}
        also = [m for m in instructions.loads(Engine.LOAD)[0] if m.scratchpad in own]
        filled = write_signatures(config, also)
        ports = {
            "i": In(Issue),
            "inp": Out(input_signature(config)),
            "wgt": Out(read_signature(config.wgt_index_bits, 8 * config.wgt_element_bytes)),
            "bus": Out(read_client_signature(config)),
            **{f"load_{name}": In(port) for name, port in filled.items()},
            "store_acc": In(
                yielding_read_signature(config.acc_index_bits, acc_group(config)["acc"].width)
            ),
            "done": Out(1),
            "fault": Out(Fault),
            "activity": Out(Activity),
            "idle": Out(1),
            "gemm_step": Out(1),
            "alu_step": Out(1),
        }
        if config.requantize:
            ports["store_qnt"] = In(store_read(config))
        super().__init__(ports)
        self.filled = tuple(filled)
        self._form: Form = form
        self._steps = Steps(config)
        self._execute = Execute(config, form)
        self.latency = self._steps.latency + self._execute.latency

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.steps = steps = self._steps
        m.submodules.execute = execute = self._execute
        m.submodules.reader = reader = BoxReader(config, self._memories)
        m.submodules.uop = uop = self._uop()
        m.submodules.acc = acc = Accumulators(config, "acc" in self.filled, self._form)
        wiring.connect(m, steps.uop, uop.read[0])
        wiring.connect(m, steps.o, execute.i)
        wiring.connect(m, execute.dst, acc.read_0)
        wiring.connect(m, execute.src, acc.read_1)
        wiring.connect(m, execute.ahead, acc.ahead)
        wiring.connect(m, wiring.flipped(self.store_acc), acc.wide)
        wiring.connect(m, execute.inp, wiring.flipped(self.inp))
        wiring.connect(m, execute.wgt, wiring.flipped(self.wgt))
        wiring.connect(m, reader.bus, wiring.flipped(self.bus))
        wiring.connect(m, execute.write, acc.step)
        m.d.comb += acc.superseded.eq(execute.superseded)
        if config.requantize:
            m.submodules.qnt = qnt = Parameters(config, self._form)
            wiring.connect(m, execute.qnt, qnt.step)
            wiring.connect(m, wiring.flipped(self.store_qnt), qnt.store)
            m.d.comb += qnt.ahead.eq(execute.qnt_ahead)
            self._merge(m, "qnt", qnt.write, reader)
        self._merge(m, "uop", uop.write, reader)
        self._merge(m, "acc", acc.load, reader)
        loading = self._admit(m, steps, reader)
        self._report(m, steps, execute, reader, loading)
        return m

    def _uop(self) -> Scratchpad:
        """Nobody reads in the cycle of a write or the next; tokens, and steps, take longer."""
        config = self.config
        parts, banks = write_parts(config, "uop"), bank_count(config, "uop")
        bits = 8 * config.uop_element_bytes
        late = self._form == "synthesis"
        return Scratchpad(config.uop_depth, bits, parts, banks=banks, late=late)

    def _merge(self, m, name: str, port, reader: BoxReader):
        """The engine's own loads write, and while there are none, or none go on, those of the load
        engine.

        An instruction is there for cycles before it writes: that it came may be seen in the next.
        """
        own, free = getattr(reader, name), delayed(m, reader.idle | reader.fault.valid, 1)
        passes = ("valid", "address", "mask", "data")
        m.d.comb += [getattr(port, member).eq(getattr(own, member)) for member in passes]
        m.d.comb += own.ready.eq(port.ready)
        if name in self.filled:
            load = getattr(self, f"load_{name}")
            m.d.comb += load.ready.eq(port.ready & free)
            with m.If(free):
                m.d.comb += [getattr(port, member).eq(getattr(load, member)) for member in passes]

    def _admit(self, m, steps: Steps, reader: BoxReader) -> Signal:
        """Sends instructions to the steps or to the loads; returns which of them is at work.

        One kind waits until all of the other kind are complete. This is the only place that
        keeps loads and steps apart.
        """
        word = self.i.payload.word
        opcodes = [format.opcode for format in self._formats]
        is_load, loading, admitted = Signal(), Signal(), Signal()
        count, left = Signal(range(IN_FLIGHT + 1)), Signal(range(IN_FLIGHT + 1))
        m.d.comb += [
            is_load.eq(Cat(word[:OPCODE_BITS] == opcode for opcode in opcodes).any()),
            admitted.eq(
                ~self.fault.valid & ((left == 0) | ((loading == is_load) & (count != IN_FLIGHT)))
            ),
            steps.i.payload.eq(self.i.payload),
            steps.i.valid.eq(self.i.valid & admitted & ~is_load),
            reader.i.payload.eq(box_of(m, self.config, self.i.payload, self._formats)),
            reader.i.valid.eq(self.i.valid & admitted & is_load),
            self.i.ready.eq(admitted & Mux(is_load, reader.i.ready, steps.i.ready)),
            self.idle.eq(count == 0),
            left.eq(count - self.done),
        ]
        accepted = self.i.valid & self.i.ready
        m.d.sync += count.eq(left + accepted)
        with m.If(accepted):
            m.d.sync += loading.eq(is_load)
        return loading

    def _report(self, m, steps: Steps, execute: Execute, reader: BoxReader, loading: Signal):
        m.d.comb += [
            self.done.eq((execute.done | reader.done) & ~self.fault.valid),
            self.gemm_step.eq(execute.gemm_step),
            self.alu_step.eq(execute.alu_step),
        ]
        with m.If(~self.fault.valid):
            with m.If(execute.fault):
                m.d.sync += [
                    self.fault.valid.eq(1),
                    self.fault.code.eq(FaultCode.SRAM_RANGE),
                    self.fault.index.eq(steps.fault_index),
                ]
            with m.Elif(reader.fault.valid):
                m.d.sync += [
                    self.fault.valid.eq(1),
                    self.fault.code.eq(reader.fault.code),
                    self.fault.index.eq(reader.fault.index),
                ]
        activity = self.activity
        with m.If(self.idle):
            m.d.comb += activity.eq(Activity.IDLE)
        with m.Elif(execute.issued):
            m.d.comb += activity.eq(Activity.BUSY)
        with m.Elif(reader.writing):
            m.d.comb += activity.eq(Activity.LOAD)
        with m.Elif(loading & reader.waiting):
            m.d.comb += activity.eq(Activity.WAIT_MEMORY)
        with m.Else():
            m.d.comb += activity.eq(Activity.DRAIN)
