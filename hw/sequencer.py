"""Takes an engine's tokens before its instructions start, and sends them when they complete."""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..isa.faults import WAITS
from ..isa.formats import FINISH
from ..isa.memories import Engine
from .interfaces import HEAD_STRUCT, INDEX_BITS, Activity, Issue, Token

IN_FLIGHT = 64
"""Instructions that an engine may have started and not completed."""

NEIGHBOURS = {
    engine: tuple(
        side
        for side in ("prev", "next")
        if any(group == engine.value and flag.endswith(side) for group, flag, _ in WAITS)
    )
    for engine in Engine
}
"""On which sides an engine has another one: load only ``next``, store only ``prev``."""


class Sequencer(wiring.Component):
    """Lets an engine's instructions start in program order when their tokens are there.

    For the instruction at ``i`` it takes the tokens that its flags name, each as soon as it is
    there; then the instruction passes to ``o``, in the same cycle if nothing was missing. On each
    ``done`` it sends the tokens of the oldest instruction that passed and was not done. An
    instruction a cycle; no latency.

    Instructions overlap in the engine, but to the token queues it is as if each were complete
    before the next begins: an instruction takes its places in the queues as it passes, and while
    one is missing the next instruction takes no token. Only that youngest instruction can
    complete without its places; its tokens then go as soon as there is room.

    Members
    -------
    i : :py:`In(Issue)`
        The engine's instructions.
    o : :py:`Out(Issue)`
        Those whose tokens have been taken.
    done : :py:`In(1)`
        The oldest instruction beyond ``o`` has completed; at the earliest in the cycle after it
        has passed.
    halt : :py:`In(1)`
        Nothing passes any more (the one case in which ``o.valid`` is withdrawn).
    clear : :py:`In(1)`
        Forgets tokens and places; only while no instruction is there.
    pop_SIDE, place_SIDE, push_SIDE : :py:`In(Token)`, :py:`Out(Token)`, :py:`Out(1)`
        The neighbours' queues, for each of the engine's ``NEIGHBOURS``.
    waiting : :py:`Out(len(WAITS))`
        What is missing, by the bits of :data:`weft.isa.faults.WAITS`: tokens for the instruction
        at ``i``, or places for the one before it.
    index : :py:`Out(32)`
        The position of the instruction that ``waiting`` means.
    empty : :py:`Out(1)`
        Every instruction that passed has completed, its tokens sent.
    resting : :py:`Out(1)`
        Every instruction that passed has completed, and something is missing that does not come
        in this cycle.
    activity_in, activity : :py:`In(Activity)`, :py:`Out(Activity)`
        The engine's own, and that with the waiting for tokens: an idle engine with an instruction
        before it, or tokens to send, is in ``WAIT_TOKEN``.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._sides = NEIGHBOURS[engine]
        members = {
            "i": In(Issue),
            "o": Out(Issue),
            "done": In(1),
            "halt": In(1),
            "clear": In(1),
            "waiting": Out(len(WAITS)),
            "index": Out(INDEX_BITS),
            "empty": Out(1),
            "resting": Out(1),
            "activity_in": In(Activity),
            "activity": Out(Activity),
        }
        for side in self._sides:
            members[f"pop_{side}"] = In(Token)
            members[f"place_{side}"] = Out(Token)
            members[f"push_{side}"] = Out(1)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.flying = flying = _Flying(len(self._sides))
        head = Signal(HEAD_STRUCT)
        passes = Signal()
        lacks = Signal(len(self._sides))
        last_index = Signal(INDEX_BITS)
        m.d.comb += head.eq(self.i.payload.word)

        starts = self.i.valid & ~self.halt & ~lacks.any()
        popped = Cat(
            self._pops(m, side, starts, head[f"pop_{side}"], passes) for side in self._sides
        )
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(starts & popped.all() & flying.room),
            self.i.ready.eq(self.o.valid & self.o.ready),
            passes.eq(self.o.valid & self.o.ready),
            flying.start.eq(passes),
            flying.pushes_in.eq(Cat(head[f"push_{side}"] for side in self._sides)),
            flying.done.eq(self.done),
        ]
        for lack, sends, side in zip(lacks, flying.pushes_out, self._sides, strict=True):
            self._pushes(m, side, lack, passes & head[f"push_{side}"], sends, flying)
        with m.If(passes):
            m.d.sync += last_index.eq(self.i.payload.index)

        m.d.comb += [
            self.index.eq(Mux(lacks.any(), last_index, self.i.payload.index)),
            self.empty.eq(flying.none & ~lacks.any()),
            self.resting.eq(flying.none & self.waiting.any() & ~self._takes()),
            self.activity.eq(self.activity_in),
        ]
        with m.If((self.activity_in == Activity.IDLE) & (self.i.valid | lacks.any())):
            m.d.comb += self.activity.eq(Activity.WAIT_TOKEN)
        return m

    def _takes(self) -> Value:
        """Whether a token goes out of a queue in this cycle, which may let its sender go on."""
        queues = [getattr(self, f"pop_{side}") for side in self._sides]
        return Cat(queue.ready & queue.valid for queue in queues).any()

    def _pops(self, m, side, starts, flag, passes):
        """Takes a token for the instruction at ``i``, if it may start; whether it lacks none."""
        queue = getattr(self, f"pop_{side}")
        held = Signal(name=f"held_{side}")
        m.d.comb += queue.ready.eq(starts & flag & ~held)
        m.d.comb += self._waits(f"pop_{side}").eq(queue.ready & ~queue.valid)
        with m.If(passes | self.clear):
            m.d.sync += held.eq(0)
        with m.Elif(queue.ready & queue.valid):
            m.d.sync += held.eq(1)
        return ~flag | held | queue.valid

    def _pushes(self, m, side, lack, wants, sends, flying):
        """Takes a place when an instruction passes or, while it ``lack``s one, later."""
        queue = getattr(self, f"place_{side}")
        waits = lack & ~queue.ready  # nothing passes meanwhile
        late = Signal(name=f"late_{side}")
        lacking = Signal(name=f"lacking_{side}")
        push = getattr(self, f"push_{side}")
        m.d.comb += [
            queue.valid.eq(wants | lack),
            lacking.eq(queue.valid & ~queue.ready),
            push.eq((self.done & sends & ~(waits & flying.one)) | (late & queue.ready)),
            self._waits(f"push_{side}").eq(waits),
        ]
        m.d.sync += lack.eq(lacking & ~self.clear)
        m.d.sync += late.eq(waits & ~self.clear & (late | (self.done & flying.one)))

    def _waits(self, flag):
        for bit, (group, name, _) in enumerate(WAITS):
            if (group, name) == (self._engine.value, flag):
                return self.waiting[bit]
        raise AssertionError(flag)


class _Flying(wiring.Component):
    """The pushes of the instructions that an engine has, oldest first.

    ``pushes_out`` matter while there is one; ``one`` is 1 when there is just one. What is said of
    their number comes from registers.
    """

    def __init__(self, sides: int):
        self._sides = sides
        super().__init__(
            {
                "start": In(1),
                "pushes_in": In(sides),
                "room": Out(1),
                "done": In(1),
                "pushes_out": Out(sides),
                "one": Out(1),
                "none": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.pushes = pushes = memory.Memory(shape=self._sides, depth=IN_FLIGHT, init=[])
        write, read = pushes.write_port(), pushes.read_port(domain="comb")
        newest = Signal(range(IN_FLIGHT))
        oldest = Signal(range(IN_FLIGHT))
        count = Signal(range(IN_FLIGHT + 1))
        none, room = Signal(init=1), Signal(init=1)
        m.d.comb += [
            write.en.eq(self.start),
            write.addr.eq(newest),
            write.data.eq(self.pushes_in),
            read.addr.eq(oldest),
            self.pushes_out.eq(read.data),
            self.none.eq(none),
            self.room.eq(room),
        ]
        m.d.sync += [newest.eq(newest + self.start), oldest.eq(oldest + self.done)]
        with m.If(self.start & ~self.done):
            m.d.sync += [
                count.eq(count + 1),
                none.eq(0),
                self.one.eq(none),
                room.eq(count != IN_FLIGHT - 1),
            ]
        with m.Elif(self.done & ~self.start):
            m.d.sync += [
                count.eq(count - 1),
                none.eq(self.one),
                self.one.eq(count == 2),
                room.eq(1),
            ]
        return m


class Finish(wiring.Component):
    """Completes FINISH before the compute engine would see it.

    Stands between the compute engine and its sequencer and passes every other instruction on.
    FINISH waits here until ``quiet`` says that everything before it has completed; it is done in
    the cycle in which it is taken.

    Members
    -------
    i, o : :py:`In(Issue)`, :py:`Out(Issue)`
        From the sequencer; to the engine.
    quiet : :py:`In(1)`
        Nothing before FINISH is left, in any engine.
    done_in : :py:`In(1)`
        The engine's ``done``.
    done : :py:`Out(1)`
        That, or FINISH's.
    held : :py:`Out(1)`
        FINISH is here.
    finished : :py:`Out(1)`
        FINISH completes in this cycle.
    """

    i: In(Issue)
    o: Out(Issue)
    quiet: In(1)
    done_in: In(1)
    done: Out(1)
    held: Out(1)
    finished: Out(1)

    def elaborate(self, platform):
        m = Module()
        head = Signal(HEAD_STRUCT)
        finish = Signal()
        m.d.comb += [
            head.eq(self.i.payload.word),
            finish.eq(head.opcode == FINISH.opcode),
            self.held.eq(self.i.valid & finish),
            self.finished.eq(self.held & self.quiet),
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & ~finish),
            self.i.ready.eq(Mux(finish, self.quiet, self.o.ready)),
            self.done.eq(self.done_in | self.finished),
        ]
        return m


__all__ = ["IN_FLIGHT", "NEIGHBOURS", "Finish", "Sequencer"]
