from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from tests.hw.compute_bench import MULTIPLIES, SMALL, Result, State, run
from weft.hw.interfaces import Activity
from weft.isa import AcceleratorConfig, FaultCode, Instruction, InstructionSet
from weft.isa.formats import uop_layout

CONFIGS = {
    "small": SMALL,
    "batch 2": replace(SMALL, batch=2, inp_bytes=128, acc_bytes=512),
    "int4": replace(SMALL, inp_width=4, wgt_width=4, inp_bytes=64, wgt_bytes=64),
    "int4 weights": replace(SMALL, wgt_width=4, wgt_bytes=64),
    "block 2": replace(SMALL, block=2, inp_bytes=64, wgt_bytes=64, qnt_bytes=64),
    "no taps": replace(SMALL, depthwise_taps=0),
    "two taps": replace(SMALL, depthwise_taps=2, batch=2, inp_bytes=128, acc_bytes=512),
    "two turns": replace(SMALL, rescale_cycles=2),
    "four turns": replace(SMALL, batch=2, inp_bytes=128, acc_bytes=512, rescale_cycles=4),
    "eight turns": replace(
        SMALL, batch=2, inp_bytes=128, acc_bytes=512, rescale_cycles=8, requantize=False
    ),
    "plain": replace(SMALL, requantize=False, overwrite=False, pad_value=False),
}
FORMS = ("simulation", "synthesis")


def uops(state: State, *steps: tuple[int, int, int]) -> None:
    """The first micro-ops: (dst, src, wgt) each."""
    layout = uop_layout(state.config)
    for n, step in enumerate(steps):
        state.uop[n] = layout.encode(dict(zip(("dst", "src", "wgt"), step, strict=True)))


def loop(operation: str, uop_end: int, iter_in: int = 1, iter_out: int = 1, **operands: int):
    operands |= {"uop_end": uop_end, "iter_in": iter_in, "iter_out": iter_out}
    return Instruction(operation, operands)


def imm(operation: str) -> dict[str, int]:
    return {"imm": -3} if operation.endswith(".imm") else {}


def run_and_compare(state: State, program, form="simulation", **options) -> Result:
    expected = deepcopy(state)
    steps = [expected.run(instruction) for instruction in program]
    result = run(state, program, form, **options)
    assert result.fault is None
    assert len(result.done) == len(program)
    np.testing.assert_array_equal(result.acc, expected.acc)
    multiplying = [i.operation in MULTIPLIES for i in program]
    alu = [i.operation.startswith("alu") for i in program]
    assert len(result.gemm) == sum(n for n, m in zip(steps, multiplying, strict=True) if m)
    assert len(result.alu) == sum(n for n, a in zip(steps, alu, strict=True) if a)
    return result


def step_operations(config: AcceleratorConfig) -> list[str]:
    return [
        name
        for name, o in InstructionSet(config).operations.items()
        if o.format.name in ("GEMM", "ALU", "MATMUL")
    ]


def legal_program(state: State, random: np.random.Generator, length: int) -> list[Instruction]:
    """Instructions whose indices are in range; micro-ops point into the lower half."""
    config = state.config
    layout = uop_layout(config)
    halves = {"dst": config.acc_depth, "wgt": config.wgt_depth}
    halves["src"] = min(config.inp_depth, config.acc_depth, config.qnt_depth or 64)
    for u in range(config.uop_depth):
        state.uop[u] = layout.encode(
            {n: int(random.integers(max(1, depth // 2))) for n, depth in halves.items()}
        )
    program = []
    for _ in range(length):
        name = str(random.choice(step_operations(config)))
        first = int(random.integers(config.uop_depth))
        end = min(config.uop_depth, first + int(random.integers(0, 6)))
        trips = {f"iter_{n}": int(random.integers(0, 4)) for n in ("in", "out")}
        operands = {"uop_bgn": first, "uop_end": end, **trips}
        slots = InstructionSet(config).operations[name].format.layout(config).by_name
        for operand, depth in halves.items():
            room = depth - max(1, depth // 2)
            for loop_name in ("in", "out"):
                field = f"{operand}_factor_{loop_name}"
                if field in slots:
                    most = room // 2 // max(1, trips[f"iter_{loop_name}"] - 1)
                    operands[field] = int(random.integers(0, most + 1))
        if name.endswith(".imm"):
            operands["imm"] = int(random.choice([-(2**15), -33, -32, -31, -1, 0, 1, 5, 31, 32, 99]))
        program.append(Instruction(name, operands))
    return program


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs_of_steps_do_what_they_mean(name, form):
    random = np.random.default_rng(list(CONFIGS).index(name))
    state = State(CONFIGS[name], random)
    program = legal_program(state, random, 60)
    run_and_compare(state, program, form)


def test_random_programs_survive_gaps_between_instructions():
    random = np.random.default_rng(77)
    state = State(SMALL, random)
    run_and_compare(state, legal_program(state, random, 40), stalls=0.5)


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_sees_what_any_step_before_it_wrote(form, turns):
    state = State(replace(SMALL, rescale_cycles=turns), np.random.default_rng(1))
    distances = (1, 2, 3, 4, 5, 9)
    chains = [[(n % d, (n + 1) % d, n % 8) for n in range(2 * d + 1)] for d in distances]
    uops(state, *(step for chain in chains for step in chain), (0, 0, 0), (1, 0, 1))
    pair = sum(map(len, chains))
    program, first = [], 0
    for chain in chains:
        last = first + len(chain)
        for operation in step_operations(SMALL):
            if operation in ("alu.scale", "alu.requantize"):  # the source is one of four
                program.append(loop(operation, pair + 1, uop_bgn=pair, iter_in=3, dst_factor_in=1))
            else:
                program.append(loop(operation, last, uop_bgn=first, **imm(operation)))
            program += [loop(o, pair + 2, uop_bgn=pair) for o in ("gemm", "alu.mul", "alu.add")]
        first = last
    run_and_compare(state, program, form)


def spacing(cycles: list[int]) -> list[int]:
    return np.diff(cycles).tolist()


def test_matrix_instructions_follow_one_another_without_a_gap():
    state = State(SMALL, np.random.default_rng(0))
    uops(state, (1, 2, 3), (1, 3, 1), (1, 1, 1))  # the same accumulator in every step
    lengths = [1, 1, 1, 3, 2, 6, 1, 3, 1, 1, 2, 3]
    names = ["gemm", "matmul.set", "gemm.reset", "gemm"] * 2
    names += ["depthwise.set", "depthwise.add", "gemm", "depthwise.add"]
    program = [
        loop(name, min(3, n), iter_in=max(1, n // 3))
        for n, name in zip(lengths, names, strict=True)
    ]
    result = run_and_compare(state, program)
    assert spacing(result.done) == lengths[1:]


def test_alu_steps_take_a_cycle_each_even_on_the_same_accumulator():
    state = State(SMALL, np.random.default_rng(0))
    uops(state, (1, 1, 0), (1, 2, 0), (2, 1, 0))
    lengths = [3, 1, 1, 6, 9, 3, 2, 1]
    names = [f"alu.{name}{kind}" for name in ("add", "max", "min", "shr") for kind in ("", ".imm")]
    program = [
        loop(name, min(3, n), iter_in=max(1, n // 3), **imm(name))
        for n, name in zip(lengths, names, strict=True)
    ]
    result = run_and_compare(state, program)
    assert spacing(result.done) == lengths[1:]
    assert spacing(result.alu) == [1] * (sum(lengths) - 1)


@pytest.mark.parametrize("turns", [1, 2, 4])
def test_multiplying_alu_steps_take_their_turns_on_different_accumulators(turns):
    state = State(replace(SMALL, rescale_cycles=turns), np.random.default_rng(0))
    uops(state, (0, 0, 0))
    program = [
        loop("alu.mul", 1, iter_in=16, dst_factor_in=1, src_factor_in=1),
        *(
            loop(f"alu.{operation}", 1, iter_in=16, dst_factor_in=1, **imm(operation))
            for operation in ("mul.imm", "scale", "requantize")
        ),
    ]
    result = run_and_compare(state, program)
    assert spacing(result.alu) == [turns] * 63


def test_alu_and_matrix_steps_alternate_without_a_gap():
    state = State(SMALL, np.random.default_rng(0))
    uops(state, (1, 2, 3))
    names = ("gemm", "alu.add", "gemm", "alu.max.imm") * 4
    program = [loop(name, 1, **imm(name)) for name in names]
    assert spacing(run_and_compare(state, program).done) == [1] * 15


def test_multiplying_steps_on_one_accumulator_follow_matrix_steps_without_a_gap():
    state = State(SMALL, np.random.default_rng(0))
    uops(state, *((4 * n, n, n) for n in range(4)))
    names = ("gemm", "alu.scale", "matmul.set", "alu.mul.imm", "gemm", "alu.requantize") * 3
    program = [
        loop(name, n % 4 + 1, uop_bgn=n % 4, iter_in=4, dst_factor_in=1, **imm(name))
        for n, name in enumerate(names)
    ]
    result = run_and_compare(state, program)
    assert spacing(result.done) == [4] * (len(names) - 1)


def test_an_instruction_without_steps_takes_a_cycle():
    state = State(SMALL, np.random.default_rng(0))
    empty = [
        Instruction("gemm", {"uop_bgn": 3, "uop_end": 3, "iter_in": 1, "iter_out": 1}),
        Instruction("gemm", {"uop_bgn": 4, "uop_end": 3, "iter_in": 1, "iter_out": 1}),
        Instruction("alu.add", {"uop_bgn": 0, "uop_end": 3, "iter_in": 0, "iter_out": 1}),
        Instruction("matmul.set", {"uop_bgn": 0, "uop_end": 3, "iter_in": 3, "iter_out": 0}),
    ]
    result = run_and_compare(state, empty)
    assert spacing(result.done) == [1, 1, 1]


def test_the_last_micro_op_can_be_used():
    state = State(SMALL, np.random.default_rng(0))
    state.uop[63] = 0
    run_and_compare(state, [loop("gemm", 64, uop_bgn=63, iter_in=3, dst_factor_in=5)])


def test_an_index_beyond_its_scratchpad_stops_the_engine():
    state = State(SMALL, np.random.default_rng(0))
    uops(state, (0, 0, 0))
    fine = loop("gemm", 1, iter_in=2, dst_factor_in=1)
    program = [fine, loop("alu.mul.imm", 1, iter_in=17, dst_factor_in=1, imm=1), fine, fine]
    expected = deepcopy(state)
    expected.run(program[0])  # and sixteen multiplications by one
    result = run(state, program)
    assert result.fault == (FaultCode.SRAM_RANGE, 1)
    assert len(result.done) == 1
    np.testing.assert_array_equal(result.acc, expected.acc)


@pytest.mark.parametrize("stalls", [0.0, 0.6])
def test_loads_and_steps_keep_their_order(stalls):
    random = np.random.default_rng(5)
    state = State(SMALL, random)
    uops(state, (1, 2, 3), (2, 1, 0))
    first = deepcopy(state)
    program, expected = [], deepcopy(state)
    for n in range(6):
        steps = [loop("gemm", 2), loop("alu.requantize", 1)]
        # ACC's image, an element further on each time; parameters turn round.
        acc = Instruction("load.acc", {
            "sram_base": 1, "dram_base": 4096 // 16 + n, "y_size": 1, "x_size": 2, "x_stride": 2,
            "x_pad_1": 1,
        })  # fmt: skip
        qnt = Instruction("load.qnt", {
            "sram_base": 2, "dram_base": 8192 // 64 + n % 4, "y_size": 1, "x_size": 1,
        })  # fmt: skip
        for instruction in steps:
            expected.run(instruction)
        expected.acc[1:3] = first.acc[n : n + 2]
        expected.acc[3] = 0
        expected.qnt[2] = first.qnt[n % 4]
        program += [*steps, acc, qnt, Instruction("load.acc", {"x_size": 0, "y_size": 3})]
    result = run(state, program, stalls=stalls)
    assert result.fault is None
    assert len(result.done) == len(program)
    np.testing.assert_array_equal(result.acc, expected.acc)


def test_every_cycle_is_accounted_for():
    state = State(SMALL, np.random.default_rng(0))
    uops(state, (0, 0, 0))
    load = Instruction("load.acc", {"dram_base": 256, "y_size": 1, "x_size": 4})
    result = run(state, [loop("gemm", 1, iter_in=20), load])
    counts = {a: result.activity.count(a.value) for a in Activity}
    assert counts[Activity.BUSY] == 20
    assert counts[Activity.LOAD] == 4 * 2  # two beats an element
    assert counts[Activity.WAIT_MEMORY] > 0
    assert counts[Activity.DRAIN] > 0
    assert counts[Activity.WAIT_TOKEN] == 0
