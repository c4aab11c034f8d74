from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from tests.hw.compute_bench import SMALL, bits
from weft.hw.arrival import bank_count, write_parts
from weft.hw.inputs import Inputs


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("taps", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("bus_bytes", [8, 64])
def test_reads_give_an_element_and_those_after_it_at_any_alignment(taps, bus_bytes, form):
    config = replace(SMALL, depthwise_taps=taps, bus_bytes=bus_bytes)
    banks, parts = bank_count(config, "inp"), write_parts(config, "inp")
    count, depth, width = max(1, taps), config.inp_depth, 8 * config.inp_element_bytes
    dut = Inputs(config, form)
    random = np.random.default_rng(taps)
    content = [0] * depth

    async def bench(ctx):
        shown: list[int] = []
        for _ in range(400):
            writes, at = int(random.integers(0, 2)), int(random.integers(0, depth))
            covered = range(at, min(depth, at + int(random.integers(1, banks + 1))))
            values = [bits(random.integers(0, 256, config.inp_element_bytes), 8) for _ in covered]
            ctx.set(dut.write.address, at)
            mask, data = 0, 0
            for index, value in zip(covered, values, strict=True):
                mask |= ((1 << parts) - 1) << (index % banks * parts)
                data |= value << (index % banks * width)
            ctx.set(dut.write.mask, mask)
            ctx.set(dut.write.data, data)
            reads = int(random.integers(0, 2))
            follows = count > 1 and int(random.integers(0, 2))
            span = count if follows else 1
            first = int(random.integers(0, depth - span + 1))
            writes &= not {*covered} & {
                *range(first, first + span)
            }  # what a read gives then is not said
            ctx.set(dut.write.valid, writes)
            ctx.set(dut.read.enable, reads)
            ctx.set(dut.read.address, first)
            if count > 1:
                ctx.set(dut.read.following, follows)
            if reads:
                shown = content[first : first + span]
            if writes:
                content[at : at + len(values)] = values
            await ctx.tick()
            got = ctx.get(dut.read.data)
            for n, element in enumerate(shown):
                assert got >> (n * width) & ((1 << width) - 1) == element

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
