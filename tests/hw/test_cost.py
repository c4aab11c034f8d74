from __future__ import annotations

from weft.hw.cost import KINDS, cost
from weft.isa import PRESETS

TINY = PRESETS["tiny"]


def test_the_cost_is_that_of_the_units():
    found = cost(TINY)
    total = found.pop("total")
    assert total == {kind: sum(unit[kind] for unit in found.values()) for kind in KINDS}
    assert {"load", "compute", "store", "fetch", "inp", "wgt"} <= set(found)
    assert found["inp"]["memory_bits"] == 8 * TINY.inp_bytes
    assert found["wgt"]["memory_bits"] == 8 * TINY.wgt_bytes
    products = TINY.batch * TINY.block**2
    assert products <= found["compute"]["multipliers"] <= products + 8 * TINY.block
    lanes = max(TINY.batch * TINY.block, TINY.bus_bytes)  # of what a beat carries, a byte each
    assert found["store"]["multipliers"] == 4 * lanes, "a lane's requantization has four"
