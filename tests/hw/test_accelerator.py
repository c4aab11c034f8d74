from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.hw.axi_bench import Dram
from tests.hw.machine import DONE, FAULT, Machine, machine
from weft.isa import PRESETS, Engine, FaultCode, Instruction, MemoryType, spec_hash
from weft.isa.config import PAGE_BYTES
from weft.isa.faults import ENGINE_NAMES, WAITS
from weft.isa.formats import uop_layout
from weft.isa.registers import COUNTERS, IDENTITY

SMALL = replace(
    PRESETS["tiny"],
    uop_bytes=256, inp_bytes=256, wgt_bytes=512, acc_bytes=512, qnt_bytes=256,
    token_depth=2,
)  # fmt: skip
INP, WGT, ACC, UOP, OUT = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
BAD_PAGE = 0x6000
ROWS = 6
"""Input vectors of the example; each is multiplied by two tiles of weights."""


def load(memory: str, address: int, count: int, element_bytes: int, **flags) -> Instruction:
    operands = {"dram_base": address // element_bytes, "y_size": 1, "x_size": count, "x_stride": 1}
    return Instruction(f"load.{memory}", operands, **flags)


def example(config) -> list[Instruction]:
    """acc[r] = (acc[r] + inp[r] . wgt[0]^T + inp[r] . wgt[1]^T + 3) >> 1, its low bytes to OUT."""
    step = {"uop_bgn": 0, "iter_out": ROWS, "dst_factor_out": 1, "src_factor_out": 1, "iter_in": 1}
    alu = {**step, "uop_end": 1}
    store = {"dram_base": OUT // config.out_element_bytes, "y_size": 1, "x_size": ROWS}
    return [
        load("inp", INP, ROWS, config.inp_element_bytes),
        load("wgt", WGT, 2, config.wgt_element_bytes, push_next=True),
        load("uop", UOP, 2, 4),
        load("acc", ACC, ROWS, config.acc_element_bytes),
        Instruction("gemm", {**step, "uop_end": 2}, pop_prev=True),
        Instruction("alu.add.imm", {**alu, "imm": 3}),
        Instruction("alu.shr.imm", {**alu, "imm": 1}, push_next=True),
        Instruction("store.out", store, pop_prev=True, push_prev=True),
        Instruction("finish", pop_next=True),
    ]


def prepare(machine: Machine) -> np.ndarray:
    """Random operands in DRAM; the bytes that must be at OUT afterwards."""
    config, random = machine.config, np.random.default_rng(5)
    inp = random.integers(-128, 128, (ROWS, config.block), dtype=np.int8)
    wgt = random.integers(-128, 128, (2, config.block, config.block), dtype=np.int8)
    acc = random.integers(-(1 << 31), 1 << 31, (ROWS, config.block), dtype=np.int64)
    acc[0] = (1 << 31) - 1  # wraps around
    layout = uop_layout(config)
    uops = [layout.encode({"dst": 0, "src": 0, "wgt": w}) for w in range(2)]
    for address, values in ((INP, inp), (WGT, wgt), (ACC, acc.astype(np.int32))):
        machine.write(address, values)
    machine.write(UOP, np.array(uops, np.uint32))
    total = acc + np.einsum("ri,woi->ro", inp.astype(np.int64), wgt.astype(np.int64)) + 3
    return (total.astype(np.int32) >> 1).astype(np.int8)


def simulate(testbench, config=SMALL, *, stall=0.0, **dram):
    """``testbench(ctx, machine)`` on a machine that can read everything but BAD_PAGE."""
    bad = {BAD_PAGE // PAGE_BYTES}
    machine(config).simulate(testbench, Dram(bad=bad, stall=stall, **dram), stall)


def check_counters(counters, machine):
    for engine in Engine:
        parts = [c.name for c in COUNTERS if c.group == engine.value and c.partition]
        assert sum(counters[name] for name in parts) == counters["cycles"]
    assert counters["read_bytes"] == len(machine.reads.beats) * machine.config.bus_bytes
    assert counters["write_bytes"] == machine.writes.written


@pytest.mark.parametrize(
    ("changes", "timing"),
    [
        ({}, {}),
        ({}, {"stall": 0.4, "latency": 9, "mixed": True, "seed": 3}),
        pytest.param({"bus_bytes": 32}, {"stall": 0.2, "latency": 4}, marks=pytest.mark.slow),
        pytest.param(
            {"requantize": False, "pad_value": False, "overwrite": False},
            {"latency": 20},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["prompt", "stalls", "wide bus", "vta"],
)
def test_a_program_runs_through_all_engines(changes, timing):
    config = replace(SMALL, **changes)

    async def testbench(ctx, machine):
        expected = prepare(machine)
        program = example(config)
        assert await machine.run(ctx, program) == DONE
        assert np.array_equal(machine.read(OUT, expected.shape, np.int8), expected)
        counters = await machine.counters(ctx)
        assert counters["instructions"] == len(program)
        assert counters["gemm_steps"] == 2 * ROWS
        assert counters["alu_steps"] == 2 * ROWS
        assert counters["compute_busy"] == 4 * ROWS
        assert counters["write_bytes"] == ROWS * config.out_element_bytes
        assert counters["store_wait_token"] > 0
        check_counters(counters, machine)
        assert await machine.counters(ctx) == counters, "they hold their values"

    simulate(testbench, config, **timing)


def test_the_device_says_who_it_is_and_can_be_launched_again_and_again():
    async def testbench(ctx, machine):
        assert await machine.bus.get(ctx, "ID") == IDENTITY
        assert await machine.bus.get(ctx, "SPEC") == int(spec_hash(SMALL), 16)
        expected = prepare(machine)
        cycles = []
        # The second program leaves a token behind, which the third must not find.
        for program in (
            example(SMALL),
            [Instruction("store.nop", push_prev=True), Instruction("finish")],
            example(SMALL),
        ):
            machine.write(OUT, np.zeros_like(expected))
            assert await machine.run(ctx, program) == DONE
            counters = await machine.counters(ctx)
            assert counters["instructions"] == len(program)
            cycles.append(counters["cycles"])
        assert np.array_equal(machine.read(OUT, expected.shape, np.int8), expected)
        assert cycles[0] == cycles[2]

    simulate(testbench)


def test_what_stands_after_finish_is_not_executed():
    async def testbench(ctx, machine):
        bad = (1 << 128) - 1
        assert await machine.run(ctx, [Instruction("finish"), bad, bad]) == DONE
        assert (await machine.counters(ctx))["instructions"] == 1
        assert await machine.run(ctx, [Instruction("gemm"), Instruction("finish")]) == DONE
        assert (await machine.counters(ctx))["instructions"] == 2

    simulate(testbench)


def store_word(machine, **values) -> int:
    layout = machine.instructions.layouts[1]
    return layout.encode({"opcode": 1, "memory_type": MemoryType.OUT, **values})


def beyond(machine, engine: str) -> Instruction:
    """An instruction whose last index is one beyond its scratchpad."""
    config = machine.config
    operands = {"y_size": 1, "x_size": 2, "dram_base": 0}
    return {
        "load": Instruction("load.inp", {**operands, "sram_base": config.inp_depth - 1}),
        "compute": Instruction("load.acc", {**operands, "sram_base": config.acc_depth - 1}),
        "store": Instruction("store.out", {**operands, "sram_base": config.acc_depth - 1}),
    }[engine]


FINISH = Instruction("finish")
FAULTS = {
    "reserved": (lambda m: [5 | 7 << 7], FaultCode.RESERVED, "fetch"),
    "store pad": (lambda m: [store_word(m, x_size=1, y_pad_0=1)], FaultCode.STORE_PAD, "store"),
    "token route": (
        lambda m: [Instruction("load.inp", pop_prev=True)], FaultCode.TOKEN_ROUTE, "load"
    ),
    "load range": (lambda m: [beyond(m, "load")], FaultCode.SRAM_RANGE, "load"),
    "compute range": (lambda m: [beyond(m, "compute")], FaultCode.SRAM_RANGE, "compute"),
    "store range": (lambda m: [beyond(m, "store")], FaultCode.SRAM_RANGE, "store"),
    "load bus": (
        lambda m: [load("inp", BAD_PAGE, 1, m.config.inp_element_bytes)],
        FaultCode.BUS_READ, "load",
    ),
    "compute bus": (lambda m: [load("uop", BAD_PAGE, 1, 4)], FaultCode.BUS_READ, "compute"),
    "store bus": (
        lambda m: [store_word(m, x_size=1, y_size=1,
                              dram_base=BAD_PAGE // m.config.out_element_bytes)],
        FaultCode.BUS_WRITE, "store",
    ),
}  # fmt: skip
"""What goes wrong at instruction 2 of a program, with the code and the engine that say so."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_what_and_where_and_stops_the_machine(name):
    mistake, code, engine = FAULTS[name]

    async def testbench(ctx, machine):
        program = [Instruction("load.inp"), Instruction("gemm"), *mistake(machine)]
        program += [Instruction("gemm"), Instruction("load.inp"), FINISH]
        assert await machine.run(ctx, program) == FAULT
        assert await machine.fault(ctx) == (code, ENGINE_NAMES.index(engine), 2)
        await machine.bus.put(ctx, "CONTROL", 2)
        assert not ctx.get(machine.dut.irq)
        assert await machine.run(ctx, [FINISH]) == FAULT, "only a reset makes it run again"

    simulate(testbench)


def test_fetch_reports_a_bus_error_with_the_instruction_that_it_hit():
    async def testbench(ctx, machine):
        program = [Instruction("gemm")] * 6 + [FINISH]
        assert await machine.run(ctx, program, BAD_PAGE - 3 * 16) == FAULT
        assert await machine.fault(ctx) == (FaultCode.BUS_READ, ENGINE_NAMES.index("fetch"), 3)

    simulate(testbench)


@pytest.mark.parametrize(
    ("program", "waits", "engine", "index"),
    [
        ([Instruction("gemm"), Instruction("store.nop", pop_prev=True), FINISH],
         [("store", "pop_prev")], "store", 1),
        ([Instruction("gemm"), Instruction("finish", pop_next=True, pop_prev=True)],
         [("compute", "pop_prev"), ("compute", "pop_next")], "compute", 1),
        ([Instruction("load.inp", pop_next=True), Instruction("gemm", pop_prev=True), FINISH],
         [("load", "pop_next"), ("compute", "pop_prev")], "load", 0),
    ],
)  # fmt: skip
def test_a_deadlock_says_who_waits_for_what(program, waits, engine, index):
    async def testbench(ctx, machine):
        assert await machine.run(ctx, program) == FAULT
        expected = (FaultCode.DEADLOCK, ENGINE_NAMES.index(engine), index)
        assert await machine.fault(ctx) == expected
        names = [(group, flag) for group, flag, _ in WAITS]
        bits = sum(1 << names.index(wait) for wait in waits)
        assert await machine.bus.get(ctx, "WAITING") == bits

    simulate(testbench)


def test_a_full_token_queue_that_nobody_empties_is_a_deadlock():
    async def testbench(ctx, machine):
        program = [Instruction("load.inp", push_next=True)] * (SMALL.token_depth + 1)
        program.append(FINISH)
        assert await machine.run(ctx, program) == FAULT
        expected = (FaultCode.DEADLOCK, ENGINE_NAMES.index("load"), SMALL.token_depth)
        assert await machine.fault(ctx) == expected
        names = [(group, flag) for group, flag, _ in WAITS]
        assert await machine.bus.get(ctx, "WAITING") == 1 << names.index(("load", "push_next"))

    simulate(testbench)


@pytest.mark.parametrize("count", [0, 3])
def test_a_stream_without_finish_is_a_fault(count):
    async def testbench(ctx, machine):
        assert await machine.run(ctx, [Instruction("gemm")] * count) == FAULT
        assert await machine.fault(ctx) == (FaultCode.NO_FINISH, 0, count)

    simulate(testbench)


def test_reset_makes_a_faulted_machine_usable():
    async def testbench(ctx, machine):
        expected = prepare(machine)
        assert await machine.run(ctx, [1 << 127]) == FAULT
        ctx.set(machine.reset, 1)
        await ctx.tick()
        ctx.set(machine.reset, 0)
        assert await machine.bus.get(ctx, "STATUS") == 0
        assert await machine.run(ctx, example(SMALL)) == DONE
        assert np.array_equal(machine.read(OUT, expected.shape, np.int8), expected)

    simulate(testbench)
