from __future__ import annotations

from functools import partial

import pytest
from amaranth.sim import Simulator

from tests.hw.axil_bench import Bus
from weft.hw.control import Control
from weft.isa import PRESETS, FaultCode, spec_hash
from weft.isa.faults import ENGINE_NAMES
from weft.isa.registers import COUNTERS, IDENTITY, VERSION

TINY = PRESETS["tiny"]


def simulate(drive, *processes):
    dut = Control(TINY)

    async def main(ctx):
        await drive(ctx, dut, Bus(dut.axil))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(main)
    for process in processes:
        simulator.add_process(partial(process, dut=dut))
    simulator.run()


async def launch(ctx, dut, bus):
    """A program that fetch has taken and that runs."""
    await bus.launch(ctx, 0x1000, 12)
    await ctx.tick()
    ctx.set(dut.start.ready, 1)
    await ctx.tick()
    ctx.set(dut.start.ready, 0)
    assert ctx.get(dut.running)


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)
    await ctx.tick()


RUNNING, DONE, FAULT = 1, 2, 4


def test_the_registers_say_who_the_device_is():
    async def drive(ctx, dut, bus):
        assert await bus.get(ctx, "ID") == IDENTITY
        assert await bus.get(ctx, "VERSION") == VERSION
        assert await bus.get(ctx, "SPEC") == int(spec_hash(TINY), 16)
        assert await bus.get(ctx, "STATUS") == 0
        for value, counter in enumerate(COUNTERS, 1 << 40):
            ctx.set(getattr(dut.counts, counter.name), value)
        for value, counter in enumerate(COUNTERS, 1 << 40):
            assert await bus.get(ctx, counter.name.upper()) == value

    simulate(drive)


def test_a_launch_gives_fetch_the_stream_once_and_runs_until_finish():
    async def drive(ctx, dut, bus):
        await bus.launch(ctx, 0xABCD_1238, 77)
        await ctx.tick()
        assert ctx.get(dut.running)
        assert await bus.get(ctx, "STATUS") == RUNNING
        assert ctx.get(dut.start.valid)
        assert ctx.get(dut.start.payload) == {"address": 0xABCD_1230, "count": 77}
        ctx.set(dut.start.ready, 1)
        await ctx.tick()
        assert not ctx.get(dut.start.valid)
        for _ in range(5):
            await ctx.tick()
            assert ctx.get(dut.running)
            assert not ctx.get(dut.irq)
        await pulse(ctx, dut.finished)
        assert not ctx.get(dut.running)
        assert ctx.get(dut.irq)
        assert await bus.get(ctx, "STATUS") == DONE
        await bus.put(ctx, "CONTROL", 2)
        await ctx.tick()
        assert await bus.get(ctx, "STATUS") == 0
        assert not ctx.get(dut.irq)

    simulate(drive)


def test_a_launch_is_one_cycle_and_only_when_nothing_runs():
    launches = 0

    async def count(ctx, dut):
        nonlocal launches
        async for _, _, value in ctx.tick().sample(dut.launch):
            launches += value

    async def drive(ctx, dut, bus):
        await launch(ctx, dut, bus)
        await bus.put(ctx, "CONTROL", 1)
        await ctx.tick()
        assert not ctx.get(dut.start.valid)
        await pulse(ctx, dut.finished)
        await launch(ctx, dut, bus)
        assert await bus.get(ctx, "STATUS") == RUNNING, "the launch has cleared done"
        assert launches == 2

    simulate(drive, count)


@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_a_fault_stops_the_machine_until_reset(name):
    async def drive(ctx, dut, bus):
        await launch(ctx, dut, bus)
        port = getattr(dut, name)
        ctx.set(port.code, FaultCode.SRAM_RANGE)
        ctx.set(port.index, 5)
        await pulse(ctx, port.valid)
        assert ctx.get(dut.halt)
        assert not ctx.get(dut.running)
        assert ctx.get(dut.irq)
        assert await bus.get(ctx, "STATUS") == FAULT
        shown = FaultCode.SRAM_RANGE | ENGINE_NAMES.index(name) << 8
        assert await bus.get(ctx, "FAULT") == shown
        assert await bus.get(ctx, "FAULT_INDEX") == 5
        await bus.put(ctx, "CONTROL", 2)
        await ctx.tick()
        assert await bus.get(ctx, "STATUS") == 0
        assert not ctx.get(dut.irq)
        await bus.put(ctx, "CONTROL", 1)
        await ctx.tick()
        assert not ctx.get(dut.start.valid), "nothing starts before a reset"
        assert await bus.get(ctx, "STATUS") == FAULT, "the launch is answered with the fault"
        assert await bus.get(ctx, "FAULT") == shown

    simulate(drive)


def test_the_first_fault_counts_and_within_a_cycle_the_first_engine():
    async def drive(ctx, dut, bus):
        await launch(ctx, dut, bus)
        for k, name in enumerate(ENGINE_NAMES[1:]):
            ctx.set(getattr(dut, name).code, FaultCode.SRAM_RANGE)
            ctx.set(getattr(dut, name).index, k)
            ctx.set(getattr(dut, name).valid, name != "load")
        await ctx.tick()
        ctx.set(dut.load.valid, 1)
        await ctx.tick().repeat(2)
        assert await bus.get(ctx, "FAULT") >> 8 == ENGINE_NAMES.index("compute")
        assert await bus.get(ctx, "FAULT_INDEX") == 1

    simulate(drive)


def test_a_fault_counts_before_finish_in_the_same_cycle():
    async def drive(ctx, dut, bus):
        await launch(ctx, dut, bus)
        ctx.set(dut.store.code, FaultCode.BUS_WRITE)
        ctx.set(dut.store.valid, 1)
        await pulse(ctx, dut.finished)
        assert await bus.get(ctx, "STATUS") == FAULT

    simulate(drive)


def test_a_deadlock_keeps_who_waits():
    async def drive(ctx, dut, bus):
        await bus.launch(ctx, 0, 9)
        await ctx.tick()
        deadlock = {"code": FaultCode.DEADLOCK, "engine": 2, "index": 7}
        ctx.set(dut.rest, deadlock)
        ctx.set(dut.waiting, 0b10010)
        await ctx.tick()
        assert ctx.get(dut.running), "a program that fetch has not taken cannot be at rest"
        ctx.set(dut.start.ready, 1)
        await ctx.tick().repeat(4)
        ctx.set(dut.waiting, 0)
        assert await bus.get(ctx, "FAULT") == FaultCode.DEADLOCK | 2 << 8
        assert await bus.get(ctx, "FAULT_INDEX") == 7
        assert await bus.get(ctx, "WAITING") == 0b10010

    simulate(drive)
