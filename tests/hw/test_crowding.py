from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.hw.crowding import ROOM, crowding
from weft.hw.netlist import BEL


def placement(nets: list[list[tuple[int, int]]]) -> dict:
    """Nets, each between cells at these columns and rows."""
    cells = {
        f"n{number}c{place}": {
            "attributes": {BEL: f"X{x}/Y{y}/SLICEA.K0"},
            "connections": {"A": [number], "CLK": [1], "B": ["0"]},
        }
        for number, places in enumerate(nets, 2)
        for place, (x, y) in enumerate(places)
    }
    return {"modules": {"top": {"cells": cells}}}


def counted(nets: list[list[tuple[int, int]]]) -> float:
    """The same, tile by tile."""
    demand = np.zeros((64, 64))
    for places in nets:
        xs, ys = zip(*places, strict=True)
        wide, high = max(xs) - min(xs), max(ys) - min(ys)
        for x in range(min(xs), max(xs) + 1):
            for y in range(min(ys), max(ys) + 1):
                demand[x, y] += (wide + high) / ((wide + 1) * (high + 1))
    return float(np.maximum(demand - ROOM, 0).sum())


places = st.tuples(st.integers(0, 5), st.integers(0, 5))


@given(st.lists(st.lists(places, min_size=1, max_size=4), min_size=1, max_size=4))
def test_every_tile_is_counted(few):
    nets = few * 60
    assert crowding(placement(nets)) == pytest.approx(counted(nets), abs=1)


def test_what_has_no_place_and_what_is_far_apart_is_no_crowd():
    assert crowding({"modules": {"top": {"cells": {}}}}) == 0
    assert crowding(placement([[(0, 0), (60, 60)]] * 60)) == 0
    assert crowding(placement([[(0, 0), (1, 0)]] * 200)) > 0
    unplaced = placement([[(0, 0), (1, 0)]] * 200)
    for cell in unplaced["modules"]["top"]["cells"].values():
        cell["attributes"] = {}
    assert crowding(unplaced) == 0
