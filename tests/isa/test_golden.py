"""The golden model: VTA's own programs, the order of engines, and every fault."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shared import needs_shared
from tests.sim.conformance import COUNT, IMAGE_ADDRESS, program
from weft.isa.golden import GoldenModel

ORDERS = (("load", "compute", "store"), ("store", "compute", "load"), 1)


@needs_shared
@pytest.mark.parametrize("index", range(COUNT))
def test_a_vta_program_leaves_the_memory_that_vta_leaves(index: int):
    p = program(index)
    model = GoldenModel(p.config, 1 << 20)
    image = slice(IMAGE_ADDRESS, IMAGE_ADDRESS + p.before.size)
    model.dram[image] = p.before
    counters = model.run(p.address, p.count, ORDERS[index % len(ORDERS)])
    assert np.array_equal(model.dram[image], p.after)
    assert not model.dram[: image.start].any()
    assert not model.dram[image.stop :].any()
    assert counters["instructions"] == p.count
