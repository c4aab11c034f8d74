"""Constants as DRAM holds them: weights in blocks, requantization parameters in records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..isa.config import QNT_LANE_BYTES, AcceleratorConfig
from ..isa.interpret import interpret
from ..isa.memories import QNT_LANE
from ..isa.nest import (
    I8,
    I32,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    Index,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    expr,
)
from ..isa.storage import numpy_dtype
from ..isa.traverse import distinct, substitute, walk
from .kernel import Kernel
from .layout import blocks
from .work import Contraction

Loops = tuple[tuple[str, int], ...]


def evaluate(
    kernel: Kernel,
    e: Expr,
    loops: Loops,
    limits: Mapping[str, int],
    places: Mapping[str, Expr] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """A constant expression at every point of ``loops``, ``i32``, axes in their order.

    Parameters
    ----------
    kernel : Kernel
        Whose constants ``e`` refers to.
    e : Expr
        What to evaluate.
    loops : tuple of (str, int)
        The axes of the result.
    limits : mapping
        Where an index reaches its limit, an expression that loads from arrays is 0: these are
        the ragged lanes.
    places : mapping
        Indices of ``e`` in terms of the loops; those left out are loops themselves.
    arrays : mapping
        More ``i32`` arrays, for ``places``.
    """
    value = e
    if any(isinstance(node, Load) for node in distinct(e)):
        for name, limit in limits.items():
            value = Select(Index(name) < limit, value, Const(0))
    out = np.zeros(tuple(extent for _, extent in loops), np.int32)
    everything = {"out": out, **kernel.constants, **(arrays or {})}
    body: Stmt = Store("out", tuple(Index(name) for name, _ in loops), value)
    body = substitute(body, places or {})  # type: ignore[assignment]  # a Stmt stays one
    for name, extent in reversed(loops):
        body = For(name, expr(0), expr(extent), body, parallel=True)
    buffers = tuple(
        Buffer(name, I8 if array.itemsize == 1 else I32, array.shape)
        for name, array in everything.items()
    )
    interpret(Nest("constants", (), buffers, body), {}, everything)
    return out


# --- weights -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weights:
    """Packed weights.

    Attributes
    ----------
    data : ndarray
        ``int8`` [output block, block of its inputs, ky, kx, lanes...]: what a step takes. An axis
        along which all of these are equal has extent 1.
    inputs : tuple of tuple of int
        For each output block the input blocks that it reads, in the order of ``data``'s axis.
    dtype : DType
        Of a lane in DRAM.
    """

    data: np.ndarray
    inputs: tuple[tuple[int, ...], ...]
    dtype: DType = I8

    @property
    def run(self) -> int:
        """Elements that a step takes, one behind the other."""
        return math.prod(self.data.shape[4:-2])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Extents in elements, along the first four axes."""
        o, d, ky, kx = self.data.shape[:4]
        return o, d, ky, kx * self.run

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """In elements, along the first four axes; 0 along an axis that was collapsed."""
        strides: list[int] = []
        step = self.run
        for extent in reversed(self.data.shape[:4]):
            strides.insert(0, step if extent > 1 else 0)
            step *= extent
        return strides[0], strides[1], strides[2], strides[3]

    @property
    def element_bytes(self) -> int:
        """Bytes of an element in DRAM."""
        return math.prod(self.data.shape[-2:]) * self.dtype.bits // 8

    def in_dram(self) -> np.ndarray:
        """The bytes of all elements, ``uint8``, flat; lanes below a byte from the low bits up."""
        lanes = self.data.reshape(-1).view(np.uint8)
        each = 8 // self.dtype.bits
        if each == 1:
            return lanes
        parts = lanes.reshape(-1, each) & ((1 << self.dtype.bits) - 1)
        shifted = parts << (np.arange(each) * self.dtype.bits).astype(np.uint8)
        return np.bitwise_or.reduce(shifted, axis=1)


def pack_weights(work: Contraction, config: AcceleratorConfig) -> Weights:
    """The weights of a contraction, ragged lanes 0, blocks that hold only zeros left out.

    Weights beyond a byte, where lanes are bytes, are sums of bytes: an input block that has any is
    read twice, or more often, with other weights each time.
    """
    inputs = input_blocks(work, config)
    values = _values(work, inputs, config)
    parts = _bytes_of(values)
    if len(parts) > 1:
        wide = [
            [part[:, d] for part in parts if d_is_wide or part is parts[0]]
            for d, d_is_wide in enumerate(_wide(parts))
        ]
        counts = [len(blocks_) for blocks_ in wide]
        inputs = tuple(
            tuple(b for b, count in zip(row, counts, strict=True) for _ in range(count))
            for row in inputs
        )
        parts = [np.stack([part for blocks_ in wide for part in blocks_], 1)]
    (values,) = parts
    data = np.zeros((*values.shape[:4], *work.weight_element), np.int8)
    data[(..., *(slice(extent) for _, extent in work.weight_lanes))] = values
    for axis in range(4):
        first_only = data[(slice(None),) * axis + (slice(0, 1),)]
        if np.array_equal(np.broadcast_to(first_only, data.shape), data):
            data = first_only
    return Weights(np.ascontiguousarray(data), inputs, work.weight_dtype)


def _bytes_of(values: np.ndarray) -> list[np.ndarray]:
    """Arrays of what a byte holds whose sum is ``values``."""
    parts: list[np.ndarray] = []
    while not parts or values.any():
        parts.append(np.clip(values, I8.min, I8.max))
        values = values - parts[-1]
    return parts


def _wide(parts: Sequence[np.ndarray]) -> list[bool]:
    """For each input block whether it has weights beyond a byte."""
    return [any(part[:, d].any() for part in parts[1:]) for d in range(parts[0].shape[1])]


def _values(
    work: Contraction, inputs: tuple[tuple[int, ...], ...], config: AcceleratorConfig
) -> np.ndarray:
    """The weights as integers: [output block, input block, ky, kx, lanes...]."""
    kernel, image, block = work.kernel, work.image, config.block
    extents = kernel.extents()
    out_blocks = blocks(extents[work.channel], block)
    table = np.zeros((out_blocks, len(inputs[0])), np.int32)
    table[:] = inputs
    sums = {"o_block": out_blocks, "block": table.shape[1]}
    places: dict[str, Expr] = {}
    lanes: list[tuple[str, int]] = []
    for axis, (loop, extent) in enumerate(work.weight_lanes):
        lanes.append((f"lane_{axis}", extent))
        first: Expr = Load("blocks", (Index("o_block"), Index("block")))
        if loop == work.channel:
            first = Index("o_block")
        elif loop == image.columns.loop:
            first = Index("column_tap")
        if loop is not None:
            places[loop] = first * extent + Index(f"lane_{axis}")
    for walk_, name in ((image.rows, "row_tap"), (image.columns, "column_tap")):
        if walk_.loop is not None:
            places.setdefault(walk_.loop, Index(name))
    places.setdefault(work.depth, Index("block"))  # of one channel, and no lane axis
    taps = (("row_tap", image.rows.taps), ("column_tap", work.column_steps))
    limits = {name: extents[name] for name in (*image.tap_loops, work.channel, work.depth)}
    loops = (*sums.items(), *taps, *lanes)
    weights, columns = work.weights, image.columns
    if columns.loop is not None and work.column_steps * work.tap_lanes > columns.taps:
        weights = Select(Index(columns.loop) < columns.taps, weights, Const(0))
    return evaluate(kernel, weights, loops, limits, places, {"blocks": table})


def input_blocks(work: Contraction, config: AcceleratorConfig) -> tuple[tuple[int, ...], ...]:
    """For each output block, the blocks of input channels that it has weights for."""
    block, extents = config.block, work.kernel.extents()
    channels = extents[work.channel]
    out_blocks = blocks(channels, block)
    if work.depth == work.channel:
        return tuple((o,) for o in range(out_blocks))
    if work.picked is None:
        everything = tuple(range(blocks(extents[work.depth], block)))
        return (everything,) * out_blocks
    picked = evaluate(work.kernel, work.picked, ((work.channel, channels),), {})
    rows = [
        sorted({int(c) // block for c in picked[o * block : (o + 1) * block]})
        for o in range(out_blocks)
    ]
    longest = max(map(len, rows))
    return tuple((*row, *[row[-1]] * (longest - len(row))) for row in rows)


# --- parameters ----------------------------------------------------------------------------------


def pack_records(
    kernel: Kernel,
    record: Mapping[str, Expr],
    channel: str | None,
    config: AcceleratorConfig,
) -> np.ndarray:
    """Requantization parameters: ``uint8`` [elements, bytes of an element].

    Parameters
    ----------
    kernel : Kernel
        Whose constants the parameters may refer to.
    record : mapping
        A constant expression for each field; those left out are 0.
    channel : str or None
        The loop along which the parameters vary; None if they do not, which makes one element.
    config : AcceleratorConfig
        Decides the block.
    """
    extent = kernel.axes[channel] if channel is not None else config.block
    count = blocks(extent, config.block)
    lanes = np.zeros((count * config.block, QNT_LANE_BYTES), np.uint8)
    loop = channel or "lane"
    for field in QNT_LANE:
        if field.name not in record:
            continue
        values = evaluate(kernel, record[field.name], ((loop, len(lanes)),), {loop: extent})
        column = values.astype(numpy_dtype(field.dtype)).view(np.uint8)
        width = field.dtype.bits // 8
        lanes[:, field.offset : field.offset + width] = column.reshape(-1, width)
    return lanes.reshape(count, -1)


def with_starts(
    records: np.ndarray, channels: int, config: AcceleratorConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """``records`` as one element without biases, and accumulators that hold these.

    An accumulator is a quarter of an element of parameters. None if anything but the biases
    varies with the channel, or if nothing is gained.

    Returns
    -------
    (ndarray, ndarray)
        ``uint8`` [1, bytes of an element], and ``int32`` [elements, batch, block].
    """
    if len(records) * config.acc_element_bytes >= (len(records) - 1) * config.qnt_element_bytes:
        return None
    lanes = records.reshape(-1, QNT_LANE_BYTES)
    bias = next(field for field in QNT_LANE if field.name == "bias")
    of_bias = slice(bias.offset, bias.offset + bias.dtype.bits // 8)
    starts = np.ascontiguousarray(lanes[:, of_bias]).view(numpy_dtype(bias.dtype))
    one = lanes[:1].copy()
    one[:, of_bias] = 0
    others = np.delete(lanes[:channels], np.r_[of_bias], axis=1)
    if (others != others[0]).any():
        return None
    each = starts.reshape(-1, 1, config.block)
    repeated = np.repeat(each, config.batch, axis=1)
    return np.repeat(one, config.block, axis=0).reshape(1, -1), repeated


def varies(record: Mapping[str, Expr], loop: str) -> bool:
    """Whether any parameter depends on ``loop``."""
    return any(node == Index(loop) for e in record.values() for node in walk(e))
