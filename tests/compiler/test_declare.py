"""Instructions of one's own: used where they fit and are cheapest, refused by name otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.networks import single
from tests.shared import ROOT
from weft.compiler import compile_graph
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.partition import kernel_for
from weft.compiler.tensorize import reason_against
from weft.hw.matrix import matmul_modes
from weft.isa import AcceleratorConfig, ConfigError, ProgramError, instructions
from weft.isa.declare import declare, step
from weft.isa.nest import Expr, Index, Load, Sum

EDGE = replace(AcceleratorConfig.preset("edge"), token_depth=103)
"""No other test has it: nothing is remembered of its instructions."""
Lanes = tuple[Expr, ...]


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "OPERATIONS", instructions.OPERATIONS)


def rows(taps: int, apart: int = 1, lanes_apart: int = 1) -> tuple[Callable, Callable]:
    """The values of two steps over neighbours: one that starts a sum, and one that adds to it."""

    def row(config: AcceleratorConfig, lanes: Lanes) -> Expr:
        batch, channel = lanes
        x = Load("inp", (Index("src") + Index("t") * apart, batch, channel))
        weight = Load("wgt", (Index("wgt"), Index("t") * lanes_apart, channel))
        return Sum((("t", taps),), x * weight)

    def more(config: AcceleratorConfig, lanes: Lanes) -> Expr:
        return Load("acc", (Index("dst"), *lanes)) + row(config, lanes)

    return row, more


def declared(taps: int, apart: int = 1, lanes_apart: int = 1) -> None:
    first, more = rows(taps, apart, lanes_apart)
    declare(step("row.set", 6, first), step("row.add", 7, more))


def layer(size: int, config: AcceleratorConfig) -> AcceleratorStep:
    (made,) = compile_graph(single("depthwise", (1, 9, 9, 16), size), config).steps
    assert isinstance(made, AcceleratorStep)
    return made


def test_the_example_uses_its_instruction_and_says_what_it_gains(tmp_path):
    source = ROOT / "examples" / "instruction" / "row.py"
    assert len(source.read_text().splitlines()) < 60
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WEFT_CACHE": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, str(source)], env=environment, capture_output=True, text=True, check=True
    )
    lines = ran.stdout.splitlines()
    assert lines[0] == (
        "y: DepthwiseConv2D by row.add and row.set, 640 steps, 1032 cycles estimated"
    )
    assert lines[1] == "  rather than depthwise.set, depthwise.add: 1280 steps, 1672 cycles"
    assert lines[2] == "the host computes the same bits"
    assert ran.stdout in (source.parent / "README.md").read_text()


@pytest.mark.parametrize(("size", "used", "other"), [(5, "row", "depthwise"), (2, "depthwise", "")])
def test_of_two_that_fit_the_cheaper_is_used_and_the_other_told_with_its_cost(size, used, other):
    declared(5)
    made = layer(size, EDGE)
    assert {name.partition(".")[0] for name in operations(made)} & {"row", "depthwise"} == {used}
    rivals = [o for o in made.search.others if "instructions" in o]
    assert rivals
    for rival in rivals:
        assert used not in str(rival["instructions"])
        assert other in str(rival["instructions"])
        assert rival["estimate"] >= made.choices["estimate"]


def operations(made: AcceleratorStep) -> set[str]:
    return {instruction.operation for instruction in made.instructions}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"apart": 2}, "a step reads neighbours at another distance than the taps'"),
        ({"lanes_apart": 2}, "its steps read lanes 0 to 8 of wgt, which has 8"),
        ({"lanes_apart": 0}, "are not those of the sum|weights that vary|lane"),
    ],
    ids=["elements", "rows", "one row"],
)
def test_a_wrong_stride_is_refused_by_name_and_not_used(options, reason):
    declared(5, **options)
    config = replace(EDGE, token_depth=104 + len(str(options)))
    graph = single("depthwise", (1, 9, 9, 16), 5)
    refusal = reason_against(kernel_for(graph, graph.nodes[0]), config, ("row.set", "row.add"))
    assert refusal.startswith("row.set, row.add: ")
    assert re.search(reason, refusal), refusal
    assert not operations(layer(5, config)) & {"row.set", "row.add"}


def test_a_step_that_writes_several_elements_is_refused():
    first, _ = rows(3)

    def wide(config: AcceleratorConfig, lanes: Lanes) -> Expr:
        return Load("acc", (Index("dst") + Index("p"), *lanes)) + first(config, lanes)

    declare(step("row.add", 7, wide))
    config = replace(EDGE, token_depth=140)
    graph = single("depthwise", (1, 9, 9, 16), 3)
    assert reason_against(kernel_for(graph, graph.nodes[0]), config, ("row.add",))


def test_what_is_taken_is_refused_by_name():
    first, _ = rows(3)
    with pytest.raises(ProgramError, match=r"row: its encoding is that of depthwise\.set"):
        declare(step("row", 2, first))
    with pytest.raises(ProgramError, match="gemm: there is an operation of that name"):
        declare(step("gemm", 6, first))
    with pytest.raises(ProgramError, match="row: there is no mode 8"):
        declare(step("row", 8, first))


def test_the_rtl_refuses_a_sum_that_its_array_does_not_compute():
    declared(5)
    with pytest.raises(ConfigError, match=r"no datapath for the sum of row\.set"):
        matmul_modes(replace(EDGE, token_depth=141))
