"""Nearly every beat of the bus is used, and short loads take as long as their beats."""

from __future__ import annotations

import pytest

from benchmarks.bus import LEAST, MOVES, measure, one_element_load
from weft.isa import PRESETS
from weft.sim import connect


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bus_bytes", "block"),
    [pytest.param(n, b, marks=pytest.mark.deep) for n, b in ((8, 4), (16, 8), (32, 4))],
)
def test_long_moves_use_nearly_every_beat(bus_bytes, block):
    figures = measure(bus_bytes, block)
    assert {name: figures[name] for name in MOVES if figures[name] < LEAST} == {}


@pytest.mark.slow
def test_one_element_loads_take_two_beats_each():
    with connect("rtl", PRESETS["vta"], dram_bytes=1 << 22, dram_latency=60) as device:
        assert one_element_load(device) <= 2.1
