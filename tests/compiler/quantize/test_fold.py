"""Graphs made simple compute what they did."""

from __future__ import annotations

import numpy as np
import pytest

from weft.compiler.graph import op_name

pytest.importorskip("onnx")

from tests.compiler.quantize.networks import Maker, graph_of, interpreted, samples
from weft.compiler.quantize.fold import folded
from weft.compiler.verify import verify


def simple(m: Maker, shape: tuple[int, ...], output: str) -> list[str]:
    """The operators of the simple graph, after a look at its results."""
    graph = graph_of(m.model(shape, output))
    made = folded(graph)
    verify(made)
    x = samples(1, *shape[1:]) if shape[0] == 1 else samples(*shape[:1], *shape[1:])
    expected, got = interpreted(graph, x), interpreted(made, x)
    assert got.shape == expected.shape
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    return [op_name(node.op) for node in made.nodes]


def normalized(m: Maker, x: str, output: str, channels: int) -> str:
    values = [m.constant(f"{output}.{k}", m.random.uniform(0.5, 1.5, channels)) for k in "sbmv"]
    return m.node("BatchNormalization", [x, *values], output, epsilon=0.01)


def test_a_normalization_behind_a_convolution_is_part_of_it():
    m = Maker()
    normalized(m, m.conv("x", "c", 4, 3), "y", 4)
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv"]


def test_a_normalization_behind_a_convolution_without_bias_is_part_of_it():
    m = Maker()
    m.node("Conv", ["x", m.normal("w", 4, 3, 1, 1)], "c")
    normalized(m, "c", "y", 4)
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_normalization_behind_a_gemm_is_part_of_it(transposed: int):
    m = Maker()
    w = m.normal("w", *((4, 6) if transposed else (6, 4)))
    normalized(m, m.node("Gemm", ["x", w, m.normal("b", 4)], "g", transB=transposed), "y", 4)
    assert simple(m, (1, 6), "y") == ["Gemm"]


def test_a_normalization_elsewhere_is_a_depthwise_convolution():
    m = Maker()
    normalized(m, m.node("Relu", [m.conv("x", "c", 4, 3)], "r"), "y", 4)
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv", "Relu", "Conv"]


def test_a_normalization_of_what_others_read_too_leaves_the_convolution_alone():
    m = Maker()
    c = m.conv("x", "c", 4, 3)
    m.node("Add", [c, normalized(m, c, "n", 4)], "y")
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize("kind", ["Add", "Mul", "Sub"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,)])
def test_a_constant_of_each_channel_is_part_of_the_convolution(kind, first, shape):
    m = Maker()
    c = m.conv("x", "c", 4, 3)
    k = m.normal("k", *shape)
    m.node(kind, [k, c] if first else [c, k], "y")
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv"]


def test_a_constant_along_the_width_is_no_constant_of_a_channel():
    m = Maker()
    m.node("Add", [m.conv("x", "c", 4, 3), m.normal("k", 4)], "y")
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv", "Add"]


@pytest.mark.parametrize("shape", [(1, 6), (1, 5, 6), (1, 2, 5, 6)])
def test_a_product_and_a_sum_are_a_gemm_of_rows(shape):
    m = Maker()
    m.node("MatMul", ["x", m.normal("w", 6, 4)], "p")
    m.node("Add", [m.normal("b", 4), "p"], "y")
    moves = [] if len(shape) == 2 else ["Reshape"]
    assert simple(m, shape, "y") == [*moves, "Gemm", *moves]


def test_a_border_of_zeros_becomes_pads():
    m = Maker()
    m.node("Pad", ["x", m.constant("p", [0, 0, 1, 2, 0, 0, 3, 0], np.int64)], "b")
    m.conv("b", "y", 4, 3, pads=[0, 1, 0, 0])
    assert simple(m, (1, 3, 4, 4), "y") == ["Conv"]


def test_a_border_of_ones_stays():
    m = Maker()
    pads = m.constant("p", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    m.node("Pad", ["x", pads, m.constant("one", 1)], "b")
    m.conv("b", "y", 4, 3)
    assert simple(m, (1, 3, 4, 4), "y") == ["Pad", "Conv"]


@pytest.mark.parametrize("keep", [0, 1])
def test_a_mean_over_the_image_is_a_pool(keep: int):
    m = Maker()
    m.node("ReduceMean", ["x", m.constant("a", [-1, 2], np.int64)], "y", keepdims=keep)
    assert simple(m, (1, 3, 4, 4), "y") == ["GlobalAveragePool", *["Reshape"] * (1 - keep)]


def test_what_does_nothing_is_left_out():
    m = Maker()
    m.node("Identity", [m.node("Dropout", [m.node("Identity", ["x"], "a")], "b")], "c")
    m.node("Relu", ["c"], "y")
    assert simple(m, (1, 3), "y") == ["Relu"]
