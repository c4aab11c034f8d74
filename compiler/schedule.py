"""Stages, and room in the scratchpads: what the schedules of all operators have in common.

Work proceeds in stages of loads, steps and stores; :mod:`.order` puts those of all layers of a
program into one order. Scratchpads are divided into slots of a tile each: with two, one is filled
while the other is used; with as many as there are tiles, nothing is ever loaded twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..isa.config import AcceleratorConfig
from .emit import Action, Span
from .stays import Stay


@dataclass(frozen=True)
class Bases:
    """Where a step's operands begin in DRAM, in elements of their memory.

    ``tensors`` has every activation; ``weights``, ``records`` and ``starts`` the constants.
    ``stays`` are those of the activations that are on chip.
    """

    tensors: Mapping[str, int]
    records: int
    weights: int = 0
    starts: int = 0
    stays: Mapping[str, Stay] = field(default_factory=dict[str, Stay])


@dataclass
class Stage:
    """What belongs to one tile, or one chunk of its reduction."""

    loads: list[Action] = field(default_factory=list[Action])
    steps: list[Action] = field(default_factory=list[Action])
    stores: list[Action] = field(default_factory=list[Action])
    layer: int = 0
    turn: int = 0
    """The tile of the image, by number, where layers take turns."""


class Rings:
    """Room in the scratchpads, given to one layer after another, round and round.

    So the next layer's loads need not wait for the last reads of the one before.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        self._at: dict[str, int] = {}
        self.inputs = config.inp_depth
        """Elements of ``inp`` that may be given; tensors that stay on chip have the others."""
        self.quiet = config.inp_depth
        """Those of them that nothing was in for the layer before: loads need not wait for it."""
        self.padding = Padding(config)

    def depth(self, memory: str) -> int:
        """Elements of a scratchpad that may be given."""
        if memory == "inp":
            return self.inputs
        return int(getattr(self._config, f"{memory}_depth"))

    def together(self, sizes: Mapping[str, int]) -> None:
        """What is taken next of each memory, up to that size, is one piece."""
        for memory, size in sizes.items():
            if self._at.get(memory, 0) + size > self.depth(memory):
                self._at[memory] = 0

    def take(self, memory: str, size: int) -> int:
        """The start of ``size`` elements; what had been there longest is given up."""
        at, end = self._at.get(memory, 0), self.depth(memory)
        if memory == "inp" and size <= self.quiet:
            end = min(end, self.quiet)
        if at + size > end:
            at = 0
        self._at[memory] = at + size
        return at


class Padding:
    """Which elements of ``inp`` hold padding from an earlier layer, so that none need be loaded."""

    NOTHING = 1 << 15
    """No value of padding."""

    def __init__(self, config: AcceleratorConfig):
        self._held = np.full(config.inp_depth, self.NOTHING)

    def overwritten(self, stages: Sequence[Stage]) -> None:
        """Stages have been made: what padding they write over is there no longer."""
        for stage in stages:
            for action in (*stage.loads, *stage.stores):
                for span in action.writes:
                    if span.memory == "inp":
                        self._held[span.start : span.stop] = self.NOTHING

    def put(self, span: Span, pad: int) -> bool:
        """These elements shall hold ``pad``; whether that takes a load."""
        held = bool((self._held[span.start : span.stop] == pad).all())
        self._held[span.start : span.stop] = pad
        return not held


class Slots:
    """A scratchpad, or a part of it, in equal parts, each holding what was put there last."""

    def __init__(self, memory: str, size: int, wanted: int, rings: Rings):
        self.memory, self.size = memory, size
        self.count = max(1, min(rings.depth(memory) // size, wanted))
        self.base = rings.take(memory, self.count * size)
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
        start = self.base + slot * self.size
        return Span(self.memory, start, start + self.size), known


def part(span: Span, first: int, count: int) -> Span:
    """``count`` elements of ``span`` from its element ``first`` on."""
    assert span.start + first + count <= span.stop
    return Span(span.memory, span.start + first, span.start + first + count)


@dataclass(frozen=True)
class Range:
    """Positions ``[start, start + count)``."""

    start: int
    count: int

    @property
    def stop(self) -> int:
        """The first position after it."""
        return self.start + self.count

    def common(self, other: Range) -> Range | None:
        """What both have; None if they share nothing."""
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        return Range(start, stop - start) if start < stop else None

    def each(self, tap: int, window: int) -> Range | None:
        """Those that are a window's tap of that number, if windows of so many follow one another
        from position 0 on: the first, and how many; None if none is."""
        first = self.start + (tap - self.start) % window
        count = len(range(first, self.stop, window))
        return Range(first, count) if count else None

    @staticmethod
    def cut(extent: int, size: int) -> list[Range]:
        """``extent`` in ranges of ``size``, the last one shorter."""
        return [Range(at, min(size, extent - at)) for at in range(0, extent, size)]
