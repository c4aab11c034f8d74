"""Generated networks answer what TensorFlow Lite Micro answers, wherever they run."""

from __future__ import annotations

import numpy as np
import pytest

from tests import golden
from weft.compiler import tflite
from weft.compiler.graph import Graph
from weft.compiler.host import compile_nodes
from weft.runtime.jit import jit
from weft.runtime.network import Network


def check(graph: Graph, name: str, hw: str, on: str) -> None:
    """Every inference of a recorded network, bit for bit."""
    given, expected = golden.inputs(name), golden.outputs(name)
    with jit(Network(name, graph, f"golden {name}"), hw, on) as run:
        for i in range(len(given[0])):
            results = run(*(value[i] for value in given))
            results = results if isinstance(results, tuple) else (results,)
            for output, result, all_expected in zip(graph.outputs, results, expected, strict=True):
                np.testing.assert_array_equal(result, all_expected[i], err_msg=output)


@pytest.mark.parametrize("name", golden.NETWORKS)
def test_host_code_answers_as_tflm_does(name: str):
    graph = tflite.read(golden.model_file(name), name)
    code = compile_nodes(graph, graph.nodes)
    given, expected = golden.inputs(name), golden.outputs(name)
    for i in range(len(given[0])):
        results = code.run({n: value[i] for n, value in zip(graph.inputs, given, strict=True)})
        for output, all_expected in zip(graph.outputs, expected, strict=True):
            np.testing.assert_array_equal(results[output], all_expected[i], err_msg=output)


@pytest.mark.parametrize(("number", "name"), list(enumerate(golden.NETWORKS)))
def test_the_accelerator_answers_as_tflm_does(
    number: int, name: str, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    hw = HARDWARE[number % len(HARDWARE)]
    check(tflite.read(golden.model_file(name), name), name, hw, "functional")


HARDWARE = ("tiny", "base", "edge")
"""Presets that the recorded networks take in turn."""
