"""Sees that nothing in the machine will move any more, and why."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa.faults import ENGINE_NAMES, WAITS, FaultCode
from ..isa.memories import Engine
from .dispatch import ENGINE_BITS
from .form import delayed
from .interfaces import INDEX_BITS

EngineState = wiring.Signature(
    {
        "there": Out(1),
        "empty": Out(1),
        "resting": Out(1),
        "waiting": Out(len(WAITS)),
        "index": Out(INDEX_BITS),
    }
)
"""What can be seen of an engine: whether its sequencer has an instruction, and its outputs."""

FAULT = data.StructLayout({"code": 8, "engine": ENGINE_BITS, "index": INDEX_BITS})


class Rest(wiring.Component):
    """Tells a machine at rest from one that moves. Latency: a cycle.

    The machine is at rest when no engine has an instruction, each that has one before it waits
    for a token or for room, and the stream has come to its end, to an illegal instruction or to a
    full queue. Then an illegal instruction is a fault of its own; otherwise waiting engines are a
    deadlock, and if none waits, the stream had no FINISH. While only FINISH is left, the machine
    is ``quiet`` and FINISH completes.

    Members
    -------
    load, compute, store : :py:`In(EngineState)`
        The sequencers.
    finish_held : :py:`In(1)`
        FINISH is before the compute engine, its tokens taken.
    fetch_idle, dispatch_idle, dispatch_blocked : :py:`In(1)`
        The stream.
    illegal : :py:`In(FAULT)`
        The illegal instruction that is next; ``code`` is 0 while there is none.
    count : :py:`In(32)`
        Instructions in the stream.
    quiet : :py:`Out(1)`
        FINISH, if it is there, may complete; in the same cycle as far as ``compute`` goes.
    fault : :py:`Out(FAULT)`
        Why the machine rests; ``code`` is 0 while it does not, or while FINISH completes.
    waiting : :py:`Out(len(WAITS))`
        Who waits for what.
    """

    load: In(EngineState)
    compute: In(EngineState)
    store: In(EngineState)
    finish_held: In(1)
    fetch_idle: In(1)
    dispatch_idle: In(1)
    dispatch_blocked: In(1)
    illegal: In(FAULT)
    count: In(INDEX_BITS)
    quiet: Out(1)
    fault: Out(FAULT)
    waiting: Out(len(WAITS))

    def elaborate(self, platform):
        m = Module()
        engines = {e.value: getattr(self, e.value) for e in Engine}
        idle = {name: e.empty & ~e.there for name, e in engines.items()}
        resting = {name: idle[name] | e.resting for name, e in engines.items()}
        resting["compute"] |= self.compute.empty & self.finish_held
        illegal = Signal()
        ended = Signal()
        stopped = Signal()
        quiet = ended & idle["load"] & idle["store"]  # until the next program
        m.d.comb += [
            illegal.eq(self.illegal.code != FaultCode.NONE),
            ended.eq(self.fetch_idle & self.dispatch_idle),
            self.quiet.eq(delayed(m, quiet, 1) & self.compute.empty),
        ]
        m.d.sync += [
            self.waiting.eq(self.load.waiting | self.compute.waiting | self.store.waiting),
            stopped.eq(
                (ended | self.dispatch_blocked | illegal)
                & Cat(resting.values()).all()
                & ~(quiet & self.compute.empty & self.finish_held)
            ),
        ]
        was_illegal, refused = delayed(m, illegal, 1), delayed(m, self.illegal, 1)
        indices = {name: delayed(m, e.index, 1) for name, e in engines.items()}
        with m.If(stopped):
            with m.If(was_illegal):
                m.d.comb += self.fault.eq(refused)
            with m.Elif(self.waiting.any()):
                m.d.comb += self.fault.code.eq(FaultCode.DEADLOCK)
                for bit, (name, _, _) in reversed(list(enumerate(WAITS))):
                    with m.If(self.waiting[bit]):
                        m.d.comb += [
                            self.fault.engine.eq(ENGINE_NAMES.index(name)),
                            self.fault.index.eq(indices[name]),
                        ]
            with m.Else():
                m.d.comb += [
                    self.fault.code.eq(FaultCode.NO_FINISH),
                    self.fault.engine.eq(ENGINE_NAMES.index("fetch")),
                    self.fault.index.eq(self.count),
                ]
        return m
