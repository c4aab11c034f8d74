"""Two traces of one network compared, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..compiler.graph import Tensor, element_dtype
from ..compiler.quantize import Noise
from ..compiler.quantize.match import pairs
from ..compiler.quantize.observers import rounded
from ..compiler.quantize.samples import Samples
from ..isa.errors import DataError
from .trace import Trace


@dataclass(frozen=True)
class Row:
    """One tensor in both."""

    layer: str
    op: str
    tensor: str
    noise: Noise


@dataclass(frozen=True)
class Difference:
    """What differs, in the order of computation."""

    rows: tuple[Row, ...]
    unmatched: tuple[str, ...]
    """Tensors that only the first one has."""
    samples: int

    def parting(self, threshold: float) -> Row | None:
        """The first tensor with less than ``threshold`` dB; infinity asks for equal bits."""
        for row in self.rows:
            if not row.noise.exact and (
                math.isinf(threshold) or not row.noise.decibels >= threshold
            ):
                return row
        return None


def differences(
    first: Trace,
    second: Trace,
    arrays: Mapping[str, np.ndarray],
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Run both on the same samples and compare every tensor that both have.

    Parameters
    ----------
    first, second : Trace
        Two forms of one network; their inputs correspond by position.
    arrays : mapping
        Samples for the inputs of ``first``. They are rounded for an input of ``second`` that is
        quantized, and made real for one that is not.
    limit : int or None
        At most so many samples.
    progress : callable or None
        Called with (samples done, samples in all).

    Raises
    ------
    DataError
        If the arrays do not fit, or the two have nothing in common.
    """
    data = Samples.of(first.graph, arrays, limit)
    matched = pairs(first.graph, second.graph)
    if not matched:
        raise DataError(
            f"{first.graph.name} and {second.graph.name} have no tensor of the same name"
        )
    ends = list(zip(first.graph.inputs, second.graph.inputs, strict=False))
    if len(first.graph.inputs) != len(second.graph.inputs):
        raise DataError(f"{first.graph.name} and {second.graph.name} have different inputs")
    noise = [Noise() for _ in matched]
    for k, values in enumerate(data):
        other = {
            b: _as(first.graph.tensors[a], second.graph.tensors[b], values[a]) for a, b in ends
        }
        one, two = first(values), second(other)
        for pair, sums in zip(matched, noise, strict=True):
            sums.see(*pair.reals(one[pair.first.name], two[pair.second.name]))
        if progress is not None:
            progress(k + 1, len(data))
    rows = tuple(
        Row(pair.node.name, pair.op, pair.name, sums)
        for pair, sums in zip(matched, noise, strict=True)
    )
    names = {pair.name for pair in matched}
    return Difference(rows, tuple(n for n in first.names if n not in names), len(data))


def _as(source: Tensor, target: Tensor, value: np.ndarray) -> np.ndarray:
    """An input of one network as the other takes it."""
    if source.shape != target.shape:
        raise DataError(
            f"input {source.name!r} has shape {source.shape}, {target.name!r} has {target.shape}"
        )
    dtype = element_dtype(target.dtype)
    if source.dtype == target.dtype and source.quant == target.quant:
        return value
    real = value.astype(np.float64)
    if source.quant is not None:
        real = (real - source.quant.zero_point[0]) * source.quant.scale[0]
    if target.quant is None:
        return real.astype(dtype)
    return np.rint(
        rounded(real, target.quant) / target.quant.scale[0] + target.quant.zero_point[0]
    ).astype(dtype)
