"""The pipeline that steps go through, from operands to the accumulator."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from .alu import Lanes, SlowLanes, is_slow, reads_qnt, slow_latency
from .form import Form, delayed
from .interfaces import input_signature, read_signature, write_signature
from .matrix import MatrixUnit
from .operation import OPERATION
from .steps import step_layout

ACC_READ = 2
"""Cycles from a read of accumulators to its data."""


class Execute(wiring.Component):
    """Carries out steps: a step a cycle, :attr:`latency` cycles from ``i`` to the write.

    Accumulators are read two cycles before they are written, and a read shows what is written in
    its own cycle and the next: a step sees what all steps before it wrote, at any distance.
    Operations of the ALU that multiply read at once and compute while they travel. Such a step
    waits on ``i`` while one before it, not yet written, has its accumulator as destination, and
    in a cycle in which those before it leave no read port for it: two accumulators need both, one
    needs any.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes and extensions.
    form : Form
        How the arithmetic is built.

    Members
    -------
    i : :py:`In(stream.Signature(step_layout(config)))`
        Steps in program order.
    inp : :py:`Out(input_signature(config))`
        Inputs, with those that follow for depthwise and sliding steps.
    wgt, qnt, dst, src : :py:`Out(read_signature(...))`
        Operands; ``dst`` and ``src`` read the accumulators, whose data come a cycle later than
        others and show what ``write`` writes meanwhile. ``qnt`` is there with ``requantize``.
    write : :py:`Out(write_signature(...))`
        Results; always accepted.
    superseded : :py:`Out(1)`
        The next cycle writes the same element again, and only ``dst`` and ``src`` read before.
    done : :py:`Out(1)`
        An instruction is complete; a read enabled in this cycle sees its results.
    fault : :py:`Out(1)`
        A step that has ``fault`` has come to the end, after all before it are complete.

    Attributes
    ----------
    latency : int
        Cycles from ``i`` to ``write`` and ``done``.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self.config = config
        self.form = form
        acc = read_signature(config.acc_index_bits, 8 * config.acc_element_bytes)
        ports = {
            "i": In(stream.Signature(step_layout(config))),
            "inp": Out(input_signature(config)),
            "wgt": Out(read_signature(config.wgt_index_bits, 8 * config.wgt_element_bytes)),
            "dst": Out(acc),
            "src": Out(acc),
            "write": Out(write_signature(config.acc_index_bits, 8 * config.acc_element_bytes, 1)),
            "superseded": Out(1),
            "done": Out(1),
            "fault": Out(1),
        }
        if config.requantize:
            ports["qnt"] = Out(read_signature(config.qnt_index_bits, 8 * config.qnt_element_bytes))
        super().__init__(ports)
        self._matrix = MatrixUnit(config, form)
        slow = slow_latency(config)
        self.latency = max(1 + self._matrix.latency, ACC_READ + slow)

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.matrix = matrix = self._matrix
        slow_latency = self.latency - ACC_READ
        m.submodules.slow_lanes = slow = SlowLanes(config, self.form, slow_latency)
        m.submodules.lanes = lanes = Lanes(config, matrix.lane_bits)

        first = Signal(_travelling(config))
        stages = [first]
        for n in range(1, self.latency + 1):
            stage = Signal(_travelling(config), name=f"stage{n}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        reading, before_last, last = stages[-1 - ACC_READ :]

        step = self.i.payload
        does = step.operation
        on_qnt = reads_qnt(config, does.alu_opcode) if config.requantize else C(0)
        slow_step, by_register = Signal(), Signal()
        late = reading.late
        m.d.comb += [
            slow_step.eq(step.step & ~step.fault & is_slow(config, does)),
            by_register.eq(~does.use_imm & ~on_qnt),
        ]
        meets = [
            stage.step & ((stage.dst == step.dst) | (by_register & (stage.dst == step.src)))
            for stage in stages[1:-ACC_READ]
        ]
        late_src = late & reading.operation.alu & ~reading.operation.use_imm
        no_port = Mux(by_register, late, late_src)
        m.d.comb += self.i.ready.eq(~(slow_step & (no_port | Cat(meets).any())))
        issued = Signal()
        m.d.comb += issued.eq(self.i.valid & self.i.ready)
        with m.If(issued):
            m.d.comb += [
                first.step.eq(step.step & ~step.fault),
                first.last.eq(step.last),
                first.fault.eq(step.fault),
                first.late.eq(step.step & ~step.fault & ~slow_step & (does.alu | does.accumulate)),
                first.operation.eq(does),
                first.dst.eq(step.dst),
                first.src.eq(step.src),
            ]

        multiplies, early = Signal(), Signal()
        elsewhere = Signal()  # what ``dst`` has no time for
        came_elsewhere = delayed(m, elsewhere, ACC_READ)
        m.d.comb += [
            multiplies.eq(issued & step.step & ~step.fault & does.multiply),
            early.eq(issued & slow_step),
            self.inp.enable.eq(multiplies),
            self.inp.address.eq(step.src),
            self.dst.enable.eq(early | late),
            self.dst.address.eq(Mux(late, reading.dst, step.dst)),
            elsewhere.eq(early & late),
            self.src.enable.eq((early & by_register) | elsewhere | late_src),
            self.src.address.eq(Mux(late_src, reading.src, Mux(elsewhere, step.dst, step.src))),
            matrix.inp.eq(self.inp.data),
            matrix.wgt.eq(self.wgt.data),
            slow.operation.eq(stages[ACC_READ].operation),
            slow.dst.eq(Mux(came_elsewhere, self.src.data, self.dst.data)),
            slow.src.eq(self.src.data),
            lanes.operation.eq(last.operation),
            lanes.dst.eq(self.dst.data),
            lanes.src.eq(self.src.data),
            lanes.sum.eq(delayed(m, matrix.sum, self.latency - 1 - matrix.latency)),
            lanes.slow.eq(slow.o),
            self.write.valid.eq(last.step),
            self.write.address.eq(last.dst),
            self.write.mask.eq(1),
            self.write.data.eq(lanes.o),
            # Of an instruction that ends, others may read the result from now on.
            self.superseded.eq(before_last.step & (before_last.dst == last.dst) & ~last.last),
            self.done.eq(last.last & ~last.fault),
            self.fault.eq(last.fault),
        ]
        weights = delayed(m, Cat(multiplies, step.wgt), matrix.ahead)
        m.d.comb += Cat(self.wgt.enable, self.wgt.address).eq(weights)
        if config.taps:
            m.d.comb += matrix.depthwise.eq(stages[1 + matrix.ahead].operation.depthwise)
        within = step.lane.any() if config.sliding else 0
        if config.neighbours > 1:
            m.d.comb += self.inp.following.eq((does.depthwise if config.taps else 0) | within)
        if config.sliding:
            m.d.comb += matrix.slide.eq(delayed(m, step.lane, 1))
        if config.requantize:
            read, parameters = Cat(early & on_qnt, step.src), self.qnt.data
            if self.form == "simulation":
                read = delayed(m, read, ACC_READ - 1)
            else:
                parameters = delayed(m, parameters, ACC_READ - 1)
            m.d.comb += [Cat(self.qnt.enable, self.qnt.address).eq(read), slow.qnt.eq(parameters)]
        return m


def _travelling(config: AcceleratorConfig) -> data.StructLayout:
    """What accompanies a step; ``late`` if it reads accumulators towards the end."""
    return data.StructLayout(
        {
            "step": 1,
            "last": 1,
            "fault": 1,
            "late": 1,
            "operation": OPERATION,
            "dst": config.acc_index_bits,
            "src": config.acc_index_bits,
        }
    )
