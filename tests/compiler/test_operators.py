"""Every operator's loop nest, interpreted, against a model on Python's integers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler import graphs, oracle
from weft.compiler.graph import (
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Node,
    Opaque,
    Quant,
    Softmax,
    Tensor,
    Window,
)
from weft.compiler.operators import nest_of, reason_against
from weft.compiler.rounding import rounding
from weft.compiler.scales import LEFT_LIMIT, SHIFT_LIMIT, Rescale, clamp_range
from weft.compiler.verify import verify
from weft.isa import UnsupportedError
from weft.isa.interpret import interpret
from weft.isa.nest import I8, I16, Block, For, Load, Store
from weft.isa.traverse import walk

few = settings(max_examples=60, deadline=None)


def inputs_of(graph: Graph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: graphs.bytes_of(rng, graph.tensors[name].shape) for name in graph.inputs}


def run_interpreted(graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of the graph, by its nodes' nests."""
    values = {t.name: t.data for t in graph.tensors.values() if t.data is not None} | inputs
    for node in graph.nodes:
        operator = nest_of(graph, node)
        for name in node.outputs:
            values[name] = np.full(graph.tensors[name].shape, 55, np.int8)
        arrays = {}
        for buffer in operator.nest.buffers:
            if buffer.name in operator.constants:
                arrays[buffer.name] = operator.constants[buffer.name]
            elif buffer.name in operator.scratch:
                arrays[buffer.name] = np.full(buffer.shape, -77, np.int32)
            else:
                arrays[buffer.name] = values[buffer.name].reshape(buffer.shape)
        interpret(operator.nest, {}, arrays)
    return values


def check(graph: Graph, seed: int) -> None:
    verify(graph)
    inputs = inputs_of(graph, np.random.default_rng(seed))
    expected = oracle.evaluate(graph, dict(inputs))
    actual = run_interpreted(graph, inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(actual[name], expected[name])


seeds = st.integers(0, 1 << 20)
filters = st.one_of(
    graphs.conv2d_graphs(), graphs.depthwise_graphs(), graphs.fully_connected_graphs()
)


@few
@given(graphs.conv2d_graphs(), seeds)
def test_convolution_is_exact(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.depthwise_graphs(), seeds)
def test_depthwise_convolution_is_exact(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.fully_connected_graphs(), seeds)
def test_fully_connected_is_exact(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.pairwise_graphs(), seeds)
def test_a_sum_a_difference_and_a_product_are_exact(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.pool_graphs(AveragePool2D), seeds)
def test_average_pooling_is_exact(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.pool_graphs(MaxPool2D), seeds)
def test_maximum_pooling_is_exact(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.reshape_graphs(), seeds)
def test_reshaping_keeps_the_order(graph: Graph, seed: int):
    check(graph, seed)


@few
@given(graphs.softmax_graphs(), seeds)
def test_softmax_is_exact(graph: Graph, seed: int):
    check(graph, seed)


def test_softmax_is_exact_for_every_difference():
    scale = float(np.float32(0.1))
    graph = graphs.single(
        Softmax(),
        (graphs.tensor("x", (256, 2), scale),),
        graphs.tensor("y", (256, 2), 1 / 256, -128),
    )
    x = np.stack([np.full(256, 127), np.arange(-128, 128)], 1).astype(np.int8)
    expected = oracle.evaluate(graph, {"x": x})["y"]
    np.testing.assert_array_equal(run_interpreted(graph, {"x": x})["y"], expected)
    odds = 1 / (1 + np.exp(-(127 - np.arange(-128, 128)) * scale))
    assert abs(expected[:, 0].astype(int) + 128 - np.minimum(odds * 256, 255)).max() <= 1


def test_a_chain_of_all_operators_is_exact():
    check(graphs.chain(), 3)


@given(st.floats(2.0**-60, 2.0**40))
def test_a_factor_becomes_the_nearest_fraction(factor: float):
    scale = Rescale.of(factor)
    multiplier, shift = oracle.multiplier_of(factor)
    assert (scale.multiplier, scale.left - scale.right) == (multiplier, shift)
    assert 0 in (scale.left, scale.right)


def test_corners_of_the_fraction():
    assert Rescale.of(0.0) == Rescale(0, 0, 0)
    assert Rescale.of(1.0) == Rescale(1 << 30, 1, 0)
    assert Rescale.of(1 - 2.0**-40) == Rescale(1 << 30, 1, 0)
    assert Rescale.of(2.0**-32) == Rescale(1 << 30, 0, 31)
    assert Rescale.of(2.0**-33) == Rescale(0, 0, 0)
    assert Rescale.of(math.inf).left > 31


def test_a_tiny_scale_clamps_to_the_whole_type():
    quant = Quant((1e-40,), (3,))
    assert clamp_range("relu6", quant, I8) == (3, 127)
    assert clamp_range("relu_n1_to_1", quant, I8) == (-128, 127)
    assert clamp_range("none", quant, I8) == (-128, 127)


# --- the forms that instructions are matched with


def test_padding_is_selected_only_where_there_is_some():
    for pads, selects in (((0, 0, 0, 0), False), ((0, 0, 0, 1), True)):
        window = Window((2, 2), pads=pads)
        weights = np.ones((1, 2, 2, 1), np.int8)
        graph = graphs.single(
            Conv2D(window),
            (
                graphs.tensor("x", (1, 4, 4, 1), 1.0, 9),
                graphs.tensor("w", weights.shape, 1.0, 0, weights),
                None,
            ),
            graphs.tensor("y", (1, *graphs.covered(window, (4, 4)), 1)),
        )
        text = repr(nest_of(graph, graph.nodes[0]).nest)
        assert ("Const(value=9" in text) == selects


@few
@given(filters)
def test_a_fine_rounding_takes_all_bits_that_a_channel_has_to_spare(graph: Graph):
    node, x, w = graph.nodes[0], graph.tensors["x"], graph.tensors["w"]
    coarse = nest_of(graph, rounding(node, "away")).constants
    fine = nest_of(graph, rounding(node, "fine")).constants
    assert x.quant is not None
    assert w.quant is not None
    assert w.data is not None
    axis = 3 if isinstance(node.op, DepthwiseConv2D) else 0
    bias = graph.tensors["b"].data if "b" in graph.tensors else None
    for o, weights in enumerate(np.moveaxis(w.data, axis, 0)):
        shares = [int(v) - w.quant.zero_point[0] for v in weights.flat]
        ends = [i - x.quant.zero_point[0] for i in (-128, 127)]
        sums = [sum(pick(v * end for end in ends) for v in shares) for pick in (min, max)]
        furthest = max(abs(total + (0 if bias is None else int(bias.flat[o]))) for total in sums)
        before, left, right = coarse["op.left"][o], int(fine["op.left"][o]), fine["op.right"][o]
        assert coarse["op.multiplier"][o] == fine["op.multiplier"][o]
        assert left - right == before - coarse["op.right"][o]
        if before or furthest >= 2**31:
            assert left == before
        else:
            assert furthest << left < 2**31
            assert furthest << (left + 1) >= 2**31 or left == LEFT_LIMIT or right == SHIFT_LIMIT


@few
@given(filters)
def test_a_convolution_is_one_store_under_parallel_loops(graph: Graph):
    operator = nest_of(graph, graph.nodes[0])
    stmt = operator.nest.body
    loops = []
    while isinstance(stmt, For):
        assert stmt.parallel
        loops.append(stmt.index)
        stmt = stmt.body
    assert isinstance(stmt, Store)
    assert stmt.buffer == "y"
    assert "".join(loops) in ("nyxo", "no")
    loads = {node.buffer for node in walk(stmt) if isinstance(node, Load)}
    quant = graph.tensors["w"].quant
    assert quant is not None
    weights = "op.centred" if any(quant.zero_point) else "w"
    assert loads == {"x", weights, "op.bias", "op.multiplier", "op.left", "op.right"}
    channels = graph.tensors["y"].shape[-1]
    assert set(operator.constants) == loads - {"x", "w"}
    columns = [c for name, c in operator.constants.items() if name != "op.centred"]
    assert all(c.shape == (channels,) and c.dtype == np.int32 for c in columns)


@few
@given(graphs.any_graphs())
def test_a_nest_names_its_tensors_as_the_graph_does(graph: Graph):
    node = graph.nodes[0]
    operator = nest_of(graph, node)
    names = [buffer.name for buffer in operator.nest.buffers]
    assert len(set(names)) == len(names)
    for buffer in operator.nest.buffers:
        if buffer.name in graph.tensors:
            tensor = graph.tensors[buffer.name]
            assert math.prod(buffer.shape) == math.prod(tensor.shape)
            assert buffer.dtype == tensor.dtype
        else:
            assert (buffer.name in operator.constants) != (buffer.name in operator.scratch)
    assert not any(isinstance(n, Block) and not n.stmts for n in walk(operator.nest.body))


# --- what has no nest


def dense(**changes: Tensor | None) -> Graph:
    weights = np.ones((2, 3), np.int8)
    tensors: dict[str, Tensor | None] = {
        "x": graphs.tensor("x", (1, 3)),
        "w": graphs.tensor("w", (2, 3), 0.5, 0, weights),
        "b": None,
        "y": graphs.tensor("y", (1, 2)),
    } | changes
    y = tensors.pop("y")
    assert y is not None
    return graphs.single(FullyConnected(), tuple(tensors.values()), y)


def softmax(classes: int = 3, scale: float = 0.5, out: float = 1 / 256) -> Graph:
    x, y = graphs.tensor("x", (1, classes), scale), graphs.tensor("y", (1, classes), out, -128)
    return graphs.single(Softmax(), (x,), y)


def add(scale: float) -> Graph:
    tensors = (graphs.tensor("a", (4,)), graphs.tensor("b", (4,)))
    return graphs.single(Add(), tensors, graphs.tensor("y", (4,), scale))


def uneven() -> Tensor:
    quant = Quant((0.5, 0.25), (1, 2), 0)
    return Tensor("w", I8, (2, 3), quant, np.ones((2, 3), np.int8))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (dense(w=uneven()), "zero point for each channel"),
        (dense(w=graphs.tensor("w", (2, 3))), "constant weights"),
        (dense(y=graphs.tensor("y", (1, 2), 1e-20)), "scale"),
        (dense(x=graphs.tensor("op.left", (1, 3))), "op.left"),
        (add(2.0**-24), "scale"),
        (softmax(classes=4096), "4096 classes"),
        (softmax(out=1 / 128), "1/256"),
        (softmax(scale=1e-9), "too small"),
        (
            graphs.single(
                Add(),
                tuple(graphs.tensor(name, (2,), dtype=I16) for name in "ab"),
                graphs.tensor("y", (2,), dtype=I16),
            ),
            "i16",
        ),
        (
            replace(
                graphs.chain(),
                nodes=(
                    *graphs.chain().nodes[:-1],
                    Node("odds", Opaque("SWISH"), ("dense",), ("odds",)),
                ),
            ),
            "SWISH",
        ),
    ],
)
def test_what_has_no_nest_says_why(graph: Graph, reason: str):
    verify(graph)
    node = graph.nodes[-1]
    found = reason_against(graph, node)
    assert found is not None
    assert reason in found
    with pytest.raises(UnsupportedError, match=node.name):
        nest_of(graph, node)


def test_the_least_factors_become_zero():
    graph = dense(y=graphs.tensor("y", (1, 2), 1e30, 5))
    assert not nest_of(graph, graph.nodes[0]).constants["op.multiplier"].any()
    check(graph, 0)
