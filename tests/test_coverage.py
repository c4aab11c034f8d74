"""The RTL's lines: executed, or somebody has said why not."""

from __future__ import annotations

import pytest

from tests import coverage
from weft.isa import PRESETS
from weft.sim.coverage import Coverage, Point
from weft.sim.unreached import REASONS


@pytest.mark.deep
@pytest.mark.slow
def test_every_line_is_executed_or_has_a_reason():
    assert coverage.problems({"tiny": coverage.measured(coverage.TINY)}) == []


class _Fake(Coverage):
    """Lines of a unit that nobody has heard of, ``missed`` of them not executed."""

    def __init__(self, lines: int, missed: int):
        super().__init__(PRESETS["tiny"])
        for n in range(lines):
            self.counts[Point("v_branch/weft_new", n + 1, 1, "if")] = int(n >= missed)
        self.__dict__["_verilog"] = self

    def unit(self, module: str) -> str:
        return "new"

    def said(self, point: Point) -> str:
        return f"if (x{point.line - 1})"

    def source(self, point: Point) -> str:
        return f"hw/new.py:{point.line}"


def test_a_line_without_a_reason_and_too_few_lines_are_problems():
    assert coverage.problems({"good": _Fake(100, 0)}) == []
    (line,) = coverage.problems({"one": _Fake(100, 1)})
    assert line == "one: no reason for new            hw/new.py:1              weft_new: if (x0)"
    assert "90.00% of 100 lines" in coverage.problems({"ten": _Fake(100, 10)})[0]
    assert "of 0 lines" in coverage.problems({"nothing": _Fake(0, 0)})[0]


def test_the_tables_count_every_line():
    both = {"a": _Fake(100, 1), "b": _Fake(50, 3)}
    assert "| **all** | 146 / 150 | 97.3% |" in coverage.table(both)
    assert "| new | hw/new.py:1 | 2 | **none** |" in coverage.missed_table(both)


def test_every_reason_is_a_sentence_about_a_unit():
    from tests.shared import ROOT

    units = {path.stem for path in (ROOT / "hw").glob("*.py")}
    for reason in REASONS:
        assert reason.unit in units
        assert len(reason.text) > 20
        assert reason.pattern
