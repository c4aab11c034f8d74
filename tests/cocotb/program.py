"""A short program that uses every engine, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.programs import DRAM_BYTES, Program, program_of
from weft.isa import PRESETS, Instruction, InstructionSet
from weft.isa.config import QNT_LANE_BYTES
from weft.isa.formats import uop_layout
from weft.isa.memories import QNT_LANE

CONFIG = PRESETS["tiny"]
ROWS = 40
"""Vectors of input: as many beats of accumulators as make several bursts, across a page."""
INP, WGT, UOP, QNT, ACC = 0x5000, 0x6000, 0x7000, 0x8000, 0x8F00
REQUANTIZED, SHIFTED = 0xBFC0, 0xE004
"""Where results go: across a page, and from the middle of a beat on."""
BEYOND = DRAM_BYTES
"""An address that answers with an error."""


def program(seed: int, **moved: int) -> Program:
    """acc = acc + inp . wgt[0]^T + inp . wgt[1]^T + 3, stored requantized, and halved.

    ``seed`` is for the data; ``moved`` gives other addresses to ``inp``, ``acc``, ``stored``, and
    to ``program``, of which memory then holds nothing.
    """
    random = np.random.default_rng(seed)
    block = CONFIG.block
    image = np.zeros(DRAM_BYTES, np.uint8)
    uops = [uop_layout(CONFIG).encode({"dst": 0, "src": 0, "wgt": w}) for w in range(2)]
    for address, values in (
        (INP, random.integers(-128, 128, (ROWS, block), np.int8)),
        (WGT, random.integers(-128, 128, (2, block, block), np.int8)),
        (UOP, np.array(uops, np.uint32)),
        (QNT, _parameters(random)),
        (ACC, random.integers(-(1 << 31), 1 << 31, (ROWS, block)).astype(np.int32) >> 12),
    ):
        data = values.reshape(-1).view(np.uint8)
        image[address : address + data.size] = data

    step = {"uop_bgn": 0, "iter_out": ROWS, "dst_factor_out": 1, "src_factor_out": 1, "iter_in": 1}
    alu = {**step, "uop_end": 1}
    store = {"y_size": 4, "x_size": ROWS // 4, "x_stride": ROWS // 4}
    out = CONFIG.out_element_bytes
    instructions = [
        _load("inp", moved.get("inp", INP), ROWS),
        _load("wgt", WGT, 2, push_next=True),
        _load("uop", UOP, 2),
        _load("qnt", QNT, 1),
        _load("acc", moved.get("acc", ACC), ROWS),
        Instruction("gemm", {**step, "uop_end": 2}, pop_prev=True),
        Instruction("alu.add.imm", {**alu, "imm": 3}, push_next=True),
        Instruction(
            "storex.out",
            {**store, "dram_base": moved.get("stored", REQUANTIZED) // out},
            pop_prev=True,
            push_prev=True,
        ),
        Instruction("alu.shr.imm", {**alu, "imm": 1}, pop_next=True, push_next=True),
        Instruction(
            "store.out", {**store, "dram_base": SHIFTED // out}, pop_prev=True, push_prev=True
        ),
        Instruction("finish", pop_next=True),
    ]
    encode = InstructionSet(CONFIG).encode
    whole = program_of(CONFIG, [encode(instruction) for instruction in instructions], image)
    return replace(whole, address=moved.get("program", whole.address))


def _load(memory: str, address: int, count: int, **flags: Any) -> Instruction:
    element = {"uop": 4}.get(memory) or getattr(CONFIG, f"{memory}_element_bytes")
    operands = {"dram_base": address // element, "y_size": 1, "x_size": count, "x_stride": 1}
    return Instruction(f"load.{memory}", operands, **flags)


def _parameters(random: np.random.Generator) -> np.ndarray:
    """Of one element of ``qnt``: some results are clamped, most are not."""
    lanes = np.zeros((CONFIG.block, QNT_LANE_BYTES), np.uint8)
    ranges = {
        "bias": (-1000, 1000), "multiplier": (1 << 30, 1 << 31), "left": (0, 2),
        "right": (11, 14), "zero_point": (-20, 20), "low": (-128, -100), "high": (100, 128),
        "even": (0, 2),
    }  # fmt: skip
    for record in QNT_LANE:
        values = random.integers(*ranges[record.name], CONFIG.block)
        size = record.dtype.bits // 8
        for lane, value in zip(lanes, values, strict=True):
            data = int(value).to_bytes(size, "little", signed=int(value) < 0)
            lane[record.offset : record.offset + size] = np.frombuffer(data, np.uint8)
    return lanes
