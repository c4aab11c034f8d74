"""How far the values of a tensor in one form of a network are from those in another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..graph import Graph

TO_NCHW = (0, 3, 1, 2)


@dataclass
class Noise:
    """The sums over all values seen; see :attr:`decibels`."""

    signal: float = 0.0
    error: float = 0.0
    largest: float = 0.0
    count: int = 0
    unequal: int = 0

    def see(self, expected: np.ndarray, got: np.ndarray) -> None:
        """Count values, in one order."""
        a = expected.astype(np.float64, copy=False).reshape(-1)
        off = got.astype(np.float64, copy=False).reshape(-1) - a
        self.signal += float(np.square(a).sum())
        self.error += float(np.square(off).sum())
        self.largest = max(self.largest, float(np.abs(off).max(initial=0.0)))
        self.count += a.size
        self.unequal += int(np.count_nonzero(off))

    @property
    def decibels(self) -> float:
        """The signal-to-noise ratio: the sum of squares over that of the errors."""
        if not self.error:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal else -math.inf

    @property
    def exact(self) -> bool:
        """Whether no value differs."""
        return not self.unequal


def real_values(graph: Graph, values: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """The real values of what became of float tensor ``name``, in its layout; None if nothing did.

    Its bytes have the names that :mod:`.insert` and :mod:`weft.compiler.onnx.qdq` give; the last
    suffix is that of images with channels last.
    """
    for suffix in ("", "_quantized", "_quantized/nhwc"):
        found = name + suffix
        if found not in values:
            continue
        value, quant = values[found], graph.tensors[found].quant
        if quant is None and suffix:
            continue
        if quant is not None:
            value = (value.astype(np.int32) - quant.zero_point[0]) * np.float64(quant.scale[0])
        return value.transpose(TO_NCHW) if suffix.endswith("/nhwc") else value
    return None
