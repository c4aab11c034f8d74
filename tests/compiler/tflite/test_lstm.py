"""The recurrent layer: its arithmetic, and what it becomes."""

from __future__ import annotations

import numpy as np
import pytest
import tflite

import weft
from tests.shared import SHARED, model_path, needs_shared
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.catalog.lstm import rescaled, sigmoid, tangent
from weft.compiler.graph import Opaque
from weft.compiler.host import compile_nodes
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig, UnsupportedError
from weft.isa.requantize import rescale_int
from weft.runtime.executor import Executor
from weft.sim import connect

EVERY = np.arange(-32768, 32768)


@pytest.mark.parametrize("scale", [(1 << 30, 0, 15), (1518500250, 1, 0), (2147483647, 0, 31)])
def test_rescaling_is_that_of_every_requantization(scale: tuple[int, int, int]):
    x = np.random.default_rng(0).integers(-(1 << 31), 1 << 31, 2000)
    expected = [rescale_int(int(v), *scale) for v in x]
    np.testing.assert_array_equal(rescaled(x, np.array(scale)), expected)


def test_the_table_is_close_to_the_functions_everywhere():
    real = EVERY / 4096
    assert np.abs(sigmoid(EVERY) - 32768 / (1 + np.exp(-real))).max() < 1.5
    # What is even finer is the same at the table's steps.
    assert np.abs(tangent(EVERY, -12) - 32768 * np.tanh(real)).max() < 3
    assert np.abs(tangent(EVERY, -15) - 32768 * np.tanh(EVERY / 32768)).max() < 3
    coarse = EVERY[::256]
    assert np.abs(tangent(coarse, -11) - 32768 * np.tanh(coarse / 2048)).max() < 3


@needs_shared
def test_its_products_run_on_the_accelerator_and_its_states_go_on():
    assert SHARED is not None
    graph = weft.load(model_path("mnist_lstm")).graph
    config = AcceleratorConfig.preset("base")
    model = compile_graph(graph, config)
    there = [s.op for s in model.steps if isinstance(s, AcceleratorStep)]
    assert there.count("wide.high") == there.count("wide.low") == 1 + 28
    with np.load(SHARED / "models" / "mnist_lstm" / "mnist_lstm_golden.npz") as golden:
        x, expected = golden["x"][:2], golden["out_tflm"][:2]
    (source,), (target,) = graph.inputs, graph.outputs
    with connect("functional", config, dram_bytes=1 << 22) as device:
        execute = Executor(model, device)
        found = [execute({source: sample.reshape(1, 28, 28)})[0][target][0] for sample in x]
        np.testing.assert_array_equal(found, expected)
        execute.reset()
        fresh = execute({source: x[1].reshape(1, 28, 28)})[0][target]
    alone = compile_nodes(graph, graph.nodes).run({source: x[1].reshape(1, 28, 28)})[target]
    np.testing.assert_array_equal(fresh, alone)
    assert len(graph.carried) == 2


def variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on, files say of that tensor, too, that it keeps its value."""
    said = tflite.Tensor.IsVariable
    monkeypatch.setattr(
        tflite.Tensor, "IsVariable", lambda tensor: said(tensor) or tensor.Name() == name.encode()
    )


@needs_shared
def test_weights_that_keep_their_value_are_refused(monkeypatch: pytest.MonkeyPatch):
    variable(monkeypatch, "arith.constant11")
    with pytest.raises(UnsupportedError, match=r"constant11\) is a variable with a value in"):
        weft.load(model_path("mnist_lstm"))


@needs_shared
def test_a_layer_of_an_input_that_keeps_its_value_is_none_of_ours(monkeypatch: pytest.MonkeyPatch):
    variable(monkeypatch, "serving_default_fixed_input:0")
    graph = weft.load(model_path("mnist_lstm")).graph
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM+VARIABLE" in [
        node.op.kind for node in graph.nodes if isinstance(node.op, Opaque)
    ]
