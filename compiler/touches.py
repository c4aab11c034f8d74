"""Who must come after whom: for every event the youngest one before it that it conflicts with.

An event is whatever happens in one piece: an instruction, an action. It touches elements of
memories, which all stand in one table of :class:`Touches`; :func:`youngest` goes through the events
in order, element by element, in native code. Two accesses of an element conflict unless both read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from ..isa.native import NativeCode
from ..isa.nest import (
    I64,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    binary,
    expr,
    maximum,
)
from ..isa.paths import cache_directory
from .dram import Box

ACTORS = 3
"""Kinds of events, each of which is in order anyway: engines, mostly."""

FIELDS = (
    "event", "base", "start", "rows", "down", "columns", "across", "taps", "along", "lanes", "end",
    "write",
)  # fmt: skip
"""Of a touch: elements ``base + (start + i * down + j * across + k * along) / lanes`` before
``end``, for i in rows, j in columns, k in taps."""


class Touches:
    """What events touch, collected in any order.

    Parameters
    ----------
    depths : mapping
        Elements of each memory, by name.
    """

    def __init__(self, depths: Mapping[str, int]):
        ends = list(accumulate(depths.values()))
        self.bases = dict(zip(depths, [0, *ends], strict=False))
        self.ends = dict(zip(depths, ends, strict=True))
        self.elements = ends[-1]
        self._runs: list[tuple[int, int, int, int, int]] = []
        self._boxes: list[tuple[int, ...]] = []
        self._blocks: list[np.ndarray] = []

    def run(self, event: int, memory: str, start: int, count: int, write: bool) -> None:
        """``count`` elements from ``start`` on."""
        if count > 0:
            base = self.bases[memory]
            self._runs.append((event, base, start, count, write))

    def box(self, event: int, memory: str, box: Box, granule: int, write: bool) -> None:
        """The granules of a box; those beyond the end of the memory do not count."""
        base, end = self.bases[memory], self.ends[memory]
        if not box.rows or not box.row_bytes or box.address >= (end - base) * granule:
            return
        rows = 1 if box.stride % granule == 0 else box.rows
        starts = [box.address + box.stride * row for row in range(rows)]
        count = max(-(-(start + box.row_bytes) // granule) - start // granule for start in starts)
        self._boxes.append(
            (event, base, box.address, box.rows, box.stride, count, granule, 1, 0, granule, end,
             write)
        )  # fmt: skip

    def walks(
        self, memory: str, events: np.ndarray, start: np.ndarray, loops: np.ndarray,
        taps: tuple[int, int], lanes: int, write: bool,
    ) -> np.ndarray:  # fmt: skip
        """Many at once; ``loops`` has (rows, down, columns, across) of each, ``taps`` their count
        and distance. The greatest element of each is returned."""
        table = np.empty((len(events), len(FIELDS)), np.int64)
        table[:, 0], table[:, 1], table[:, 2] = events, self.bases[memory], start
        table[:, 3:7] = loops
        table[:, 7:] = *taps, lanes, self.ends[memory], write
        self._blocks.append(table)
        rows, down, columns, across = table[:, 3:7].T
        last = start + (rows - 1) * down + (columns - 1) * across + (taps[0] - 1) * taps[1]
        return last // lanes

    def table(self) -> np.ndarray:
        """All of them, [touches, fields], by event."""
        runs = np.array(self._runs, np.int64).reshape(-1, 5)
        table = np.zeros((len(runs), len(FIELDS)), np.int64)
        table[:, :3], table[:, 11] = runs[:, :3], runs[:, 4]
        table[:, 3:10] = (1, 0, 1, 1, 1, 0, 1)
        table[:, 5], table[:, 10] = runs[:, 3], self.elements
        boxes = np.array(self._boxes, np.int64).reshape(-1, len(FIELDS))
        table = np.concatenate([*self._blocks, table, boxes])
        return table[np.argsort(table[:, 0], kind="stable")]


def youngest(actors: Sequence[int], names: Sequence[int], touches: Touches) -> np.ndarray:
    """[events, actors]: of each actor the youngest earlier event that this one conflicts with.

    Parameters
    ----------
    actors : sequence of int
        Of each event, which of :data:`ACTORS` it belongs to.
    names : sequence of int
        What to call each event; those of one actor ascend.
    touches : Touches
        What they touch.

    Returns
    -------
    ndarray
        Names; -1 where there is none. An event's own actor counts as any other.
    """
    return _swept(np.array(actors, np.int64), np.array(names, np.int64), touches)[0]


def witness(
    actors: Sequence[int], names: Sequence[int], touches: Touches, known: Sequence[int]
) -> tuple[int, int, bool]:
    """Where the last of these events meets one that is younger than ``known`` of its actor.

    Returns
    -------
    tuple
        The element, in the order of the touches' memories; the name of the younger event; and
        whether that writes the element rather than reads it.
    """
    last = len(actors) - 1
    table = touches.table()
    ages = _swept(np.array(actors[:last], np.int64), np.array(names[:last], np.int64), touches)[1:]
    for touch in table[table[:, 0] == last]:
        event: dict[str, int] = dict(zip(FIELDS, touch.tolist(), strict=True))
        loops = [np.arange(event[trips]) * event[step] for trips, step in
                 (("rows", "down"), ("columns", "across"), ("taps", "along"))]  # fmt: skip
        at = event["start"] + loops[0][:, None, None] + loops[1][:, None] + loops[2]
        at = np.unique(at // event["lanes"]) + event["base"]
        at = at[at < event["end"]]
        for age, writes in zip(ages, (True, False), strict=True):
            if not writes and not event["write"]:
                continue
            for actor in range(ACTORS):
                late = age[at, actor] > known[actor]
                if actor != actors[last] and late.any():
                    element = int(at[np.argmax(late)])
                    return element, int(age[element, actor]), writes
    raise AssertionError("there is no such event")


def _swept(
    actors: np.ndarray, names: np.ndarray, touches: Touches
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = touches.table()
    found = np.full((len(actors), ACTORS), -1, np.int64)
    written, read = (np.full((touches.elements, ACTORS), -1, np.int64) for _ in range(2))
    arrays = {
        "first": np.searchsorted(table[:, 0], np.arange(len(actors) + 1)),
        "actors": actors,
        "names": names,
        "touches": table,
        "written": written,
        "read": read,
        "found": found,
    }
    if len(actors) and len(table):
        _code().run("youngest", {"events": len(actors)}, arrays)
    return found, written, read


@lru_cache(maxsize=1)
def _code() -> NativeCode:
    return NativeCode([_nest()], cache=cache_directory() / "compiler")


def _nest() -> Nest:
    """First look at everything that an event touches, then enter it."""
    x, e, t, write = Index("x"), Index("e"), Index("t"), Index("write")
    ages = {name: tuple(Load(name, (x, expr(a))) for a in range(ACTORS))
            for name in ("written", "read")}  # fmt: skip

    def looked(name: str) -> Stmt:
        return Block(tuple(
            Store("found", (e, expr(a)), maximum(Load("found", (e, expr(a))), ages[name][a]))
            for a in range(ACTORS)
        ))  # fmt: skip

    def entered(name: str) -> Stmt:
        return Store(name, (x, Load("actors", (e,))), Load("names", (e,)))

    look = Block((looked("written"), If(write, looked("read"))))
    enter = Block((If(write, entered("written")), If(binary("eq", write, 0), entered("read"))))
    first, stop = (Load("first", (e + n,)) for n in (0, 1))
    sweeps = tuple(For("t", first, stop, _elements(t, body)) for body in (look, enter))
    buffers = (
        Buffer("first", I64, (0,)),
        Buffer("actors", I64, (0,)),
        Buffer("names", I64, (0,)),
        Buffer("touches", I64, (0, len(FIELDS))),
        Buffer("written", I64, (0, ACTORS)),
        Buffer("read", I64, (0, ACTORS)),
        Buffer("found", I64, (0, ACTORS)),
    )
    return Nest("youngest", ("events",), buffers, For("e", expr(0), Index("events"), Block(sweeps)))


def _elements(touch: Expr, body: Stmt) -> Stmt:
    """``body`` for each element ``x`` of a touch, with ``write`` bound."""
    i, j, k = Index("i"), Index("j"), Index("k")
    lane = (
        Index("start") + i * Index("down") + j * Index("across") + k * Index("along")
    )  # fmt: skip
    lanes = Index("lanes")
    element = Select(binary("eq", lanes, 1), lane, lane // lanes)
    body = If(Index("x") < Index("end"), body)
    body = Let("x", Index("base") + element, body)
    for index, trips in (("k", "taps"), ("j", "columns"), ("i", "rows")):
        body = For(index, expr(0), Index(trips), body)
    for number, name in reversed(list(enumerate(FIELDS))):
        body = Let(name, Load("touches", (touch, expr(number))), body)
    return body
