"""Footprints against the golden model: what an instruction changes and needs lies within them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from weft.isa import PRESETS, Instruction
from weft.isa.golden import GoldenModel, stepped
from weft.isa.operations import OPERATIONS
from weft.isa.ordering import Ordering
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.footprint import Footprints, Touch
from weft.sim.fuzz.legal import legal_program

TINY = PRESETS["tiny"]
CONFIGS = {"tiny": TINY, "pairs": replace(TINY, batch=2, inp_width=4, wgt_width=4, bus_bytes=32)}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(6))
def test_nothing_changes_outside_of_what_is_written(name: str, seed: int):
    program = legal_program(CONFIGS[name], RandomChoices(seed), 12)
    model = GoldenModel(program.config, program.image.size)
    model.dram[:] = program.image
    footprints = Footprints(program.config, program.image)
    ordering = Ordering(stepped(model.instructions, program.words)[0], program.config.token_depth)
    while ready := ordering.ready():
        step = ordering.next(ready[0])
        instruction = model.instructions.decode(program.words[step.index])
        touches = footprints.of(instruction)
        before = {k: a.copy() for k, a in model.arrays.items() if "." not in k}
        memory = model.dram.copy()
        model._execute(step.index, program.words, dict.fromkeys(_COUNTERS, 0))
        footprints.execute(instruction)
        for key, old in (*before.items(), ("dram", memory)):
            new = model.dram if key == "dram" else model.arrays[key]
            changed = np.flatnonzero((new != old).reshape(len(new), -1).any(axis=1))
            written = [t for t in touches if t.memory == key and t.writes]
            for element in changed:
                assert any(t.first <= element < t.end for t in written), instruction
        assert np.array_equal(footprints.uops, model.arrays["uop"])
        ordering.complete(ready[0])


_COUNTERS = ("instructions", "gemm_steps", "alu_steps", "read_bytes", "write_bytes")


def test_a_step_touches_exactly_the_elements_that_its_indices_name():
    uops = np.zeros(TINY.uop_depth, np.uint32)
    uops[3] = 5 | 7 << 9 | 11 << 19  # dst, src, wgt of the tiny layout
    footprints = Footprints(TINY, np.zeros(1 << 17, np.uint8), uops)
    operands = {"uop_bgn": 3, "uop_end": 4, "iter_out": 2, "iter_in": 3}
    operands |= {"dst_factor_out": 10, "src_factor_in": 2, "wgt_factor_in": 1}
    touches = footprints.of(Instruction("gemm", operands))
    layout = {("acc", 5, 16), ("inp", 7, 12), ("wgt", 11, 14), ("uop", 3, 4)}
    assert {(t.memory, t.first, t.end) for t in touches} == layout
    assert {t.memory for t in touches if t.writes} == {"acc"}


def test_a_box_touches_dram_as_far_as_its_stride_reaches():
    footprints = Footprints(TINY, np.zeros(1 << 17, np.uint8))
    box = {"sram_base": 2, "dram_base": 16, "y_size": 3, "x_size": 2, "x_stride": 5, "x_pad_0": 1}
    touches = footprints.of(Instruction("load.inp", box))
    assert Touch("inp", 2, 2 + 9, True) in touches
    assert Touch("dram", 64, 64 + 4 * 12, False) in touches


def test_a_store_that_stays_touches_scratchpads_alone():
    footprints = Footprints(TINY, np.zeros(1 << 17, np.uint8))
    box = {"sram_base": 2, "dram_base": 16, "y_size": 3, "x_size": 2, "x_stride": 5}
    touches = footprints.of(Instruction("storex.inp", {**box, "qnt_base": 1, "qnt_step": 1}))
    layout = {("acc", 2, 8, False), ("qnt", 1, 4, False), ("inp", 16, 28, True)}
    assert {(t.memory, t.first, t.end, t.writes) for t in touches} == layout


def test_every_operation_has_a_footprint():
    footprints = Footprints(TINY, np.zeros(1 << 17, np.uint8))
    for operation in OPERATIONS:
        if operation.name in footprints.instructions.operations:
            assert footprints.of(Instruction(operation.name)) == []
