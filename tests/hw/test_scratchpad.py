from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from weft.hw.scratchpad import Scratchpad


@pytest.mark.parametrize(
    ("depth", "width", "parts", "ports", "banks", "in_turn"),
    [(8, 32, 1, 1, 1, False), (8, 32, 2, 1, 1, False), (16, 64, 4, 3, 1, False),
     (16, 16, 2, 3, 4, False), (32, 8, 1, 2, 8, False), (2, 8, 1, 2, 8, False),
     (16, 32, 2, 2, 1, True), (16, 16, 2, 3, 4, True)],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_reads_see_all_writes_of_the_cycles_before(
    depth, width, parts, ports, banks, in_turn, late
):
    """But for those of the last one, if writes are ``late``."""
    random = np.random.default_rng(depth)
    dut = Scratchpad(depth, width, parts, ports, banks, in_turn, late)
    cells, held = [0] * depth, [None] * ports
    part = width // parts

    def written(address, mask, value):
        """Every part goes to the element, from ``address`` on, that has its bank."""
        for n in range(banks * parts):
            where = address + (n // parts - address) % banks
            if mask >> n & 1 and where < depth:
                bits = (1 << part) - 1
                shift = n % parts * part
                cells[where] &= ~(bits << shift)
                cells[where] |= (value >> n * part & bits) << shift

    async def bench(ctx):
        before = cells.copy()
        for _ in range(300):
            address = int(random.integers(depth))
            value, mask = (
                int.from_bytes(random.bytes(bits // 8 + 1), "little") & (1 << bits) - 1
                for bits in (banks * width, banks * parts)
            )
            for bank in range(banks):
                if address + (bank - address) % banks >= depth:
                    mask &= ~((1 << parts) - 1 << bank * parts)
            valid = int(random.integers(2))
            seen, before = before, cells.copy()
            given = {"valid": valid, "address": address, "mask": mask, "data": value}
            for name, each in given.items():
                ctx.set(getattr(dut.write, name), each)
            if valid:
                written(address, mask, value)
            turn = int(random.integers(ports))
            for n, port in enumerate(dut.read):
                where, enable = int(random.integers(depth)), int(random.integers(4) > 0)
                if in_turn:
                    enable &= n == turn
                    held[n] = held[n] if n == ports - 1 else None
                ctx.set(port.address, where)
                ctx.set(port.enable, enable)
                if enable:
                    held[n] = seen[where] if late else before[where]
            await ctx.tick()
            for n in range(ports):
                if held[n] is not None:
                    assert ctx.get(dut.read[n].data) == held[n]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
