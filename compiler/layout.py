"""How activations lie in DRAM: channel-blocked; see :class:`weft.compiler.artifact.DramTensor`.

Constants have their own module, :mod:`.constants`.
"""

from __future__ import annotations

import math

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import DataError
from .artifact import DramTensor, Unfold


def blocks(extent: int, block: int) -> int:
    """Blocks of that size that hold ``extent`` things."""
    return -(-extent // block)


def packed_shape(tensor: DramTensor, config: AcceleratorConfig) -> tuple[int, ...]:
    """[N / batch, C / block, H, W, batch, block], rounded up."""
    n, h, w, c = tensor.shape
    if tensor.unfold is not None:
        (h, w), c = tensor.unfold.extents, math.prod(tensor.unfold.patch) * c
        if tensor.unfold.flat:
            w, c = run_length(w * c, config.block), config.block
    return blocks(n, config.batch), blocks(c, config.block), h, w, config.batch, config.block


def run_length(lanes: int, block: int) -> int:
    """Elements of a flat row of so many lanes; see :class:`.artifact.Unfold`."""
    return blocks(lanes + block - 1, block)


def packed_bytes(tensor: DramTensor, config: AcceleratorConfig) -> int:
    """Bytes that an activation takes in DRAM, one a lane."""
    return math.prod(packed_shape(tensor, config))


def pack(tensor: DramTensor, config: AcceleratorConfig, array: np.ndarray) -> np.ndarray:
    """The bytes of an activation as DRAM holds it.

    Parameters
    ----------
    tensor : DramTensor
        Its layout.
    config : AcceleratorConfig
        Decides block and batch.
    array : ndarray
        One byte an element, of the graph's shape (any rank from 1 to 4 that is ``tensor.shape``
        with axes of extent 1 left out).

    Returns
    -------
    ndarray
        ``uint8``, flat, of :func:`packed_bytes` elements.

    Raises
    ------
    DataError
        If the array is of another size or type.
    """
    if array.dtype.itemsize != 1 or array.size != math.prod(tensor.shape):
        raise DataError(
            f"{tensor.name!r} holds {tensor.shape} bytes, not {array.dtype} {array.shape}"
        )
    elements = array.reshape(tensor.shape).view(np.uint8)
    if tensor.unfold is not None:
        elements = _patches(elements, tensor.unfold, tensor.fill & 0xFF)
    n, h, w, c = elements.shape
    if tensor.unfold is not None and tensor.unfold.flat:
        length, missing = run_length(w * c, config.block), -w * c % config.block
        after = (length - blocks(w * c, config.block)) * config.block + missing
        rows = np.pad(elements.reshape(n, h, w * c), ((0, 0), (0, 0), (0, after)))
        w, c = length, config.block
        elements = rows.reshape(n, h, w, c)
    outer_n, outer_c, *_, batch, block = packed_shape(tensor, config)
    full = np.full((outer_n * batch, h, w, outer_c * block), tensor.fill & 0xFF, np.uint8)
    full[:n, :, :, :c] = elements
    lanes = full.reshape(outer_n, batch, h, w, outer_c, block)
    return np.ascontiguousarray(lanes.transpose(0, 4, 2, 3, 1, 5)).reshape(-1)


def _patches(x: np.ndarray, unfold: Unfold, fill: int) -> np.ndarray:
    """[N, H, W, C] as [N, patch rows, patch columns, lanes]."""
    n, height, width, c = x.shape
    taps = np.full((n, *unfold.extents, *unfold.patch, c), fill, np.uint8)
    for j, i in np.ndindex(unfold.patch):
        rows, columns = (
            np.arange(extent) * step + tap * dilation + origin
            for extent, step, tap, dilation, origin in zip(
                unfold.extents, unfold.steps, (j, i), unfold.dilations, unfold.origin, strict=True
            )
        )
        y, x_ = (
            np.flatnonzero((at >= 0) & (at < extent))
            for at, extent in ((rows, height), (columns, width))
        )
        taps[:, y[:, None], x_, j, i] = x[:, rows[y][:, None], columns[x_]]
    return taps.reshape(n, *unfold.extents, -1)


def unpack(tensor: DramTensor, config: AcceleratorConfig, data: np.ndarray) -> np.ndarray:
    """What :func:`pack` packed, ``int8`` of shape ``tensor.shape``; ragged lanes are dropped."""
    if tensor.unfold is not None:
        raise DataError(f"{tensor.name!r} is unfolded; only the host writes it")
    n, h, w, c = tensor.shape
    if data.size != packed_bytes(tensor, config):
        raise DataError(
            f"{tensor.name!r} takes {packed_bytes(tensor, config)} bytes, not {data.size}"
        )
    elements = data.view(np.int8).reshape(packed_shape(tensor, config))
    lanes = elements.transpose(0, 4, 2, 3, 1, 5)
    outer_n, batch, _, _, outer_c, block = lanes.shape
    full = lanes.reshape(outer_n * batch, h, w, outer_c * block)
    return np.ascontiguousarray(full[:n, :, :, :c])
