"""Addition and reshaping as loop nests."""

from __future__ import annotations

import math

from ...isa.nest import Expr, Index, Load, Nest, Store, expr
from ...isa.requantize import requantize, rescale
from ..graph import Tensor
from ..scales import Rescale
from .common import LOOPS, Operator, Use, buffer_of, parallel

ADD_LEFT = 20
"""By how much the operands of an addition are shifted left before they are rescaled."""


def reason_against(use: Use) -> str | None:
    """Why an addition has no loop nest; None if it has one."""
    if _scales(use)[2].left:
        return "the output's scale is too small for that of the inputs"
    return None


def _scales(use: Use) -> tuple[Rescale, Rescale, Rescale]:
    """Of the operands to twice the larger scale, and from there to the output."""
    a, b, out = (use.quant(tensor).scale[0] for tensor in (use.x, use.w, use.out))
    common = 2 * max(a, b)
    return (
        Rescale.of(a / common),
        Rescale.of(b / common),
        Rescale.of(common / ((1 << ADD_LEFT) * out)),
    )


def add(use: Use) -> Operator:
    """An element-wise sum; a broadcast operand has index 0 where it does."""
    shape = use.out.shape or (1,)
    loops = (
        LOOPS[4 - len(shape) :] if len(shape) <= 4 else tuple(f"d{i}" for i in range(len(shape)))
    )
    *scales, scale = _scales(use)

    def operand(tensor: Tensor, scale: Rescale) -> Expr:
        own = (1,) * (len(shape) - len(tensor.shape)) + tensor.shape
        indices = [
            Index(loop) if extent == whole else expr(0)
            for loop, extent, whole in zip(loops, own, shape, strict=True)
        ][len(shape) - len(tensor.shape or (1,)) :]
        value = Load(tensor.name, tuple(indices)) - use.zero_point(tensor)
        return rescale(value, scale.multiplier, ADD_LEFT, scale.right)

    total = operand(use.x, scales[0]) + operand(use.w, scales[1])
    zero_point, (low, high) = use.zero_point(use.out), use.clamp()
    value = requantize(total, scale.multiplier, 0, scale.right, zero_point, low, high)
    store = Store(use.out.name, tuple(map(Index, loops)), value)
    buffers = {t.name: buffer_of(t, t.shape or (1,)) for t in (use.x, use.w, use.out)}
    body = parallel(zip(loops, shape, strict=True), store)
    return Operator(Nest(use.node.name, (), tuple(buffers.values()), body), {})


def reshape(use: Use) -> Operator:
    """A copy, both tensors flat."""
    count = (math.prod(use.x.shape),)
    i = Index("i")
    body = parallel([("i", *count)], Store(use.out.name, (i,), Load(use.x.name, (i,))))
    buffers = (buffer_of(use.x, count), buffer_of(use.out, count))
    return Operator(Nest(use.node.name, (), buffers, body), {})
