"""Integers of less than a byte: packed in files, a byte each in a graph."""

from __future__ import annotations

import numpy as np

from ...isa.nest import DType

NARROW = tuple(DType(kind, bits) for bits in (4, 2) for kind in ("i", "u"))
"""They are quantized, converted and moved; nothing computes with them."""


def unpacked(packed: np.ndarray, dtype: DType, count: int) -> np.ndarray:
    """``count`` elements, as bytes, of bytes that hold several, the first in the low bits."""
    shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
    parts = (packed.reshape(-1, 1) >> shifts).reshape(-1)[:count]
    if dtype.kind == "u":
        return parts & np.uint8(dtype.max)
    spare = np.uint8(8 - dtype.bits)
    return (parts << spare).view(np.int8) >> spare.view(np.int8)
