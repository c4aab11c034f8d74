"""Encodings against VTA's tables, typed here once more from its documentation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.isa.words import instructions_of
from weft.isa import PRESETS, AcceleratorConfig, Instruction, InstructionSet, ProgramError
from weft.isa import formats as f
from weft.isa.formats import Field, Layout, uop_layout

BASE = PRESETS["base"]

HEAD = {"opcode": (0, 3), "pop_prev": (3, 1), "pop_next": (4, 1), "push_prev": (5, 1),
        "push_next": (6, 1)}  # fmt: skip
MOVE = HEAD | {
    "memory_type": (7, 3), "sram_base": (10, 16), "dram_base": (26, 32), "unused": (58, 6),
    "y_size": (64, 16), "x_size": (80, 16), "x_stride": (96, 16),
    "y_pad_0": (112, 4), "y_pad_1": (116, 4), "x_pad_0": (120, 4), "x_pad_1": (124, 4),
}  # fmt: skip
WALK = {
    "uop_bgn": (8, 13), "uop_end": (21, 14), "iter_out": (35, 14), "iter_in": (49, 14),
    "dst_factor_out": (64, 11), "dst_factor_in": (75, 11),
    "src_factor_out": (86, 11), "src_factor_in": (97, 11),
}  # fmt: skip
DEFAULT = {
    0: MOVE,
    1: MOVE,
    2: HEAD | {"reset": (7, 1)} | WALK | {"wgt_factor_out": (108, 10), "wgt_factor_in": (118, 10)},
    3: HEAD,
    4: HEAD | {"unused": (7, 1)} | WALK
       | {"alu_opcode": (108, 3), "use_imm": (111, 1), "imm": (112, 16)},
}  # fmt: skip


def positions(layout: Layout) -> dict[str, tuple[int, int]]:
    return {slot.name: (slot.lsb, slot.width) for slot in layout.slots}


@pytest.mark.parametrize("opcode", DEFAULT)
def test_vtas_formats_stand_where_vta_has_them(opcode: int):
    for config in (BASE, PRESETS["vta"]):
        assert positions(InstructionSet(config).layouts[opcode]) == DEFAULT[opcode]


def test_a_micro_op_stands_where_vta_has_it():
    assert positions(uop_layout(BASE)) == {"dst": (0, 11), "src": (11, 11), "wgt": (22, 10)}


def test_a_small_uop_buffer_pulls_a_factor_into_the_first_word():
    """Measured with a C compiler for 1 KB of micro-ops."""
    config = AcceleratorConfig(uop_bytes=1024, requantize=False, pad_value=False, overwrite=False)
    gemm, alu = (positions(InstructionSet(config).layouts[o]) for o in (2, 4))
    assert gemm["dst_factor_out"] == (53, 11)
    assert (gemm["dst_factor_in"], gemm["src_factor_out"]) == ((64, 11), (75, 11))
    assert (gemm["src_factor_in"], gemm["wgt_factor_out"]) == ((86, 11), (97, 10))
    assert gemm["wgt_factor_in"] == (107, 10)
    assert (alu["alu_opcode"], alu["use_imm"], alu["imm"]) == ((97, 3), (100, 1), (101, 16))


def test_the_source_index_of_a_micro_op_is_as_wide_as_the_deeper_of_its_scratchpads():
    deep_acc = replace(BASE, acc_bytes=1 << 18, wgt_bytes=1 << 16, uop_bytes=512)
    assert positions(uop_layout(deep_acc)) == {"dst": (0, 12), "src": (12, 12), "wgt": (24, 8)}
    deep_inp = replace(BASE, inp_bytes=1 << 16, wgt_bytes=1 << 17)
    assert positions(uop_layout(deep_inp)) == {"dst": (0, 11), "src": (11, 12), "wgt": (23, 9)}


@pytest.mark.parametrize("preset", PRESETS)
def test_no_field_overlaps_another_or_crosses_the_middle(preset: str):
    for layout in InstructionSet(PRESETS[preset]).layouts.values():
        taken = 0
        for slot in layout.slots:
            bits = ((1 << slot.width) - 1) << slot.lsb
            assert not taken & bits
            assert slot.lsb // 64 == (slot.lsb + slot.width - 1) // 64
            taken |= bits
        assert taken < 1 << 128


def test_the_opcodes_are_vtas_and_the_extensions_take_the_free_ones():
    assert [x.opcode for x in f.FORMATS] == list(range(8))
    plain = replace(BASE, requantize=False, pad_value=False, overwrite=False)
    assert set(InstructionSet(plain).layouts) == {0, 1, 2, 3, 4}
    assert set(InstructionSet(replace(plain, pad_value=True)).layouts) == {0, 1, 2, 3, 4, 6}


# --- encode and decode ---------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_instruction_survives_its_encoding(data: st.DataObject):
    config = PRESETS[data.draw(st.sampled_from(sorted(PRESETS)))]
    instruction = data.draw(instructions_of(config))
    s = InstructionSet(config)
    word = s.encode(instruction)
    assert 0 <= word < 1 << 128
    assert s.decode(word) == instruction
    assert s.operation_of(word) is s.operations[instruction.operation]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PRESETS)), st.integers(0, (1 << 128) - 1))
def test_any_word_decodes_or_is_reserved(preset: str, word: int):
    s = InstructionSet(PRESETS[preset])
    if s.operation_of(word) is None:
        with pytest.raises(ProgramError, match="reserved encoding"):
            s.decode(word)
    else:
        instruction = s.decode(word)
        assert s.decode(s.encode(instruction)) == instruction


def test_a_load_is_these_bits():
    """By hand: LOAD INP, sram 5, dram 0x1234, 3 rows of 7, stride 9, pads 1 2 3 4, pop and push."""
    operands = {"sram_base": 5, "dram_base": 0x1234, "y_size": 3, "x_size": 7, "x_stride": 9,
                "y_pad_0": 1, "y_pad_1": 2, "x_pad_0": 3, "x_pad_1": 4}  # fmt: skip
    word = InstructionSet(BASE).encode(
        Instruction("load.inp", operands, pop_next=True, push_next=True)
    )
    low = 0b000 | 1 << 4 | 1 << 6 | 2 << 7 | 5 << 10 | 0x1234 << 26
    high = 3 | 7 << 16 | 9 << 32 | 1 << 48 | 2 << 52 | 3 << 56 | 4 << 60
    assert word == low | high << 64


def test_an_immediate_is_twos_complement():
    s = InstructionSet(BASE)
    word = s.encode(Instruction("alu.max.imm", {"imm": -2}))
    assert word >> 112 == 0xFFFE
    assert s.decode(word).operands["imm"] == -2


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (Instruction("load.inp", {"y_size": 65536}), r"LOAD.y_size holds 0 to 65535, not 65536"),
        (Instruction("load.inp", {"y_size": -1}), r"LOAD.y_size holds 0 to 65535, not -1"),
        (Instruction("alu.add.imm", {"imm": 32768}), r"ALU.imm holds -32768 to 32767, not 32768"),
        (Instruction("load.inp", {"rows": 1}), r"LOAD has no field 'rows'"),
        (Instruction("conv"), r"this configuration has no operation 'conv'"),
    ],
)
def test_what_does_not_fit_is_refused(instruction: Instruction, message: str):
    with pytest.raises(ProgramError, match=message):
        InstructionSet(BASE).encode(instruction)


def test_the_bits_that_are_ignored_are_ignored():
    s = InstructionSet(BASE)
    word = s.encode(Instruction("alu.add", {"iter_in": 3}))
    assert s.decode(word | 1 << 7) == s.decode(word)
    word = s.encode(Instruction("load.wgt", {"x_size": 3}))
    assert s.decode(word | 0b101010 << 58) == s.decode(word)


@given(st.lists(st.integers(1, 40), max_size=8))
def test_the_packing_rule_is_that_of_c_bit_fields(widths: list[int]):
    """A field that would cross bit 64 starts there."""
    fields = tuple(Field(f"f{i}", width, "") for i, width in enumerate(widths))
    at, wanted = 0, []
    for width in widths:
        if at < 64 < at + width:
            at = 64
        wanted.append((at, width))
        at += width
    if at <= 128:
        layout = f._pack("T", fields, BASE, 128)
        assert [(s.lsb, s.width) for s in layout.slots] == wanted
