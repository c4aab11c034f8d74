"""Contractions: parallel loops around a sum of products of two loads, and how they are tiled.

A tile is some *rows* times some vectors. Rows are the points of those loops on which the first
factor depends and the second does not, one after another, whatever their number of axes; vectors
lie along the innermost loop. Every term of the sum loads the second factor's vectors once for all
rows and the first factor once for all vectors, and the totals stay in registers. What surrounds the
sum in the stored value, its tail, is evaluated on the totals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .lanes import is_narrow, lane_step
from .nest import (
    I8,
    I16,
    I32,
    U8,
    Binary,
    Block,
    Buffer,
    Cast,
    DType,
    Expr,
    Load,
    Stmt,
    Store,
    Sum,
    dtype_of,
    promote,
)
from .storage import unit_strides
from .traverse import children, distinct, under_loops

ROWS_LIMIT = 12
"""Rows of a tile at most: each needs a pointer."""
LATENCY = 5
"""Cycles from one addition to a total to the next one, and a little."""
EACH = 1
"""Cycles that a term costs besides, whatever the tile."""
GROUPS = {(I16, I16): 2, (U8, I8): 4}
"""How many neighbouring products fill 32 bits, by the types of rows and columns."""
NEAR_CACHE = 512 << 10
"""Bytes of a cache that is near; rows and vectors that are used again shall stay in it."""
NEAREST_CACHE = 32 << 10
"""Bytes of the nearest one."""


@dataclass(frozen=True)
class Target:
    """What tiles must know of a processor.

    Attributes
    ----------
    bits : int
        Of a vector register.
    registers : int
        How many there are.
    pairs : bool
        Whether it is x86, which multiplies pairs of ``i16`` and adds the two products.
    quads : bool
        Whether one instruction multiplies four ``u8`` by four ``i8`` and adds the products to a
        total, as those that Intel calls VNNI.
    """

    bits: int
    registers: int
    pairs: bool
    quads: bool = False

    @property
    def columns(self) -> int:
        """How many totals of 32 bits lie side by side in a tile: two vectors, where they are
        short four."""
        return max(16, 2 * self.bits // 32)

    @classmethod
    def of(cls, triple: str, features: str) -> Target:
        """By LLVM's names."""
        have = set(features.split(","))
        if triple.startswith(("x86_64", "i686")):
            if {"+avx512f", "+avx512bw"} <= have:
                return cls(512, 32, True, "+avx512vnni" in have)
            quads = "+avxvnni" in have or {"+avx512vnni", "+avx512vl"} <= have
            return cls(256, 16, True, quads) if "+avx2" in have else cls(128, 16, True)
        return cls(128, 32, False)


@dataclass(frozen=True, eq=False)
class Contraction:
    """A statement of the form that is tiled.

    Attributes
    ----------
    loops : tuple
        Name and extent of each parallel loop, the outermost first.
    body : Stmt
        The stores.
    sum : Sum
        What they have in common.
    x, w : Load
        The factors; ``w`` has vectors.
    dtype : DType
        Of a total.
    group : int
        How many neighbours the last axis of the sum has, if they are multiplied together: 2 of
        ``i16``, or 4 of ``u8`` by ``i8``; else 1.
    x_steps, w_steps : mapping
        By how many bytes each index moves a factor.
    out : DType
        Of the buffer that is stored to last.
    flat : bool
        Whether rows go on from one end of an axis to the beginning of the next; else a tile has
        rows of the last axis only.
    """

    loops: tuple[tuple[str, int], ...]
    body: Stmt
    sum: Sum
    x: Load
    w: Load
    dtype: DType
    group: int
    x_steps: Mapping[str, int]
    w_steps: Mapping[str, int]
    out: DType
    flat: bool = True

    @property
    def vector(self) -> tuple[str, int]:
        """The loop along which vectors lie."""
        return self.loops[-1]

    @property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """The loops whose points are rows."""
        found = tuple(
            (n, e) for n, e in self.loops[:-1] if self.x_steps.get(n) and not self.w_steps.get(n)
        )
        return found if self.flat else found[-1:]

    @property
    def outer(self) -> tuple[tuple[str, int], ...]:
        """The other loops."""
        rows = self.rows
        return tuple(loop for loop in self.loops[:-1] if loop not in rows)

    @property
    def spread(self) -> bool:
        """Whether a row's factor is the same for the whole vector."""
        return not self.x_steps.get(self.vector[0])

    @property
    def depth(self) -> int:
        """Terms of the sum."""
        return math.prod(extent for _, extent in self.sum.axes)


def contraction(stmt: Stmt, buffers: Mapping[str, Buffer]) -> Contraction | None:
    """``stmt`` as a contraction, or None."""
    loops, stmt = under_loops(stmt)
    stores = stmt.stmts if isinstance(stmt, Block) else (stmt,)
    if not loops or not all(extent > 0 for _, extent in loops):
        return None
    if not all(isinstance(s, Store) for s in stores):
        return None
    sums = {node for s in stores for node in _outer_sums(s)}
    if len(sums) != 1:
        return None
    written = {s.buffer for s in stores if isinstance(s, Store)}
    if any(isinstance(n, Load) and n.buffer in written for s in stores for n in distinct(s)):
        return None
    (total,) = sums
    names = [name for name, _ in (*loops, *total.axes)]
    if len(set(names)) != len(names) or not all(extent for _, extent in total.axes):
        return None
    body = total.body
    if not isinstance(body, Binary) or body.op != "mul":
        return None
    a, b = _factor(body.a), _factor(body.b)
    if a is None or b is None:
        return None
    dtype = promote(dtype_of(body, buffers), I32)
    if dtype.kind != "f" and not (dtype == I32 and all(is_narrow(f, buffers) for f in (a, b))):
        return None
    if dtype.kind == "f" and any(dtype_of(f, buffers) != dtype for f in (a, b)):
        return None
    vector = loops[-1][0]
    for x, w in ((a, b), (b, a)):
        steps = [_steps(load, names, buffers[load.buffer]) for load in (x, w)]
        if steps[0] is None or steps[1] is None:
            return None
        last_store = stores[-1]
        assert isinstance(last_store, Store)
        known = steps[0], steps[1], buffers[last_store.buffer].dtype
        units = [buffers[load.buffer].dtype.bits // 8 for load in (x, w)]
        if 0 in units:
            return None
        by_vector = [s.get(vector, 0) for s in steps if s is not None]
        if by_vector[1] == units[1] and by_vector[0] in (0, units[0]):
            return Contraction(tuple(loops), stmt, total, x, w, dtype, 1, *known)
        last, extent = total.axes[-1] if total.axes else ("", 0)
        kinds = buffers[x.buffer].dtype, buffers[w.buffer].dtype
        neighbours = all(s is not None and s.get(last) == units[0] for s in steps)
        if neighbours and GROUPS.get(kinds) == extent and by_vector == [0, extent * units[0]]:
            return Contraction(tuple(loops), stmt, total, x, w, dtype, extent, *known)
    return None


def _outer_sums(node: Stmt | Expr) -> set[Sum]:
    below: list[Stmt | Expr] = [node]
    seen: set[int] = set()
    found: set[Sum] = set()
    while below:
        for child in children(below.pop()):
            if isinstance(child, Sum):
                found.add(child)
            elif isinstance(child, Expr) and id(child) not in seen:
                seen.add(id(child))
                below.append(child)
    return found


def _factor(e: Expr) -> Load | None:
    while isinstance(e, Cast) and e.dtype == I32:
        e = e.a
    return e if isinstance(e, Load) else None


def _steps(load: Load, names: list[str], buffer: Buffer) -> dict[str, int] | None:
    """By how many bytes each name moves a load; None if not by a constant."""
    if buffer.dtype.bits < 8:
        return None
    steps: dict[str, int] = {}
    for index, stride in zip(load.indices, unit_strides(buffer), strict=True):
        for name in names:
            step = lane_step(index, {name: 1})
            if step is None:
                return None
            if step:
                steps[name] = steps.get(name, 0) + step * stride
    return steps


@dataclass(frozen=True)
class Shape:
    """Of a tile: ``rows`` times ``vectors`` of ``lanes``."""

    rows: int
    vectors: int
    lanes: int


PLACE = 16
"""Cycles to find where a row of several axes lies."""


def shape_of(c: Contraction, target: Target) -> tuple[Contraction, Shape]:
    """The tile that is estimated to be fastest, and whether its rows go on from axis to axis.

    Where products and their addition to a total are instructions ``apart``, they take two, and
    registers in between.
    """
    lanes = max(2, target.bits // c.dtype.bits)
    vectors = max(1, -(-c.vector[1] // lanes))
    apart = c.group == 2 or (c.group == 4 and not target.quads)
    spare = 2 + (2 if apart else 0)
    most = (target.registers - spare) // vectors - 1
    if c.spread:
        most = (target.registers - vectors - spare + 1) // vectors
    best: tuple[float, Contraction, Shape] | None = None
    for flat in (True, False):
        form = replace(c, flat=flat)
        count = math.prod(extent for _, extent in form.rows)
        times = math.prod(extent for _, extent in c.rows) // max(1, count)
        place = PLACE if len(form.rows) > 1 else 0
        for rows in range(max(1, min(ROWS_LIMIT, count, most)), 0, -1):
            work = rows * vectors / 2 * (2 if apart else 1)
            loads = (rows + vectors if c.spread else rows * vectors + vectors) / 2
            each = (max(work, loads, LATENCY) + EACH) * c.depth / c.group
            cycles = times * -(-count // rows) * (each + place * rows)
            if best is None or cycles < best[0]:
                best = cycles, form, Shape(rows, vectors, lanes)
    assert best is not None
    return best[1], best[2]


STRETCH = 384
"""Terms at most of a sum that is not taken in stretches, and of a stretch."""
SHORTEST = 128


def split_of(c: Contraction, shape: Shape) -> tuple[str, int, int] | None:
    """Along which axis a long sum is taken in stretches, of how many terms, and how many stretches.

    Between stretches the totals wait in the output, so that the columns of a stretch stay in the
    nearest cache while they meet row after row. None where the sum is short, or the output does not
    hold totals.
    """
    if not isinstance(c.body, Store) or c.group > 1 or not c.spread or c.vector[1] % shape.lanes:
        return None
    if c.dtype.kind != "f" or c.out != c.dtype or math.prod(e for _, e in c.rows) < 4 * shape.rows:
        return None
    name, extent = c.sum.axes[0]
    inner = c.depth // extent
    if c.depth <= 2 * STRETCH or extent == 1 or len(c.sum.axes) > 1:
        return None
    for chunk in range(min(extent - 1, max(1, STRETCH // inner)), 0, -1):
        if extent % chunk == 0 and chunk * inner >= SHORTEST:
            return name, chunk, extent // chunk
    return None
