"""From the stream of instructions to the engines, in the order that tokens allow."""

from itertools import pairwise

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import WAITS
from ..isa.memories import Engine
from .dispatch import Dispatch
from .interfaces import INDEX_BITS, ISSUE, Activity, Issue
from .queue import Queue
from .rest import FAULT, Rest
from .sequencer import Finish, Sequencer
from .tokens import TokenQueue

Body = wiring.Signature({"issue": Out(Issue), "done": In(1), "activity": In(Activity)})
"""What the scheduler and an engine say to each other, from the scheduler's side.

``issue`` are the engine's instructions, their tokens taken. ``done`` is 1 for a cycle for each
that completes, in order. ``activity`` never is WAIT_TOKEN.
"""

ROUTES = tuple(
    route
    for before, after in pairwise(Engine)
    for route in ((before, "next", after, "prev"), (after, "prev", before, "next"))
)
"""The queues of tokens: who pushes, by which flags, and who pops, by which."""


class Scheduler(wiring.Component):
    """Dispatch, a sequencer for each engine, the token queues, and what sees that all rests.

    Between a sequencer and its engine is a queue of two, so that what the one decides by tokens and
    the other by its own work needs no common cycle. A completion counts a cycle later.

    Members
    -------
    i : :py:`In(Issue)`
        The program.
    load, compute, store : :py:`Out(Body)`
        The engines.
    clear : :py:`In(1)`
        A program starts: token queues are emptied. Only while nothing is under way.
    halt : :py:`In(1)`
        No instruction starts any more.
    fetch_idle : :py:`In(1)`
        The program has come to its end.
    count : :py:`In(32)`
        Its instructions.
    finished : :py:`Out(1)`
        FINISH completes.
    fault : :py:`Out(FAULT)`, waiting : :py:`Out(len(WAITS))`
        Why nothing moves any more; see :class:`weft.hw.rest.Rest`.
    load_done, compute_done, store_done : :py:`Out(1)`
        An instruction completes, FINISH included.
    load_activity, compute_activity, store_activity : :py:`Out(Activity)`
        With the waiting for tokens.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "i": In(Issue),
                **{e.value: Out(Body) for e in Engine},
                "clear": In(1),
                "halt": In(1),
                "fetch_idle": In(1),
                "count": In(INDEX_BITS),
                "finished": Out(1),
                "fault": Out(FAULT),
                "waiting": Out(len(WAITS)),
                **{f"{e.value}_done": Out(1) for e in Engine},
                **{f"{e.value}_activity": Out(Activity) for e in Engine},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.dispatch = dispatch = Dispatch(self._config)
        m.submodules.finish = finish = Finish()
        m.submodules.rest = rest = Rest()
        wiring.connect(m, wiring.flipped(self.i), dispatch.i)
        m.d.comb += [
            dispatch.start.eq(self.clear),
            rest.fetch_idle.eq(self.fetch_idle),
            rest.dispatch_idle.eq(dispatch.idle),
            rest.dispatch_blocked.eq(dispatch.blocked),
            rest.illegal.code.eq(dispatch.code),
            rest.illegal.engine.eq(dispatch.engine),
            rest.illegal.index.eq(dispatch.index),
            rest.finish_held.eq(finish.held),
            rest.count.eq(self.count),
            finish.quiet.eq(rest.quiet),
            self.finished.eq(finish.finished),
            self.fault.eq(rest.fault),
            self.waiting.eq(rest.waiting),
        ]

        sequencers = {}
        for engine in Engine:
            name = engine.value
            body = getattr(self, name)
            m.submodules[name] = sequencer = sequencers[engine] = Sequencer(engine)
            wiring.connect(m, getattr(dispatch, name), sequencer.i)
            m.submodules[f"{name}_issue"] = passed = Queue(ISSUE, 2)
            wiring.connect(m, passed.o, wiring.flipped(body.issue))
            done = Signal(name=f"{name}_was_done")
            if engine is Engine.COMPUTE:
                wiring.connect(m, sequencer.o, finish.i)
                wiring.connect(m, finish.o, passed.i)
                m.d.comb += finish.done_in.eq(body.done)
                m.d.sync += done.eq(finish.done)
            else:
                wiring.connect(m, sequencer.o, passed.i)
                m.d.sync += done.eq(body.done)
            state = getattr(rest, name)
            m.d.comb += [
                sequencer.done.eq(done),
                sequencer.halt.eq(self.halt),
                sequencer.clear.eq(self.clear),
                sequencer.activity_in.eq(body.activity),
                getattr(self, f"{name}_done").eq(done),
                getattr(self, f"{name}_activity").eq(sequencer.activity),
                state.there.eq(sequencer.i.valid),
                state.empty.eq(sequencer.empty),
                state.resting.eq(sequencer.resting),
                state.waiting.eq(sequencer.waiting),
                state.index.eq(sequencer.index),
            ]

        for pusher, towards, popper, back in ROUTES:
            name = f"{pusher.value}_to_{popper.value}"
            m.submodules[name] = queue = TokenQueue(self._config.token_depth)
            wiring.connect(m, getattr(sequencers[pusher], f"place_{towards}"), queue.place)
            wiring.connect(m, queue.pop, getattr(sequencers[popper], f"pop_{back}"))
            m.d.comb += [
                queue.push.eq(getattr(sequencers[pusher], f"push_{towards}")),
                queue.clear.eq(self.clear),
            ]
        return m
