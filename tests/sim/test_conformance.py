"""VTA's programs on every device."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shared import needs_shared
from tests.sim.conformance import COUNT, IMAGE_ADDRESS, program
from tests.sim.conftest import for_deep_tests

DRAM_BYTES = 1 << 17
FEW = 5
"""Programs of one configuration for which its model is compiled in deep tests only."""


@needs_shared
@pytest.mark.parametrize("index", range(COUNT))
def test_a_vta_program_leaves_the_memory_that_vta_leaves(index: int, devices, request):
    p = program(index)
    if sum(program(i).config == p.config for i in range(COUNT)) < FEW:
        for_deep_tests(devices, request)
    device = devices(p.config, DRAM_BYTES)
    device.reset()
    device.write(0, np.zeros(DRAM_BYTES, np.uint8))
    device.write(IMAGE_ADDRESS, p.before)
    result = device.run(p.address, p.count)
    memory = device.read(0, DRAM_BYTES)
    image = slice(IMAGE_ADDRESS, IMAGE_ADDRESS + p.before.size)
    assert np.array_equal(memory[image], p.after)
    assert not memory[: image.start].any()
    assert not memory[image.stop :].any()
    assert result.counters["instructions"] == p.count
