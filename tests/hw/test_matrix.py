from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from tests.hw.compute_bench import SMALL, bits
from weft.hw.matrix import MatrixUnit
from weft.isa import AcceleratorConfig

CONFIGS = {
    "block 4": SMALL,
    "block 2, batch 4": replace(SMALL, block=2, batch=4, inp_bytes=64, qnt_bytes=64),
    "int4": replace(SMALL, inp_width=4, wgt_width=4, wgt_bytes=64),
    "int4 weights": replace(SMALL, wgt_width=4, wgt_bytes=64),
    "one tap": replace(SMALL, depthwise_taps=1),
    "no taps": replace(SMALL, depthwise_taps=0),
    "not sliding": replace(SMALL, sliding_steps=False),
    "neither": replace(SMALL, depthwise_taps=0, sliding_steps=False),
    "block 16": AcceleratorConfig.preset("base"),
}


def products(
    config: AcceleratorConfig, form: str, inp, wgt, depthwise=(), slides=()
) -> list[np.ndarray]:
    """What comes out for one pair of operands a cycle; ``inp`` has one element or more."""
    dut = MatrixUnit(config, form)
    results, width = [], dut.lane_bits

    async def bench(ctx):
        for n in range(len(inp) + dut.latency):
            now = min(n, len(inp) - 1)
            ctx.set(dut.inp, bits(inp[now], config.inp_width))
            if config.sliding:
                ctx.set(dut.slide, slides[now] if slides else 0)
            now = min(max(0, n - dut.ahead), len(inp) - 1)
            ctx.set(dut.wgt, bits(wgt[now], config.wgt_width))
            if config.taps:
                ctx.set(dut.depthwise, depthwise[now] if depthwise else 0)
            await ctx.delay(0)
            if n >= dut.latency:
                word = ctx.get(dut.sum)
                lanes = range(config.batch * config.block)
                lanes = [word >> (width * k) & ((1 << width) - 1) for k in lanes]
                signed = [v - (1 << width) if v >> (width - 1) else v for v in lanes]
                results.append(np.array(signed).reshape(config.batch, config.block))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return results


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("name", CONFIGS)
def test_products_are_exact_at_the_extremes_and_everywhere(name, form):
    config = CONFIGS[name]
    random = np.random.default_rng(3)
    inp_limit, wgt_limit = 1 << (config.inp_width - 1), 1 << (config.wgt_width - 1)
    shapes = (config.batch, config.block), (config.block, config.block)
    inp = [random.integers(-inp_limit, inp_limit, shapes[0]) for _ in range(6)]
    wgt = [random.integers(-wgt_limit, wgt_limit, shapes[1]) for _ in range(6)]
    for x in (-inp_limit, inp_limit - 1):
        for w in (-wgt_limit, wgt_limit - 1):
            inp.append(np.full(shapes[0], x))
            wgt.append(np.full(shapes[1], w))
    got = products(config, form, inp, wgt)
    assert len(got) == len(inp)
    for x, w, out in zip(inp, wgt, got, strict=True):
        np.testing.assert_array_equal(out, x @ w.T)


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("name", [n for n, config in CONFIGS.items() if config.taps])
def test_depthwise_sums_are_exact_between_others(name, form):
    config = CONFIGS[name]
    random = np.random.default_rng(4)
    inp_limit, wgt_limit = 1 << (config.inp_width - 1), 1 << (config.wgt_width - 1)
    shape = (config.taps, config.batch, config.block)
    inp = [random.integers(-inp_limit, inp_limit, shape) for _ in range(12)]
    wgt = [random.integers(-wgt_limit, wgt_limit, (config.block,) * 2) for _ in range(12)]
    inp += [np.full(shape, x) for x in (-inp_limit, inp_limit - 1) for _ in range(2)]
    wgt += [np.full((config.block,) * 2, w) for w in (-wgt_limit, wgt_limit - 1)] * 2
    depthwise = [*random.integers(0, 2, 12).tolist(), 1, 1, 1, 1]
    got = products(config, form, inp, wgt, depthwise)
    for x, w, taps, out in zip(inp, wgt, depthwise, got, strict=True):
        expected = np.einsum("tbo,to->bo", x, w[: config.taps]) if taps else x[0] @ w.T
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
@pytest.mark.parametrize("name", [n for n, config in CONFIGS.items() if config.sliding])
def test_a_product_takes_a_block_of_lanes_from_any_lane_on(name, form):
    config = CONFIGS[name]
    random = np.random.default_rng(5)
    limit, block = 1 << (config.inp_width - 1), config.block
    slides = [*range(block), *random.integers(0, block, 4).tolist()]
    shape = (config.neighbours, config.batch, block)
    inp = [random.integers(-limit, limit, shape) for _ in slides]
    wgt = [random.integers(-(1 << config.wgt_width - 1), 0, (block, block)) for _ in slides]
    got = products(config, form, inp, wgt, slides=slides)
    for x, w, first, out in zip(inp, wgt, slides, got, strict=True):
        run = np.concatenate([x[0], x[1]], axis=1)[:, first : first + block]
        np.testing.assert_array_equal(out, run @ w.T)


@pytest.mark.parametrize("form", ["simulation", "synthesis"])
def test_every_pair_of_operands_of_a_small_unit_is_multiplied_exactly(form):
    """A proof by exhaustion: a lane of block 2 and width 4 has 65536 pairs of operands."""
    config = replace(
        SMALL, block=2, batch=16, inp_width=4, wgt_width=4,
        inp_bytes=64, wgt_bytes=64, acc_bytes=512, qnt_bytes=64,
    )  # fmt: skip
    numbers = np.arange(-8, 8)
    pairs = np.stack(np.meshgrid(numbers, numbers), -1).reshape(-1, 2)
    inp = [pairs[n : n + 16] for n in range(0, 256, 16)]
    wgt = [np.stack([pairs[n], pairs[-1 - n]]) for n in range(256)]
    operands = [(x, w) for x in inp for w in wgt]
    got = products(config, form, *zip(*operands, strict=True))
    np.testing.assert_array_equal(np.array(got), [x @ w.T for x, w in operands])
