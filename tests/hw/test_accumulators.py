from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from amaranth.sim import Simulator

from weft.hw.accumulators import STORE, Accumulators
from weft.isa import AcceleratorConfig

VTA = AcceleratorConfig.preset("vta")
CYCLES = 400


def random_steps(random: Random, depth: int) -> list[tuple[int, int, int, int]]:
    """(valid, address, data, superseded) of every cycle, in runs with the same address."""
    steps, address = [], 0
    for _ in range(CYCLES):
        if random.random() < 0.4:
            address = random.randrange(depth)
        steps.append((int(random.random() < 0.8), address, random.getrandbits(32 * VTA.block)))
    following = [*steps[1:], (0, 0, 0)]
    return [
        (*step, int(step[0] and after[0] and step[1] == after[1] and random.random() < 0.9))
        for step, after in zip(steps, following, strict=True)
    ]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("depth", [2, 4, 16])
def test_steps_write_every_cycle_and_loads_beside_them(shared, depth):
    config = replace(VTA, acc_bytes=depth * VTA.acc_element_bytes)
    dut, random = Accumulators(config, shared), Random(f"{shared} {depth}")
    half = depth // 2  # steps have the lower accumulators, loads the upper
    part_bits = len(dut.load.data) // len(dut.load.mask)
    cells, held, loaded = [0] * depth, [None] * (STORE + 1), 0

    async def bench(ctx):
        nonlocal loaded
        offered, pending = None, None
        for valid, address, data, superseded in random_steps(random, half):
            before, after = cells.copy(), cells.copy()
            given = {"valid": valid, "address": address, "data": data, "mask": 1}
            for name, value in given.items():
                ctx.set(getattr(dut.step, name), value)
            ctx.set(dut.superseded, superseded)
            if valid:
                after[address] = data
            if offered is None and random.random() < 0.7:
                offered = {
                    "address": half + random.randrange(half),
                    "mask": random.randrange(1 << len(dut.load.mask)),
                    "data": random.getrandbits(len(dut.load.data)),
                }
                for name, value in offered.items():
                    ctx.set(getattr(dut.load, name), value)
            ctx.set(dut.load.valid, offered is not None)
            for number, port in enumerate(dut.read):
                where = random.randrange(depth)
                enable = random.random() < 0.7 and not (number == STORE and where == pending)
                ctx.set(port.enable, enable)
                ctx.set(port.address, where)
                if enable:
                    held[number] = (before if number == STORE else after)[where]
            pending = address if superseded else None
            if offered is not None and ctx.get(dut.load.ready):
                for n in range(len(dut.load.mask)):
                    if offered["mask"] >> n & 1:
                        bits = ((1 << part_bits) - 1) << (n * part_bits)
                        at = offered["address"]
                        after[at] = after[at] & ~bits | offered["data"] & bits
                offered, loaded = None, loaded + 1
            cells[:] = after
            await ctx.tick()
            for port, value in zip(dut.read, held, strict=True):
                if value is not None:
                    assert ctx.get(port.data) == value

    simulate(dut, bench)
    assert loaded > CYCLES / 20


@pytest.mark.parametrize(
    ("steps", "parts", "beats"),
    [("one after another", 1, 0.95), ("one after another", 2, 0.85), ("all to one", 2, 0.95)],
)
def test_loads_hardly_wait_for_long_runs_of_steps(steps, parts, beats):
    """``beats`` of 1 a cycle are written, ``parts`` of them an element."""
    dut = Accumulators(VTA, shared=True)
    depth, written = VTA.acc_depth, 0

    async def bench(ctx):
        nonlocal written
        for cycle in range(CYCLES):
            together = steps == "all to one"
            ctx.set(dut.step.valid, 1)
            ctx.set(dut.step.address, 0 if together else cycle % depth)
            ctx.set(dut.superseded, together and cycle % 36 != 35)
            ctx.set(dut.load.valid, 1)
            ctx.set(dut.load.address, written // parts % depth)
            written += ctx.get(dut.load.ready)
            await ctx.tick()

    simulate(dut, bench)
    assert written >= beats * CYCLES


def simulate(dut, bench) -> None:
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
