"""Real trained networks give TensorFlow Lite Micro's outputs, bit for bit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import weft
from tests.shared import SHARED, model_path, needs_shared
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig, MissingToolError
from weft.runtime.executor import Executor
from weft.sim import connect

NETWORKS = (
    "resnet8_cifar10",
    "dscnn_kws",
    "mobilenetv1_vww96",
    "ad_toycar_ae",
    "sww_1dconv",
    "micro_speech",
    "resnet8_large_cifar10",
    "mobilenetv2_035_160",
)
PRESETS = ("base", "vta", "edge", "big", "tiny")
ON_HOST = {"Reshape", "Softmax"}
"""What is left to the host in these networks."""

pytestmark = needs_shared


@lru_cache(maxsize=2)
def samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and the reference's outputs."""
    assert SHARED is not None
    path = SHARED / "models" / name / f"{name}_golden.npz"
    with np.load(path, allow_pickle=False) as golden:
        return golden["x"], golden["out_tflm"]


def assert_bit_exact(name: str, preset: str, on: str, count: int | None) -> None:
    """The first ``count`` samples, or all, on a device."""
    config = AcceleratorConfig.preset(preset)
    graph = weft.load(model_path(name)).graph
    model = compile_graph(graph, config)
    hosts = [s.op for s in model.steps if not isinstance(s, AcceleratorStep)]
    assert {op for ops in hosts for op in ops.split("+")} <= ON_HOST
    x, expected = samples(name)
    (source,), (target,) = graph.inputs, graph.outputs
    with connect(on, config, dram_bytes=max(1 << 22, model.dram_bytes)) as device:
        execute = Executor(model, device)
        for i in range(len(x) if count is None else count):
            outputs, _ = execute({source: x[i].reshape(graph.tensors[source].shape)})
            np.testing.assert_array_equal(outputs[target].reshape(-1), expected[i].reshape(-1))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_the_base_preset(name):
    assert_bit_exact(name, "base", "functional", 2)


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_a_residual_network_on_every_preset(preset):
    assert_bit_exact("resnet8_cifar10", preset, "functional", 1)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS[1:])
@pytest.mark.parametrize("name", NETWORKS[1:-1])  # the last one has no other kinds of layers
def test_a_network_on_every_preset(name, preset):
    assert_bit_exact(name, preset, "functional", 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_sample_of_a_network(name):
    assert_bit_exact(name, "base", "functional", None)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_the_rtl(name):
    try:
        assert_bit_exact(name, "base", "rtl", 4)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "edge", "vta"])
def test_a_network_with_every_kind_of_layer_on_the_rtl_of_other_presets(preset):
    try:
        assert_bit_exact("mobilenetv1_vww96", preset, "rtl", 1)
        assert_bit_exact("resnet8_cifar10", preset, "rtl", 1)
    except MissingToolError as error:
        pytest.skip(str(error))
