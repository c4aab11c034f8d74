from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from weft.hw.scratchpad import Scratchpad


@pytest.mark.parametrize(
    ("depth", "width", "parts", "ports", "forwarding"),
    [(8, 32, 1, 1, 1), (8, 32, 2, 1, 0), (16, 64, 4, 3, 2)],
)
def test_reads_see_all_writes_and_if_forwarded_those_of_the_same_cycle(
    depth, width, parts, ports, forwarding
):
    random = np.random.default_rng(depth)
    dut = Scratchpad(depth, width, parts, ports, forwarding)
    cells, held = [0] * depth, [None] * ports
    part = width // parts

    async def bench(ctx):
        for _ in range(300):
            address, mask = int(random.integers(depth)), int(random.integers(1 << parts))
            value = int.from_bytes(random.bytes(width // 8), "little")
            valid = int(random.integers(2))
            before = cells.copy()
            given = {"valid": valid, "address": address, "mask": mask, "data": value}
            for name, each in given.items():
                ctx.set(getattr(dut.write, name), each)
            if valid:
                for n in range(parts):
                    if mask >> n & 1:
                        bits = ((1 << part) - 1) << (n * part)
                        cells[address] = cells[address] & ~bits | value & bits
            for n in range(ports):
                where, enable = int(random.integers(depth)), int(random.integers(4) > 0)
                ctx.set(dut.read[n].address, where)
                ctx.set(dut.read[n].enable, enable)
                if enable:
                    held[n] = (cells if n < forwarding else before)[where]
            await ctx.tick()
            for n in range(ports):
                if held[n] is not None:
                    assert ctx.get(dut.read[n].data) == held[n]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
