from __future__ import annotations

from random import Random

import pytest
from amaranth.sim import Simulator

from weft.hw.tokens import TokenQueue


@pytest.mark.parametrize("depth", [1, 2, 3, 255])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_queue_counts_places_and_tokens_as_a_model_does(depth, seed):
    dut = TokenQueue(depth)
    random = Random(seed)
    seen = set()

    async def drive(ctx):
        taken = tokens = 0
        for cycle in range(2000):
            # Long phases of filling and of draining, so that both ends are met.
            filling = cycle // (2 * depth + 8) % 2 == 0
            place = random.random() < (0.9 if filling else 0.2)
            push = taken > tokens and random.random() < 0.5
            pop = random.random() < (0.1 if filling else 0.9)
            clear = random.random() < 0.002
            ctx.set(dut.place.valid, place)
            ctx.set(dut.push, push)
            ctx.set(dut.pop.ready, pop)
            ctx.set(dut.clear, clear)
            room, there = ctx.get(dut.place.ready), ctx.get(dut.pop.valid)
            assert room == (taken < depth)
            assert there == (tokens > 0)
            seen.add((room, there))
            await ctx.tick()
            taken += (place and room) - (pop and there)
            tokens += push - (pop and there)
            if clear:
                taken = tokens = 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert {(1, 0), (0, 1)} <= seen


def test_a_token_passes_in_the_cycle_after_its_push():
    dut = TokenQueue(1)

    async def drive(ctx):
        ctx.set(dut.place.valid, 1)
        await ctx.tick()
        ctx.set(dut.place.valid, 0)
        assert not ctx.get(dut.place.ready)
        assert not ctx.get(dut.pop.valid)
        ctx.set(dut.push, 1)
        await ctx.tick()
        ctx.set(dut.push, 0)
        assert ctx.get(dut.pop.valid)
        ctx.set(dut.pop.ready, 1)
        await ctx.tick()
        assert not ctx.get(dut.pop.valid)
        assert ctx.get(dut.place.ready)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
