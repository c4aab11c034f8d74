from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from tests.hw.compute_bench import SMALL, bits
from weft.hw.inputs import Inputs

WIDE = replace(SMALL, block=8, inp_bytes=128, acc_bytes=512, wgt_bytes=512)
CONFIGS = {
    "element a beat": WIDE,
    "two a beat": SMALL,
    "four a beat": replace(SMALL, bus_bytes=16),
    "eight a beat": replace(SMALL, bus_bytes=32),
    "two beats": replace(WIDE, batch=2, inp_bytes=256, acc_bytes=1024),
}


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("taps", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_reads_give_an_element_and_those_after_it_at_any_alignment(name, taps, form):
    config = replace(CONFIGS[name], depthwise_taps=taps, sliding_steps=taps == 0)
    count, depth, width = config.neighbours, config.inp_depth, 8 * config.inp_element_bytes
    written = max(1, config.bus_bytes // config.inp_element_bytes)
    dut = Inputs(config, form)
    parts = len(dut.write.mask) // written
    random = np.random.default_rng(taps)
    content = [0] * depth

    async def bench(ctx):
        shown: list[int] = []
        under_way = range(0)  # what has been written in the cycle before, where that takes one more
        for _ in range(300):
            follows = count > 1 and int(random.integers(0, 2))
            span = count if follows else 1
            first = int(random.integers(0, depth - span + 1))
            reads = int(random.integers(0, 2))
            reads &= not {*under_way} & {*range(first, first + span)}
            ctx.set(dut.read.enable, reads)
            ctx.set(dut.read.address, first)
            if count > 1:
                ctx.set(dut.read.following, follows)
            if reads:
                shown = content[first : first + span]

            size = int(random.integers(1, written + 1))
            at = int(random.integers(0, depth - size + 1))
            # What a read gives of an element that is written in its cycle is not said.
            writes = int(random.integers(0, 2)) & (first + span <= at or at + size <= first)
            mask = data = 0
            for index in range(at, at + size):
                value = bits(random.integers(0, 256, config.inp_element_bytes), 8)
                mask |= ((1 << parts) - 1) << parts * (index % written)
                data |= value << width * (index % written)
                if writes:
                    content[index] = value
            if form == "synthesis":
                under_way = range(at, at + size * writes)
            ctx.set(dut.write.valid, writes)
            ctx.set(dut.write.address, at)
            ctx.set(dut.write.mask, mask)
            ctx.set(dut.write.data, data)
            await ctx.tick()
            got = ctx.get(dut.read.data)
            for n, element in enumerate(shown):
                assert got >> (n * width) & ((1 << width) - 1) == element

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
