"""Ranges from values, against definitions that look at every value."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.compiler.quantize.observers import (
    BINS,
    Histogram,
    Span,
    candidates,
    entropy,
    mse,
    percentile,
    quant_of,
    rounded,
)
from weft.isa.errors import DataError

SHAPES = {
    "normal": lambda r: r.normal(0.3, 2.0, 20_000),
    "one side": lambda r: np.maximum(r.normal(0, 1, 20_000), 0),
    "long tail": lambda r: r.standard_t(3, 20_000),
    "negative": lambda r: -r.exponential(1.0, 20_000),
    "two humps": lambda r: np.concatenate([r.normal(-4, 0.2, 9_000), r.normal(3, 1, 11_000)]),
}


def values_of(shape: str) -> np.ndarray:
    return SHAPES[shape](np.random.default_rng(7)).astype(np.float32)


def seen(values: np.ndarray, parts: int = 3) -> Histogram:
    """A histogram that saw the values in parts."""
    pieces = np.array_split(values, parts)
    span = Span()
    for piece in pieces:
        span.see("t", piece)
    histogram = Histogram(span)
    for piece in pieces:
        histogram.see(piece)
    return histogram


@pytest.mark.parametrize("shape", SHAPES)
def test_a_histogram_counts_as_numpys(shape: str):
    values = values_of(shape).astype(np.float64)
    histogram = seen(values)
    nonzero = values[values != 0]
    expected, _ = np.histogram(nonzero, BINS, (histogram.low, histogram.high))
    # Values next to an edge may be counted on either side of it.
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 2
    assert histogram.counts.sum() == nonzero.size
    assert histogram.zeros == values.size - nonzero.size


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percent", [90.0, 99.0, 99.99, 100.0])
def test_a_percentile_is_numpys_to_within_bins(shape: str, percent: float):
    values = values_of(shape)
    histogram = seen(values)
    low, high = percentile(histogram, percent)
    # Between two values, which may lie far apart in a tail, any number is a percentile.
    ends = [
        np.percentile(values, [100 - percent, percent], method=way) for way in ("lower", "higher")
    ]
    slack = 2 * histogram.width
    assert min(ends[0][0], 0) - slack <= low <= min(ends[1][0], 0) + slack
    assert max(ends[0][1], 0) - slack <= high <= max(ends[1][1], 0) + slack


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_as_near_to_the_values_as_the_best_candidate(shape: str):
    values = values_of(shape).astype(np.float64)
    histogram = seen(values)
    errors = {
        chosen: ((rounded(values, quant_of(chosen)) - values) ** 2).mean()
        for chosen in candidates(histogram)
    }
    assert errors[mse(histogram)] <= 1.02 * min(errors.values())


@pytest.mark.parametrize("shape", ["one side", "long tail", "two humps"])
def test_entropy_diverges_as_little_as_the_best_candidate(shape: str):
    """The divergence by its definition, bin by bin, in plain loops."""
    histogram = seen(values_of(shape))

    def divergence(chosen) -> float:
        quant = quant_of(chosen)
        levels: dict[int, list[int]] = {}
        inside: list[int] = []
        for k, center in enumerate(histogram.centers):
            level = round(center / quant.scale[0]) + quant.zero_point[0]
            if -128 <= level <= 127:
                levels.setdefault(level, []).append(k)
                inside.append(k)
        p = {k: float(histogram.counts[k]) for k in inside}
        p[inside[0]] += float(histogram.counts[: inside[0]].sum())
        p[inside[-1]] += float(histogram.counts[inside[-1] + 1 :].sum())
        q = dict.fromkeys(inside, 0.0)
        for bins in levels.values():
            used = [k for k in bins if p[k]]
            for k in used:
                q[k] = sum(float(histogram.counts[j]) for j in bins) / len(used)
        total_p, total_q = sum(p.values()), sum(q.values())
        return sum(
            p[k] / total_p * np.log(p[k] / total_p / max(q[k] / total_q, 1e-9))
            for k in inside
            if p[k]
        )

    tried = [divergence(chosen) for chosen in candidates(histogram)[::19]]
    assert divergence(entropy(histogram)) <= min(tried) + 1e-9


def test_zeros_do_not_draw_the_range_of_entropy_to_them():
    values = values_of("one side")
    many = np.concatenate([values, np.zeros(200_000, np.float32)])
    assert entropy(seen(many)) == entropy(seen(values))


@settings(deadline=None, max_examples=30)
@given(st.floats(-1e6, 0, width=32), st.floats(0, 1e6, width=32), st.integers(0, 2**32 - 1))
def test_every_value_of_a_range_is_within_half_a_step(low: float, high: float, seed: int):
    quant = quant_of((low, high))
    values = np.random.default_rng(seed).uniform(low, high, 100)
    # The zero point is an integer, so that an end may lie a further half step outside.
    assert np.abs(rounded(values, quant) - values).max() <= 1.01 * quant.scale[0]
    assert rounded(np.zeros(1), quant)[0] == 0
    assert -128 <= quant.zero_point[0] <= 127


def test_a_range_of_nothing_has_a_scale():
    assert quant_of((0.0, 0.0)).scale == (1.0,)
    for method in (mse, entropy, lambda h: percentile(h, 99)):
        assert method(seen(np.zeros(10, np.float32))) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_what_is_not_finite_is_refused_by_name(bad: float):
    with pytest.raises(DataError, match="tensor 't' is not finite"):
        Span().see("t", np.array([0, bad], np.float32))
