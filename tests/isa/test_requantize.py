"""Requantization, constants and expressions, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.isa.interpret import interpret
from weft.isa.native import NativeCode
from weft.isa.nest import I32, Binary, Buffer, Index, Load, Nest, Store, expr
from weft.isa.requantize import rescale, rescale_int
from weft.isa.traverse import loops

numbers = st.integers(-(2**31), 2**31 - 1)
multipliers = st.one_of(st.just(0), st.integers(2**30, 2**31 - 1))
shifts = st.integers(0, 31)


def exact(x: int, multiplier: int, left: int, right: int, even: bool) -> int:
    """What is said of the two forms, in fractions."""
    shifted = x * 2**left
    if even:
        greatest = (2**31 - 1) // 2**left * 2**left
        shifted = min(max(shifted, -(2**31)), greatest)
    else:
        shifted = (shifted + 2**31) % 2**32 - 2**31
    high = floor(Fraction(shifted * multiplier, 2**31) + Fraction(1, 2))
    quotient = Fraction(high, 2**right)
    if even:
        return round(quotient)
    size = floor(abs(quotient) + Fraction(1, 2))
    return size if quotient >= 0 else -size


@given(numbers, multipliers, shifts, shifts, st.booleans())
@example(x=3, multiplier=2**30, left=0, right=0, even=True)
@example(x=1 << 30, multiplier=2**30, left=1, right=31, even=True)
@example(x=-(1 << 30), multiplier=2**30, left=1, right=31, even=True)
def test_integers_are_rescaled_as_fractions_are(x, multiplier, left, right, even):
    expected = exact(x, multiplier, left, right, even)
    assert rescale_int(x, multiplier, left, right, even) == expected


@pytest.mark.parametrize("form", ["away", "even", "either"])
def test_expressions_are_rescaled_as_integers_are(form: str):
    rng = np.random.default_rng(5)
    count, at = 4096, (Index("i"), Index("j"))
    names = ("x", "multiplier", "left", "right", "even")
    x, multiplier, left, right, even = (Load(name, at) for name in names)
    ways = {"away": False, "even": True, "either": Binary("ne", even, expr(0))}
    shape = count // 16, 16
    nest = Nest(
        "rescale", (), tuple(Buffer(name, I32, shape) for name in (*names, "out")),
        loops(
            [("i", shape[0]), ("j", shape[1])],
            Store("out", at, rescale(x, multiplier, left, right, ways[form])),
        ),
    )  # fmt: skip
    ranges = ((-(2**31), 2**31), (2**30, 2**31), (0, 32), (0, 32), (0, 2))
    arrays = {
        name: rng.integers(*ends, count).astype(np.int32).reshape(shape)
        for name, ends in zip(names, ranges, strict=True)
    }
    arrays["x"] >>= rng.integers(0, 32, shape).astype(np.int32)
    expected = [
        rescale_int(*map(int, row[:4]), even=form == "even" or (form == "either" and bool(row[4])))
        for row in zip(*(arrays[name].flat for name in names), strict=True)
    ]
    for run in (interpret, lambda nest, p, arrays: NativeCode([nest]).run(nest.name, p, arrays)):
        out = {**arrays, "out": np.zeros(shape, np.int32)}
        run(nest, {}, out)
        assert out["out"].ravel().tolist() == expected
