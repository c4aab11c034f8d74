"""The networks that other tests run are what they say."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tests.networks import NetworkBuilder, every_operator, random_inputs, random_network
from weft.compiler.graph import Call, Conv2D, Mul, Op, Opaque, Sub

ELSEWHERE = {Opaque, Call, Sub, Mul}
"""What other networks are for: ``Call`` is ONNX's; the last two came after the reference's answers
were recorded, and have :func:`tests.networks.arithmetic`."""


def test_every_operator_of_the_grammar_occurs_in_every_operator():
    kinds = {type(node.op) for node in every_operator().nodes}
    assert kinds == set(Op.__args__) - ELSEWHERE


def test_a_seed_decides_a_random_network():
    for name, tensor in random_network(7).tensors.items():
        other = random_network(7).tensors[name]
        assert (tensor.shape, tensor.quant) == (other.shape, other.quant)
        np.testing.assert_array_equal(tensor.data, other.data)
    assert random_network(7).nodes != random_network(8).nodes


def test_random_networks_meet_every_corner():
    graphs = [random_network(seed) for seed in range(150)]
    nodes = [node for graph in graphs for node in graph.nodes]
    counts = Counter(type(node.op) for node in nodes)
    assert all(counts[kind] > 20 for kind in set(Op.__args__) - ELSEWHERE)
    windows = [node.op.window for node in nodes if isinstance(node.op, Conv2D)]
    assert any(w.pads[0] != w.pads[1] for w in windows)
    assert any(max(w.dilations) > 1 for w in windows)
    assert any(w.strides[0] != w.strides[1] for w in windows)
    inputs = [graph.tensors[name] for graph in graphs for name in graph.inputs]
    assert any(tensor.shape[1:3] == (1, 1) for tensor in inputs)
    assert any(tensor.shape[0] == 2 for tensor in inputs)
    assert any(len(graph.outputs) == 2 for graph in graphs)


def test_the_scales_let_activations_use_their_range():
    n = NetworkBuilder(seed=1)
    y = n.conv(n.conv(n.input(1, 8, 8, 16), 16), 16)
    (scale,) = n.graph().tensors[y].quant.scale
    steps = n._reals[y] / scale
    assert steps.max() - steps.min() == 255  # both ends are met
    assert 25 < steps.std() < 100


def test_random_inputs_fit_the_network():
    graph = random_network(3)
    for name, value in random_inputs(graph).items():
        assert value.shape == graph.tensors[name].shape
        assert value.dtype == np.int8
