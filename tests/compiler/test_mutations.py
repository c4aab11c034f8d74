"""A program with one thing changed is reported, or it computes the same all the same."""

from __future__ import annotations

import pytest

from tests.compiler.compiled import BATCHED, SERIAL, TINY
from tests.compiler.mutations import Subject, outcomes
from tests.networks import NetworkBuilder, every_operator
from weft.compiler.graph import Graph
from weft.compiler.machine import Machine
from weft.isa import Instruction
from weft.isa.formats import uop_layout


def small() -> Graph:
    """Few instructions, of every kind."""
    n = NetworkBuilder("small", 3)
    x = n.conv(n.input(1, 5, 6, 5), 8, 3, activation="relu")
    y = n.depthwise(x, 3)
    y = n.max_pool(n.add(x, y), 2, strides=2, padding="valid")
    n.fc(y, 9)
    return n.graph()


def test_a_sample_of_changed_programs_is_reported_or_harmless(capsys):
    _expect_no_holes([Subject(small(), TINY, 1)], 100, capsys)


@pytest.mark.deep
def test_two_thousand_changed_programs_are_reported_or_harmless(capsys):
    graphs = (small(), every_operator())
    subjects = [Subject(g, c, 7) for g in graphs for c in (TINY, BATCHED, SERIAL)]
    _expect_no_holes(subjects, 2000, capsys)


def _expect_no_holes(subjects: list[Subject], count: int, capsys) -> None:
    table, holes = outcomes(subjects, count)
    with capsys.disabled():
        for kind, row in table.items():
            print(f"\n{kind}: " + ", ".join(f"{n} {what}" for what, n in sorted(row.items())))
    assert sum(row.total() for row in table.values()) == count
    assert not holes, "\n".join(holes)
    assert all(sum(n for what, n in row.items() if what != "harmless") for row in table.values())


@pytest.mark.parametrize("operation", ["alu.add", "alu.mul", "alu.max"])
def test_a_step_sees_what_those_before_it_wrote(operation):
    def after(*groups: tuple[tuple[int, int], ...]) -> list[int]:
        machine = Machine(TINY, [], 0)
        layout = uop_layout(TINY)
        for group in groups:
            words = [layout.encode({"dst": d, "src": s, "wgt": 0}) for d, s in group]
            machine.uops[: len(words)] = words
            trips = {"uop_bgn": 0, "uop_end": len(words), "iter_out": 1, "iter_in": 1}
            machine.run([Instruction(operation, trips)])
        return machine.pads["acc"][:3].tolist()

    assert after(((1, 0), (2, 1))) == after(((1, 0),), ((2, 1),))
    assert after(((1, 0), (2, 1))) != after(((2, 1), (1, 0)))
    assert after(((1, 0), (1, 0))) == after(((1, 0),), ((1, 0),))


def test_what_stays_on_chip_has_the_mark_of_what_goes_out_and_comes_back():
    def inputs(*moves: tuple[str, dict[str, int]]) -> list[int]:
        machine = Machine(TINY, [], 1 << 14)
        filled = (("load.acc", {"dram_base": 64, "y_size": 1, "x_size": 8}),
                  ("load.qnt", {"dram_base": 100, "y_size": 1, "x_size": 3}))  # fmt: skip
        machine.run([Instruction(name, operands) for name, operands in (*filled, *moves)])
        return machine.pads["inp"].tolist()

    box = {"sram_base": 1, "y_size": 2, "x_size": 3, "x_stride": 5, "qnt_base": 1, "qnt_step": 1}
    kept = inputs(("storex.inp", {**box, "dram_base": 40}))
    rows = [{"sram_base": 40 + d, "dram_base": 900 + d, "y_size": 1, "x_size": 3} for d in (0, 5)]
    back = inputs(("storex.out", {**box, "dram_base": 900}), *(("load.inp", row) for row in rows))
    assert kept == back
    assert len(set(kept)) == 7
