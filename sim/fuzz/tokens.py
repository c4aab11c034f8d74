"""Dependence tokens between the engines of a program in the making.

A program is made as if it ran one instruction after another. Whenever an instruction touches
what an earlier one of another engine touches, tokens order the two. Since the order of making is
a legal execution, nothing deadlocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...isa.instructions import Instruction
from ...isa.memories import Engine
from .footprint import Touch

ENGINES = tuple(Engine)
MOST_PENDING = 4
"""Tokens that a queue of a generated program holds at once."""


@dataclass
class Planned:
    """An instruction in the making; ``carries`` if it is there for its flags alone.

    ``place`` is among those of its engine, ``order`` among all.
    """

    engine: Engine
    instruction: Instruction
    touches: list[Touch] = field(default_factory=list[Touch])
    carries: bool = False
    place: int = 0
    order: int = 0

    def flag(self, name: str) -> None:
        """Set a dependence flag."""
        self.instruction = replace(self.instruction, **{name: True})

    def conflicts(self, other: Planned) -> bool:
        """Whether the order of the two matters."""
        return any(a.conflicts(b) for a in self.touches for b in other.touches)


def _between(a: Engine, b: Engine, word: str) -> str:
    """The flag by which ``a`` pops from or pushes to its neighbour ``b``."""
    return f"{word}_{'next' if ENGINES.index(b) > ENGINES.index(a) else 'prev'}"


class Tokens:
    """The engines' streams, and who knows that what has completed.

    Parameters
    ----------
    token_depth : int
        Room in a queue.
    carrier : callable
        Makes an instruction of an engine that does nothing.
    """

    def __init__(self, token_depth: int, carrier: Callable[[Engine], Instruction]):
        self.room = min(token_depth, MOST_PENDING)
        self.carrier = carrier
        self.streams: dict[Engine, list[Planned]] = {e: [] for e in ENGINES}
        self.knows = {e: dict.fromkeys(ENGINES, 0) for e in ENGINES}  # how many of each are done
        pairs = [(Engine.LOAD, Engine.COMPUTE), (Engine.COMPUTE, Engine.STORE)]
        pairs += [(b, a) for a, b in pairs]
        self.pending: dict[tuple[Engine, Engine], deque[dict[Engine, int]]] = {
            pair: deque() for pair in pairs
        }

    def add(self, planned: Planned) -> None:
        """Append an instruction, ordered after everything that it conflicts with."""
        for other in ENGINES:
            if other is not planned.engine:
                rivals = [p.place for p in self.streams[other] if p.conflicts(planned)]
                if rivals and self.knows[planned.engine][other] <= max(rivals):
                    self._order(other, planned.engine, max(rivals) + 1)
        self._append(planned)

    def push(self, first: Engine, then: Engine) -> bool:
        """The last instruction of ``first`` sends a token, unless it does or there is no room."""
        stream, queue = self.streams[first], self.pending[first, then]
        flag = _between(first, then, "push")
        if not stream or getattr(stream[-1].instruction, flag) or len(queue) >= self.room:
            return False
        stream[-1].flag(flag)
        queue.append(dict(self.knows[first]))
        return True

    def pop(self, first: Engine, then: Engine) -> None:
        """A new instruction of ``then`` that does nothing else takes the oldest token."""
        known = self.pending[first, then].popleft()
        carrier = Planned(then, self.carrier(then), carries=True)
        self._append(carrier)
        carrier.flag(_between(then, first, "pop"))
        for engine in ENGINES:
            self.knows[then][engine] = max(self.knows[then][engine], known[engine])

    def fold(self) -> None:
        """Move the pops of an instruction that does nothing to the next, where that is free."""
        for stream in self.streams.values():
            folded: list[Planned] = []
            for planned in stream:
                if folded and folded[-1].carries:
                    last = folded[-1].instruction
                    pops = [f for f in ("pop_prev", "pop_next") if getattr(last, f)]
                    pushes = last.push_prev or last.push_next
                    taken = any(getattr(planned.instruction, f) for f in pops)
                    if pops and not pushes and not taken:
                        folded.pop()
                        for flag in pops:
                            planned.flag(flag)
                folded.append(planned)
            stream[:] = folded

    def _append(self, planned: Planned) -> None:
        stream = self.streams[planned.engine]
        planned.place = len(stream)
        planned.order = sum(map(len, self.streams.values()))
        stream.append(planned)
        self.knows[planned.engine][planned.engine] = len(stream)

    def _order(self, first: Engine, then: Engine, count: int) -> None:
        """Let ``then`` know that ``count`` instructions of ``first`` have completed."""
        if {first, then} == {Engine.LOAD, Engine.STORE}:
            self._order(first, Engine.COMPUTE, count)
            if self.knows[then][first] < count:
                self._order(Engine.COMPUTE, then, self.knows[Engine.COMPUTE][Engine.COMPUTE])
            return
        while self.knows[then][first] < count:
            if not self.pending[first, then]:
                self.push(first, then)
            self.pop(first, then)
