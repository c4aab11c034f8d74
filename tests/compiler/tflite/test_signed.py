"""Networks of unsigned bytes, read as networks of signed ones, compute what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.compiler import oracle
from tests.compiler.compiled import BATCHED, SMALL, TINY, on_accelerator, outputs_of
from tests.networks import NetworkBuilder, single, unsigned
from weft.compiler.graph import AveragePool2D, Call, Graph, Quant
from weft.compiler.host import compile_nodes
from weft.compiler.pipeline import compile_graph
from weft.compiler.tflite import read
from weft.compiler.tflite.write import write
from weft.isa.nest import U8


def legacy(seed: int = 0) -> Graph:
    """Every operator of legacy networks, weights with zero points."""
    n = NetworkBuilder("legacy", seed, asymmetric=True)
    stem = n.conv(n.input(2, 7, 6, 3), 9, 3, activation="relu")
    y = n.depthwise(stem, 3, activation="relu6")
    y = n.arithmetic("mul", n.add(n.conv(y, 9, 1), stem), n.constant(1))
    y = n.depthwise(n.max_pool(y, 2), (2, 1), multiplier=3, strides=2, padding="valid")
    y = n.average_pool(y, 2, padding="valid")
    logits = n.fc(n.reshape(y, 2, 4 * 27), 5)
    return unsigned(n.graph(n.softmax(logits), y))


def bytes_for(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shape = graph.tensors[graph.inputs[0]].shape
    return {graph.inputs[0]: rng.integers(0, 256, shape).astype(np.uint8)}


@pytest.mark.parametrize("config", [TINY, SMALL, BATCHED], ids=["tiny", "small", "batched"])
def test_a_legacy_network_is_exact_on_host_and_accelerator(config):
    graph = legacy()
    inputs = bytes_for(graph)
    expected = oracle.evaluate(graph, dict(inputs))
    signed = read(write(graph), "legacy")
    model = compile_graph(signed, config)
    host, device = compile_nodes(signed, signed.nodes).run(inputs), outputs_of(model, inputs)
    for name in graph.outputs:
        assert host[name].dtype == np.uint8
        np.testing.assert_array_equal(host[name], expected[name])
        np.testing.assert_array_equal(device[name], expected[name])
    there = {node.name for node in graph.nodes} & set(on_accelerator(model))
    # All but the softmax, the reshape before fc, and an addition that takes too many parameters.
    assert len(there) == len(graph.nodes) - 2 - (config is SMALL)


def test_only_the_ends_are_unsigned():
    graph = read(write(legacy()), "legacy")
    ends = {*graph.inputs, *graph.outputs}
    assert {name for name, t in graph.tensors.items() if t.dtype == U8} == ends
    converted = [node for node in graph.nodes if isinstance(node.op, Call)]
    assert [node.op.kind for node in converted] == ["tfl.quantize"] * 3
    pools = [node.op for node in graph.nodes if isinstance(node.op, AveragePool2D)]
    assert [op.ties for op in pools] == ["up"]


def with_wide_weight(graph: Graph, *at: int) -> Graph:
    """All weights -1 but for one of -228, which is no byte."""
    weights = next(t for t in graph.tensors.values() if t.name.endswith("weights"))
    data = np.full(weights.shape, 99, np.int8)
    data[at] = -128
    changed = replace(weights, quant=Quant((0.5,), (100,)), data=data)
    return replace(graph, tensors={**graph.tensors, weights.name: changed})


def sizes(graph: Graph) -> dict[str, int]:
    """Of the constants of a network of one layer."""
    model = compile_graph(graph, TINY)
    return {s.name.split(".")[-1]: s.data.size for s in model.segments}


def test_weights_beyond_a_byte_are_read_twice_only_where_they_are():
    graph = with_wide_weight(single("conv", (1, 3, 3, 8), 8, 1), 2, 0, 0, 5)
    assert sizes(graph)["wgt"] == 2 * 3 * 16  # of two blocks of inputs, one twice


def test_steps_whose_weights_are_all_zero_are_left_out():
    graph = with_wide_weight(single("depthwise", (1, 6, 6, 8), 3, padding="valid"), 0, 1, 0, 2)
    assert sizes(graph)["uop"] == (2 * 3 + 1) * 4  # three rows of taps for each block, and one
