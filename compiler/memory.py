"""Memory of the host's: where it begins, and how much of it things take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..isa.nest import Buffer
from ..isa.storage import LINE, numpy_dtype


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros that begin where a line of the cache does."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def bytes_of(buffer: Buffer) -> int:
    """Of all elements of a buffer, one after another."""
    return math.prod(buffer.shape) * numpy_dtype(buffer.dtype).itemsize


def whole_lines(size: int) -> int:
    """The least number of bytes that is no less and a number of lines."""
    return -(-size // LINE) * LINE
