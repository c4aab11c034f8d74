"""An instruction that the compiler has never heard of is used because of what it means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.compiler.compiled import SMALL, TINY, outputs_of
from tests.networks import random_inputs, single
from weft.compiler import compile_graph
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.host import compile_nodes
from weft.isa import AcceleratorConfig, Engine, Operation, operations
from weft.isa.formats import MATMUL
from weft.isa.nest import Expr, Index, Load, Sum

TAPS = 3


def taps_by_lanes(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
    """Every channel's own sum over three neighbouring elements; a weight row is a tap."""
    batch, channel = lanes
    tap = Index("t")
    x = Load("inp", (Index("src") + tap, batch, channel))
    return Sum((("t", TAPS),), x * Load("wgt", (Index("wgt"), tap, channel)))


def adding(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
    """The same, added to what is there."""
    return Load("acc", (Index("dst"), *lanes)) + taps_by_lanes(config, lanes)


@pytest.fixture
def with_depthwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more modes of MATMUL, of those that nobody has."""
    made = [
        Operation(
            name,
            MATMUL,
            {"mode": mode},
            Engine.COMPUTE,
            operations.step_meaning(MATMUL, name, value),
            "a test's",
            "overwrite",
        )
        for name, mode, value in (
            ("neighbours.set", 6, taps_by_lanes),
            ("neighbours.add", 7, adding),
        )
    ]
    monkeypatch.setattr(operations, "OPERATIONS", (*operations.OPERATIONS, *made))


@pytest.mark.usefixtures("with_depthwise")
@pytest.mark.parametrize(
    ("shape", "size", "options", "steps"),
    [
        ((1, 9, 9, 9), 3, {}, 3 * 9 * 9 * 3),
        ((1, 9, 9, 9), 3, {"strides": 2}, 3 * 5 * 5 * 3),
        ((1, 8, 7, 6), (2, 5), {}, 2 * 8 * 7 * 2 * 2),
        ((1, 30, 1, 5), (4, 1), {"padding": "valid"}, 2 * 27 * 2),
    ],
    ids=["plain", "strided", "wide", "column"],
)
@pytest.mark.parametrize("base", [TINY, SMALL], ids=["tiny", "small"])
def test_a_depthwise_instruction_is_used(base, shape, size, options, steps):
    # No other test has this one: nothing is remembered. Without taps of its own it has the test's.
    config = replace(base, token_depth=101, depthwise_taps=0)
    graph = single("depthwise", shape, size, **options)
    model = compile_graph(graph, config)
    (step,) = model.steps
    assert isinstance(step, AcceleratorStep)
    assert {i.operation for i in step.instructions} & {"neighbours.set", "gemm"} == {
        "neighbours.set"
    }
    assert steps // 2 < step.choices["steps"] <= steps  # along borders they may be fewer
    inputs = random_inputs(graph)
    expected = compile_nodes(graph, graph.nodes).run(inputs)
    for name, value in outputs_of(model, inputs).items():
        assert (value == expected[name]).all()


@pytest.mark.usefixtures("with_depthwise")
def test_an_average_needs_no_one_hot_weights_then():
    config = replace(TINY, token_depth=101, depthwise_taps=0)
    graph = single("average_pool", (1, 6, 6, 5), 3, padding="valid")
    model = compile_graph(graph, config)
    assert model.steps[0].choices["steps"] == 2 * 4 * 4 * 3
    inputs = random_inputs(graph)
    expected = compile_nodes(graph, graph.nodes).run(inputs)
    for name, value in outputs_of(model, inputs).items():
        assert (value == expected[name]).all()
