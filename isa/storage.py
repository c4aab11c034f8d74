"""How the nest language's types and buffers lie in numpy arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .nest import Buffer, DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINE = 64
"""Bytes of a line of a cache."""


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The numpy type that holds a value of ``dtype``; widths below 8 take a byte."""
    if dtype.kind == "f" and dtype.bits not in (16, 32, 64):
        raise TypeError(f"floating point has 16, 32 or 64 bits, not {dtype.bits}")
    return _NUMPY[dtype.kind, max(8, dtype.bits)]


_NUMPY = {
    (kind, bits): np.dtype(f"{'u' if kind == 'u' else ''}int{bits}")
    for kind in "iu"
    for bits in (8, 16, 32, 64)
} | {("f", bits): np.dtype(f"float{bits}") for bits in (16, 32, 64)}


def unit_strides(buffer: Buffer) -> tuple[int, ...]:
    """How far elements lie apart on each axis: in bytes, below 8 bits in bits."""
    if buffer.strides is not None:
        return buffer.strides
    strides: list[int] = []
    step = buffer.dtype.bits // 8 if buffer.dtype.bits >= 8 else buffer.dtype.bits
    for extent in reversed(buffer.shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def bound_array(buffer: Buffer, array: NDArray[Any]) -> NDArray[Any]:
    """``array`` as ``buffer`` sees it: of its type and shape, sharing memory.

    Parameters
    ----------
    buffer : Buffer
        What is wanted.
    array : numpy array
        One of: an array of the buffer's type and shape (with any strides); a C-contiguous array
        of its type and as many elements; a flat ``uint8`` array, memory from address 0, in which
        the elements lie by the buffer's strides. Elements below 8 bits are always packed in
        ``uint8`` memory, and the result is that memory, flat.

    Raises
    ------
    ValueError
        If the array is none of these.
    """
    dtype = numpy_dtype(buffer.dtype)
    if buffer.dtype.bits < 8:
        if array.dtype != np.uint8 or not array.flags.c_contiguous or buffer.strides is not None:
            raise ValueError(f"{buffer.name} ({buffer.dtype}) takes packed uint8 memory")
        if array.size * 8 < math.prod(buffer.shape) * buffer.dtype.bits:
            raise ValueError(f"{buffer.name} needs {buffer.shape} of {buffer.dtype}")
        return array.reshape(-1)
    fits = array.ndim == len(buffer.shape) and all(
        wanted in (0, there) if axis == 0 else wanted == there
        for axis, (wanted, there) in enumerate(zip(buffer.shape, array.shape, strict=True))
    )
    if array.dtype == dtype and fits:
        return array
    if array.dtype == np.uint8 and array.ndim == 1 and array.flags.c_contiguous:
        return _view(buffer, dtype, array)
    if array.dtype == dtype and array.flags.c_contiguous:
        inner = math.prod(buffer.shape[1:])
        if array.size == math.prod(buffer.shape) or (
            buffer.shape[0] == 0 and array.size % inner == 0
        ):
            return array.reshape((-1, *buffer.shape[1:]) if buffer.shape else ())
    raise ValueError(
        f"{buffer.name} is {buffer.dtype} of shape {buffer.shape}; "
        f"an array of {array.dtype} {array.shape} does not fit"
    )


def _view(buffer: Buffer, dtype: np.dtype[Any], memory: NDArray[Any]) -> NDArray[Any]:
    shape, strides = buffer.shape, unit_strides(buffer)
    if shape and shape[0] == 0:
        rest = dtype.itemsize + sum(
            (n - 1) * s for n, s in zip(shape[1:], strides[1:], strict=True)
        )
        shape = (max(0, (memory.size - rest) // strides[0] + 1), *shape[1:])
    return np.ndarray(shape, dtype, memory.data, 0, strides)
