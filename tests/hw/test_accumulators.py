from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from amaranth.sim import Simulator

from weft.hw.accumulators import Accumulators, acc_banks
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


class Load:
    """A write of some elements from ``address`` on, by the load engine."""

    def __init__(self, random: Random, dut: Accumulators, first: int, depth: int, slots: int):
        self.parts = len(dut.load.mask) // slots
        self.slots = slots
        self.address = random.randrange(first, depth)
        count = random.randint(1, min(slots, depth - self.address))
        self.elements = {i % slots: i for i in range(self.address, self.address + count)}
        self.data = random.getrandbits(len(dut.load.data))
        self.mask = 0
        for slot in self.elements:
            self.mask |= random.randrange(1 << self.parts) << slot * self.parts

    def write(self, cells: list[int], width: int) -> None:
        part = width // self.parts
        for slot, element in self.elements.items():
            for n in range(self.parts):
                if self.mask >> slot * self.parts + n & 1:
                    bits = ((1 << part) - 1) << n * part
                    value = self.data >> slot * width
                    cells[element] = cells[element] & ~bits | value & bits


@pytest.mark.parametrize(
    ("shared", "form"), [(False, "synthesis"), (True, "synthesis"), (True, "simulation")]
)
@pytest.mark.parametrize(
    ("depth", "bus"), [(2, 8), (4, 8), (16, 8), (2048, 8), (2048, 32), (32, 64)]
)
def test_steps_write_every_cycle_and_loads_beside_them(shared, form, depth, bus):
    config = replace(VTA, bus_bytes=bus, acc_bytes=depth * VTA.acc_element_bytes)
    dut, random = Accumulators(config, shared, form), Random(f"{shared} {depth}")
    width = len(dut.step.data)
    slots = len(dut.load.data) // width
    readers = (dut.read_0, dut.read_1)
    half = depth // 2  # steps have the lower accumulators, loads the upper
    cells, held, wide, loaded, together = [0] * depth, [None, None], [None] * slots, 0, 0
    changed: set[int] = set()  # in the cycle before

    async def bench(ctx):
        nonlocal loaded, wide, together
        load, pending = None, None
        nonlocal changed
        for valid, address, data, superseded in random_steps(random, half):
            before, after = cells.copy(), cells.copy()
            given = {"valid": valid, "address": address, "data": data, "mask": 1}
            for name, value in given.items():
                ctx.set(getattr(dut.step, name), value)
            ctx.set(dut.superseded, superseded)
            if valid:
                after[address] = data
            if load is None and random.random() < 0.7:
                load = Load(random, dut, half, depth, slots)
                for name in ("address", "mask", "data"):
                    ctx.set(getattr(dut.load, name), getattr(load, name))
            ctx.set(dut.load.valid, load is not None)
            # What is being written by a load is not read; by a step, not by the store engine.
            written = set(load.elements.values()) if load is not None else set()
            unknown = written | {i for i in changed if i >= half}
            for number, port in enumerate(readers):
                where = random.randrange(depth)
                enable = random.random() < 0.7 and where not in unknown
                ctx.set(port.enable, enable)
                ctx.set(port.address, where)
                meant = random.randrange(len(port.choose))
                ctx.set(port.choose, 1 << meant)
                for choice in range(len(port.choose)):
                    ctx.set(port.among[choice], random.randrange(depth))
                ctx.set(port.among[meant], where)
                held[number] = after[where] if enable else None
            ctx.set(dut.ahead.enable, ctx.get(dut.read_1.enable))
            ctx.set(dut.ahead.address, ctx.get(dut.read_1.address))
            where, enable = random.randrange(depth), random.random() < 0.7
            ctx.set(dut.wide.address, where)
            enable &= bool(ctx.get(dut.wide.ready))
            ctx.set(dut.wide.enable, enable)
            together += enable & ctx.get(dut.read_1.enable)
            if enable:
                found = [where + (slot - where) % slots for slot in range(slots)]
                wide = [
                    before[i] if i < depth and i not in {*written, *changed, pending} else None
                    for i in found
                ]
            pending = address if superseded else None
            changed = {address} if valid else set()
            if load is not None and ctx.get(dut.load.ready):
                load.write(after, width)
                changed |= set(load.elements.values())
                load, loaded = None, loaded + 1
            cells[:] = after
            await ctx.tick()
            for port, value in zip(readers, held, strict=True):
                if value is not None:
                    assert ctx.get(port.data) == value
            for slot, value in enumerate(wide):
                if value is not None:
                    assert ctx.get(dut.wide.data) >> slot * width & (1 << width) - 1 == value

    simulate(dut, bench)
    assert loaded > CYCLES / 20
    assert together > CYCLES / 20 or acc_banks(config, shared) == slots


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
        ctx.set(dut.load.mask, ~0)
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
