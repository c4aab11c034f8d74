"""From the values of a tensor to the range that eight bits shall cover.

Two passes over the samples, in memory that does not grow with them: the first finds every tensor's
least and greatest value, the second counts its values in :data:`BINS` bins between those. What a
method chooses from them:

``minmax``
    All values.
``percentile``
    All but a fraction at either end; within a bin, values count as spread evenly.
``mse``
    Of the ranges that are the whole one shrunk towards 0, the one whose integers are nearest to the
    values, in the mean of squares.
``entropy``
    Of the same ranges, the one whose integers keep most of the distribution: the least
    Kullback-Leibler divergence from the values clipped to it to those rounded to its levels.

A range always holds 0, which padding and clamping need as an integer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...isa.errors import DataError
from ..graph import Quant

BINS = 4096
LEVELS = 256
CANDIDATES = 100
"""Ranges that ``mse`` and ``entropy`` try, in equal steps."""
LEAST = 10
"""The first of them: a tenth of the whole."""
MASS = 1e-9
"""What stands for a probability of nothing, so that a divergence is a number."""

Method = Literal["minmax", "percentile", "mse", "entropy"]
Range = tuple[float, float]


@dataclass
class Span:
    """The least and greatest value so far; 0 is among them."""

    low: float = 0.0
    high: float = 0.0

    def see(self, name: str, values: np.ndarray) -> None:
        """Count these values of tensor ``name``.

        Raises
        ------
        DataError
            If one is no number.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"tensor {name!r} is not finite on the calibration data")
        self.low, self.high = min(self.low, low), max(self.high, high)


class Histogram:
    """How many values lie in each of equal bins of a span.

    Zeros, of which a Relu makes many, are counted apart: they are integers in every range, while in
    a bin they would look like values near to 0.
    """

    def __init__(self, span: Span):
        self.low, self.high = span.low, span.high
        self.counts = np.zeros(BINS, np.int64)
        self.zeros = 0

    @property
    def width(self) -> float:
        """Of a bin."""
        return (self.high - self.low) / BINS

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin."""
        return self.low + (np.arange(BINS) + 0.5) * self.width

    def see(self, values: np.ndarray) -> None:
        """Count these values, all of which lie in the span."""
        used = values[values != 0]
        self.zeros += values.size - used.size
        if used.size:
            self.counts += np.bincount(self.places(used), minlength=BINS)

    def places(self, values: np.ndarray) -> np.ndarray:
        """The bins of values."""
        bins = ((values.astype(np.float64) - self.low) / self.width).astype(np.int64)
        return np.clip(bins, 0, BINS - 1)


def quant_of(chosen: Range) -> Quant:
    """The quantization to signed bytes whose integers cover a range with 0 in it."""
    low, high = chosen
    scale = np.float32((high - low) / (LEVELS - 1))
    if not scale >= np.finfo(np.float32).tiny:
        scale = np.float32(1.0)
    zero = int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))
    return Quant((float(scale),), (zero,))


def rounded(values: np.ndarray, quant: Quant) -> np.ndarray:
    """The real values of the integers that ``values`` become."""
    scale, zero = quant.scale[0], quant.zero_point[0]
    return (np.clip(np.rint(values / scale) + zero, -128, 127) - zero) * scale


# --- the methods


def percentile(histogram: Histogram, percent: float) -> Range:
    """All values but ``100 - percent`` of a hundred at either end."""
    if not histogram.high > histogram.low:
        return 0.0, 0.0
    edges = histogram.low + np.arange(BINS + 1) * histogram.width
    counts = histogram.counts.copy()
    counts[histogram.places(np.zeros(1))] += histogram.zeros
    sums = np.concatenate([[0], np.cumsum(counts)])
    spent = np.array([1 - percent / 100, percent / 100]) * sums[-1]
    low, high = np.interp(spent, sums, edges)
    return min(float(low), 0.0), max(float(high), 0.0)


def candidates(histogram: Histogram) -> list[Range]:
    """The whole range shrunk towards 0, the smallest first."""
    steps = np.linspace(LEAST / 100, 1.0, CANDIDATES)
    return [(histogram.low * f, histogram.high * f) for f in map(float, steps)]


def mse(histogram: Histogram) -> Range:
    """The candidate with the least mean of squared errors."""
    used = histogram.counts > 0
    values, counts = histogram.centers[used], histogram.counts[used]

    def error(chosen: Range) -> float:
        return float(((rounded(values, quant_of(chosen)) - values) ** 2 * counts).sum())

    return _least(histogram, error)


def entropy(histogram: Histogram) -> Range:
    """The candidate with the least divergence from the values to their integers."""
    centers, counts = histogram.centers, histogram.counts

    def divergence(chosen: Range) -> float:
        quant = quant_of(chosen)
        steps = np.rint(centers / quant.scale[0]) + quant.zero_point[0]
        inside = (steps >= -128) & (steps <= 127)
        levels = (steps[inside] + 128).astype(int)
        plain = counts[inside].astype(np.float64)
        clipped = plain.copy()
        outside = np.flatnonzero(inside)
        clipped[0] += counts[: outside[0]].sum()
        clipped[-1] += counts[outside[-1] + 1 :].sum()
        used = clipped > 0
        held = np.bincount(levels, plain, LEVELS)
        sharing = np.bincount(levels[used], minlength=LEVELS)
        spread = np.where(used, held[levels] / np.maximum(sharing[levels], 1), 0.0)
        return _divergence(clipped, spread)

    return _least(histogram, divergence)


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """The Kullback-Leibler divergence of two distributions, given by their counts."""
    if not p.sum() or not q.sum():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], MASS))).sum())


def _least(histogram: Histogram, cost: Callable[[Range], float]) -> Range:
    if not histogram.counts.any():
        return histogram.low, histogram.high
    return min(reversed(candidates(histogram)), key=cost)


METHODS: Mapping[Method, Callable[[Histogram, float], Range]] = {
    "percentile": percentile,
    "mse": lambda histogram, _: mse(histogram),
    "entropy": lambda histogram, _: entropy(histogram),
}
"""Those that look at a histogram; ``minmax`` needs none."""
