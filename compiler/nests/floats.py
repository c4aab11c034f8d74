"""The operators of TFLite's layouts on 32-bit floats as loop nests.

They have the form of those on integers without everything that quantization adds. Weights of
bytes stand for ``scale * (q - zero_point)``: products are summed over ``q - zero_point``, and the
sum is multiplied with its channel's scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ...isa.nest import (
    F32,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    If,
    Index,
    Load,
    Nest,
    Stmt,
    Store,
    Sum,
    expr,
    maximum,
    minimum,
)
from ..graph import (
    Activation,
    Add,
    AveragePool2D,
    MaxPool2D,
    Mul,
    Op,
    Sub,
)
from ..scales import REAL_RANGE
from .common import (
    LOOPS,
    Operator,
    Use,
    buffer_of,
    element_of,
    inside,
    loops_of,
    parallel,
    position,
    taps_of,
    valid_taps,
)
from .products import Numbers, lowerings, pixel

SCALE = "scale"
"""Suffix of the array that a lowering makes of the scales of weights."""


def reason_against(use: Use) -> str | None:
    """Why one of these operators has no loop nest; None if it has one."""
    if type(use.node.op) not in LOWERINGS:
        return f"{use.x.name!r} is {use.x.dtype}"
    for position_ in (1, 2):
        tensor = use.tensor(position_)
        if tensor is not None and tensor.dtype != F32 and tensor.data is None:
            return f"{tensor.name!r} is {tensor.dtype} and computed"
    return None


def _clamped(use: Use, value: Expr) -> Expr:
    activation: Activation = getattr(use.node.op, "activation", "none")
    low, high = REAL_RANGE[activation]
    if low is not None:
        value = maximum(value, Const(low, F32))
    return value if high is None else minimum(value, Const(high, F32))


# --- products ------------------------------------------------------------------------------------


def _filter(
    use: Use, loops: tuple[str, ...], x: Buffer, out: Buffer, total: Expr
) -> Operator:  # fmt: skip
    channel, bias = Index(loops[-1]), use.tensor(2)
    constants: dict[str, np.ndarray] = {}
    if use.w.dtype != F32:
        name = f"{use.node.name}.{SCALE}"
        scales = np.array(use.quant(use.w).scale, np.float32)
        constants[name] = np.ascontiguousarray(np.broadcast_to(scales, out.shape[-1:]))
        total = total * Load(name, (channel,))
    if bias is not None:
        total = total + Load(bias.name, (channel,))
    store = Store(out.name, tuple(map(Index, loops)), _clamped(use, total))
    buffers = [x, buffer_of(use.w), *(Buffer(name, F32, a.shape) for name, a in constants.items())]
    if bias is not None:
        buffers.append(buffer_of(bias, out.shape[-1:]))
    body = parallel(zip(loops, out.shape, strict=True), store)
    return Operator(Nest(use.node.name, (), (*buffers, out), body), constants)


def _weight(use: Use, *indices: Expr) -> Expr:
    value: Expr = Load(use.w.name, indices)
    if use.w.dtype == F32:
        return value
    zeros = set(use.quant(use.w).zero_point)
    return Cast(F32, value - zeros.pop())


ZERO = Const(0.0, F32)
PRODUCTS = lowerings(Numbers(outside=lambda _: ZERO, weight=_weight, finished=_filter))


# --- element by element --------------------------------------------------------------------------

PAIRWISE: Mapping[type[Op], Callable[[Expr, Expr], Expr]] = {
    Add: lambda a, b: a + b,
    Sub: lambda a, b: a - b,
    Mul: lambda a, b: a * b,
}


def pairwise(use: Use) -> Operator:
    """A sum, difference or product; a broadcast operand has index 0 where it does."""
    value = PAIRWISE[type(use.node.op)](element_of(use, use.x), element_of(use, use.w))
    loops = loops_of(use)
    store = Store(use.out.name, tuple(Index(name) for name, _ in loops), _clamped(use, value))
    buffers = {t.name: buffer_of(t, t.shape or (1,)) for t in (use.x, use.w, use.out)}
    return Operator(Nest(use.node.name, (), tuple(buffers.values()), parallel(loops, store)), {})


# --- pools ---------------------------------------------------------------------------------------


def average_pool(use: Use) -> Operator:
    """The mean of the elements inside."""
    op = use.node.op
    assert isinstance(op, AveragePool2D)
    value = Sum(taps_of(op.window), pixel(use, op.window, Index("c"), ZERO))
    count = Cast(F32, valid_taps(op.window, use.x))
    mean = _clamped(use, Binary("div", value, count))
    store = Store(use.out.name, tuple(map(Index, LOOPS)), mean)
    return _pool(use, parallel(zip(LOOPS, use.out.shape, strict=True), store))


def max_pool(use: Use) -> Operator:
    """The maximum of the elements inside; the output's element is the running maximum."""
    op = use.node.op
    assert isinstance(op, MaxPool2D)
    element = tuple(map(Index, LOOPS))
    so_far = Load(use.out.name, element)
    row, column = position(op.window)
    value = Load(use.x.name, (Index("n"), row, column, Index("c")))
    tap: Stmt = Store(use.out.name, element, maximum(so_far, value))
    if any(op.window.pads):
        tap = If(inside(use.x, row, column), tap)
    for index, extent in reversed(taps_of(op.window)):
        tap = For(index, expr(0), expr(extent), tap)
    first = Store(use.out.name, element, Const(-math.inf, F32))
    last = Store(use.out.name, element, _clamped(use, so_far))
    body = parallel(zip(LOOPS, use.out.shape, strict=True), Block((first, tap, last)))
    return _pool(use, body)


def _pool(use: Use, body: Stmt) -> Operator:
    return Operator(Nest(use.node.name, (), (buffer_of(use.x), buffer_of(use.out)), body), {})


LOWERINGS: Mapping[type[Op], Callable[[Use], Operator]] = {
    **PRODUCTS,
    Add: pairwise,
    Sub: pairwise,
    Mul: pairwise,
    AveragePool2D: average_pool,
    MaxPool2D: max_pool,
}
"""From a node on floats to its loop nest."""
