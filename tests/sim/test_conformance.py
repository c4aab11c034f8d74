"""VTA's programs on every device."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shared import needs_shared
from tests.sim.conformance import COUNT, IMAGE_ADDRESS, program
from weft.sim import connect


@needs_shared
@pytest.mark.parametrize("index", range(COUNT))
def test_functional(index: int):
    p = program(index)
    with connect("functional", p.config, dram_bytes=1 << 20) as device:
        device.write(IMAGE_ADDRESS, p.before)
        result = device.run(p.address, p.count)
        assert np.array_equal(device.read(IMAGE_ADDRESS, p.before.size), p.after)
        assert result.counters["instructions"] == p.count
