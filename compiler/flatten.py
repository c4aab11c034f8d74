"""Loop nests on flat memory, their parallel loops in the order in which memory lies.

Every buffer becomes one axis of elements. Of parallel loops the one that moves the stores least is
innermost, and two that go through memory like one become one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ..isa.lanes import fits_lanes, lane_step
from ..isa.nest import I64, Block, Buffer, Const, Expr, For, Index, Load, Nest, Node, Stmt, Store
from ..isa.storage import unit_strides
from ..isa.tiles import contraction
from ..isa.traverse import children, distinct, loops, rewrite, under_loops, walk
from .borders import FEW, MANY, Loop, parted
from .ranges import folded


def flattened(nest: Nest) -> Nest:
    """``nest`` with one axis a buffer and its loops in order."""
    shapes = {b.name: b for b in nest.buffers if b.dtype.bits >= 8}

    def place(buffer: Buffer, indices: tuple[Expr, ...]) -> Expr:
        total: Expr = Const(0, I64)
        for index, stride in zip(indices, unit_strides(buffer), strict=True):
            total = total + index * Const(stride // (buffer.dtype.bits // 8), I64)
        value = rewrite(total, folded)
        assert isinstance(value, Expr)
        return value

    def rule(node: Node) -> Node | None:
        match node:
            case Load(name, indices) if name in shapes and len(indices) != 1:
                return Load(name, (place(shapes[name], indices),))
            case Store(name, indices, value) if name in shapes and len(indices) != 1:
                return Store(name, (place(shapes[name], indices),), value)
        return None

    body = rewrite(nest.body, rule)
    assert isinstance(body, Stmt)
    buffers = tuple(
        Buffer(b.name, b.dtype, (math.prod(b.shape),)) if b.name in shapes else b
        for b in nest.buffers
    )
    stmts = body.stmts if isinstance(body, Block) else (body,)
    known = {b.name: b for b in buffers}
    ordered = tuple(_ordered(part, known) for s in stmts for part in parted(s, known))
    return replace(nest, buffers=buffers, body=ordered[0] if len(ordered) == 1 else Block(ordered))


def _ordered(stmt: Stmt, buffers: Mapping[str, Buffer]) -> Stmt:
    tiled = contraction(stmt, buffers) is not None
    axes, stmt = under_loops(stmt)
    around = list(axes)
    if len({n for n, _ in around}) != len(around):
        return loops(around, stmt)
    if isinstance(stmt, Block) and any(isinstance(s, For) for s in stmt.stmts):
        return loops(around, Block(tuple(_ordered(s, buffers) for s in stmt.stmts)))
    inner = {n.index for n in distinct(stmt) if isinstance(n, For)}
    stores = [n for n in distinct(stmt) if isinstance(n, Store)]
    steps = [_steps(s.indices[0], around) for s in stores if len(s.indices) == 1]
    if (
        len(steps) == len(stores)
        and all(s is not None for s in steps)
        and not inner & {n for n, _ in around}
    ):
        last = steps[-1] if steps else {}
        assert last is not None
        moves = [abs(last.get(name, 0)) for name, extent in around if extent > 1]
        if not tiled and moves and moves[-1] > min(moves):
            around.sort(key=lambda loop: -abs(last.get(loop[0], 0)))
        if not tiled and len(around) > 1 and around[-1][1] < FEW:
            long = [loop for loop in around if loop[1] >= MANY and fits_lanes(stmt, loop[0])]
            if long:  # scattered stores are cheaper than vectors of a few
                around.remove(long[-1])
                around.append(long[-1])
        around, stmt = _merged(around, stmt)
    return loops(around, stmt)


def _steps(index: Expr, loops: list[Loop]) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for name, _ in loops:
        step = lane_step(index, {name: 1})
        if step is None:
            return None
        found[name] = step
    return found


def _merged(loops: list[Loop], stmt: Stmt) -> tuple[list[Loop], Stmt]:
    """Neighbouring loops as one, where every access goes on as if they were."""
    k = len(loops) - 2
    while k >= 0:
        (outer, count), (inner, extent) = loops[k], loops[k + 1]
        if extent == 1:
            stmt = _without(stmt, {inner: Const(0, I64)})
            del loops[k + 1]
        elif count == 1:
            stmt = _without(stmt, {outer: Const(0, I64)})
            del loops[k]
        elif _go_on(stmt, outer, inner, extent):
            stmt = _without(stmt, {outer: Const(0, I64)})
            loops[k : k + 2] = [(inner, count * extent)]
        k -= 1
    return loops, stmt


def _without(stmt: Stmt, values: Mapping[str, Expr]) -> Stmt:
    def rule(node: Node) -> Node | None:
        if isinstance(node, Index):
            return values.get(node.name)
        return folded(node)

    changed = rewrite(stmt, rule)
    assert isinstance(changed, Stmt)
    return changed


def _go_on(node: Node, outer: str, inner: str, extent: int) -> bool:
    """Whether the two names occur in places of memory alone, and there as one."""
    match node:
        case Index(name):
            return name not in (outer, inner)
        case Load(_, (index,)):
            return _place(index, outer, inner, extent)
        case Store(_, (index,), value):
            return _place(index, outer, inner, extent) and _go_on(value, outer, inner, extent)
        case _:
            return all(_go_on(c, outer, inner, extent) for c in children(node))


def _place(index: Expr, outer: str, inner: str, extent: int) -> bool:
    if any(isinstance(n, Load) for n in walk(index)):
        return False
    by = lane_step(index, {outer: 1}), lane_step(index, {inner: 1})
    return None not in by and by[0] == extent * (by[1] or 0)
