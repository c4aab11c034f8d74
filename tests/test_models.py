"""Real trained networks give TensorFlow Lite Micro's outputs, bit for bit."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

import weft
from tests.shared import ROOT, SHARED, model_path, needs_shared
from weft.compiler.artifact import AcceleratorStep, CompiledModel
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
MIXED = ("hello_sine", "mnist_mlp", "mnist_lstm", "mobilenetv1_025_128_uint8")
"""Networks with other types or operators than those."""
FLOATS = ("ad_toycar_ae", "dscnn_kws", "mnist_lstm", "mobilenetv1_vww96", "resnet8_cifar10")
"""Those with a float file beside the quantized one."""
PRESETS = ("base", "vta", "edge", "big", "tiny")
ON_HOST = {"Reshape", "Softmax"}
"""What is left to the host in :data:`NETWORKS`."""
PAGE = ROOT / "docs" / "tflite.md"

pytestmark = needs_shared


@lru_cache(maxsize=2)
def samples(name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Inputs, the reference's outputs, and which reference that is."""
    assert SHARED is not None
    path = SHARED / "models" / name / f"{name}_golden.npz"
    with np.load(path, allow_pickle=False) as golden:
        key = "out_tflm" if "out_tflm" in golden else "out_litert_ref"
        return golden["x"], golden[key], key


def assert_bit_exact(name: str, preset: str, on: str, count: int | None) -> CompiledModel:
    """The first ``count`` samples, or all, on a device."""
    config = AcceleratorConfig.preset(preset)
    graph = weft.load(model_path(name)).graph
    model = compile_graph(graph, config)
    hosts = [s.op for s in model.steps if not isinstance(s, AcceleratorStep)]
    if name in NETWORKS:
        assert {op for ops in hosts for op in ops.split("+")} <= ON_HOST
    x, expected, _ = samples(name)
    (source,), (target,) = graph.inputs, graph.outputs
    with connect(on, config, dram_bytes=max(1 << 22, model.dram_bytes)) as device:
        execute = Executor(model, device)
        for i in range(len(x) if count is None else count):
            outputs, _ = execute({source: x[i].reshape(graph.tensors[source].shape)})
            np.testing.assert_array_equal(outputs[target].reshape(-1), expected[i].reshape(-1))
    return model


# --- the page of all files


def row(file: str, model: CompiledModel, equals: str) -> str:
    """A line of the table in docs/tflite.md."""
    there: Counter[str] = Counter()
    here: Counter[str] = Counter()
    for step in model.steps:
        (there if isinstance(step, AcceleratorStep) else here).update(step.op.split("+"))
    cells = [", ".join(f"{op} {n}" for op, n in ops.items()) or "-" for ops in (there, here)]
    return f"| {file} | {cells[0]} | {cells[1]} | {equals} |"


def check_row(file: str, model: CompiledModel, equals: str, update: bool) -> None:
    """The page says of a file what is so."""
    lines = PAGE.read_text().splitlines()
    found = [i for i, line in enumerate(lines) if line.startswith(f"| {file} |")]
    line = row(file, model, equals)
    if update:
        if found:
            lines[found[0]] = line
        else:
            lines.append(line)
        PAGE.write_text("\n".join(lines) + "\n")
    else:
        assert [lines[i] for i in found] == [line], "pytest --update-golden writes it"


def test_the_page_has_a_row_for_every_file():
    assert SHARED is not None
    files = {path.stem for path in (SHARED / "models").glob("*/*.tflite")}
    assert files == {*NETWORKS, *MIXED, *(f"{name}_float" for name in FLOATS)}
    rows = [line.split(" | ")[0][2:] for line in PAGE.read_text().splitlines() if line[:2] == "| "]
    assert sorted(rows[1:]) == sorted(files)


@pytest.mark.parametrize("name", [*NETWORKS, *MIXED])
def test_a_network_on_the_base_preset(name: str, pytestconfig: pytest.Config):
    model = assert_bit_exact(name, "base", "functional", 2)
    x, _, key = samples(name)
    equals = f"`{key}`, {len(x)} of {len(x)}"
    check_row(name, model, equals, pytestconfig.getoption("--update-golden"))


@pytest.mark.parametrize("name", FLOATS)
def test_a_float_network_answers_as_its_quantized_twin(name: str, pytestconfig: pytest.Config):
    graph = weft.load(model_path(name, "_float.tflite")).graph
    model = compile_graph(graph, AcceleratorConfig.preset("base"))
    check_row(f"{name}_float", model, "no reference", pytestconfig.getoption("--update-golden"))
    twin = weft.load(model_path(name)).graph
    quants = [twin.tensors[end].quant for end in (*twin.inputs, *twin.outputs)]
    x, expected, _ = samples(name)
    execute = Executor(model, None)
    (source,), (target,) = graph.inputs, graph.outputs
    agree = 0
    for i in range(5):
        real, answer = (
            (v[i].astype(np.float32) - q.zero_point[0]) * np.float32(q.scale[0])
            for v, q in zip((x, expected), quants, strict=True)
        )
        outputs, _ = execute({source: real.reshape(graph.tensors[source].shape)})
        found = outputs[target].reshape(-1)
        if name == "ad_toycar_ae":  # no classes
            agree += np.corrcoef(found, answer)[0, 1] > 0.99
        else:
            agree += found.argmax() == answer.argmax()
    assert agree >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hello_sine", "mnist_mlp", "mnist_lstm"])
def test_a_mixed_network_on_the_rtl(name: str):
    try:
        assert_bit_exact(name, "base", "rtl", 2)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_a_residual_network_on_every_preset(preset):
    assert_bit_exact("resnet8_cifar10", preset, "functional", 1)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS[1:])
@pytest.mark.parametrize("name", NETWORKS[1:-1])  # the last one has no other kinds of layers
def test_a_network_on_every_preset(name, preset):
    assert_bit_exact(name, preset, "functional", 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, *MIXED])
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
