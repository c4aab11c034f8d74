"""Operators that go on with the sums of the layer before them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.compiler.compiled import BATCHED, HARDWARE, SERIAL, TINY, assert_equals_host
from tests.compiler.mutations import Subject, outcomes
from tests.networks import NetworkBuilder, random_inputs
from weft.compiler.artifact import AcceleratorStep, CompiledModel
from weft.compiler.graph import Graph
from weft.compiler.jobs import ContractionJob
from weft.compiler.levels import format_module, parse_module
from weft.compiler.module import Module
from weft.compiler.pipeline import run
from weft.isa import AcceleratorConfig, ModelError

VTA, BASE = (AcceleratorConfig.preset(name) for name in ("vta", "base"))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be joined is, whether that pays or not."""
    monkeypatch.setattr(ContractionJob, "estimate_with", lambda job, tail: 0)


def block(kind: str = "add", batch: int = 1) -> Graph:
    """A tensor, a convolution of it, and both combined; then another convolution."""
    n = NetworkBuilder("block", 5)
    x = n.conv(n.input(batch, 6, 7, 4), 6, 3, activation="relu")
    y = n.conv(x, 6, 3, activation="relu6")
    z = n.add(y, x) if kind == "add" else n.arithmetic(kind, x, y)
    n.conv(z, 9, 3)
    return n.graph()


def depthwise() -> Graph:
    """Behind a depthwise convolution, and of a tensor from far before it."""
    n = NetworkBuilder("depthwise", 6)
    x = n.input(1, 9, 8, 7)
    y = n.depthwise(n.conv(x, 7, 1), 3)
    n.conv(n.add(x, y, activation="relu"), 5, 1)
    return n.graph()


def matrices() -> Graph:
    """Behind a matrix product, whose one position begins with its biases."""
    n = NetworkBuilder("matrices", 7)
    x = n.fc(n.input(1, 24), 20)
    n.fc(n.add(n.fc(x, 20), x), 7)
    return n.graph()


def own_input() -> Graph:
    """A tensor that is read by products on chip, and added to them from DRAM, as an output."""
    n = NetworkBuilder("own_input", 8)
    x = n.conv(n.input(1, 5, 5, 5), 9, 3)
    n.add(n.conv(x, 9, 1), x)
    return n.graph()


GRAPHS: dict[str, Callable[[], Graph]] = {
    "add": block,
    "sub": lambda: block("sub"),
    "mul": lambda: block("mul"),
    "depthwise": depthwise,
    "matrices": matrices,
    "own_input": own_input,
}


def joins_of(graph: Graph, config: AcceleratorConfig = TINY) -> dict[str, list[str]]:
    module = run(Module(graph, config), "schedule")
    return {
        p.node.name: [node.name for node in p.joins]
        for group in module.groups
        for p in group
        if p.joins
    }


def step_of(model: CompiledModel, name: str) -> AcceleratorStep:
    (step,) = [s for s in model.steps if s.name == name]
    assert isinstance(step, AcceleratorStep)
    return step


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("hardware", ["tiny", "small"])
def test_what_is_joined_is_exact(name, hardware, always):
    graph, config = GRAPHS[name](), HARDWARE[hardware]
    if hardware == "tiny":
        assert len(joins_of(graph, config)) == 1
    assert_equals_host(graph, config, random_inputs(graph))


@pytest.mark.parametrize(("config", "batch"), [(BATCHED, 3), (replace(SERIAL, batch=1), 2)])
def test_several_images_are_exact(config, batch, always):
    graph = block(batch=batch)
    assert_equals_host(graph, config, random_inputs(graph))


def test_the_byte_between_two_joined_layers_is_nowhere_in_dram(always):
    graph = block()
    model = assert_equals_host(graph, TINY, random_inputs(graph))
    step = step_of(model, "add_2")
    assert step.nodes == ("conv_1", "add_2")
    assert step.op == "Conv2D+Add"
    assert step.choices["fused"] == "with conv_1, in accumulators"
    assert "conv_1" not in model.tensors
    used = [i.operation for i in step.instructions]
    assert {"alu.requantize", "alu.scale", "alu.add", "loadx.acc8", "storex.inp"} <= set(used)
    assert "storex.out" not in used
    between, inside = 6 * 7 * 6, 6 * 7 * 6  # the second one is what stays on chip
    apart = run(Module(replace(graph, outputs=("conv_1", "conv_3")), TINY)).model
    both = sum(step_of(apart, name).compulsory_bytes for name in ("conv_1", "add_2"))
    assert step.compulsory_bytes == both
    assert step.compulsory_bytes - step.fused_bytes == 2 * between + 2 * inside


@pytest.mark.parametrize("also", [("conv_1", "conv_3"), ("conv_1", "add_2", "conv_3")])
def test_a_tensor_that_somebody_asks_for_is_stored(also, always):
    graph = replace(block(), outputs=also)
    assert not joins_of(graph)
    assert_equals_host(graph, TINY, random_inputs(graph))


def test_a_tensor_that_two_nodes_read_is_stored(always):
    n = NetworkBuilder("twice", 9)
    x = n.input(1, 6, 6, 4)
    y = n.conv(x, 4, 3)
    n.conv(n.add(n.add(y, x), y), 4, 1)
    assert not joins_of(n.graph())


def test_hardware_on_which_nothing_stays_joins_nothing(always):
    assert not joins_of(block(), replace(TINY, stores_inputs=False))


def residual(channels: int, size: int) -> Graph:
    n = NetworkBuilder("residual", 4)
    x = n.input(1, size, size, channels)
    n.conv(n.add(n.conv(x, channels, 1), x), channels, 1)
    return n.graph()


def test_it_is_done_where_the_bus_is_the_bound_and_not_where_the_array_is():
    graph = residual(64, 20)
    assert joins_of(graph, VTA)
    assert not joins_of(graph, BASE)


@pytest.mark.parametrize("name", ["add", "depthwise"])
def test_a_schedule_is_read_as_it_was_written(name, always):
    module = run(Module(GRAPHS[name](), TINY), "schedule")
    text = format_module(module)
    assert "\njoins [" in text
    back = parse_module(text)
    assert format_module(back) == text
    made, again = (run(m).model for m in (module, back))
    for one, other in zip(made.segments, again.segments, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


@pytest.mark.parametrize("value", ["[]", '["conv_0"]', '["conv_3"]', '["nobody"]'])
def test_a_schedule_that_joins_other_layers_is_refused(value, always):
    text = format_module(run(Module(block(), TINY), "schedule"))
    changed = re.sub(r"(?m)^joins .*$", f"joins {value}", text, count=1)
    assert changed != text
    with pytest.raises(ModelError, match=r"reads|node|read it|go on|missing"):
        parse_module(changed)


def test_changed_programs_of_joined_layers_are_reported_or_harmless(always):
    table, holes = outcomes([Subject(block(), TINY, 3), Subject(depthwise(), SERIAL, 4)], 30)
    assert not holes, "\n".join(holes)
    assert all(any(what != "harmless" for what in row) for row in table.values())
