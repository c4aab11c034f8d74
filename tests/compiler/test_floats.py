"""Operators on 32-bit floats against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from tests.networks import CLAMPS, windows_of
from weft.compiler.graph import (
    Add,
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Op,
    Quant,
    Softmax,
    Sub,
    Tensor,
    Window,
)
from weft.compiler.host import compile_nodes, reason_against
from weft.compiler.verify import verify
from weft.isa.nest import F32, I8, I16, U8

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 6, 7, 3)).astype(np.float32)
SAME = Window((3, 2), (2, 1), (1, 2), (1, 1, 0, 2))
INNER = Window((2, 3), (1, 2))
OUTER = Window((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))


def taps(window: Window, fill: float = 0.0) -> np.ndarray:
    return windows_of(X.astype(np.float64), window, fill)


def constant(name: str, *shape: int, dtype=F32, quant: Quant | None = None) -> Tensor:
    if dtype == F32:
        return Tensor(name, F32, shape, None, RNG.normal(size=shape).astype(np.float32))
    low, high, kind = (0, 256, np.uint8) if dtype == U8 else (-128, 128, np.int8)
    return Tensor(name, dtype, shape, quant, RNG.integers(low, high, shape).astype(kind))


def real(tensor: Tensor, axis: int = 0) -> np.ndarray:
    assert tensor.data is not None
    if tensor.quant is None:
        return tensor.data.astype(np.float64)
    shape = [-1 if k == axis else 1 for k in range(tensor.data.ndim)]
    scale, zero = (
        np.array(v).reshape(shape if len(v) > 1 else ())
        for v in (tensor.quant.scale, tensor.quant.zero_point)
    )
    return (tensor.data - zero) * scale


def run(op: Op, expected: np.ndarray, *more: Tensor, x: np.ndarray = X) -> None:
    names = ("x", *(t.name for t in more))
    y = Tensor("y", F32, expected.shape)
    tensors = {t.name: t for t in (Tensor("x", F32, x.shape), *more, y)}
    graph = Graph("float", tensors, (Node("op", op, names, ("y",)),), ("x",), ("y",))
    verify(graph)
    found = compile_nodes(graph, graph.nodes).run({"x": x})["y"]
    expected = np.clip(expected, *CLAMPS[getattr(op, "activation", "none")])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [SAME, INNER])
def test_a_convolution(window: Window):
    w, b = constant("w", 5, *window.size, 3), constant("b", 5)
    expected = np.einsum("nyxcij,oijc->nyxo", taps(window), real(w)) + real(b)
    run(Conv2D(window, "relu6"), expected, w, b)


@pytest.mark.parametrize("dtype", [I8, U8])
def test_a_convolution_with_weights_of_bytes(dtype):
    quant = Quant(tuple(RNG.uniform(0.01, 0.02, 5)), (0,) * 5, 0)
    if dtype == U8:
        quant = Quant((0.015,), (131,))
    w = constant("w", 5, *INNER.size, 3, dtype=dtype, quant=quant)
    run(Conv2D(INNER), np.einsum("nyxcij,oijc->nyxo", taps(INNER), real(w)), w)


def test_a_depthwise_convolution():
    w, b = constant("w", 1, *SAME.size, 6), constant("b", 6)
    repeated = np.repeat(taps(SAME), 2, 3)
    expected = np.einsum("nyxcij,ijc->nyxc", repeated, real(w)[0]) + real(b)
    run(DepthwiseConv2D(SAME, 2, "relu"), expected, w, b)


def test_a_fully_connected_layer():
    w, b = constant("w", 4, 126), constant("b", 4)
    expected = X.astype(np.float64).reshape(2, -1) @ real(w).T + real(b)
    run(FullyConnected("relu_n1_to_1"), expected, w, b)


@pytest.mark.parametrize(
    ("op", "function"), [(Add, np.add), (Sub, np.subtract), (Mul, np.multiply)]
)
def test_element_by_element(op, function):
    b = constant("b", 1, 1, 3)
    run(op("relu"), function(X.astype(np.float64), real(b)), b)


def test_pools():
    run(MaxPool2D(OUTER), taps(OUTER, -np.inf).max((4, 5)))
    run(AveragePool2D(OUTER, "relu"), np.nanmean(taps(OUTER, np.nan), (4, 5)))


def test_a_softmax():
    powers = np.exp(X.astype(np.float64))
    run(Softmax(), powers / powers.sum(-1, keepdims=True))


def test_large_results_are_the_same_bits_on_any_number_of_threads():
    shape = (1, (8 << 20) // 4 + 1003)
    tensors = {n: Tensor(n, F32, shape) for n in ("x", "y", "sum", "out")}
    nodes = (
        Node("add", Add("relu"), ("x", "y"), ("sum",)),
        Node("mul", Mul(), ("sum", "y"), ("out",)),
    )
    graph = Graph("large", tensors, nodes, ("x", "y"), ("out",))
    verify(graph)
    values = {n: RNG.normal(size=shape).astype(np.float32) for n in ("x", "y")}
    x, y = (v.astype(np.float64) for v in values.values())
    results = [
        compile_nodes(graph, nodes, outputs=("out",), threads=count).run(values)["out"]
        for count in (1, 2, 5)
    ]
    np.testing.assert_allclose(results[0], np.maximum(x + y, 0) * y, rtol=1e-6)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


# --- quantize and dequantize


def converted(x: np.ndarray, before: Tensor, after: Tensor, op: Call) -> np.ndarray:
    tensors = {t.name: t for t in (before, after)}
    node = Node("op", op, (before.name,), (after.name,))
    graph = Graph("quantize", tensors, (node,), (before.name,), (after.name,))
    verify(graph)
    return compile_nodes(graph, graph.nodes).run({before.name: x})[after.name]


def test_quantizing_rounds_half_away_from_zero_and_saturates():
    x = np.array([-1e30, -2.5, -1.5, -0.5, -0.49999997, 0.5, 1.5, 2.4, np.inf], np.float32)
    y = Tensor("y", I8, x.shape, Quant((1.0,), (-3,)))
    found = converted(x, Tensor("x", F32, x.shape), y, Call("tfl.quantize", (("to", "i8"),)))
    assert found.tolist() == [-128, -6, -5, -4, -3, -2, -1, -1, 127]


def test_from_bytes_to_bytes_it_is_a_requantization():
    x = np.arange(256, dtype=np.uint8)
    before = Tensor("x", U8, x.shape, Quant((0.5,), (128,)))
    after = Tensor("y", I16, x.shape, Quant((0.125,), (0,)))
    found = converted(x, before, after, Call("tfl.quantize", (("to", "i16"),)))
    np.testing.assert_array_equal(found, (np.arange(256) - 128) * 4)


def test_dequantizing_multiplies_with_the_scale():
    x = np.arange(-128, 128, dtype=np.int8)
    before = Tensor("x", I8, x.shape, Quant((0.3,), (7,)))
    found = converted(x, before, Tensor("y", F32, x.shape), Call("tfl.dequantize"))
    np.testing.assert_array_equal(found, (x.astype(np.float32) - 7) * np.float32(0.3))


def test_a_softmax_with_another_beta_is_refused_by_name():
    tensors = {name: Tensor(name, F32, (1, 3)) for name in "xy"}
    node = Node("op", Softmax(2.0), ("x",), ("y",))
    reason = reason_against(Graph("beta", tensors, (node,), ("x",), ("y",)), node)
    assert reason is not None
    assert "beta 2.0" in reason
