"""In which order a program's instructions may execute, from their dependence flags alone.

Each engine executes its instructions in program order. One takes the tokens that its ``pop``
flags name, each as soon as it is there, executes, and sends those that its ``push`` flags name,
each as soon as its queue has room; only then the engine's next instruction takes tokens. FINISH
executes when its tokens are taken and nothing else is under way.

The stream is dispatched in program order, each instruction to its engine, where at most
:data:`DISPATCHED` wait that have not begun to execute. While that many do, the next one for that
engine, and with it the rest of the stream, is not dispatched: to the machine it is not there yet.
A token from beyond is therefore never sent, and waiting for it is a deadlock. A stream that is
right when executed one instruction after another never comes to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import DeviceFault
from .faults import WAITS, FaultCode, device_fault
from .memories import Engine

ENGINES = tuple(engine.value for engine in Engine)
"""Names of the engines, by number."""

QUEUES = (("load", "compute"), ("compute", "load"), ("compute", "store"), ("store", "compute"))
"""The token queues: from whom to whom."""

DISPATCHED = 64
"""Instructions that wait at an engine; the stream behind the next one waits with it."""

POPS, PUSHES = ("pop_prev", "pop_next"), ("push_prev", "push_next")


def _queue(engine: str, flag: str) -> int | None:
    """The queue that a flag of an engine's instruction means."""
    at = ENGINES.index(engine) + (1 if flag.endswith("next") else -1)
    if not 0 <= at < len(ENGINES):
        return None
    other = ENGINES[at]
    pair = (other, engine) if flag.startswith("pop") else (engine, other)
    return QUEUES.index(pair)


QUEUE_OF = {(e, f): _queue(e, f) for e in ENGINES for f in (*POPS, *PUSHES)}
"""Queue by engine and flag; None where there is no such engine."""


@dataclass(frozen=True)
class Step:
    """What the order of a program needs to know of an instruction.

    ``pops`` and ``pushes`` are numbers of :data:`QUEUES`; ``index`` is its place in the stream.
    """

    index: int
    engine: int
    pops: tuple[int, ...]
    pushes: tuple[int, ...]
    finish: bool = False


@dataclass(frozen=True)
class Stop:
    """Why a machine has stopped without FINISH; ``waiting`` has a bit for each of ``WAITS``."""

    code: FaultCode
    engine: str
    index: int
    waiting: int = 0

    def fault(self) -> DeviceFault:
        """The exception for it."""
        return device_fault(self.code, self.engine, self.index, self.waiting)


class Ordering:
    """The engines and token queues while a program runs.

    Parameters
    ----------
    steps : sequence of Step
        In program order, up to FINISH.
    depth : int
        Tokens that a queue holds.
    """

    def __init__(self, steps: Sequence[Step], depth: int):
        self._steps, self._depth = steps, depth
        self._tokens = [0] * len(QUEUES)
        self._streams: list[list[Step]] = [[] for _ in ENGINES]  # what has been dispatched
        self._at = [0] * len(ENGINES)
        self._lacks: list[list[int]] = [[] for _ in ENGINES]  # queues without room for our token
        self._wants: list[list[int]] = [[] for _ in ENGINES]
        self._next = 0  # to be dispatched
        self.finished = False
        self._dispatch()

    def ready(self) -> list[int]:
        """The engines whose next instruction may execute now; empty when nothing will move."""
        while True:
            moved = False
            for engine in range(len(ENGINES)):
                moved |= self._move(engine)
            ready = [e for e in range(len(ENGINES)) if self._may_execute(e)]
            if ready or not moved:
                return ready

    @property
    def blocked(self) -> bool:
        """Whether an instruction is not dispatched yet, for want of room at its engine."""
        return self._next < len(self._steps)

    def next(self, engine: int) -> Step:
        """The instruction that a ready engine executes."""
        return self._streams[engine][self._at[engine]]

    def complete(self, engine: int) -> None:
        """That instruction has executed."""
        step = self.next(engine)
        self.finished |= step.finish
        self._lacks[engine] = list(step.pushes)
        self._at[engine] += 1
        stream, at = self._streams[engine], self._at[engine]
        self._wants[engine] = list(stream[at].pops) if at < len(stream) else []
        self._dispatch()
        self._move(engine)

    def stopped(self, count: int, illegal: Stop | None = None) -> Stop:
        """Why nothing moves and FINISH has not executed, in a stream of ``count``.

        ``illegal`` is the fault of the instruction that follows the steps, which counts if it
        has come to be the next. A deadlock is blamed on the first waiting engine and the
        instruction it has come to.
        """
        if illegal is not None and not self.blocked:
            return illegal
        waiting, blamed = 0, list[tuple[str, int]]()
        for bit, (name, flag, _) in enumerate(WAITS):
            engine, queue = ENGINES.index(name), QUEUE_OF[name, flag]
            if self._lacks[engine]:
                missing, step = flag in PUSHES and queue in self._lacks[engine], -1
            else:
                missing, step = flag in POPS and queue in self._wants[engine], 0
            if missing:
                waiting |= 1 << bit
                blamed.append((name, self._streams[engine][self._at[engine] + step].index))
        if waiting:
            return Stop(FaultCode.DEADLOCK, *blamed[0], waiting)
        return Stop(FaultCode.NO_FINISH, "fetch", count)

    def run(self) -> Iterator[Step]:
        """The instructions in one legal order: each engine goes on until it must wait."""
        while ready := self.ready():
            for engine in ready:
                while self._may_execute(engine):
                    step = self.next(engine)
                    yield step
                    self.complete(engine)

    # --- dispatch

    def _dispatch(self) -> None:
        """Give engines their next instructions until one has no room."""
        while self._next < len(self._steps):
            step = self._steps[self._next]
            stream, at = self._streams[step.engine], self._at[step.engine]
            if len(stream) - at == DISPATCHED:
                return
            if len(stream) == at:
                self._wants[step.engine] = list(step.pops)
            stream.append(step)
            self._next += 1

    # --- tokens

    def _move(self, engine: int) -> bool:
        """Send and take the tokens that can be; whether there were any."""
        moved = False
        tokens, lacks = self._tokens, self._lacks[engine]
        for queue in lacks[:]:
            if tokens[queue] < self._depth:
                tokens[queue] += 1
                lacks.remove(queue)
                moved = True
        if not lacks:
            wants = self._wants[engine]
            for queue in wants[:]:
                if tokens[queue]:
                    tokens[queue] -= 1
                    wants.remove(queue)
                    moved = True
        return moved

    def _may_execute(self, engine: int) -> bool:
        if self._lacks[engine] or self._wants[engine]:
            return False
        if self._at[engine] == len(self._streams[engine]):
            return False
        return not self.next(engine).finish or self._only_finish()

    def _only_finish(self) -> bool:
        return sum(self._at) == len(self._steps) - 1 and not any(self._lacks)
