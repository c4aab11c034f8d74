from __future__ import annotations

from dataclasses import replace
from functools import cache

from weft.hw.cost import KINDS, cost
from weft.isa import PRESETS
from weft.isa.formats import enabled

TINY = PRESETS["tiny"]
found_of = cache(cost)


def test_the_cost_is_that_of_the_units():
    found = dict(found_of(TINY))
    total = found.pop("total")
    assert total == {kind: sum(unit[kind] for unit in found.values()) for kind in KINDS}
    assert {"load", "compute", "store", "fetch", "inp", "wgt"} <= set(found)
    assert found["inp"]["memory_bits"] == 8 * TINY.inp_bytes
    assert found["wgt"]["memory_bits"] == 8 * TINY.wgt_bytes
    products = TINY.batch * TINY.block**2
    assert products <= found["compute"]["multipliers"] <= products + 8 * TINY.block
    lanes = max(TINY.batch * TINY.block, TINY.bus_bytes)  # of what a beat carries, a byte each
    assert found["store"]["multipliers"] == 4 * lanes, "a lane's requantization has four"


def test_what_a_configuration_leaves_out_it_does_not_pay_for():
    plain = replace(TINY, requantize=False, pad_value=False, overwrite=False)
    assert {format.extension for format in enabled(plain)} == {None}
    with_all, without = found_of(TINY)["total"], found_of(plain)["total"]
    for kind in KINDS:
        assert without[kind] < with_all[kind], kind
