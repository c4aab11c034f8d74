from __future__ import annotations

from random import Random

import pytest
from amaranth.sim import Simulator

from tests.hw.axil_bench import Bus
from weft.hw.registers import RegisterBlock
from weft.isa.registers import REGISTERS

READ_ONLY = [r for r in REGISTERS if r.access == "read-only"]
READ_WRITE = [r for r in REGISTERS if r.access == "read-write"]
WRITE_ONLY = [r for r in REGISTERS if r.access == "write-only"]


def simulate(dut, drive, *processes):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    for process in processes:
        simulator.add_process(process)
    simulator.run()


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_every_address_reads_its_register_and_all_others_read_0(stall):
    dut, random = RegisterBlock(), Random(0)
    expected = dict.fromkeys(range(0, 0x1000, 4), 0)
    values = {}
    for r in READ_ONLY:
        values[r.name.lower()] = value = random.getrandbits(32 * r.words)
        for k in range(r.words):
            expected[r.offset + 4 * k] = value >> 32 * k & 0xFFFF_FFFF

    async def drive(ctx):
        bus = Bus(dut.axil, stall=stall)
        for name, value in values.items():
            ctx.set(getattr(dut, name), value)
        for r in READ_WRITE:
            expected[r.offset] = random.getrandbits(32)
            await bus.put(ctx, r.name, expected[r.offset])
        near = [a for a, value in expected.items() if value or a < 0x40]
        for address in near + random.sample(sorted(expected), 100):
            assert await bus.read(ctx, address) == expected[address], hex(address)

    simulate(dut, drive)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_writes_change_the_bytes_that_are_strobed_and_nothing_else(stall):
    dut, random = RegisterBlock(), Random(1)
    model = {r.name: 0 for r in READ_WRITE}
    offsets = {r.offset: r.name for r in READ_WRITE}

    async def drive(ctx):
        bus = Bus(dut.axil, stall=stall, seed=1)
        for _ in range(100):
            address = random.choice([*offsets, 0x00, 0x14, 0x40, 0x424, 0xFFC])
            value, strobe = random.getrandbits(32), random.getrandbits(4)
            await bus.write(ctx, address, value, strobe)
            if address in offsets:
                mask = sum(0xFF << 8 * k for k in range(4) if strobe >> k & 1)
                name = offsets[address]
                model[name] = model[name] & ~mask | value & mask
            for name, value in model.items():
                assert ctx.get(getattr(dut, name.lower())) == value

    simulate(dut, drive)


def test_a_write_only_register_shows_the_ones_for_a_cycle():
    dut = RegisterBlock()
    (control,) = WRITE_ONLY
    seen = []

    async def watch(ctx):
        async for _, _, value in ctx.tick().sample(dut.control):
            if value:
                seen.append(value)

    async def drive(ctx):
        bus = Bus(dut.axil)
        await bus.put(ctx, control.name, 0x1)
        await bus.write(ctx, control.offset, 0x303, 0b0010)
        await bus.write(ctx, control.offset, 0x303, 0b0000)
        assert await bus.get(ctx, control.name) == 0

    simulate(dut, drive, watch)
    assert seen == [0x1, 0x300]


def test_reads_and_writes_do_not_wait_for_each_other():
    dut = RegisterBlock()

    async def drive(ctx):
        axil = dut.axil
        ctx.set(axil.arvalid, 1)
        await ctx.tick()
        ctx.set(axil.arvalid, 0)
        await Bus(axil).put(ctx, "COUNT", 5)
        assert ctx.get(axil.rvalid), "the read still waits for its READY"
        assert ctx.get(dut.count) == 5

    simulate(dut, drive)
