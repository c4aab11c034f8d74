"""A program with one thing changed is reported, or it computes the same all the same."""

from __future__ import annotations

import pytest

from tests.compiler.compiled import BATCHED, SERIAL, TINY
from tests.compiler.mutations import Subject, outcomes
from tests.networks import NetworkBuilder, every_operator
from weft.compiler.graph import Graph


def small() -> Graph:
    """Few instructions, of every kind."""
    n = NetworkBuilder("small", 3)
    x = n.conv(n.input(1, 5, 6, 5), 8, 3, activation="relu")
    y = n.depthwise(x, 3)
    y = n.max_pool(n.add(x, y), 2, strides=2, padding="valid")
    n.fc(y, 9)
    return n.graph()


def test_a_sample_of_changed_programs_is_reported_or_harmless(capsys):
    _expect_no_holes([Subject(small(), TINY, 1)], 100, capsys)


@pytest.mark.deep
def test_two_thousand_changed_programs_are_reported_or_harmless(capsys):
    graphs = (small(), every_operator())
    subjects = [Subject(g, c, 7) for g in graphs for c in (TINY, BATCHED, SERIAL)]
    _expect_no_holes(subjects, 2000, capsys)


def _expect_no_holes(subjects: list[Subject], count: int, capsys) -> None:
    table, holes = outcomes(subjects, count)
    with capsys.disabled():
        for kind, row in table.items():
            print(f"\n{kind}: " + ", ".join(f"{n} {what}" for what, n in sorted(row.items())))
    assert sum(row.total() for row in table.values()) == count
    assert not holes, "\n".join(holes)
    assert all(sum(n for what, n in row.items() if what != "harmless") for row in table.values())
