from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from weft.hw.requantizer import requantizer
from weft.isa import AcceleratorConfig
from weft.isa.memories import QNT_LANE
from weft.isa.requantize import rescale_int

TINY = AcceleratorConfig.preset("tiny")
CONFIGS = {
    "tiny": TINY,
    "batch 2": replace(TINY, batch=2, block=2),
    "int4": replace(TINY, inp_width=4, wgt_width=4),
    "plain": replace(TINY, requantize=False),
    "two turns": replace(TINY, rescale_cycles=2),
    "four turns": replace(TINY, batch=2, rescale_cycles=4),
}


def wrap32(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def pack(lanes, bits: int) -> int:
    return sum((int(v) & ((1 << bits) - 1)) << (bits * i) for i, v in enumerate(lanes))


def random_element(config: AcceleratorConfig, random: np.random.Generator):
    """Accumulators, an element of parameters (lanes of values by name), the flag."""
    acc = random.integers(-(2**31), 2**31, config.batch * config.block)
    acc >>= random.integers(0, 32, acc.shape)
    parameters = []
    for _ in range(config.block):
        low, high = sorted(random.integers(-128, 128, 2).tolist())
        parameters.append({
            "bias": int(random.integers(-(2**31), 2**31)) >> int(random.integers(0, 32)),
            "multiplier": int(random.choice([0, 2**31 - 1, random.integers(2**30, 2**31)])),
            "left": int(random.integers(0, 256)),
            "right": int(random.integers(0, 256)),
            "zero_point": int(random.integers(-128, 128)),
            "low": low,
            "high": high,
            "even": int(random.integers(0, 256)),
        })  # fmt: skip
    return acc.tolist(), parameters, int(random.integers(2)) * config.requantize


def narrowed(config: AcceleratorConfig, acc, parameters, requantize) -> int:
    """The stored element, on Python's integers."""
    lanes = []
    for lane, kept in enumerate(acc):
        p, value = parameters[lane % config.block], kept
        if requantize:
            x = wrap32(value + p["bias"])
            even = bool(p["even"] & config.to_even)
            x = rescale_int(x, p["multiplier"], p["left"] & 31, p["right"] & 31, even)
            value = min(max(wrap32(x + p["zero_point"]), p["low"]), p["high"])
        lanes.append(value)
    return pack(lanes, config.out_width)


def qnt_bits(parameters) -> int:
    word = 0
    for lane, p in enumerate(parameters):
        for record in QNT_LANE:
            field = p[record.name] & ((1 << record.dtype.bits) - 1)
            word |= field << (8 * (16 * lane + record.offset))
    return word


class Read:
    """Parameters by index, for a requantizer that reads them part by part."""

    def __init__(self, dut):
        self.port, self.words = dut.qnt, {}

    async def process(self, ctx):
        port, bits = self.port, len(self.port.data)
        index_bits = TINY.qnt_index_bits
        async for _, _, enable, address in ctx.tick().sample(port.enable, port.address):
            if enable:
                word = self.words.get(address % (1 << index_bits), 0)
                ctx.set(port.data, word >> (address >> index_bits) * bits & (1 << bits) - 1)


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("name", CONFIGS)
def test_elements_are_narrowed_in_order_under_stalls(name, form):
    config = CONFIGS[name]
    random = np.random.default_rng(7)
    elements = [random_element(config, random) for _ in range(40)]
    dut = requantizer(config, form)
    read = Read(dut) if config.rescale_cycles > 1 else None
    got = []

    async def put(ctx):
        for n, (acc, parameters, flag) in enumerate(elements):
            while random.random() < 0.3:
                await ctx.tick()
            ctx.set(dut.i.payload.acc, pack(acc, 32))
            if config.requantize:
                word = qnt_bits(parameters)
                if read:
                    index = n % config.qnt_depth
                    read.words[index] = word
                ctx.set(dut.i.payload.qnt, index if read else word)
                ctx.set(dut.i.payload.requantize, flag)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def take(ctx):
        stalls = np.random.default_rng(3)
        while len(got) < len(elements):
            ready = int(stalls.random() < 0.6)
            ctx.set(dut.o.ready, ready)
            if ctx.get(dut.o.valid) and ready:
                got.append(ctx.get(dut.o.payload))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(put)
    sim.add_testbench(take)
    if read:
        sim.add_process(read.process)
    sim.run_until(1e-3)
    assert got == [narrowed(config, *element) for element in elements]


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_an_element_passes_every_so_many_cycles_after_the_latency(form, turns):
    dut = requantizer(replace(TINY, rescale_cycles=turns), form)
    valid = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for cycle in range(dut.latency + 8):
            valid.append(ctx.get(dut.o.valid))
            assert ctx.get(dut.i.ready) == (cycle % turns == 0)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert valid == [0] * dut.latency + [int(n % turns == 0) for n in range(8)]
