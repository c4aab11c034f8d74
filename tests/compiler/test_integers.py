"""The integer analyser: what it says is true at every point, and it says enough."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.integers import (
    check,
    disproved,
    random_box,
    random_expression,
    rearranged,
    values,
)
from weft.compiler.integers import Facts, at_most, equal, facts, simplified
from weft.isa.nest import Const, Index, Load, expr

X, Y, Z = Index("x"), Index("y"), Index("z")
BOX = {"x": (0, 47), "y": (0, 5), "z": (-7, 7)}


@settings(max_examples=150)
@given(st.integers(0, 1 << 60), st.integers(1, 9), st.sampled_from([2, 4, 9]))
def test_what_is_said_of_an_expression_is_true_at_every_point(seed, size, widest):
    rng = random.Random(seed)
    e = random_expression(rng, size)
    check(e, rearranged(e, rng), random_box(rng, widest))


def test_ranges_are_mostly_the_narrowest_and_equalities_mostly_shown():
    narrow = shown = 0
    for seed in range(200):
        rng = random.Random(seed)
        e = random_expression(rng, 1 + seed % 8)
        found = check(e, rearranged(e, rng), random_box(rng, 8))
        narrow, shown = narrow + found[0], shown + found[1]
    assert narrow > 170
    assert shown > 197


def test_the_oracle_sees_a_wrong_claim():
    assert (values(X // 4, BOX) != values((X + 1) // 4, BOX)).any()
    assert not equal(X // 4, (X + 1) // 4, BOX)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (X // 4 % 3, X % 12 // 4),
        (X // 2 // 3, X // 6),
        (X // 8 * 8 + X % 8, X),
        ((Y * 48 + X) // 48, Y),
        ((Y * 48 + X) % 48, X),
        ((X * 6 + Y) // 12, X // 2),
        (Z % 4 % 2, Z % 2),
        ((Z * 3 + 2) % 3, expr(2)),
        (Z // -3, (0 - Z) // 3),
        (Z // 0, expr(0)),
        (X * 1 + 0, X),
    ],
)
def test_what_flattens_and_takes_apart_again_is_shown_equal(one, other):
    assert equal(one, other, BOX)
    assert simplified(one, BOX) == simplified(other, BOX)


@pytest.mark.parametrize(
    ("e", "known"),
    [
        (X * 6 + 4, Facts(4, 286, 6, 4)),
        (X % 12, Facts(0, 11)),
        (X // 48, Facts(0, 0, 0, 0)),
        (X - X // 4 * 4, Facts(0, 3)),
        (Z * 4 // 2, Facts(-14, 14, 2, 0)),
        (X * 8 % 12, Facts(0, 8, 4, 0)),
        (Z * Z * 9, Facts(-441, 441, 9, 0)),
    ],
)
def test_ranges_and_divisibility(e, known):
    assert facts(e, BOX) == known


def test_an_index_without_a_range_may_be_anything():
    unknown = Index("src")
    assert facts(unknown, {}).high == float("inf")
    assert facts((unknown + X) % 8, BOX).high == 7
    assert equal((unknown * 8 + X % 8) // 8, unknown, BOX)
    assert not at_most(unknown, X, BOX)


def test_what_is_no_index_expression_is_refused():
    with pytest.raises(TypeError, match="not an index expression"):
        facts(Load("x", (Const(0),)), {})
    with pytest.raises(TypeError, match="not an operation on indices: shl"):
        facts(X << 2, BOX)


@pytest.mark.deep
@pytest.mark.parametrize("batch", range(10))
def test_a_hundred_thousand_random_expressions_at_every_point(batch):
    for seed in range(batch * 10_000, (batch + 1) * 10_000):
        rng = random.Random(seed)
        box = random_box(rng, rng.choice((3, 8, 12)))
        e = random_expression(rng, rng.randrange(1, 9))
        check(e, rearranged(e, rng), box)


@pytest.mark.deep
@pytest.mark.parametrize("batch", range(10))
def test_z3_disproves_none_of_a_hundred_thousand(batch):
    pytest.importorskip("z3")
    unknown = 0
    for seed in range(batch * 10_000, (batch + 1) * 10_000):
        rng = random.Random(seed)
        box = random_box(rng, rng.choice((5, 100, 100_000)))
        e = random_expression(rng, rng.randrange(1, 8))
        wrong = disproved(e, box, 300)
        assert not wrong, f"{e} in {box}"
        unknown += wrong is None
    assert unknown < 200
