"""Faults that follow from the tables of the instruction set, whatever operations it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from weft.isa import PRESETS, AcceleratorConfig, FaultCode, Instruction, InstructionSet
from weft.isa.faults import ZERO_RULES, ZeroRule
from weft.isa.operations import SELECTORS, Operation, params_of
from weft.sim.fuzz.footprint import Footprints
from weft.sim.fuzz.outcome import golden, on_device
from weft.sim.fuzz.program import DATA, DRAM_BYTES, STORED, TABLES, program_of

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "plain": replace(TINY, requantize=False, pad_value=False, overwrite=False),
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def reserved_words(config: AcceleratorConfig) -> Iterator[int]:
    """Every combination of selecting fields that selects nothing, and every bit that must be 0."""
    instructions = InstructionSet(config)
    known = {tuple(sorted({**o.fixed, "opcode": o.format.opcode}.items()))
             for o in instructions.operations.values()}  # fmt: skip
    for opcode in range(8):
        layout = instructions.layouts.get(opcode)
        if layout is None:
            yield opcode
            continue
        selectors = SELECTORS.get(layout.name, ())
        widths = [layout.by_name[name].width for name in selectors]
        for values in product(*(range(1 << width) for width in widths)):
            fields = {"opcode": opcode, **dict(zip(selectors, values, strict=True))}
            if tuple(sorted(fields.items())) not in known:
                yield layout.encode(fields)
            elif "reserved" in layout.by_name:
                for bit in range(layout.by_name["reserved"].width):
                    yield layout.encode({**fields, "reserved": 1 << bit})


@configs
def test_every_reserved_encoding_is_a_fault_of_fetch(config: AcceleratorConfig, devices):
    device, finish = devices(config, DRAM_BYTES), InstructionSet(config).encode(_FINISH)
    words = list(reserved_words(config))
    assert len(words) > 10
    for word in words:
        program = program_of(config, [word, finish])
        for outcome in (golden(program), on_device(program, device)):
            assert outcome.fault is not None, f"{word:#x}"
            assert outcome.fault[:3] == (FaultCode.RESERVED, "fetch", 0), f"{word:#x}"


def forbidden_words(config: AcceleratorConfig) -> Iterator[tuple[ZeroRule, Operation, int]]:
    """Every bit of a field that some operation must leave 0, with the rule that says so."""
    instructions = InstructionSet(config)
    for rule, operation in product(ZERO_RULES, instructions.operations.values()):
        if rule.applies(operation):
            layout = instructions.layouts[operation.format.opcode]
            for name in rule.fields:
                for bit in range(layout.by_name[name].width):
                    word = instructions.encode(Instruction(operation.name))
                    yield rule, operation, word | 1 << layout.by_name[name].lsb + bit


@configs
def test_every_bit_that_an_operation_may_not_have_is_a_fault_of_its_engine(
    config: AcceleratorConfig, devices
):
    device, finish = devices(config, DRAM_BYTES), InstructionSet(config).encode(_FINISH)
    for rule, operation, word in forbidden_words(config):
        program = program_of(config, [word, finish])
        wanted = golden(program).fault
        assert wanted is not None
        assert wanted[0] is not FaultCode.RESERVED or rule.code is FaultCode.RESERVED
        assert wanted[1:3] == (operation.engine.value, 0)
        assert on_device(program, device).fault == wanted, f"{operation.name}: {word:#x}"


@configs
def test_the_last_element_of_a_memory_is_legal_and_the_one_after_it_is_not(
    config: AcceleratorConfig, devices
):
    device, instructions = devices(config, DRAM_BYTES), InstructionSet(config)
    finish, endings = instructions.encode(_FINISH), {True: 0, False: 0}
    footprints = Footprints(config, program_of(config, []).image)
    for operation in instructions.operations.values():
        for instruction in at_the_edge(config, operation, instructions):
            program = program_of(config, [instructions.encode(instruction), finish])
            beyond = bool(footprints.beyond(footprints.of(instruction)))
            fault = (FaultCode.SRAM_RANGE, operation.engine.value, 0, ()) if beyond else None
            assert golden(program).fault == fault, instruction
            assert on_device(program, device).fault == fault, instruction
            endings[beyond] += 1
    assert min(endings.values()) > 10


def at_the_edge(config, operation, instructions) -> Iterator[Instruction]:
    """Instructions whose indices end at the last elements, or just behind them."""
    params, memory = params_of(operation.format, config), operation.moved
    slots = instructions.layouts[operation.format.opcode].by_name
    stored = STORED // config.out_element_bytes
    if "qnt_base" in params and memory is None:
        stored = 0
        for rows, columns, stride in ((1, 3, 0), (2, 2, 5), (2, 1, config.inp_depth // 2)):
            box = {"y_size": rows, "x_size": columns, "x_stride": stride}
            last = (rows - 1) * stride + columns - 1
            for end in (config.inp_depth - 1, config.inp_depth, 1 << 16, 1 << 17, (1 << 32) - 1):
                yield Instruction(operation.name, {**box, "dram_base": end - last})
    if memory is not None:
        size, start = memory.element_bytes(config), STORED
        if memory.scratchpad in ("uop", "qnt"):
            start = TABLES if memory.scratchpad == "uop" else DATA
        box = {"dram_base": -(-start // size), "y_size": 2, "x_size": 2, "x_stride": 2}
        for pads in ({}, {"y_pad_1": 1}) if "y_pad_1" in params and memory.type != 4 else ({},):
            for after in range(-7, 2):
                base = memory.depth(config) + after
                yield Instruction(operation.name, {**box, **pads, "sram_base": base})
    if "qnt_base" in params:
        for after, step in product((-2, -1), (0, 1)):
            rest = {"dram_base": stored, "y_size": 2, "x_size": 1, "x_stride": 1}
            rest |= {"qnt_base": config.qnt_depth + after, "qnt_step": step}
            yield Instruction(operation.name, rest)
    if "iter_out" in params:
        step = {"uop_end": 1, "iter_out": 2, "iter_in": 1}
        for factor in (p for p in params if p.endswith("factor_out")):
            depths = {getattr(config, f"{m}_depth") for m in ("inp", "wgt", "acc", "qnt")}
            for depth, after in product(depths, (-2, -1, 0)):
                if 0 <= depth + after <= slots[factor].greatest:
                    yield Instruction(operation.name, {**step, factor: depth + after})
        for end in (config.uop_depth, config.uop_depth + 1):
            bounds = {"uop_bgn": config.uop_depth - 2, "uop_end": end}
            yield Instruction(operation.name, {**step, **bounds})


_FINISH = Instruction("finish")
