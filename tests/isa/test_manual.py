"""The manual in ``docs/`` is what the description says today."""

from __future__ import annotations

from tests.shared import ROOT
from weft.isa import PRESETS, InstructionSet
from weft.isa.manual import main, manual
from weft.isa.registers import REGISTERS


def test_the_manual_is_up_to_date():
    assert (ROOT / "docs" / "isa.md").read_text() == manual(), "run `make docs`"


def test_the_manual_names_everything():
    text = manual()
    for operation in InstructionSet(PRESETS["base"]).operations:
        assert f"### {operation}\n" in text
    for register in REGISTERS:
        assert f"| {register.name} |" in text


def test_the_manual_is_written_where_asked(tmp_path):
    assert main([str(tmp_path / "new" / "isa.md")]) == 0
    assert (tmp_path / "new" / "isa.md").read_text() == manual()
    assert main([]) == 2
