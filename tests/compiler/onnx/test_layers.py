"""Quantized tensors, each computed from the reference's own: one step away at most, and rarely."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shared import needs_shared

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.compiler.onnx.exact import evaluated
from tests.compiler.onnx.layers import Reference, measured
from tests.compiler.onnx.models import qdq_net, reference
from tests.compiler.onnx.networks import NETWORKS, Measured
from weft.compiler.onnx import read

SHARE = 0.001
"""Of a tensor's elements, that may be a step away."""


def samples(count: int):
    r = np.random.default_rng(3)
    return [{"x": r.uniform(-2, 2, (1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_small_network_is_its_reference_layer_by_layer(kind):
    proto = qdq_net(kind)
    model = read(proto.SerializeToString(), "net")
    layers = measured(model.graph(model.shapes({})), proto, samples(4))
    assert {layer.op for layer in layers} >= {"Conv2D", "Add", "DepthwiseConv2D", "FullyConnected"}
    assert sum(layer.elements for layer in layers) > 4 * 3 * 8 * 8 * 8
    assert all(layer.beyond == 0 for layer in layers)
    # Sums of scales 0.03 and 0.05 in 0.06 lie between two integers often; see docs/onnx.md.
    assert all(layer.different <= SHARE * layer.elements for layer in layers if layer.op != "Add")


def test_a_layer_that_is_wrong_is_seen():
    proto, other = qdq_net(), qdq_net()
    for tensor in other.graph.initializer:
        if tensor.name == "c2.s":
            tensor.raw_data = np.float32(0.049).tobytes()
    model = read(other.SerializeToString(), "net")
    layers = {
        layer.tensor: layer for layer in measured(model.graph(model.shapes({})), proto, samples(1))
    }
    assert layers["c2.q/nhwc"].beyond > 0
    assert layers["r1.q/nhwc"].beyond == layers["mean.q/nhwc"].beyond == 0


def test_double_precision_says_what_the_reference_says_to_a_step():
    proto = qdq_net()
    for sample in samples(3):
        (exact,) = evaluated(proto, sample)
        expected = reference(proto, sample)[0]
        assert np.abs(exact - expected).max() <= 0.0201
        assert np.array_equal(Reference(proto)(sample)["y"], expected)


@needs_shared
@pytest.mark.deep
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_their_reference_layer_by_layer(name):
    from weft import load

    network = Measured.load(name)
    layers = measured(
        load(network.path).graph,
        network.proto,
        [network.sample(k) for k in range(0, network.count, 5)],
    )
    assert len(layers) > 30
    assert all(layer.beyond <= SHARE * layer.elements for layer in layers)
    assert all(layer.different <= SHARE * layer.elements for layer in layers)
