"""Streams as text: what it looks like, that nothing is lost, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.isa.words import instructions_of
from weft.isa import PRESETS, Instruction, InstructionSet, ProgramError
from weft.isa.assembly import assemble, disassemble

BASE = PRESETS["base"]

TEXT = """\
   0: load.inp        dram_base=0x400 y_size=14 x_size=14 x_stride=14 x_pad_0=1 | push_next
   1: alu.add.imm     uop_end=1 iter_out=3 iter_in=5 imm=-7 | pop_prev push_next
   2: .word           0x00000000000000000000000000000047
   3: loadx.inp       pad_value=-128 y_size=1
   4: store.nop       | pop_prev push_prev
   5: finish
"""


def test_a_program_reads_so():
    s = InstructionSet(BASE)
    box = {"dram_base": 1024, "y_size": 14, "x_size": 14, "x_stride": 14, "x_pad_0": 1}
    alu = {"uop_end": 1, "iter_out": 3, "iter_in": 5, "imm": -7}
    program = [
        Instruction("load.inp", box, push_next=True),
        Instruction("alu.add.imm", alu, pop_prev=True, push_next=True),
        Instruction("loadx.inp", {"pad_value": -128, "y_size": 1}),
        Instruction("store.nop", pop_prev=True, push_prev=True),
        Instruction("finish"),
    ]
    words = [s.encode(i) for i in program]
    words.insert(2, 0x47)
    assert disassemble(words, BASE) == TEXT
    assert assemble(TEXT, BASE) == words


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_words_survive_the_text(data: st.DataObject):
    config = PRESETS[data.draw(st.sampled_from(sorted(PRESETS)))]
    raw = st.integers(0, (1 << 128) - 1)
    legal = instructions_of(config).map(InstructionSet(config).encode)
    words = data.draw(st.lists(raw | legal, max_size=8))
    assert assemble(disassemble(words, config), config) == words


def test_comments_positions_case_and_blanks_do_not_matter():
    text = (
        "\n; nothing\n  17:  load.inp   dram_base=0X10   y_size=3 ; three rows\nfinish|pop_prev\n"
    )
    s = InstructionSet(BASE)
    assert assemble(text, BASE) == [
        s.encode(Instruction("load.inp", {"dram_base": 16, "y_size": 3})),
        s.encode(Instruction("finish", pop_prev=True)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lood.inp y_size=1", r"line 2: .*no operation 'lood.inp', did you mean 'load.inp'\?"),
        ("load.inp y_sise=1", r"line 2: load.inp has no operand 'y_sise', did you mean 'y_size'\?"),
        ("load.inp memory_type=1", r"line 2: load.inp has no operand 'memory_type'"),
        ("load.inp y_size", r"line 2: expected name=number, not 'y_size'"),
        ("load.inp y_size=1.5", r"line 2: expected name=number"),
        ("load.inp y_size=1 y_size=1", r"line 2: y_size is given twice"),
        ("load.inp y_size=65536", r"line 2: LOAD.y_size holds 0 to 65535, not 65536"),
        ("load.inp | push", r"line 2: expected one of pop_prev, .* not 'push'"),
        (".word 12", r"line 2: .word takes one hexadecimal number"),
        (".word 0x1" + "0" * 32, r"line 2: .word has 128 bits"),
        ("| pop_prev", r"line 2: expected an operation"),
        ("3:", r"line 2: expected an operation"),
        ("\x00", r"line 2: "),
    ],
)
def test_a_malformed_line_is_refused(line: str, message: str):
    with pytest.raises(ProgramError, match=message):
        assemble(f"finish\n{line}\n", BASE)


def test_an_extension_that_is_left_out_has_no_text():
    from dataclasses import replace

    plain = replace(BASE, overwrite=False)
    with pytest.raises(ProgramError, match=r"no operation 'matmul.set'"):
        assemble("matmul.set", plain)
    word = InstructionSet(BASE).encode(Instruction("matmul.set"))
    assert ".word" in disassemble([word], plain)
