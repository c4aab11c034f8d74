"""Convolutions, depthwise convolutions and fully connected layers as loop nests."""

from __future__ import annotations

import numpy as np

from ...isa.nest import (
    I8,
    I32,
    Buffer,
    Const,
    Expr,
    Index,
    Load,
    Nest,
    Store,
)
from ...isa.requantize import requantize
from ..graph import DepthwiseConv2D, FullyConnected
from ..scales import LEFT_LIMIT, Rescale, filter_factors
from .common import Operator, Use, buffer_of, parallel
from .products import Numbers, lowerings

COLUMNS = ("bias", "multiplier", "left", "right")
"""What a lowering makes, one element a channel each."""
CENTRED = "centred"
"""The weights less their zero point, where that is not 0."""
CONSTANTS = (*COLUMNS, CENTRED)


def reason_against(use: Use) -> str | None:
    """Why one of these operators has no loop nest; None if it has one."""
    for tensor in filter(None, (use.w, use.tensor(2))):
        if tensor.data is None:
            return f"{tensor.name!r} is computed; constant weights and bias are expected"
    if len(set(use.quant(use.w).zero_point)) > 1:
        return f"{use.w.name!r} has a zero point for each channel"
    if any(scale.left > LEFT_LIMIT for scale in _scales(use)):
        return f"the output's scale is less than 2**-{LEFT_LIMIT} of that of the products"
    return None


def _scales(use: Use) -> list[Rescale]:
    x, weights, out = (use.quant(tensor) for tensor in (use.x, use.w, use.out))
    joint = isinstance(use.node.op, FullyConnected)
    factors = filter_factors(x, weights, out, use.out.shape[-1], joint)
    scales = [Rescale.of(factor) for factor in factors]
    guard: int = getattr(use.node.op, "guard", 0)
    return [scale.finer(guard) for scale in scales] if guard else scales


def _constants(use: Use) -> dict[str, np.ndarray]:
    """Bias with the input's zero point folded in, and the scales, one element a channel."""
    weights, bias = _centred(use), use.tensor(2)
    axis = 3 if isinstance(use.node.op, DepthwiseConv2D) else 0
    sums = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).sum(1, dtype=np.int64)
    folded = -use.zero_point(use.x) * sums
    if bias is not None:
        assert bias.data is not None
        folded += bias.data.reshape(-1)
    scales = _scales(use)
    columns = (
        folded.astype(np.int32),  # keeps the low bits, as the accumulator does
        np.array([s.multiplier for s in scales], np.int32),
        np.array([s.left for s in scales], np.int32),
        np.array([s.right for s in scales], np.int32),
    )
    return {f"{use.node.name}.{name}": c for name, c in zip(COLUMNS, columns, strict=True)}


def _centred(use: Use) -> np.ndarray:
    """The weights less their zero point: ``int8``, or ``int32`` where that does not hold them."""
    data, zero_point = use.w.data, use.zero_point(use.w)
    assert data is not None
    if not zero_point:
        return data
    centred = data.astype(np.int32) - zero_point
    if centred.min() >= I8.min and centred.max() <= I8.max:
        return centred.astype(np.int8)
    return centred


def _weights(use: Use) -> Buffer:
    """The buffer of the weights less their zero point."""
    if not use.zero_point(use.w):
        return buffer_of(use.w)
    dtype = I8 if _centred(use).dtype == np.int8 else I32
    return Buffer(f"{use.node.name}.{CENTRED}", dtype, use.w.shape)


def _filter(use: Use, loops: tuple[str, ...], x: Buffer, out: Buffer, total: Expr) -> Operator:
    """``total`` summed for each element of ``out``, whose last loop is the channel, requantized."""
    constants, weights = _constants(use), _weights(use)
    channel = Index(loops[-1])
    bias, multiplier, left, right = (Load(name, (channel,)) for name in constants)
    low, high = use.clamp()
    value = requantize(bias + total, multiplier, left, right, use.zero_point(use.out), low, high)
    buffers = (
        x,
        weights,
        *(Buffer(name, I32, (out.shape[-1],)) for name in constants),
        out,
    )
    store = Store(out.name, tuple(map(Index, loops)), value)
    body = parallel(zip(loops, out.shape, strict=True), store)
    if weights.name != use.w.name:
        constants[weights.name] = _centred(use)
    return Operator(Nest(use.node.name, (), buffers, body), constants)


LOWERINGS = lowerings(
    Numbers(
        outside=lambda use: Const(use.zero_point(use.x)),
        weight=lambda use, *indices: Load(_weights(use).name, indices),
        finished=_filter,
    )
)
"""From a node on integers to its loop nest."""
