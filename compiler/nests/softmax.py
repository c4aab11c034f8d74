"""Softmax of 8-bit integers in fixed point, as TensorFlow Lite's reference kernel computes it.

In ``Qm.n`` a 32-bit integer ``q`` stands for ``q / 2**n``, with ``m + n == 31``. For each row, the
differences from its maximum are brought to Q5.26 and exponentiated to Q0.31: a polynomial gives
``exp`` on [-1/4, 0), and a factor follows for each bit of the multiple of 1/4 that is left. The sum
is kept in Q12.19, its reciprocal found by three Newton steps in Q2.29.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...isa.nest import (
    I32,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    Index,
    Let,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    expr,
    maximum,
    minimum,
)
from ...isa.requantize import high_product, rounding_shift_right
from ..graph import Quant, Tensor
from ..scales import Rescale

CLASSES_LIMIT = 4095
"""With more, the sum could reach 32 bits. From 512 classes on, the last shift to the right may
reach 32 bits if most are equally likely, which the reference does not define: a share is 0 then."""
DIFFERENCE_INTEGER_BITS = 5
SUM_INTEGER_BITS = 12
ONE = (1 << 31) - 1
"""The largest Q0.31, which stands for 1."""

SCRATCH = ("peak", "exp")
"""What the nest keeps: the maximum of each row and the exponential of each element."""
WIDTH_TO_SHIFT = 3
"""A sum of ``width`` bits exceeds one by ``width - 20``, and a byte is 23 bits less than Q0.31."""

QUARTER = 1 << 24
"""In Q5.26."""
EIGHTH = 1 << 28
"""In Q0.31."""
EXP_OF_MINUS_EIGHTH = round(math.exp(-1 / 8) * 2**31)
THIRD = round(2**31 / 3)
EXP_OF_MINUS_POWER: tuple[tuple[int, int], ...] = tuple(
    (exponent, round(math.exp(-(2.0**exponent)) * 2**31)) for exponent in range(-2, 5)
)
"""``exp(-2**k)`` in Q0.31 for each bit of a multiple of 1/4 below 32."""

NEWTON_START = round(48 / 17 * 2**29)
NEWTON_SLOPE = round(-32 / 17 * 2**29)
"""The line from which the reciprocal's Newton iteration sets out, in Q2.29."""
NEWTON_STEPS = 3


def _scale(scale: float, beta: float) -> Rescale:
    """From a difference to Q5.26; capped where only the maximum matters."""
    factor = beta * scale * (1 << (31 - DIFFERENCE_INTEGER_BITS))
    return Rescale.of(min(factor, float((1 << 31) - 1)))


def reason_against(x: Tensor, scale: float, beta: float, out: Quant) -> str | None:
    """Why the kernel is not defined for these tensors; None if it is."""
    if out.scale != (1 / 256,) or out.zero_point != (-128,):
        return (
            f"the output of a softmax has scale 1/256 and zero point -128, "
            f"not {out.scale[0]} and {out.zero_point[0]}"
        )
    if x.shape[-1] > CLASSES_LIMIT:
        return f"a softmax of {x.shape[-1]} classes; at most {CLASSES_LIMIT} are possible"
    if beta * scale * (1 << (31 - DIFFERENCE_INTEGER_BITS)) <= 1:
        return f"scale {scale} times beta {beta} is too small for a softmax"
    return None


def nest(
    name: str, x: Buffer, out: Buffer, scale: float, beta: float
) -> tuple[Nest, tuple[str, ...]]:
    """The loop nest of a softmax over the last axis of ``x``.

    Parameters
    ----------
    name : str
        Of the node.
    x, out : Buffer
        Both [rows, classes] of i8.
    scale : float
        Of ``x``.
    beta : float
        The factor before exponentiation.

    Returns
    -------
    Nest
    tuple of str
        Its scratch buffers: the maximum of each row and the exponential of each element.
    """
    rows, classes = x.shape
    shapes = ((rows,), (rows, classes))
    peaks, exponentials = (
        Buffer(f"{name}.{suffix}", I32, shape)
        for suffix, shape in zip(SCRATCH, shapes, strict=True)
    )
    n, c = Index("n"), Index("c")
    peak, element = Load(peaks.name, (n,)), Load(x.name, (n, c))
    power = Load(exponentials.name, (n, c))

    def each(body: Stmt, parallel: bool = True) -> Stmt:
        return For("c", expr(0), expr(classes), body, parallel)

    def keep(value: Expr) -> Stmt:
        return Store(exponentials.name, (n, c), value)

    share = high_product(Index("reciprocal"), power)
    result = rounding_shift_right(share, Index("width") + WIDTH_TO_SHIFT) + out.dtype.min
    bounded = minimum(maximum(result, out.dtype.min), out.dtype.max)
    total = Sum((("c", classes),), rounding_shift_right(power, SUM_INTEGER_BITS))
    body = Block(
        (
            Store(peaks.name, (n,), expr(x.dtype.min)),
            each(Store(peaks.name, (n,), maximum(peak, element)), parallel=False),
            each(_exponential(element - peak, _scale(scale, beta), keep)),
            Let("total", total, _reciprocal(each(Store(out.name, (n, c), bounded)))),
        )
    )
    loop = For("n", expr(0), expr(rows), body, parallel=True)
    return Nest(name, (), (x, peaks, exponentials, out), loop), (peaks.name, exponentials.name)


def _exponential(difference: Expr, scale: Rescale, use: Callable[[Expr], Stmt]) -> Stmt:
    """``use`` with ``exp`` of a difference that is not positive, in Q0.31; 0 far below."""
    least = -math.floor(((1 << DIFFERENCE_INTEGER_BITS) - 1) * 2.0**26 / 2.0**scale.left)
    d, a, q, x, x2 = map(Index, ("difference", "a", "q", "x", "x2"))
    cube_and_quarter = rounding_shift_right(high_product(x2, x2), 2) + high_product(x2, x)
    tail = rounding_shift_right(high_product(cube_and_quarter, THIRD) + x2, 1)
    lets: list[tuple[str, Expr]] = [
        ("difference", difference),
        ("a", high_product(Cast(I32, d) << scale.left, scale.multiplier)),
        ("q", (a & (QUARTER - 1)) - QUARTER),
        ("x", (q << DIFFERENCE_INTEGER_BITS) + EIGHTH),
        ("x2", high_product(x, x)),
        ("tail", tail),
        ("e", high_product(EXP_OF_MINUS_EIGHTH, x + Index("tail")) + EXP_OF_MINUS_EIGHTH),
        ("rest", q - a),
    ]
    power: Expr = Index("e")
    for exponent, factor in EXP_OF_MINUS_POWER:
        bit = Index("rest") & (1 << (31 - DIFFERENCE_INTEGER_BITS + exponent))
        name = f"e{len(lets)}"
        lets.append((name, Select(bit, high_product(power, factor), power)))
        power = Index(name)
    whole = Select(Binary("eq", a, Const(0)), Const(ONE), Cast(I32, power))
    return _lets(lets, use(Select(expr(least) <= d, whole, Const(0))))


def _reciprocal(body: Stmt) -> Stmt:
    """``body`` with ``width``, the bits of ``total``, and ``reciprocal``, of total / 2**width."""
    total, width, half, x = map(Index, ("total", "width", "half", "x"))
    bits = Sum((("k", 31),), Select(total >> Index("k"), Const(1), Const(0)))
    mantissa = (total << (32 - width)) - (1 << 31)
    lets: list[tuple[str, Expr]] = [
        ("width", bits),
        ("half", (mantissa + ONE + 1) >> 1),
        ("x", high_product(half, NEWTON_SLOPE) + NEWTON_START),
    ]
    for step in range(NEWTON_STEPS):
        correction = high_product(x, Const(1 << 29) - high_product(half, x)) << 2
        lets.append((f"x{step}", x + correction))
        x = Index(f"x{step}")
    lets.append(("reciprocal", minimum(x << 1, ONE)))
    return _lets(lets, body)


def _lets(lets: Sequence[tuple[str, Expr]], body: Stmt) -> Stmt:
    for name, value in reversed(lets):
        body = Let(name, value, body)
    return body
