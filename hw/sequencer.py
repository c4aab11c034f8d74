"""Takes an engine's tokens before its instructions start, and sends them when they complete."""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..isa.faults import WAITS
from ..isa.formats import FINISH
from ..isa.memories import Engine
from .interfaces import HEAD_STRUCT, Activity, Issue, Token

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
    there, then a place for each token that it will send; after that the instruction passes to
    ``o``, in the same cycle if nothing was missing. On each ``done`` it sends the tokens of the
    oldest instruction that passed and was not done. An instruction a cycle; no latency.

    Members
    -------
    i : :py:`In(Issue)`
        The engine's instructions.
    o : :py:`Out(Issue)`
        Those whose tokens have been taken.
    done : :py:`In(1)`
        The oldest instruction beyond ``o`` has completed; at the earliest in the cycle in which
        it passes.
    halt : :py:`In(1)`
        Nothing passes any more (the one case in which ``o.valid`` is withdrawn).
    clear : :py:`In(1)`
        Forgets the tokens taken for an instruction that did not pass; only while idle.
    pop_SIDE, place_SIDE, push_SIDE : :py:`In(Token)`, :py:`Out(Token)`, :py:`Out(1)`
        The neighbours' queues, for each of the engine's ``NEIGHBOURS``.
    waiting : :py:`Out(len(WAITS))`
        The bits of :data:`weft.isa.faults.WAITS` that say what the instruction at ``i`` lacks.
    idle : :py:`Out(1)`
        There is no instruction, neither at ``i`` nor in the engine.
    empty : :py:`Out(1)`
        The engine has none; there may be one at ``i``.
    activity_in, activity : :py:`In(Activity)`, :py:`Out(Activity)`
        The engine's own, and that with the waiting for tokens: an idle engine with an instruction
        before it is in ``WAIT_TOKEN``.
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
            "idle": Out(1),
            "empty": Out(1),
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
        m.d.comb += head.eq(self.i.payload.word)

        def taken(token, wanted, name):
            """Whether ``token`` has passed, once, for the instruction at ``i``."""
            held = Signal(name=f"held_{name}")
            m.d.comb += passes[name].eq(wanted & ~held)
            with m.If(self.clear | (self.o.valid & self.o.ready)):
                m.d.sync += held.eq(0)
            with m.Elif(passes[name] & token):
                m.d.sync += held.eq(1)
            return ~wanted | held | token

        passes = {
            f"{what}_{side}": Signal(name=f"passes_{what}_{side}")
            for what in ("pop", "place")
            for side in self._sides
        }
        started = self.i.valid & ~self.halt
        pops, places = Signal(), Signal()
        pop_taken, place_taken = [], []
        for side in self._sides:
            pop, place = getattr(self, f"pop_{side}"), getattr(self, f"place_{side}")
            pop_taken.append(taken(pop.valid, started & head[f"pop_{side}"], f"pop_{side}"))
            wanted = started & head[f"push_{side}"] & pops
            place_taken.append(taken(place.ready, wanted, f"place_{side}"))
            m.d.comb += [
                pop.ready.eq(passes[f"pop_{side}"]),
                place.valid.eq(passes[f"place_{side}"]),
            ]
        m.d.comb += [
            pops.eq(Cat(pop_taken).all()),
            places.eq(Cat(place_taken).all()),
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(started & pops & places & flying.room),
            self.i.ready.eq(self.o.valid & self.o.ready),
        ]
        m.d.comb += [
            flying.start.eq(self.o.valid & self.o.ready),
            flying.pushes_in.eq(Cat(head[f"push_{side}"] for side in self._sides)),
            flying.done.eq(self.done),
        ]
        for bit, side in enumerate(self._sides):
            m.d.comb += getattr(self, f"push_{side}").eq(self.done & flying.pushes_out[bit])

        for bit, (group, flag, _) in enumerate(WAITS):
            if group == self._engine.value:
                what, side = flag.split("_")
                queue = getattr(self, f"pop_{side}" if what == "pop" else f"place_{side}")
                there = queue.valid if what == "pop" else queue.ready
                passing = passes[flag if what == "pop" else f"place_{side}"]
                m.d.comb += self.waiting[bit].eq(passing & ~there)
        m.d.comb += [
            self.idle.eq(~self.i.valid & flying.none),
            self.empty.eq(flying.none),
            self.activity.eq(self.activity_in),
        ]
        with m.If((self.activity_in == Activity.IDLE) & self.i.valid):
            m.d.comb += self.activity.eq(Activity.WAIT_TOKEN)
        return m


class _Flying(wiring.Component):
    """The pushes of the instructions that an engine has, oldest first.

    ``done`` may come in the cycle of its own ``start``; ``pushes_out`` are then ``pushes_in``.
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
                "none": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.pushes = pushes = memory.Memory(shape=self._sides, depth=IN_FLIGHT, init=[])
        write, read = pushes.write_port(), pushes.read_port(domain="comb")
        newest, oldest = Signal(range(IN_FLIGHT)), Signal(range(IN_FLIGHT))
        count = Signal(range(IN_FLIGHT + 1))
        m.d.comb += [
            write.en.eq(self.start),
            write.addr.eq(newest),
            write.data.eq(self.pushes_in),
            read.addr.eq(oldest),
            self.pushes_out.eq(Mux(self.none, self.pushes_in, read.data)),
            self.none.eq(count == 0),
            self.room.eq(count != IN_FLIGHT),
        ]
        m.d.sync += [
            newest.eq(newest + self.start),
            oldest.eq(oldest + self.done),
            count.eq(count + self.start - self.done),
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
