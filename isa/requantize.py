"""Requantization: from a 32-bit accumulator to a narrow integer, in TensorFlow Lite's rounding.

The real factor ``scale_in * scale_weight / scale_out`` is ``multiplier * 2**(left - right - 31)``.
Two roundings follow one another, as in TensorFlow Lite's ``MultiplyByQuantizedMultiplier`` and
gemmlowp's ``SaturatingRoundingDoublingHighMul`` and ``RoundingDivideByPOT``: the high half of the
doubled product, ties towards plus infinity; then a right shift, ties away from zero.

The instruction set's meanings, the golden model, the simulators and the host code all build on
these expressions; :func:`rescale_int` is the same on plain Python integers, for the compiler's
constants.
"""

from __future__ import annotations

from .nest import I32, I64, Binary, Cast, Const, Expr, Operand, Select, expr, maximum, minimum

PRODUCT_SHIFT = 31
"""The multiplier is a Q31 fraction."""


def _wide(value: Operand) -> Expr:
    return Cast(I64, expr(value))


def high_product(x: Operand, multiplier: Operand) -> Expr:
    """The high half of twice ``x * multiplier``, nearest, ties towards plus infinity; ``i32``.

    ``multiplier`` is not negative, so the one product that would overflow does not occur.
    """
    nudge = Const(1 << (PRODUCT_SHIFT - 1), I64)
    return Cast(I32, (_wide(x) * _wide(multiplier) + nudge) >> PRODUCT_SHIFT)


def rounding_shift_right(x: Operand, amount: Operand) -> Expr:
    """``x / 2**amount``, nearest, ties away from zero; ``i32``, ``0 <= amount < 63``."""
    x, amount = expr(x), expr(amount)
    half = (Const(1, I64) << _wide(amount)) >> 1
    down = Select(x < 0, Const(1, I64), Const(0, I64))
    nudge = Select(Binary("eq", amount, Const(0)), Const(0, I64), half - down)
    return Cast(I32, (_wide(x) + nudge) >> _wide(amount))


def rescale(x: Operand, multiplier: Operand, left: Operand, right: Operand) -> Expr:
    """``x * multiplier * 2**(left - right - 31)`` in two roundings; ``i32`` in, ``i32`` out.

    ``x << left`` wraps at 32 bits, as the reference kernels' does.
    """
    return rounding_shift_right(high_product(expr(x) << expr(left), multiplier), right)


def requantize(
    x: Operand,
    multiplier: Operand,
    left: Operand,
    right: Operand,
    zero_point: Operand,
    low: Operand,
    high: Operand,
) -> Expr:
    """:func:`rescale`, then add the zero point and clamp to ``[low, high]``; ``i32``."""
    return minimum(maximum(rescale(x, multiplier, left, right) + expr(zero_point), low), high)


def rescale_int(x: int, multiplier: int, left: int, right: int) -> int:
    """:func:`rescale` of one Python integer; for constants and tests."""
    shifted = ((x << left) + (1 << 31)) % (1 << 32) - (1 << 31)
    product = (shifted * multiplier + (1 << (PRODUCT_SHIFT - 1))) >> PRODUCT_SHIFT
    if right == 0:
        return product
    return (product + (1 << (right - 1)) - (product < 0)) >> right
