"""The cycles of single mechanisms stay at their goals, or get no farther from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.microarchitecture import ROWS, Bench, Row
from weft.isa import PRESETS

SHORT = {"load-acc": 2.4, "token": 28}
"""Rows that do not reach their goals, and what they reach. ``token``: accumulators are read two
cycles before they are written, and a box, empty or not, passes six registers before it is done,
for the sake of the clock."""
OTHER_MACHINES = {"first-wide": pytest.mark.deep}
"""Rows that need a machine of their own, which takes a minute to compile."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(PRESETS["vta"]) as bench:
        yield bench


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.name, marks=OTHER_MACHINES.get(row.name, ())) for row in ROWS],
)
def test_a_mechanism_takes_no_more_cycles_than_it_may(row: Row, bench: Bench):
    assert row.measure(bench) <= SHORT.get(row.name, row.most)


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert set(SHORT) <= {row.name for row in ROWS}
