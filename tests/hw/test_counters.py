from __future__ import annotations

from collections import Counter as Tally
from random import Random

from amaranth.sim import Simulator

from weft.hw.counters import Counters
from weft.hw.interfaces import Activity
from weft.isa import PRESETS, Engine
from weft.isa.registers import COUNTERS

BASE = PRESETS["base"]
ACTIVITIES = {
    e: [Activity[c.name.removeprefix(f"{c.group}_").upper()]
        for c in COUNTERS if c.group == e.value and c.partition]
    for e in Engine
}  # fmt: skip


PARTS = {e: [c.name for c in COUNTERS if c.group == e.value and c.partition] for e in Engine}
EVENTS = ("gemm_step", "alu_step", "read_beat")


def values(ctx, dut):
    return {c.name: ctx.get(getattr(dut.counts, c.name)) for c in COUNTERS}


async def cycle(ctx, dut, model, random, run, quiet=False):
    """One cycle in which anything, or nothing, happens; ``model`` counts it if ``run``."""
    written = 0 if quiet else random.randint(0, BASE.bus_bytes)
    ctx.set(dut.run, run)
    ctx.set(dut.written, written)
    for e in Engine:
        activity = Activity.IDLE if quiet else random.choice(ACTIVITIES[e])
        done = 0 if quiet else random.getrandbits(1)
        ctx.set(getattr(dut, f"{e.value}_activity"), activity)
        ctx.set(getattr(dut, f"{e.value}_done"), done)
        model[f"{e.value}_{activity.name.lower()}"] += run
        model["instructions"] += run * done
    happens = {name: 0 if quiet else random.getrandbits(1) for name in EVENTS}
    for name, value in happens.items():
        ctx.set(getattr(dut, name), value)
    model["cycles"] += run
    model["gemm_steps"] += run * happens["gemm_step"]
    model["alu_steps"] += run * happens["alu_step"]
    model["read_bytes"] += run * happens["read_beat"] * BASE.bus_bytes
    model["write_bytes"] += run * written
    await ctx.tick()


def test_every_counter_counts_as_a_model_does_while_a_program_runs():
    dut, random = Counters(BASE), Random(0)

    async def drive(ctx):
        model = Tally()
        for _ in range(2):
            for _ in range(400):
                await cycle(ctx, dut, model, random, run=1)
            await cycle(ctx, dut, model, random, run=1, quiet=True)  # a program ends like this
            for _ in range(20):
                await cycle(ctx, dut, model, random, run=0)
                assert values(ctx, dut) == {c.name: model[c.name] for c in COUNTERS}
            for parts in PARTS.values():
                assert sum(model[name] for name in parts) == model["cycles"]
            ctx.set(dut.clear, 1)
            await cycle(ctx, dut, Tally(), random, run=0, quiet=True)
            ctx.set(dut.clear, 0)
            await cycle(ctx, dut, Tally(), random, run=0, quiet=True)
            model.clear()
            assert not any(values(ctx, dut).values())

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
