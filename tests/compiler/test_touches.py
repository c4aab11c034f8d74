"""Conflicts found in native code are those that a plain walk over sets of elements finds."""

from __future__ import annotations

import numpy as np
import pytest

from weft.compiler.dram import Box
from weft.compiler.touches import Touches, witness, youngest

DEPTHS = {"a": 20, "b": 30, "dram": 24}
GRANULE = 4


def granules(box: Box) -> set[int]:
    """Those that a box touches; of every row as many as of the row that touches most."""
    starts = [box.address + box.stride * row for row in range(box.rows)]
    spans = [range(s // GRANULE, -(-(s + box.row_bytes) // GRANULE)) for s in starts]
    most = max(map(len, spans), default=0)
    return {span.start + k for span in spans for k in range(most)}


class Events:
    """Random events, as :class:`Touches` and as sets of (memory, element)."""

    def __init__(self, seed: int, count: int):
        self.rng = np.random.default_rng(seed)
        self.touches = Touches(DEPTHS)
        self.reads: list[set[tuple[str, int]]] = [set() for _ in range(count)]
        self.writes: list[set[tuple[str, int]]] = [set() for _ in range(count)]
        self.actors = self.rng.integers(0, 3, count).tolist()
        self.names = sorted(self.rng.choice(3 * count, count, replace=False).tolist())
        for event in range(count):
            for _ in range(self.rng.integers(0, 3)):
                self._touch(event)

    def _touch(self, event: int) -> None:
        write = bool(self.rng.integers(2))
        found = (self.writes if write else self.reads)[event]
        kind = self.rng.integers(3)
        if kind == 0:
            start, count = int(self.rng.integers(0, 15)), int(self.rng.integers(0, 5))
            self.touches.run(event, "a", start, count, write)
            found |= {("a", start + i) for i in range(count)}
        elif kind == 1:
            rows, down, columns, across = (int(n) for n in self.rng.integers(1, 4, 4))
            start, lanes = int(self.rng.integers(0, 8)), int(self.rng.integers(1, 4))
            loops = np.array([[rows, down, columns, across]])
            last = self.touches.walks(
                "b", np.array([event]), np.array([start]), loops, (3, 2), lanes, write
            )
            own = {
                ("b", (start + i * down + j * across + 2 * k) // lanes)
                for i in range(rows)
                for j in range(columns)
                for k in range(3)
            }
            assert last.tolist() == [max(at for _, at in own)]
            found |= own
        else:
            box = Box(*(int(n) for n in self.rng.integers((0, 1, 1, 1), (90, 4, 12, 30))))
            self.touches.box(event, "dram", box, GRANULE, write)
            found |= {("dram", at) for at in granules(box) if at < DEPTHS["dram"]}

    def oracle(self) -> list[list[int]]:
        found: list[list[int]] = []
        for event, (reads, writes) in enumerate(zip(self.reads, self.writes, strict=True)):
            row = [-1, -1, -1]
            for earlier in range(event):
                if (reads | writes) & self.writes[earlier] or writes & self.reads[earlier]:
                    row[self.actors[earlier]] = self.names[earlier]
            found.append(row)
        return found


@pytest.mark.parametrize("seed", range(5))
def test_the_youngest_conflict_of_each_actor_is_found(seed):
    events = Events(seed, 60)
    found = youngest(events.actors, events.names, events.touches).tolist()
    # A box's rows need not begin on a granule: then it may be said to touch one more.
    for row, expected in zip(found, events.oracle(), strict=True):
        assert row == expected or (np.array(row) >= np.array(expected)).all()
    assert any(max(row) >= 0 for row in found)


def test_where_two_events_meet_is_named():
    touches = Touches(DEPTHS)
    touches.run(0, "b", 3, 4, True)
    touches.run(1, "b", 5, 1, False)
    touches.run(2, "b", 5, 2, True)
    assert witness([0, 1], [7, 8], touches, [-1, -1, -1]) == (20 + 5, 7, True)
    assert witness([0, 1, 2], [7, 8, 9], touches, [7, -1, -1]) == (20 + 5, 8, False)


def test_nothing_conflicts_with_nothing():
    assert youngest([], [], Touches(DEPTHS)).shape == (0, 3)
    assert youngest([0, 1], [0, 1], Touches(DEPTHS)).tolist() == [[-1] * 3] * 2
