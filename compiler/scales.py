"""From real scales to the integers of requantization, as TensorFlow Lite derives them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..isa.nest import DType
from .graph import Activation, Quant, Rounding

LEFT_LIMIT = 30
"""The largest shift to the left that the reference kernels define."""
SHIFT_LIMIT = 31
"""The largest shift to the right of a requantization."""
EVEN_PLACES = 20
"""Binary places of the first rounding where ties of the second go to even: about as fine as single
precision is in the middle of a byte's range, and so coarse that what a shift to the left saturates
comes to 2**(29 - EVEN_PLACES) at least, beyond every byte."""


@dataclass(frozen=True)
class Rescale:
    """A positive real factor as ``multiplier * 2**(left - right - 31)``.

    ``multiplier`` is a Q31 fraction in [2**30, 2**31), or 0 for a factor too small to matter; one
    of the shifts is 0. See :mod:`weft.isa.requantize` for how it is applied.
    """

    multiplier: int
    left: int
    right: int

    @classmethod
    def of(cls, factor: float) -> Rescale:
        """The nearest to ``factor``; ``left`` may exceed :data:`LEFT_LIMIT` for a huge one."""
        if factor == 0:
            return cls(0, 0, 0)
        if math.isinf(factor):
            return cls(1 << 30, 1024, 0)
        fraction, exponent = math.frexp(factor)
        multiplier = math.floor(fraction * (1 << 31) + 0.5)
        if multiplier == 1 << 31:
            multiplier, exponent = 1 << 30, exponent + 1
        if exponent < -31:
            return cls(0, 0, 0)
        return cls(multiplier, max(exponent, 0), max(-exponent, 0))

    def finer(self, spare: int) -> Rescale:
        """The same factor with up to ``spare`` bits more before the first rounding."""
        more = min(spare, SHIFT_LIMIT - self.right, LEFT_LIMIT) if not self.left else 0
        return replace(self, left=self.left + more, right=self.right + more)

    def rounded(self, rounding: Rounding, spare: int = 0) -> Rescale:
        """The same factor, with shifts as a way of rounding has them; see :meth:`finer`."""
        if rounding == "even":
            more = min(max(0, EVEN_PLACES - self.right), LEFT_LIMIT - self.left)
            return replace(self, left=self.left + more, right=self.right + more)
        return self.finer(spare) if rounding == "fine" else self


def filter_factors(x: Quant, weights: Quant, out: Quant, channels: int, joint: bool) -> list[float]:
    """The real factor from a channel's accumulator to the output, for each channel.

    Parameters
    ----------
    x, weights, out : Quant
        Of the tensors. ``weights`` has one scale or one a channel.
    channels : int
        How many factors are wanted.
    joint : bool
        Whether a single scale of the weights is multiplied with ``x``'s in single precision, as
        the reference's fully connected kernel does and its convolutions do not.
    """
    if joint and len(weights.scale) == 1:
        with np.errstate(over="ignore", under="ignore"):
            product = float(np.float32(x.scale[0]) * np.float32(weights.scale[0]))
        return [product / out.scale[0]] * channels
    scales = weights.scale if len(weights.scale) > 1 else weights.scale * channels
    return [x.scale[0] * scale / out.scale[0] for scale in scales]


REAL_RANGE: dict[Activation, tuple[float | None, float | None]] = {
    "none": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}
"""Where each activation clamps the real value."""


def clamp_range(activation: Activation, quant: Quant, dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer that a fused activation lets through."""
    low, high = REAL_RANGE[activation]
    return (
        dtype.min if low is None else max(dtype.min, _quantized(low, quant)),
        dtype.max if high is None else min(dtype.max, _quantized(high, quant)),
    )


def _quantized(value: float, quant: Quant) -> int:
    """``value`` in single precision, rounded half away from zero; any huge integer for infinity."""
    with np.errstate(over="ignore"):
        ratio = float(np.float32(value) / np.float32(quant.scale[0]))
    magnitude = math.floor(min(abs(ratio), 2.0**40) + 0.5)
    return quant.zero_point[0] + (magnitude if ratio >= 0 else -magnitude)
