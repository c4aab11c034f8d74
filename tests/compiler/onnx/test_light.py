"""The networks that come with the package ``onnx``: all are read; with weights, they answer as
onnxruntime does."""

from __future__ import annotations

import numpy as np
import pytest

import weft

pytest.importorskip("onnx")

from tests.compiler.onnx import light
from tests.compiler.onnx.models import numpy_helper, onnx, reference
from weft.compiler.onnx import read
from weft.runtime.network import of_model


def network(data: bytes, name: str):
    return of_model(read(data, name), name)


@pytest.mark.parametrize("name", light.NAMES)
def test_a_network_is_read_as_it_is(name):
    net = network(light.loaded(name).SerializeToString(), name)
    assert net.graph is not None
    shapes = [net.graph.tensors[end].shape for end in (*net.graph.inputs, *net.graph.outputs)]
    assert shapes[0] == (1, 3, 224, 224)
    assert int(np.prod(shapes[1])) == 1000


@pytest.mark.deep
def test_a_network_whose_weights_are_constants_of_shape_answers_as_its_file_says():
    name = "light_squeezenet"
    expected = onnx.TensorProto.FromString((light.FOLDER / f"{name}_output_0.pb").read_bytes())
    with weft.jit(network(light.loaded(name).SerializeToString(), name), "tiny", "cpu") as run:
        got = run(np.zeros((1, 3, 224, 224), np.float32))
    np.testing.assert_allclose(got, numpy_helper.to_array(expected), rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "light_squeezenet" else pytest.mark.deep)
        for name in light.NAMES
    ],
)
def test_a_network_with_weights_answers_as_onnxruntime(name):
    pytest.importorskip("onnxruntime")
    data = light.with_weights(light.loaded(name)).SerializeToString()
    net = network(data, name)
    assert net.graph is not None
    with weft.jit(net, "base", "cpu") as run:
        got = run(light.image())
    (expected,) = reference(data, {net.graph.inputs[0]: light.image()})
    assert expected.std() > 0
    assert light.difference(got, expected) < 1e-4
