"""Requantization: from a 32-bit accumulator to a narrow integer.

The real factor ``scale_in * scale_weight / scale_out`` is ``multiplier * 2**(left - right - 31)``.
Two roundings follow one another: that of a product, then that of a shift to the right. There are
two forms of them.

* TensorFlow Lite's, as in its ``MultiplyByQuantizedMultiplier`` and gemmlowp's
  ``SaturatingRoundingDoublingHighMul`` and ``RoundingDivideByPOT``: the shift to the left wraps;
  the high half of the doubled product, ties towards plus infinity; the shift to the right, ties
  away from zero.
* ``even``, for ONNX, whose ``QuantizeLinear`` rounds a real value once, ties to even. The shift to
  the left saturates, so that it can be chosen for the place of the first rounding alone: what
  saturates is far beyond all clamps. Ties of the shift to the right go to even.

The instruction set's meanings, the golden model, the simulators and the host code all build on
these expressions; :func:`rescale_int` is the same on plain Python integers, for the compiler's
constants.
"""

from __future__ import annotations

from .nest import I32, I64, Binary, Cast, Const, Expr, Operand, Select, expr, maximum, minimum

Even = bool | Expr
"""Whether the form is ``even``: known, or a condition that decides when it is computed."""

PRODUCT_SHIFT = 31
"""The multiplier is a Q31 fraction."""


def _wide(value: Operand) -> Expr:
    return Cast(I64, expr(value))


def shift_left(x: Operand, amount: Operand, even: Even = False) -> Expr:
    """``x * 2**amount``, ``0 <= amount < 32``; what ``i32`` does not hold wraps or, if ``even``, is
    the nearest multiple of ``2**amount`` that it does.

    That is compared beside the shift and masked behind it, so that a pipeline has no more stages
    than for the shift. Software shifts what :func:`shiftable` makes of ``x``.
    """
    x, amount = expr(x), expr(amount)
    if even is False:
        return x << amount
    least, greatest = Const(I32.min), Const(I32.max)
    beyond = (x < (least >> amount)) | ((greatest >> amount) < x)
    flag = Cast(I32, beyond if even is True else even & beyond)
    mask = (flag << 31) >> 31  # all bits are the flag
    end = Select(x < 0, least, greatest & (Const(-1) << amount))
    return ((x << amount) & Binary("xor", mask, Const(-1))) | (end & mask)


def shiftable(x: Operand, amount: Operand) -> Expr:
    """The nearest to ``x`` that ``i32`` still holds when it is shifted left."""
    least, greatest = (Const(end) >> expr(amount) for end in (I32.min, I32.max))
    return minimum(maximum(x, least), greatest)


def high_product(x: Operand, multiplier: Operand) -> Expr:
    """The high half of twice ``x * multiplier``, nearest, ties towards plus infinity; ``i32``.

    ``multiplier`` is not negative, so the one product that would overflow does not occur.
    """
    nudge = Const(1 << (PRODUCT_SHIFT - 1), I64)
    return Cast(I32, (_wide(x) * _wide(multiplier) + nudge) >> PRODUCT_SHIFT)


def rounding_shift_right(x: Operand, amount: Operand, even: Even = False) -> Expr:
    """``x / 2**amount``, nearest, ties to even or away from zero; ``i32``, ``0 <= amount < 63``."""
    x, amount = expr(x), expr(amount)
    half = (Const(1, I64) << _wide(amount)) >> 1
    is_even = Binary("xor", _wide(x) >> _wide(amount), Const(1, I64)) & Const(1, I64)
    is_negative = Select(x < 0, Const(1, I64), Const(0, I64))
    if isinstance(even, bool):
        down = is_even if even else is_negative
    else:
        down = Select(even, is_even, is_negative)
    nudge = Select(Binary("eq", amount, Const(0)), Const(0, I64), half - down)
    return Cast(I32, (_wide(x) + nudge) >> _wide(amount))


def rescale(
    x: Operand, multiplier: Operand, left: Operand, right: Operand, even: Even = False
) -> Expr:
    """``x * multiplier * 2**(left - right - 31)`` in two roundings; ``i32`` in, ``i32`` out."""
    return rounding_shift_right(high_product(shift_left(x, left, even), multiplier), right, even)


def requantize(
    x: Operand,
    multiplier: Operand,
    left: Operand,
    right: Operand,
    zero_point: Operand,
    low: Operand,
    high: Operand,
    even: Even = False,
) -> Expr:
    """:func:`rescale`, then add the zero point and clamp to ``[low, high]``; ``i32``."""
    scaled = rescale(x, multiplier, left, right, even)
    return minimum(maximum(scaled + expr(zero_point), low), high)


def rescale_int(x: int, multiplier: int, left: int, right: int, even: bool = False) -> int:
    """:func:`rescale` of one Python integer; for constants and tests."""
    if even:
        shifted = max(I32.min >> left, min(x, I32.max >> left)) << left
    else:
        shifted = ((x << left) + (1 << 31)) % (1 << 32) - (1 << 31)
    product = (shifted * multiplier + (1 << (PRODUCT_SHIFT - 1))) >> PRODUCT_SHIFT
    if right == 0:
        return product
    down = 1 - (product >> right & 1) if even else product < 0
    return (product + (1 << (right - 1)) - down) >> right
