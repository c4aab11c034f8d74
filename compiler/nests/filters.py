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
    return [Rescale.of(factor) for factor in factors]


def _spare_bits(use: Use) -> list[int]:
    """How many bits no sum of a channel needs, given its weights and bias, whatever the input."""
    rows, zero, bias = _rows(use), use.zero_point(use.x), _bias(use)
    positive, negative = (part(rows, 0).sum(1, dtype=np.int64) for part in (np.maximum, np.minimum))
    below, above = use.x.dtype.min - zero, use.x.dtype.max - zero
    most = above * positive + below * negative + bias
    least = below * positive + above * negative + bias
    furthest = np.maximum(np.abs(most), np.abs(least))
    return [max(0, I32.bits - 1 - int(sum_).bit_length()) for sum_ in furthest]


def _rows(use: Use) -> np.ndarray:
    """The weights less their zero point, a row for each channel."""
    axis = 3 if isinstance(use.node.op, DepthwiseConv2D) else 0
    rows = np.moveaxis(_centred(use), axis, 0)
    return rows.reshape(len(rows), -1)


def _bias(use: Use) -> np.ndarray:
    """The bias of each channel as ``int64``."""
    bias = use.tensor(2)
    if bias is None:
        return np.zeros(use.out.shape[-1], np.int64)
    assert bias.data is not None
    return bias.data.reshape(-1).astype(np.int64)


def _constants(use: Use) -> dict[str, np.ndarray]:
    """Bias with the input's zero point folded in, and the scales, one element a channel."""
    folded = _bias(use) - use.zero_point(use.x) * _rows(use).sum(1, dtype=np.int64)
    scales = _scales(use)
    spare = _spare_bits(use) if use.rounding == "fine" else [0] * len(scales)
    scales = [s.rounded(use.rounding, bits) for s, bits in zip(scales, spare, strict=True)]
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
    zero_point, even = use.zero_point(use.out), use.rounding == "even"
    value = requantize(bias + total, multiplier, left, right, zero_point, low, high, even)
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
