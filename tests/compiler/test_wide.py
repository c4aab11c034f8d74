"""Exact 32-bit products from bytes: on the host, and on machines that store bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.compiled import BATCHED, SMALL, TINY, on_accelerator, outputs_of
from weft.compiler.catalog.wide import digits_of
from weft.compiler.graph import Call, Graph, Node, Quant, Tensor
from weft.compiler.pipeline import compile_graph
from weft.isa.nest import I8, I32


def product(weights: np.ndarray, rows: int) -> Graph:
    digits = digits_of(weights)
    assert digits is not None
    data, parts, shift = digits
    halves, sums = (rows, len(data)), (rows, len(weights))
    tensors = [
        Tensor("x", I8, (rows, weights.shape[1]), Quant((0.1,), (3,))),
        Tensor("w", I8, data.shape, None, data),
        Tensor("high", I8, halves),
        Tensor("low", I8, halves),
        Tensor("sums", I32, sums),
    ]
    nodes = (
        Node("high", Call("wide.high"), ("x", "w"), ("high",)),
        Node("low", Call("wide.low"), ("x", "w"), ("low",)),
        Node("join", Call("wide.join", (("parts", parts), ("shift", shift))),
             ("high", "low"), ("sums",)),
    )  # fmt: skip
    return Graph("wide", {t.name: t for t in tensors}, nodes, ("x",), ("sums",))


@pytest.mark.parametrize("config", [TINY, SMALL, BATCHED], ids=["tiny", "small", "batched"])
def test_sums_are_exact_where_bytes_are_stored(config):
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (7, 21)).astype(np.int8)
    weights[0], weights[1] = -128, 127
    x = rng.integers(-128, 128, (5, 21)).astype(np.int8)
    x[0], x[1] = -128, 127
    model = compile_graph(product(weights, 5), config)
    assert on_accelerator(model) == ["high", "low"]
    expected = x.astype(np.int32) @ weights.T.astype(np.int32)
    np.testing.assert_array_equal(outputs_of(model, {"x": x})["sums"], expected)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 127), st.integers(0, 1000))
def test_digits_are_those_of_the_weights(depth: int, most: int, seed: int):
    weights = np.random.default_rng(seed).integers(-most - 1, most + 1, (3, depth)).astype(np.int8)
    digits = digits_of(weights)
    assert digits is not None
    data, parts, shift = digits
    powers = (1 << (shift * np.arange(parts))).reshape(-1, 1, 1)
    np.testing.assert_array_equal((data.reshape(parts, 3, depth) * powers).sum(0), weights)
    assert np.abs(data.astype(int)).sum(1).max() < 255


def test_too_long_rows_have_no_digits():
    assert digits_of(np.full((1, 300), 127, np.int8)) is None


def test_every_sum_of_two_bytes_is_found_again():
    graph = product(np.array([[127, 127]], np.int8), 256 * 256)
    x = np.stack(np.meshgrid(*[np.arange(-128, 128)] * 2), -1).reshape(-1, 2).astype(np.int8)
    model = compile_graph(graph, TINY, placement="cpu")
    sums = outputs_of(model, {"x": x})["sums"][:, 0]
    np.testing.assert_array_equal(sums, x.astype(np.int32).sum(1) * 127)
