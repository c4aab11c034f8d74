"""From the one stream of instructions to a queue for each engine, refusing illegal words."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import ENGINE_NAMES, ZERO_RULES, FaultCode
from ..isa.formats import FINISH, INSTRUCTION_BITS
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine
from ..isa.operations import SELECTORS
from ..isa.ordering import DISPATCHED
from .interfaces import HEAD_STRUCT, INDEX_BITS, ISSUE, Issue, format_struct
from .queue import CutQueue, Queue

ENGINE_BITS = 2
"""Of an engine's number, its place in :data:`weft.isa.faults.ENGINE_NAMES`."""


class Decoder(wiring.Component):
    """What :func:`weft.isa.faults.static_fault` says of a word, in gates.

    Members
    -------
    word : :py:`In(128)`
        An instruction.
    engine : :py:`Out(2)`
        Who executes it; fetch for a word that selects no operation.
    code : :py:`Out(8)`
        Its :class:`weft.isa.faults.FaultCode`; 0 for a legal one.
    """

    word: In(INSTRUCTION_BITS)
    engine: Out(ENGINE_BITS)
    code: Out(8)

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        instructions = InstructionSet(self._config)
        m.d.comb += self.code.eq(FaultCode.RESERVED)
        with m.Switch(data.View(HEAD_STRUCT, self.word).opcode):
            for number, layout in instructions.layouts.items():
                with m.Case(number):
                    fields = data.View(format_struct(self._config, number), self.word)
                    names = SELECTORS.get(layout.name, ())
                    free = fields.reserved == 0 if "reserved" in layout.by_name else Const(1)
                    for operation in instructions.operations.values():
                        if operation.format.opcode == number:
                            chosen = [fields[n] == int(operation.fixed[n]) for n in names]
                            with m.If(Cat(free, *chosen).all()):
                                self._check(m, operation, fields)
        return m

    def _check(self, m, operation, fields):
        m.d.comb += self.engine.eq(ENGINE_NAMES.index(operation.engine.value))
        m.d.comb += self.code.eq(FaultCode.NONE)
        for rule in reversed(ZERO_RULES):
            if rule.applies(operation):
                with m.If(Cat(fields[name] for name in rule.fields).any()):
                    m.d.comb += self.code.eq(rule.code)


GOES = data.StructLayout({engine.value: 1 for engine in Engine})
DECODED = data.StructLayout({"issue": ISSUE, "engine": ENGINE_BITS, "code": 8, "goes": GOES})
"""An instruction and what it is: ``goes`` names the engine that executes it, if it is legal."""


class Dispatch(wiring.Component):
    """Routes instructions to their engines' queues; stops at an illegal one and at FINISH.

    An instruction a cycle, two cycles from ``i`` to an engine. When the next instruction's queue
    is full, the whole stream waits, as :mod:`weft.isa.ordering` has it. An illegal instruction
    stays and is shown on ``code``, ``engine`` and ``index``; control raises the fault when all
    before it has completed or waits for tokens. FINISH goes to the compute engine's queue, and
    what follows it is dropped.

    Members
    -------
    i : :py:`In(Issue)`
        The stream.
    load, compute, store : :py:`Out(Issue)`
        Each engine's instructions, in program order.
    start : :py:`In(1)`
        A new stream begins; only while idle.
    code, engine, index : :py:`Out(8)`, :py:`Out(2)`, :py:`Out(32)`
        The illegal instruction that is next; ``code`` is 0 while there is none.
    idle : :py:`Out(1)`
        Everything taken has gone to a queue.
    blocked : :py:`Out(1)`
        The next instruction's queue is full.
    """

    i: In(Issue)
    load: Out(Issue)
    compute: Out(Issue)
    store: Out(Issue)
    start: In(1)
    code: Out(8)
    engine: Out(ENGINE_BITS)
    index: Out(INDEX_BITS)
    idle: Out(1)
    blocked: Out(1)

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = Decoder(self._config)
        m.submodules.decoded = decoded = Queue(DECODED, 2)
        m.d.comb += [
            decoder.word.eq(self.i.payload.word),
            decoded.i.valid.eq(self.i.valid),
            decoded.i.payload.issue.eq(self.i.payload),
            decoded.i.payload.engine.eq(decoder.engine),
            decoded.i.payload.code.eq(decoder.code),
            self.i.ready.eq(decoded.i.ready),
        ]
        for engine in Engine:
            name = engine.value
            its = decoder.engine == ENGINE_NAMES.index(name)
            m.d.comb += decoded.i.payload.goes[name].eq(its & (decoder.code == FaultCode.NONE))

        upcoming = decoded.o.payload
        legal = Signal()
        ended = Signal()
        m.d.comb += [
            legal.eq(upcoming.code == FaultCode.NONE),
            self.idle.eq(~decoded.o.valid),
            self.engine.eq(upcoming.engine),
            self.index.eq(upcoming.issue.index),
            decoded.o.ready.eq(ended),
        ]
        with m.If(decoded.o.valid & ~ended):
            m.d.comb += self.code.eq(upcoming.code)
        for engine in Engine:
            name = engine.value
            m.submodules[f"{name}_queue"] = queue = CutQueue(ISSUE, DISPATCHED)
            wiring.connect(m, queue.o, wiring.flipped(getattr(self, name)))
            m.d.comb += queue.i.payload.eq(upcoming.issue)
            with m.If(decoded.o.valid & upcoming.goes[name] & ~ended):
                m.d.comb += [
                    queue.i.valid.eq(1),
                    decoded.o.ready.eq(queue.i.ready),
                    self.blocked.eq(~queue.i.ready),
                ]
        opcode = data.View(HEAD_STRUCT, upcoming.issue.word).opcode
        with m.If(self.start):
            m.d.sync += ended.eq(0)
        with m.Elif(decoded.o.valid & decoded.o.ready & legal & (opcode == FINISH.opcode)):
            m.d.sync += ended.eq(1)
        return m
