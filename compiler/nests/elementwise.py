"""Addition, subtraction, multiplication and reshaping as loop nests."""

from __future__ import annotations

import math

from ...isa.nest import Const, Expr, Index, Load, Nest, Store
from ...isa.requantize import requantize, rescale, rescale_int
from ..graph import Mul, Tensor
from ..scales import LEFT_LIMIT, Rescale
from .common import Operator, Use, buffer_of, element_of, loops_of, parallel

SUM_LEFT = 20
"""By how much the operands of a sum are shifted left before they are rescaled."""


def reason_against(use: Use) -> str | None:
    """Why a sum, a difference or a product has no loop nest; None if it has one."""
    if isinstance(use.node.op, Mul):
        if _product_scale(use).left > LEFT_LIMIT:
            return "the output's scale is too small for that of the inputs"
    elif _sum_scales(use)[2].left:
        return "the output's scale is too small for that of the inputs"
    return None


def _sum_scales(use: Use) -> tuple[Rescale, Rescale, Rescale]:
    """Of the operands to twice the larger scale, and from there to the output."""
    a, b, out = (use.quant(tensor).scale[0] for tensor in (use.x, use.w, use.out))
    common = 2 * max(a, b)
    return (
        Rescale.of(a / common),
        Rescale.of(b / common),
        Rescale.of(common / ((1 << SUM_LEFT) * out)),
    )


def _product_scale(use: Use) -> Rescale:
    a, b, out = (use.quant(tensor).scale[0] for tensor in (use.x, use.w, use.out))
    return Rescale.of(a * b / out)


def add(use: Use) -> Operator:
    """An element-wise sum; a broadcast operand has index 0 where it does."""
    return _sum(use, 1)


def subtract(use: Use) -> Operator:
    """An element-wise difference, as the sum with the second operand times -1."""
    return _sum(use, -1)


def _sum(use: Use, sign: int) -> Operator:
    *scales, scale = _sum_scales(use)
    numbers, even = _numbers(use), use.rounding == "even"

    def operand(tensor: Tensor, scale: Rescale, sign: int) -> Expr:
        number = numbers.get(tensor.name)
        if number is not None:
            whole = rescale_int(number, scale.multiplier, SUM_LEFT, scale.right, even)
            return Const(sign * whole)
        value = element_of(use, tensor) - use.zero_point(tensor)
        value = rescale(value, scale.multiplier, SUM_LEFT, scale.right, even)
        return value if sign == 1 else value * sign

    total = operand(use.x, scales[0], 1) + operand(use.w, scales[1], sign)
    return _requantized(use, total, scale)


def multiply(use: Use) -> Operator:
    """An element-wise product; a constant factor is multiplied out with the other's zero point."""
    numbers = _numbers(use)
    if numbers:
        ((_, factor),) = numbers.items()
        other = use.x if use.x.name not in numbers else use.w
        total = element_of(use, other) * factor - use.zero_point(other) * factor
    else:
        a, b = (element_of(use, tensor) - use.zero_point(tensor) for tensor in (use.x, use.w))
        total = a * b
    return _requantized(use, total, _product_scale(use))


def _numbers(use: Use) -> dict[str, int]:
    """The operand that is a constant of one element, and that less its zero point; or none."""
    for tensor in (use.w, use.x):
        other = use.x if tensor is use.w else use.w
        if tensor.data is not None and tensor.data.size == 1 and tensor is not other:
            return {tensor.name: int(tensor.data.reshape(-1)[0]) - use.zero_point(tensor)}
    return {}


def _requantized(use: Use, total: Expr, scale: Rescale) -> Operator:
    """The nest that stores ``total``, rescaled and clamped."""
    zero_point, (low, high) = use.zero_point(use.out), use.clamp()
    scale, even = scale.rounded(use.rounding), use.rounding == "even"
    value = requantize(
        total, scale.multiplier, scale.left, scale.right, zero_point, low, high, even
    )
    loops = loops_of(use)
    store = Store(use.out.name, tuple(Index(name) for name, _ in loops), value)
    numbers = _numbers(use)
    read = [t for t in (use.x, use.w) if t.name not in numbers]
    buffers = {t.name: buffer_of(t, t.shape or (1,)) for t in (*read, use.out)}
    return Operator(Nest(use.node.name, (), tuple(buffers.values()), parallel(loops, store)), {})


def reshape(use: Use) -> Operator:
    """A copy, both tensors flat."""
    count = (math.prod(use.x.shape),)
    i = Index("i")
    body = parallel([("i", *count)], Store(use.out.name, (i,), Load(use.x.name, (i,))))
    buffers = (buffer_of(use.x, count), buffer_of(use.out, count))
    return Operator(Nest(use.node.name, (), buffers, body), {})
