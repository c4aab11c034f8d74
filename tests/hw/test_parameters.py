from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from amaranth.sim import Simulator

from tests.hw.box_bench import TINY
from weft.hw.parameters import Parameters, parts_for, step_parts, store_parts
from weft.hw.parted import Parted


@pytest.mark.parametrize(
    ("masks", "parts", "banks"), [(1, 1, 1), (4, 4, 1), (8, 4, 1), (2, 8, 1), (4, 2, 2), (1, 4, 4)]
)
def test_a_write_is_there_for_who_reads_its_parts_in_their_order(masks, parts, banks):
    depth, width = 16, 64
    dut, random = Parted(depth, width, masks, parts, banks), Random(f"{masks} {parts} {banks}")
    cells, size, share = [0] * depth, width // parts, width // masks
    taken = 0

    async def write(ctx):
        nonlocal taken
        for _ in range(300):
            while random.random() < 0.2:
                await ctx.tick()
            address = random.randrange(0, depth - banks + 1)
            kinds = (random.randrange(1, 1 << banks * masks), 1 << random.randrange(banks * masks))
            mask, data = random.choice(kinds), random.getrandbits(banks * width)
            for name, value in {"address": address, "mask": mask, "data": data, "valid": 1}.items():
                ctx.set(getattr(dut.write, name), value)
            await ctx.tick().until(dut.write.ready)
            ctx.set(dut.write.valid, 0)
            taken += 1
            for n in range(banks):
                index, slot = address + n, (address + n) % banks
                for k in range(masks):
                    if mask >> slot * masks + k & 1:
                        bits = ((1 << share) - 1) << k * share
                        cells[index] = cells[index] & ~bits | data >> slot * width & bits
            if random.random() < 0.3:  # one cycle between, and then part by part
                expected, index = cells[address], address
                await ctx.tick()
                for part in range(parts):
                    ctx.set(dut.read.enable, 1)
                    ctx.set(dut.read.address, index + part * depth)
                    await ctx.tick()
                    found = ctx.get(dut.read.data)
                    assert found == expected >> part * size & (1 << size) - 1, (part, index)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(write)
    sim.run()
    assert taken == 300


@pytest.mark.parametrize(("masks", "cycles"), [(0b0001, 1), (0b0110, 2), (0b1111, 4)])
def test_a_write_takes_a_cycle_for_each_part_that_it_covers(masks, cycles):
    dut = Parted(16, 64, 4, 4)
    count = 8

    async def bench(ctx):
        ctx.set(dut.write.mask, masks)
        ctx.set(dut.write.valid, 1)
        for n in range(count * cycles):
            ready = ctx.get(dut.write.ready)
            assert ready == (n % cycles == 0)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize(
    ("changes", "steps", "stores"),
    [
        ({"rescale_cycles": 4}, 4, 2),  # two elements of accumulators a beat
        ({"rescale_cycles": 2}, 2, 1),
        ({"rescale_cycles": 4, "batch": 2}, 2, 2),
        ({"rescale_cycles": 2, "batch": 2}, 1, 1),
        ({}, 1, 1),
    ],
)
def test_parts_are_those_of_the_lanes_that_take_turns(changes, steps, stores):
    config = replace(TINY, **changes)
    assert step_parts(config, "synthesis") == steps == parts_for(config, config.rescale_lanes)
    assert step_parts(config, "simulation") == 1
    assert store_parts(config) == stores


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_steps_and_stores_read_what_was_written(form, turns):
    config = replace(TINY, rescale_cycles=turns)
    dut, random = Parameters(config, form), Random(f"{form} {turns}")
    width = 8 * config.qnt_element_bytes
    elements = [random.getrandbits(width) for _ in range(config.qnt_depth)]
    parts = {dut.step: step_parts(config, form), dut.store: store_parts(config)}

    async def bench(ctx):
        for index, element in enumerate(elements):
            for name, value in {
                "address": index, "data": element, "valid": 1, "mask": -1,
            }.items():  # fmt: skip
                ctx.set(getattr(dut.write, name), value)
            await ctx.tick().until(dut.write.ready)
        ctx.set(dut.write.valid, 0)
        await ctx.tick().repeat(2 + turns)
        for _ in range(200):
            port = random.choice([*parts])
            index, part = random.randrange(config.qnt_depth), random.randrange(parts[port])
            for other in parts:
                ctx.set(other.enable, other is port)
            ctx.set(dut.ahead, port is dut.step)
            if turns == 1:
                assert ctx.get(dut.store.ready) == (port is dut.store)
            ctx.set(port.address, index + (part << config.qnt_index_bits))
            await ctx.tick()
            size = width // parts[port]
            assert ctx.get(port.data) == elements[index] >> part * size & (1 << size) - 1

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
