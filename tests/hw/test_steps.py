from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth import Elaboratable, Module
from amaranth.lib import memory
from amaranth.sim import Simulator

from tests.hw.compute_bench import MULTIPLIES, SMALL
from weft.hw.steps import Steps
from weft.isa import AcceleratorConfig, Instruction, InstructionSet
from weft.isa.formats import uop_layout


class Bench(Elaboratable):
    def __init__(self, config: AcceleratorConfig, uops: list[int]):
        self.uops = uops
        self.steps = Steps(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.steps = steps = self.steps
        m.submodules.uop = uop = memory.Memory(shape=32, depth=len(self.uops), init=self.uops)
        read = uop.read_port()
        m.d.comb += [read.addr.eq(steps.uop.address), read.en.eq(steps.uop.enable)]
        m.d.comb += steps.uop.data.eq(read.data)
        return m


def issued(config, uops, program, stalls: float = 0.0, cycles: int = 2000):
    """Every step that comes out: (cycle, its members by name, fault index after it)."""
    bench = Bench(config, uops)
    dut, instructions = bench.steps, InstructionSet(config)
    random = np.random.default_rng(9)
    steps = []

    async def put(ctx):
        for index, instruction in enumerate(program):
            ctx.set(dut.i.payload.word, instructions.encode(instruction))
            ctx.set(dut.i.payload.index, 100 + index)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            while random.random() < stalls:
                await ctx.tick()

    async def take(ctx):
        names = ("step", "last", "fault", "dst", "src", "wgt")
        for cycle in range(cycles):
            ready = int(random.random() >= stalls)
            ctx.set(dut.o.ready, ready)
            taken = ready and ctx.get(dut.o.valid)
            if taken:
                step = {name: ctx.get(getattr(dut.o.payload, name)) for name in names}
                step["multiply"] = ctx.get(dut.o.payload.operation.multiply)
            await ctx.tick()
            if taken:
                steps.append((cycle, step, ctx.get(dut.fault_index)))

    sim = Simulator(bench)
    sim.add_clock(1e-6)
    sim.add_testbench(put, background=True)
    sim.add_testbench(take)
    sim.run()
    return steps


def expected(config, uops, instruction):
    """The steps' indices, by the meaning."""
    layout, o = uop_layout(config), instruction.operands
    for i in range(o["iter_out"]):
        for j in range(o["iter_in"]):
            for u in range(o["uop_bgn"], o["uop_end"]):
                fields = layout.decode(uops[u])
                yield {
                    n: fields[n] + i * o.get(f"{n}_factor_out", 0) + j * o.get(f"{n}_factor_in", 0)
                    for n in ("dst", "src", "wgt")
                }


DEEP = replace(AcceleratorConfig.preset("base"), uop_bytes=1024)


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("config", [SMALL, DEEP], ids=["small", "deep"])
def test_steps_come_in_the_order_of_the_loops(config, stalls):
    random = np.random.default_rng(4)
    layout = uop_layout(config)
    depths = {"dst": config.acc_depth, "src": config.inp_depth, "wgt": config.wgt_depth}
    uops = [
        layout.encode({n: int(random.integers(depth // 4)) for n, depth in depths.items()})
        for _ in range(config.uop_depth)
    ]
    program = []
    for _ in range(30):
        operation = str(random.choice(["gemm", "matmul.set", "alu.add", "gemm.reset"]))
        bgn = int(random.integers(config.uop_depth - 4))
        operands = {"uop_bgn": bgn, "uop_end": bgn + int(random.integers(5))}
        operands |= {f"iter_{n}": int(random.integers(4)) for n in ("in", "out")}
        for n in depths if operation != "alu.add" else ("dst", "src"):
            for which in ("in", "out"):
                operands[f"{n}_factor_{which}"] = int(random.integers(depths[n] // 8 + 1))
        program.append(Instruction(operation, operands))
    got = issued(config, uops, program, stalls)
    at = 0
    for instruction in program:
        steps = list(expected(config, uops, instruction))
        for n, step in enumerate(steps or [None]):
            _, out, _ = got[at]
            assert not out["fault"]
            assert out["step"] == (step is not None)
            assert out["last"] == (n == max(0, len(steps) - 1))
            if step:
                assert out["dst"] == step["dst"]
                assert out["src"] == step["src"]
                assert out["multiply"] == (instruction.operation in MULTIPLIES)
                if out["multiply"]:
                    assert out["wgt"] == step["wgt"]
            at += 1
    assert at == len(got)
    if not stalls:
        assert [cycle for cycle, *_ in got] == list(range(Steps.latency, Steps.latency + at))


BEYOND = {
    "dst": ("gemm", (0, 0, 0), {"dst_factor_in": 15, "iter_in": 3}, 2),
    "dst of a reset": ("gemm.reset", (15, 0, 0), {"dst_factor_out": 1, "iter_out": 2}, 1),
    "dst of an alu step": ("alu.max.imm", (15, 0, 0), {"dst_factor_in": 1, "iter_in": 9}, 1),
    "inp": ("gemm", (0, 15, 0), {"src_factor_in": 1, "iter_in": 2}, 1),
    "a tap's inp": ("depthwise.set", (0, 13, 0), {"src_factor_in": 1, "iter_in": 2}, 1),
    "a run's inp": ("sliding.set", (0, 15, 0), {"src_factor_in": 1, "iter_in": 2}, 1),
    "a run's inp by elements": ("sliding.add", (0, 13, 0), {"src_factor_out": 3, "iter_out": 2}, 1),
    "inp at once": ("depthwise.add", (0, 15, 0), {}, 0),
    "wgt": ("matmul.set", (0, 0, 7), {"wgt_factor_out": 7, "iter_out": 2}, 1),
    "acc source": ("alu.add", (0, 15, 0), {"src_factor_out": 15, "iter_out": 2}, 1),
    "qnt": ("alu.requantize", (0, 3, 0), {"src_factor_in": 1, "iter_in": 2}, 1),
    "qnt at once": ("alu.scale", (0, 4, 0), {}, 0),
    "micro-op": ("gemm", (0, 0, 0), {"uop_end": 65}, 64),
}


@pytest.mark.parametrize("name", BEYOND)
def test_an_index_beyond_its_scratchpad_is_a_fault_and_the_end(name):
    operation, first, operands, step = BEYOND[name]
    layout = uop_layout(SMALL)
    uops = [layout.encode(dict(zip(("dst", "src", "wgt"), first, strict=True)))]
    uops += [0] * (SMALL.uop_depth - 1)
    loops = {"uop_end": 1, "iter_in": 1, "iter_out": 1} | operands
    fine = Instruction("gemm.reset", {"uop_bgn": 1, "uop_end": 2, "iter_in": 1, "iter_out": 1})
    got = issued(SMALL, uops, [fine, Instruction(operation, loops), fine], cycles=120)
    assert [out["fault"] for _, out, _ in got] == [0] * (1 + step) + [1]
    assert got[-1][2] == 101


@pytest.mark.parametrize("operand", ["dst", "src", "wgt"])
def test_the_greatest_factors_do_not_wrap_into_range(operand):
    layout = uop_layout(DEEP).by_name
    fields = {n: (1 << layout[n].width) - 1 if n == operand else 0 for n in ("dst", "src", "wgt")}
    uops = [uop_layout(DEEP).encode(dict.fromkeys(fields, 0)), uop_layout(DEEP).encode(fields)]
    uops += [0] * (DEEP.uop_depth - 2)
    depth = {"dst": DEEP.acc_depth, "src": DEEP.inp_depth, "wgt": DEEP.wgt_depth}[operand]
    greatest = {f"{operand}_factor_{loop}": depth - 1 for loop in ("in", "out")}
    for begin, trips, count in ((0, (3, 1), 3), (0, (2, 3), 4), (1, (2, 1), 2), (1, (1, 2), 2)):
        operands = {"uop_bgn": begin, "uop_end": begin + 1, **greatest}
        operands |= {"iter_in": trips[0], "iter_out": trips[1]}
        got = issued(DEEP, uops, [Instruction("gemm", operands)], cycles=40)
        assert [out["fault"] for _, out, _ in got] == [0] * (count - 1) + [1]


def test_what_is_not_accessed_may_wrap():
    far = {"src_factor_in": 2**11 - 1, "iter_in": 200, "uop_end": 1, "iter_out": 1}
    got = issued(DEEP, [0] * DEEP.uop_depth, [Instruction("gemm.reset", far)], cycles=230)
    assert len(got) == 200
    assert not any(out["fault"] for _, out, _ in got)
