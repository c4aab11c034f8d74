"""Instructions of one's own: used where they fit and are cheapest, refused by name otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.compiler.compiled import assert_equals_host
from tests.compiler.test_narrow import narrowed
from tests.networks import random_inputs, single
from tests.shared import ROOT
from weft.compiler import compile_graph
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.partition import kernel_for
from weft.compiler.tensorize import reason_against
from weft.hw.matrix import matmul_modes
from weft.isa import AcceleratorConfig, ConfigError, ProgramError, operations
from weft.isa.declare import declare, step
from weft.isa.nest import Expr, Index, Load, Sum

EDGE = replace(AcceleratorConfig.preset("edge"), token_depth=103)
"""No other test has it: nothing is remembered of its instructions."""
Lanes = tuple[Expr, ...]


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "OPERATIONS", operations.OPERATIONS)


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


def lines_of(example: str, cache: Path) -> list[str]:
    """What an example prints, which is shown beside it."""
    source = ROOT / "examples" / "instruction" / example
    assert len(source.read_text().splitlines()) < 60
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WEFT_CACHE": str(cache)}
    ran = subprocess.run(
        [sys.executable, str(source)], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout in (source.parent / "README.md").read_text()
    return ran.stdout.splitlines()


def test_the_example_uses_its_instruction_and_says_what_it_gains(tmp_path):
    assert lines_of("row.py", tmp_path) == [
        "y: DepthwiseConv2D by row.add and row.set, 640 steps, 1128 cycles estimated",
        "  rather than depthwise.set, depthwise.add: 1280 steps, 1768 cycles",
        "the host computes the same bits",
    ]


def test_the_step_on_four_bit_weights_is_used_where_they_have_four_bits(tmp_path):
    assert lines_of("cube.py", tmp_path) == [
        "narrow: Conv2D by cube.add and cube.set, 1296 steps, 1688 cycles estimated",
        "  rather than matmul.set, gemm: 5184 steps, 5576 cycles",
        "wide: on the host: weights from -127 to 127; load.wgt loads i4, from -8 to 7",
        "the host computes the same bits",
    ]


@pytest.mark.parametrize(("size", "used", "other"), [(5, "row", "depthwise"), (2, "depthwise", "")])
def test_of_two_that_fit_the_cheaper_is_used_and_the_other_told_with_its_cost(size, used, other):
    declared(5)
    made = layer(size, EDGE)
    assert {name.partition(".")[0] for name in used_by(made)} & {"row", "depthwise"} == {used}
    rivals = [o for o in made.search.others if "instructions" in o]
    assert rivals
    for rival in rivals:
        assert used not in str(rival["instructions"])
        assert other in str(rival["instructions"])
        assert rival["estimate"] >= made.choices["estimate"]


def used_by(made: AcceleratorStep) -> set[str]:
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
    assert not used_by(layer(5, config)) & {"row.set", "row.add"}


def cubes(neighbours: int = 1, matrices: int = 1, rows: int = 1) -> None:
    """Declare a step over four neighbours and as many matrices of weights, so far apart."""

    def cube(config: AcceleratorConfig, lanes: Lanes) -> Expr:
        batch, output = lanes
        x = Load("inp", (Index("src") + Index("t") * neighbours, batch, Index("c")))
        place = (Index("wgt") + Index("t") * matrices, output * rows, Index("c"))
        return Sum((("t", 4), ("c", 4)), x * Load("wgt", place))

    def more(config: AcceleratorConfig, lanes: Lanes) -> Expr:
        return Load("acc", (Index("dst"), *lanes)) + cube(config, lanes)

    declare(step("cube.set", 6, cube), step("cube.add", 7, more))


NARROW = replace(AcceleratorConfig.preset("tiny"), wgt_width=4, token_depth=109)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("conv", ((1, 9, 9, 9), 6, (2, 5))),
        ("conv", ((2, 6, 11, 4), 5, (3, 4))),
        ("conv", ((1, 9, 9, 5), 4, 1)),
        ("fc", ((1, 64), 9)),
    ],
    ids=["ragged", "two images", "one tap", "one position"],
)
@pytest.mark.parametrize("memory", [4096, 256], ids=["roomy", "small"])
def test_a_step_on_several_elements_of_weights_computes_what_the_host_does(kind, arguments, memory):
    cubes()
    config = replace(NARROW, inp_bytes=memory, wgt_bytes=memory, token_depth=110)
    graph = narrowed(single(kind, *arguments))
    model = assert_equals_host(graph, config, random_inputs(graph))
    (made,) = model.steps
    assert isinstance(made, AcceleratorStep)
    window = arguments[2] if kind == "conv" else 1
    assert ("cube.set" in used_by(made)) == isinstance(window, tuple)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"neighbours": 2}, "a step reads neighbours at another distance than the taps'"),
        ({"matrices": 2}, "a step reads elements of wgt that are no run along the taps"),
        ({"matrices": 0}, "weights that vary along kx$"),
        ({"rows": 2}, "its steps read lanes 0 to 6 of wgt, which has 4"),
    ],
    ids=["elements", "matrices", "one matrix", "rows"],
)
def test_a_wrong_stride_of_weights_is_refused_by_name_and_not_used(options, reason):
    cubes(**options)
    config = replace(NARROW, token_depth=111 + len(str(options)) + sum(options.values()))
    graph = narrowed(single("conv", (1, 9, 9, 8), 4, 4))
    refusal = reason_against(kernel_for(graph, graph.nodes[0]), config, ("cube.set", "cube.add"))
    assert refusal.startswith("cube.set, cube.add: ")
    assert re.search(reason, refusal), refusal
    (made,) = compile_graph(graph, config).steps
    assert isinstance(made, AcceleratorStep)
    assert not used_by(made) & {"cube.set", "cube.add"}


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
