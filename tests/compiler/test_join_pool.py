"""Maximum pools that take the maximum of the sums of the layer before them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.compiled import BATCHED, SERIAL, TINY, assert_equals_host, outputs_of
from tests.compiler.mutations import Subject, outcomes
from tests.compiler.test_join import BASE, VTA, joins_of, step_of
from tests.networks import NetworkBuilder, random_inputs
from weft.compiler.constants import Weights
from weft.compiler.graph import Graph
from weft.compiler.kernel import Refusal
from weft.compiler.levels import format_module, parse_module
from weft.compiler.module import Module
from weft.compiler.pipeline import compile_graph, run
from weft.compiler.pool import check_rises
from weft.isa import AcceleratorConfig, MissingToolError, ModelError
from weft.runtime.executor import Executor
from weft.sim import connect

MACHINES = (
    TINY,
    replace(BATCHED, batch=4, inp_bytes=1024, acc_bytes=4096),
    SERIAL,
    replace(TINY, overwrite=False, depthwise_taps=0, bus_bytes=32),
    AcceleratorConfig.preset("edge"),
)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be joined is, whether that pays or not."""
    monkeypatch.setattr("weft.compiler.jobs.ElementwiseJob.among_others", 1 << 30)


def network(
    kind: str = "conv",
    image: tuple[int, ...] = (1, 7, 9, 4),
    pool: tuple[int, int] = (2, 2),
    *,
    filters: int = 6,
    behind: int = 3,
    **window,
) -> Graph:
    """A convolution, a maximum pool, and another convolution of what stays on chip."""
    n = NetworkBuilder("pooled", 5)
    x = n.input(*image)
    if kind == "conv":
        x = n.conv(x, filters, window.pop("size", 3), activation="relu", **window)
    else:
        x = n.depthwise(x, window.pop("size", 3), **window)
    x = n.max_pool(x, pool, strides=pool, padding="valid")
    n.conv(x, 5, behind)
    return n.graph()


def maximum(x: np.ndarray, pool: tuple[int, int]) -> np.ndarray:
    """Of windows that follow one another; what is left over at the ends belongs to none."""
    n, h, w, c = x.shape
    (high, wide), rows, columns = pool, h // pool[0], w // pool[1]
    x = x[:, : rows * high, : columns * wide]
    return x.reshape(n, rows, high, columns, wide, c).max(axis=(2, 4))


GRAPHS = {
    "ragged": network,
    "depthwise": lambda: network("depthwise", (1, 8, 6, 7)),
    "unpadded": lambda: network(image=(1, 9, 10, 8), pool=(3, 3), padding="valid", behind=1),
    "images": lambda: network(image=(3, 6, 6, 4)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_pooled_is_exact(name, always):
    graph = GRAPHS[name]()
    assert joins_of(graph) == {"max_pool_1": [f"{graph.nodes[0].name}"]}
    assert_equals_host(graph, TINY, random_inputs(graph))


@settings(max_examples=8)
@given(data=st.data())
def test_pooled_layers_of_any_shape_are_the_maximum_of_what_is_stored_apart(data):
    assert_pooled_is_the_maximum(data)


@pytest.mark.deep
@settings(max_examples=200)
@given(data=st.data())
def test_two_hundred_pooled_layers_are_the_maximum_of_what_is_stored_apart(data):
    assert_pooled_is_the_maximum(data)


def assert_pooled_is_the_maximum(data: st.DataObject) -> None:
    """Of a layer, a window and a machine, all drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weft.compiler.jobs.ElementwiseJob.among_others", 1 << 30)
        pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
        n = NetworkBuilder("any", data.draw(st.integers(0, 99)))
        size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
        x = n.input(data.draw(st.integers(1, 2)), *size, data.draw(st.sampled_from([2, 5])))
        window: dict[str, Any] = {"strides": data.draw(pair), "dilations": data.draw(pair)}
        if data.draw(st.booleans()):
            y = n.conv(x, data.draw(st.sampled_from([3, 9])), data.draw(pair), **window)
        else:
            y = n.depthwise(x, data.draw(pair), **window)
        high, wide = (min(a, b) for a, b in zip(data.draw(pair), n.shape(y)[1:3], strict=True))
        z = n.max_pool(y, (high, wide), strides=(high, wide), padding="valid")
        config = data.draw(st.sampled_from(MACHINES))
        graph = n.graph(z)
        inputs = random_inputs(graph, 1)
        apart = outputs_of(compile_graph(n.graph(y), config), inputs)[y]
        model = compile_graph(graph, config)
        np.testing.assert_array_equal(outputs_of(model, inputs)[z], maximum(apart, (high, wide)))


def test_the_bytes_under_a_window_are_nowhere_in_dram(always):
    graph = network()
    step = step_of(assert_equals_host(graph, TINY, random_inputs(graph)), "max_pool_1")
    assert step.nodes == ("conv_0", "max_pool_1")
    assert step.op == "Conv2D+MaxPool2D"
    assert step.choices["fused"] == "with conv_0, in accumulators"
    used = {i.operation for i in step.instructions}
    assert {"alu.max", "storex.inp"} <= used
    assert not used & {"storex.out", "loadx.acc8"}
    between, inside = 7 * 9 * 6, 3 * 4 * 6  # the second one is what stays on chip
    assert step.compulsory_bytes - step.fused_bytes == 2 * between + inside


@pytest.mark.parametrize(
    "pool",
    [
        {"size": 3, "strides": 2, "padding": "valid"},
        {"size": 2, "strides": 3, "padding": "valid"},
        {"size": 2, "strides": 2, "padding": "same"},
        {"size": 1, "strides": 1},
    ],
    ids=["windows overlap", "windows have gaps", "windows reach out", "windows of one position"],
)
def test_other_windows_are_left_apart(pool, always):
    n = NetworkBuilder("other", 3)
    n.max_pool(n.conv(n.input(1, 7, 7, 4), 6, 3), **pool)
    assert not joins_of(n.graph())
    assert_equals_host(n.graph(), TINY, random_inputs(n.graph()))


def test_a_pool_that_changes_the_maximum_is_left_apart(always):
    n = NetworkBuilder("clamped", 3)
    x = n.conv(n.input(1, 6, 6, 4), 6, 3)
    n.max_pool(x, 2, strides=2, padding="valid", activation="relu")
    assert not joins_of(n.graph())


def test_a_tensor_that_somebody_else_reads_is_stored_whole(always):
    n = NetworkBuilder("twice", 3)
    x = n.conv(n.input(1, 6, 6, 4), 6, 3)
    y = n.max_pool(x, 2, strides=2, padding="valid")
    assert not joins_of(n.graph(x, y))


def test_windows_over_lanes_are_left_apart(always):
    n = NetworkBuilder("lanes", 20)
    x = n.conv(n.input(1, 17, 6, 3), 1, (1, 3))
    n.max_pool(x, (3, 4), strides=(3, 4), padding="valid")
    graph, config = n.graph(), AcceleratorConfig.preset("edge")
    assert_equals_host(graph, config, random_inputs(graph))


@pytest.mark.parametrize(("weight", "bias", "left"), [(127, 0, 20), (1, 2**31 - 600, 0)])
def test_sums_that_may_wrap_are_refused(weight, bias, left):
    lane = np.zeros((4, 16), np.uint8)
    lane[:, :4] = np.array([bias], "<i4").view(np.uint8)
    lane[:, 8] = left
    weights = Weights(np.full((1, 1, 3, 3, 4, 4), weight, np.int8), ((0,),))
    with pytest.raises(Refusal, match="a greater one may become a lesser byte"):
        check_rises(weights, 0, lane.reshape(1, -1))
    lane[:, :4], lane[:, 8] = 0, 0
    check_rises(weights, 0, lane.reshape(1, -1))


def text(graph: Graph) -> str:
    return format_module(run(Module(graph, TINY), "schedule"))


def test_a_schedule_is_read_as_it_was_written(always):
    graph = network()
    written = text(graph)
    assert '\njoins ["conv_0"]' in written
    assert "y * 2 + py" in written
    back = parse_module(written)
    assert format_module(back) == written
    made, again = compile_graph(graph, TINY), run(back).model
    for one, other in zip(made.segments, again.segments, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'"rows": \d+', '"rows": 3'),
        (r"(?s)^(.*)y \* 2 \+ py", r"\1y * 1 + py"),
        (r"pooled_zones", ""),
        (r"max_pool_1\[n, y, x, o\] = -128", "max_pool_1[n, y, x, o] = 0"),
    ],
    ids=["tile", "position", "zones", "start"],
)
def test_a_schedule_of_something_else_is_refused(old, new, always):
    written = text(network())
    head, layer = written.split("== layer max_pool_1", 1)
    if old == "pooled_zones":  # this one has none: what is outside is no 0
        changed = re.sub(r"(?m)^(tile .*)$", r'\1\nzones ["upper and lower"]', layer, count=1)
    else:
        changed = re.sub(old, new, layer, count=1)
    assert changed != layer
    with pytest.raises(ModelError, match="do not compute layer"):
        parse_module(f"{head}== layer max_pool_1{changed}")


def test_changed_programs_of_pooled_layers_are_reported_or_harmless(always):
    table, holes = outcomes([Subject(network(), TINY, 3)], 30)
    assert not holes, "\n".join(holes)
    assert all(any(what != "harmless" for what in row) for row in table.values())


@pytest.mark.parametrize("config", [BASE, VTA], ids=["base", "vta"])
def test_it_is_done_where_it_takes_fewer_cycles(config):
    assert joins_of(network(image=(1, 32, 32, 16), filters=32), config)


def test_a_pooled_layer_takes_fewer_cycles_on_the_rtl(monkeypatch):
    n = NetworkBuilder("valid", 3)
    x = n.conv(n.input(1, 18, 18, 4), 4, 1)
    y = n.max_pool(x, 2, strides=2, padding="valid")
    graph = n.graph(y)
    inputs, cycles = random_inputs(graph), list[int]()
    both = compile_graph(graph, TINY)
    monkeypatch.setattr("weft.compiler.join.joined", lambda module, first, second: None)
    apart = compile_graph(graph, TINY)
    assert [len(m.steps) for m in (both, apart)] == [1, 2]
    try:
        device = connect("rtl", TINY, dram_bytes=8 << 20)
    except MissingToolError as error:
        pytest.skip(str(error))
    with device:
        for model in (both, apart):
            outputs, profile = Executor(model, device)(inputs)
            expected = outputs_of(apart, inputs)
            np.testing.assert_array_equal(outputs[y], expected[y])
            cycles.append(sum(step.cycles for step in profile))
    assert cycles[0] < cycles[1]
