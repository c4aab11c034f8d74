"""Generated networks answer what TensorFlow Lite Micro answers, wherever they run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests import golden
from weft.compiler import tflite
from weft.compiler.graph import Graph
from weft.compiler.host import compile_nodes
from weft.runtime.jit import jit
from weft.runtime.network import Network

FIRST = 10
"""So many of the recorded networks always run; the others are marked as slow."""
NETWORKS = [
    *golden.NETWORKS[:FIRST],
    *(pytest.param(name, marks=pytest.mark.slow) for name in golden.NETWORKS[FIRST:]),
]
HARDWARE = ("tiny", "base", "edge")
"""Presets that the recorded networks take in turn."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for the whole module, so that the simulator's code is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def check(graph: Graph, name: str, hw: str, on: str) -> None:
    """Every inference of a recorded network, bit for bit."""
    given, expected = golden.inputs(name), golden.outputs(name)
    with jit(Network(name, graph, f"golden {name}"), hw, on) as run:
        for i in range(len(given[0])):
            results = run(*(value[i] for value in given))
            results = results if isinstance(results, tuple) else (results,)
            for output, result, all_expected in zip(graph.outputs, results, expected, strict=True):
                np.testing.assert_array_equal(result, all_expected[i], err_msg=output)


@pytest.mark.parametrize("name", NETWORKS)
def test_host_code_answers_as_tflm_does(name: str):
    graph = tflite.read(golden.model_file(name), name)
    code = compile_nodes(graph, graph.nodes)
    given, expected = golden.inputs(name), golden.outputs(name)
    for i in range(len(given[0])):
        results = code.run({n: value[i] for n, value in zip(graph.inputs, given, strict=True)})
        for output, all_expected in zip(graph.outputs, expected, strict=True):
            np.testing.assert_array_equal(results[output], all_expected[i], err_msg=output)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_accelerator_answers_as_tflm_does(name: str):
    hw = HARDWARE[golden.NETWORKS.index(name) % len(HARDWARE)]
    check(tflite.read(golden.model_file(name), name), name, hw, "functional")
