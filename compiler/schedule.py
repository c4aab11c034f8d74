"""The order of loads, steps and stores: what the schedules of all operators have in common.

Work proceeds in stages. A stage's loads stand before the steps of the stage before it, so that
they run at the same time; the tokens that this needs are put in later (:mod:`.emit`). Scratchpads
are divided into slots of a tile each: with two, one is filled while the other is used; with as
many as there are tiles, nothing is ever loaded twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from .emit import Action, Span


@dataclass(frozen=True)
class Bases:
    """Where a step's operands begin in DRAM, in elements of their memory.

    ``tensors`` has every activation; ``weights`` and ``records`` the constants.
    """

    tensors: Mapping[str, int]
    records: int
    weights: int = 0


@dataclass
class Stage:
    """What belongs to one tile, or one chunk of its reduction."""

    loads: list[Action] = field(default_factory=list[Action])
    steps: list[Action] = field(default_factory=list[Action])
    stores: list[Action] = field(default_factory=list[Action])


def in_order(stages: Sequence[Stage]) -> list[Action]:
    """The actions of all stages; loads one stage early where they overwrite nothing needed."""
    actions: list[Action] = list(stages[0].loads)
    for stage, following in zip(stages, [*stages[1:], Stage()], strict=True):
        used = [span for action in (*stage.steps, *stage.stores) for span in action.reads]
        used += [span for action in stage.steps for span in action.writes]
        early = not any(
            span.overlaps(other)
            for action in following.loads
            for span in action.writes
            for other in used
        )
        if early:
            actions += following.loads
        actions += stage.steps
        actions += stage.stores
        if not early:
            actions += following.loads
    return actions


class Slots:
    """A scratchpad in equal parts, each holding what was put there last."""

    def __init__(self, memory: str, depth: int, size: int, wanted: int):
        self.memory, self.size = memory, size
        self.count = max(1, min(depth // size, wanted))
        self._held: dict[Hashable, int] = {}

    def take(self, key: Hashable) -> tuple[Span, bool]:
        """The slot for ``key``, and whether it holds it already; else the oldest is given up."""
        known = key in self._held
        if known:
            slot = self._held.pop(key)
        elif len(self._held) < self.count:
            slot = len(self._held)
        else:
            slot = self._held.pop(next(iter(self._held)))
        self._held[key] = slot
        return Span(self.memory, slot * self.size, (slot + 1) * self.size), known


def part(span: Span, first: int, count: int) -> Span:
    """``count`` elements of ``span`` from its element ``first`` on."""
    assert span.start + first + count <= span.stop
    return Span(span.memory, span.start + first, span.start + first + count)


@dataclass(frozen=True)
class Range:
    """Positions ``[start, start + count)``."""

    start: int
    count: int

    @staticmethod
    def cut(extent: int, size: int) -> list[Range]:
        """``extent`` in ranges of ``size``, the last one shorter."""
        return [Range(at, min(size, extent - at)) for at in range(0, extent, size)]
