"""Loop nests cut into items that threads can take: one statement and one loop at a time.

A nest becomes phases, one after another: a statement each. If a statement is worth while, its phase
has many items: a parallel loop is taken away, and its index becomes a parameter of the nest. A
contraction is cut along blocks of columns, or along rows where those would not stay in the cache;
one loop over much memory is cut into blocks first. The items compute what the loop would have, bit
for bit, whoever runs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..isa.nest import (
    I64,
    Block,
    Buffer,
    Const,
    Expr,
    For,
    Index,
    Load,
    Math,
    Nest,
    Stmt,
    Store,
    Sum,
)
from ..isa.tiles import NEAR_CACHE, contraction
from ..isa.traverse import children, distinct, loops, rewrite, substitute, under_loops
from .ranges import folded

ITEM = "item"
"""The parameter."""
LEAST_WORK, LEAST_PRODUCTS = 400_000, 3_000_000
"""What :func:`work` says of a statement that is cut, and of a contraction: some 50 microseconds."""
BLOCK = 4096
"""Elements of an item of a single loop."""
ROWS = 8
"""Items at least into which rows are cut."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A nest, and for how many values of its parameter it runs; 0 where it has none."""

    nest: Nest
    items: int


def phases(nest: Nest) -> list[Phase]:
    """``nest`` in phases."""
    buffers = {b.name: b for b in nest.buffers}
    stmts = nest.body.stmts if isinstance(nest.body, Block) else (nest.body,)
    made: list[Phase] = []
    for stmt in stmts:
        for part, count in _cut(stmt, buffers):
            used = {n.buffer for n in distinct(part) if isinstance(n, Load | Store)}
            own = tuple(b for b in nest.buffers if b.name in used)
            params = (ITEM,) if count else ()
            made.append(Phase(Nest(nest.name, params, own, part), count))
    return made


def work(node: Stmt | Expr) -> float:
    """How many operations on single elements a statement comes to, roughly."""
    match node:
        case For(_, Const(a), Const(b), body):
            return max(0, int(b) - int(a)) * work(body)
        case Sum(axes, body):
            # Terms of a sum are several to a cycle.
            return math.prod(e for _, e in axes) * work(body) / 8
        case Math():
            return 4 + sum(work(c) for c in children(node) if isinstance(c, Expr))
        case _:
            return 0.25 + sum(work(c) for c in children(node) if isinstance(c, Stmt | Expr))


def _cut(stmt: Stmt, buffers: Mapping[str, Buffer]) -> list[tuple[Stmt, int]]:
    around, inner = under_loops(stmt)
    effort = work(stmt) if around else 0
    if effort < LEAST_WORK:
        return [(stmt, 0)]
    found = contraction(stmt, buffers)
    if found is not None and effort < LEAST_PRODUCTS:
        return [(stmt, 0)]
    if found is None:
        name, extent = max(around[:2], key=lambda loop: min(loop[1], 64))
        if isinstance(inner, Block) and any(isinstance(s, For) for s in inner.stmts):
            return [_item(around, name, inner)]
        if len(around) == 1:
            return _blocks(around, name, BLOCK, inner) if extent > BLOCK else [(stmt, 0)]
        if extent > 64:
            return _blocks(around, name, -(-extent // 64), inner)
        return [_item(around, name, inner)]
    outer = [loop for loop in found.outer if loop[1] > 1]
    rows = found.rows
    spans = {**dict(found.loops), **dict(found.sum.axes)}
    axes = {n for n, _ in found.sum.axes}

    def size(steps: Mapping[str, int], names: set[str]) -> int:
        return 1 + sum(abs(s) * (spans[n] - 1) for n, s in steps.items() if n in names)

    x = size(found.x_steps, {n for n, _ in rows} | axes)
    if outer and (x <= NEAR_CACHE or not rows or rows[0][1] < 2 * ROWS or len(rows) > 1):
        return [_item(around, outer[0][0], inner)]
    if rows and rows[0][1] >= 2 * ROWS:
        name, extent = rows[0]
        block = max(1, min(-(-extent // ROWS), NEAR_CACHE // 2 * extent // x))
        if len(rows) == 1 and block > 24:
            block = block // 24 * 24
        return _blocks(around, name, block, inner)
    return [_item(around, outer[0][0], inner)] if outer else [(stmt, 0)]


def _item(around: Sequence[tuple[str, int]], name: str, body: Stmt) -> tuple[Stmt, int]:
    """Without a loop, whose index becomes the parameter."""
    inner = substitute(body, {name: Index(ITEM)})
    assert isinstance(inner, Stmt)
    return loops([loop for loop in around if loop[0] != name], inner), dict(around)[name]


def _blocks(
    around: Sequence[tuple[str, int]], name: str, block: int, body: Stmt
) -> list[tuple[Stmt, int]]:
    """A loop in blocks, and what is left over."""
    extent = dict(around)[name]
    whole, rest = divmod(extent, block)
    made: list[tuple[Stmt, int]] = []

    def part(start: Expr, count: int) -> Stmt:
        moved = rewrite(substitute(body, {name: Index(name) + start}), folded)
        assert isinstance(moved, Stmt)
        return loops([(n, count if n == name else e) for n, e in around], moved)

    if whole:
        made.append((part(Index(ITEM) * Const(block, I64), block), whole))
    if rest:
        made.append((part(Const(whole * block, I64), rest), 0))
    return made
