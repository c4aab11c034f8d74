"""Pooling as loop nests."""

from __future__ import annotations

from ...isa.nest import (
    Block,
    Const,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Operand,
    Select,
    Stmt,
    Store,
    Sum,
    expr,
    maximum,
)
from ..graph import AveragePool2D, MaxPool2D
from .common import (
    LOOPS,
    Operator,
    Use,
    buffer_of,
    clamped,
    inside,
    parallel,
    position,
    taps_of,
    valid_taps,
)
from .products import pixel


def average_pool(use: Use) -> Operator:
    """The mean of the elements inside, rounded half away from zero, or half up."""
    op = use.node.op
    assert isinstance(op, AveragePool2D)
    window, x = op.window, use.x
    value = pixel(use, window, Index("c"), Const(0))
    count = valid_taps(window, x)
    total, many = Index("total"), Index("count")
    half = many // 2
    mean: Expr = (total + half) // many
    if op.ties == "away":
        mean = Select(total > 0, mean, -((half - total) // many))
    store = Store(use.out.name, tuple(map(Index, LOOPS)), clamped(mean, use.clamp()))
    body = Let("count", count, Let("total", Sum(taps_of(window), value), store))
    return _pool(use, parallel(zip(LOOPS, use.out.shape, strict=True), body))


def max_pool(use: Use) -> Operator:
    """The maximum of the elements inside; the output's element is the running maximum."""
    op = use.node.op
    assert isinstance(op, MaxPool2D)
    window, x, out = op.window, use.x, use.out
    row, column = position(window)
    element = tuple(map(Index, LOOPS))
    so_far = Load(out.name, element)

    def channels(value: Operand) -> Stmt:
        return parallel([("c", out.shape[3])], Store(out.name, element, expr(value)))

    tap = channels(maximum(so_far, Load(x.name, (Index("n"), row, column, Index("c")))))
    if any(window.pads):
        tap = If(inside(x, row, column), tap)
    for index, extent in reversed(taps_of(window)):
        tap = For(index, expr(0), expr(extent), tap)
    body = Block((channels(out.dtype.min), tap, channels(clamped(so_far, use.clamp()))))
    return _pool(use, parallel(zip(LOOPS[:3], out.shape[:3], strict=True), body))


def _pool(use: Use, body: Stmt) -> Operator:
    return Operator(Nest(use.node.name, (), (buffer_of(use.x), buffer_of(use.out)), body), {})
