"""What is written and read again is the same graph."""

from __future__ import annotations

import pytest

from tests import networks
from tests.networks import assert_same_graph
from tests.shared import SHARED, needs_shared
from weft.compiler.graph import Call
from weft.compiler.tflite import read
from weft.compiler.tflite.write import write
from weft.isa.errors import ModelError


@pytest.mark.parametrize("seed", range(60))
def test_a_random_network_comes_back_equal(seed: int):
    graph = networks.random_network(seed)
    assert_same_graph(read(write(graph), graph.name), graph)


@pytest.mark.parametrize(
    "graph",
    [
        networks.every_operator(),
        networks.residual(),
        networks.addition((1, 4, 4, 3), (1, 1, 1, 3), activation="relu6"),
        networks.single("fc", (3, 12), 5, per_channel=True),
        networks.single("softmax", (2, 7), beta=0.5),
    ],
    ids=lambda graph: graph.name,
)
def test_a_network_comes_back_equal(graph):
    assert_same_graph(read(write(graph), graph.name), graph)


@needs_shared
def test_converters_files_come_back_equal():
    assert SHARED is not None
    files = sorted((SHARED / "models").glob("*/*.tflite"))
    kept = 0
    for path in files:
        graph = read(path.read_bytes(), path.stem)
        if any(isinstance(node.op, Call) for node in graph.nodes):
            with pytest.raises(ModelError, match="Call"):
                write(graph)
            continue
        assert_same_graph(read(write(graph), path.stem), graph)
        kept += 1
    assert kept >= 13
