"""Starts a program, sees its end, and stops the machine at a fault."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import ENGINE_NAMES, WAITS, FaultCode
from ..isa.formats import INSTRUCTION_BYTES
from ..isa.registers import IDENTITY, REGISTERS, VERSION
from ..isa.spec import spec_hash
from .axi import axi4lite_signature
from .counters import Counts
from .fetch import PROGRAM
from .form import delayed
from .interfaces import INDEX_BITS, Fault
from .registers import RegisterBlock
from .rest import FAULT


class Control(wiring.Component):
    """The registers, and the life of a program between launch and end.

    A write of 1 to bit 0 of CONTROL launches, unless a program runs. Bit 1 clears done, fault
    and the interrupt. The first fault stops the machine until the next reset; a launch before
    that only shows the fault again. The engines' faults of one cycle count in the order fetch,
    load, compute, store; what the machine at rest shows comes last. All of it, and a write of
    CONTROL, takes effect a cycle later.

    Members
    -------
    axil : :py:`In(axi4lite_signature())`
        The bus.
    irq : :py:`Out(1)`
        Done or fault, until cleared or launched again: then it is 0 in the cycle after the write.
    launch : :py:`Out(1)`
        A program starts: for a cycle, before anything of it moves.
    start : :py:`Out(stream of PROGRAM)`
        The program, for fetch.
    running : :py:`Out(1)`
        In the cycles from the one after the launch to the one after the end.
    halt : :py:`Out(1)`
        A fault has stopped the machine.
    finished : :py:`In(1)`
        FINISH completes.
    fetch, load, compute, store : :py:`In(Fault)`
        The engines' faults.
    rest : :py:`In(FAULT)`, waiting : :py:`In(len(WAITS))`
        From :class:`weft.hw.rest.Rest`.
    count : :py:`Out(32)`
        The register COUNT.
    counts : :py:`In(Counts)`
        The counters.
    """

    axil: In(axi4lite_signature())
    irq: Out(1)
    launch: Out(1)
    start: Out(stream.Signature(PROGRAM))
    running: Out(1)
    halt: Out(1)
    finished: In(1)
    fetch: In(Fault)
    load: In(Fault)
    compute: In(Fault)
    store: In(Fault)
    rest: In(FAULT)
    waiting: In(len(WAITS))
    count: Out(INDEX_BITS)
    counts: In(Counts)

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock()
        wiring.connect(m, wiring.flipped(self.axil), registers.axil)
        done = Signal()
        faulty = Signal()
        fault = Signal(FAULT)
        waiting = Signal.like(self.waiting)
        values = {
            "ID": IDENTITY,
            "VERSION": VERSION,
            "SPEC": int(spec_hash(self._config), 16),
            "STATUS": Cat(self.running, done, faulty),
            "FAULT": Cat(fault.code, fault.engine),
            "FAULT_INDEX": fault.index,
            "WAITING": waiting,
            **{name.upper(): getattr(self.counts, name) for name in Counts.members},
        }
        for register in REGISTERS:
            if register.access == "read-only":
                m.d.comb += getattr(registers, register.name.lower()).eq(values[register.name])

        wants_launch, clears = delayed(m, registers.control, 1)[:2]
        align = (INSTRUCTION_BYTES - 1).bit_length()
        m.d.comb += [
            self.launch.eq(wants_launch & ~self.running & ~self.halt),
            self.count.eq(registers.count),
            self.start.payload.count.eq(registers.count),
            self.start.payload.address.eq(Cat(Const(0, align), registers.address[align:])),
            self.irq.eq((done | faulty) & ~self.launch & ~clears),
        ]
        starts = self.start.valid | delayed(m, self.start.valid, 1)
        finished, waited, still = (
            delayed(m, value, 1) for value in (self.finished, self.waiting, starts)
        )
        rest = data.View(FAULT, delayed(m, self.rest, 1))
        faults = {
            name: [delayed(m, getattr(getattr(self, name), part), 1) for part in Fault.members]
            for name in ENGINE_NAMES
        }
        with m.If(clears):
            m.d.sync += [done.eq(0), faulty.eq(0)]
        with m.If(wants_launch & self.halt):
            m.d.sync += faulty.eq(1)
        with m.If(self.launch):
            m.d.sync += [
                self.running.eq(1),
                self.start.valid.eq(1),
                done.eq(0),
                faulty.eq(0),
                fault.eq(0),
                waiting.eq(0),
            ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += self.start.valid.eq(0)
        with m.If(self.running):
            caught = Signal(FAULT)
            # What rests is seen two cycles later: not yet the program that has just started.
            with m.If(~starts & ~still):
                m.d.comb += caught.eq(rest)
            self._catch(m, caught, faults)
            with m.If(caught.code != FaultCode.NONE):
                m.d.sync += [
                    self.running.eq(0),
                    self.halt.eq(1),
                    faulty.eq(1),
                    fault.eq(caught),
                ]
                with m.If(caught.code == FaultCode.DEADLOCK):
                    m.d.sync += waiting.eq(waited)
            with m.Elif(finished):
                m.d.sync += [self.running.eq(0), done.eq(1)]
        return m

    def _catch(self, m, caught, faults):
        """``caught`` is an engine's fault of the cycle before, if there is one."""
        for number, name in reversed(list(enumerate(ENGINE_NAMES))):
            valid, code, index = faults[name]
            with m.If(valid):
                m.d.comb += [
                    caught.code.eq(code),
                    caught.engine.eq(number),
                    caught.index.eq(index),
                ]
