"""Micro-ops: where each sequence lies in DRAM and in the scratchpad, and who loads it when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.formats import UOP_BYTES, uop_layout
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine, MemoryType
from .emit import Action, Span, Uops
from .schedule import Stage


def place_uops(stages: Sequence[Stage], config: AcceleratorConfig, address: int) -> np.ndarray:
    """Give every action its range of micro-ops, and put loads where they are needed.

    Sequences stay in the scratchpad, across layers, until their room is needed. What is missing
    is loaded for a stage at a time where the load engine does that, and for a layer at once where
    the compute engine must.

    Parameters
    ----------
    stages : sequence of Stage
        Of the whole program, in order; changed in place.
    config : AcceleratorConfig
        The hardware.
    address : int
        Where the micro-ops will lie in DRAM, a multiple of their size.

    Returns
    -------
    ndarray
        The micro-ops, ``uint32``.
    """
    return _Placer(config, address).run(stages)


class _Pad:
    """The scratchpad while a program runs: what lies where."""

    def __init__(self, depth: int):
        self.depth, self.at = depth, 0
        self.resident: dict[Uops, int] = {}
        self._starts: list[int] = []
        self._held: list[Uops] = []  # what was put at each start

    def room(self, count: int) -> int:
        """The start of ``count`` elements, taken from those that have been there longest."""
        if self.at + count > self.depth:
            self.at = 0
        start, stop = self.at, self.at + count
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, stop)
        if first and self._starts[first - 1] + len(self._held[first - 1]) > start:
            first -= 1
        for base, uops in zip(self._starts[first:last], self._held[first:last], strict=True):
            if self.resident.get(uops) == base:
                del self.resident[uops]
        del self._starts[first:last], self._held[first:last]
        self.at = stop
        return start

    def put(self, uops: Uops, start: int) -> None:
        """They lie there now, in room that was made."""
        at = bisect_left(self._starts, start)
        self._starts.insert(at, start)
        self._held.insert(at, uops)
        self.resident[uops] = start


class _Placer:
    def __init__(self, config: AcceleratorConfig, address: int):
        self.config = config
        operation = InstructionSet(config).load_of(MemoryType.UOP)
        self.operation, self.ahead = operation.name, operation.engine is Engine.LOAD
        self.base = address // UOP_BYTES
        self.pad = _Pad(config.uop_depth)
        self.offsets: dict[Uops, int] = {}
        self.words: list[np.ndarray] = []
        self.count = 0

    def run(self, stages: Sequence[Stage]) -> np.ndarray:
        """See :func:`place_uops`."""
        groups: Iterable[Sequence[Stage]] = [[stage] for stage in stages]
        if not self.ahead:
            groups = [list(group) for _, group in groupby(stages, key=lambda s: s.layer)]
        for group in groups:
            needed = list(dict.fromkeys(a.uops for s in group for a in s.steps if a.uops))
            if sum(map(len, needed)) <= self.config.uop_depth:
                group[0].loads[:0] = self._ensure(needed)
                for stage in group:
                    stage.steps = [self._placed(action) for action in stage.steps]
            else:
                for stage in group:
                    stage.steps = [
                        placed
                        for action in stage.steps
                        for placed in (*self._ensure([action.uops]), self._placed(action))
                    ]
        rows = np.concatenate([np.zeros((0, 3), np.int32), *self.words]).astype(np.int64)
        layout = uop_layout(self.config)
        if len(rows):  # what is legal of the greatest is legal of all
            layout.encode(dict(zip(("dst", "src", "wgt"), rows.max(axis=0).tolist(), strict=True)))
        slots = [layout.by_name[name] for name in ("dst", "src", "wgt")]
        words = sum(column << slot.lsb for column, slot in zip(rows.T, slots, strict=True))
        return np.asarray(words, np.uint32)

    def _ensure(self, needed: Sequence[Uops]) -> list[Action]:
        """Loads after which all of ``needed`` are in the scratchpad."""
        missing = [u for u in needed if u and u not in self.pad.resident]
        if not missing:
            return []
        start = self.pad.room(sum(map(len, missing)))
        if any(u and u not in self.pad.resident for u in needed if u not in missing):
            missing = [u for u in needed if u]
            start = self.pad.room(sum(map(len, missing)))
        runs: list[tuple[int, int, int]] = []  # scratchpad, DRAM, count
        for uops in missing:
            if uops not in self.offsets:
                self.offsets[uops] = self.count
                self.words.append(uops.rows)
                self.count += len(uops)
            self.pad.put(uops, start)
            source = self.offsets[uops]
            if runs and runs[-1][1] + runs[-1][2] == source:
                runs[-1] = (*runs[-1][:2], runs[-1][2] + len(uops))
            else:
                runs.append((start, source, len(uops)))
            start += len(uops)
        return [self._load(*run) for run in runs]

    def _load(self, at: int, source: int, count: int) -> Action:
        operands = {
            "sram_base": at,
            "dram_base": self.base + source,
            "y_size": 1,
            "x_size": count,
            "x_stride": 0,
        }
        return Action(self.operation, operands, (), (Span("uop", at, at + count),))

    def _placed(self, action: Action) -> Action:
        if not action.uops:
            return action
        first = self.pad.resident[action.uops]
        bgn, end = (first + at for at in action.part)
        operands = {**action.operands, "uop_bgn": bgn, "uop_end": end}
        reads = (*action.reads, Span("uop", bgn, end)) if bgn < end else action.reads
        return Action(
            action.operation, operands, reads, action.writes, action.uops, action.part, action.layer
        )
