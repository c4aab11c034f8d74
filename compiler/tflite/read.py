"""From the bytes of a TFLite file to a tensor graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tflite

from ..graph import Graph, Node
from ..verify import verify
from . import lstm
from .names import Names, is_plain, node_name
from .operators import RawNode, read_operators
from .signed import signed
from .source import Source
from .tensors import Tensors

IDENTIFIER = b"TFL3"
"""At byte 4 of every file."""
SCHEMA_VERSION = 3
HEADER_BYTES = 8


def read(data: bytes, name: str) -> Graph:
    """The main subgraph of a TFLite file.

    Parameters
    ----------
    data : bytes
        The file. Constants of the graph are read-only views of it.
    name : str
        Of the graph, and of the file in messages.

    Returns
    -------
    Graph
        Verified. Tensors that no node refers to are left out. An operator that the graph has no
        node for is an ``Opaque`` with TFLite's name (with ``+`` and the activation, if that is
        what is unknown); a variable among its inputs is left absent. Quantized unsigned bytes are
        signed ones inside of it (:mod:`.signed`).

    Raises
    ------
    ModelError
        If the file is malformed or truncated, or its network is not well formed.
    UnsupportedError
        If it holds tensors of a type or form that a graph cannot hold.
    """
    source = Source(bytes(data), name)
    if len(data) < HEADER_BYTES or data[4:8] != IDENTIFIER:
        raise source.error(
            f"not a TFLite file: expected the identifier TFL3 at byte 4 of {len(data)}"
        )
    model = source.access(tflite.Model.GetRootAs, source.data, 0)
    version = source.access(model.Version)
    if version != SCHEMA_VERSION:
        raise source.error(f"TFLite schema version {version}; this Weft reads {SCHEMA_VERSION}")
    subgraphs = source.tables(model, "Subgraphs")
    if not subgraphs:
        raise source.error("the file holds no subgraph")
    graph = lstm.expanded(_graph(source, model, subgraphs[0]))
    verify(graph)
    lowered = signed(graph)
    if lowered is not graph:
        verify(lowered)
    return lowered


def _graph(source: Source, model: Any, subgraph: Any) -> Graph:
    """The subgraph with everything under its final name."""
    tensors = Tensors(source, model, subgraph)
    nodes = read_operators(source, model, subgraph, tensors)
    inputs, outputs = source.integers(subgraph, "Inputs"), source.integers(subgraph, "Outputs")
    for index in (*inputs, *outputs):
        tensors[index]
    node_names = _node_names(nodes, tensors)
    names = _tensor_names(nodes, node_names, tensors, (*inputs, *outputs))
    return Graph(
        source.name,
        {names[i]: replace(tensors[i], name=names[i]) for i in sorted(names)},
        tuple(
            Node(
                name,
                node.op,
                tuple("" if i < 0 else names[i] for i in node.inputs),
                tuple(names[i] for i in node.outputs),
            )
            for name, node in zip(node_names, nodes, strict=True)
        ),
        tuple(names[i] for i in inputs),
        tuple(names[i] for i in outputs),
    )


def _node_names(nodes: Sequence[RawNode], tensors: Tensors) -> list[str]:
    """One for each node."""
    names = Names()
    result: list[str] = []
    for node in nodes:
        constants = [i for i in node.inputs[1:2] if tensors.is_constant(i)]
        weights, output = (
            tensors.file_names[indices[0]] if indices else ""
            for indices in (constants, node.outputs)
        )
        result.append(names.unique(node_name(node.kind, output, weights)))
    return result


ROLES = ("input", "weights", "bias")
"""What a constant is to the node that reads it, by position; later ones are numbered."""


def _tensor_names(
    nodes: Sequence[RawNode], node_names: Sequence[str], tensors: Tensors, ends: Sequence[int]
) -> dict[int, str]:
    """One for each tensor that a node or an end of the graph refers to."""
    names = Names()
    wishes: dict[int, str] = {}
    referred = set(ends)
    for name, node in zip(node_names, nodes, strict=True):
        referred.update(i for i in (*node.inputs, *node.outputs) if i >= 0)
        for position, index in enumerate(node.inputs):
            if tensors.is_constant(index):
                role = ROLES[position] if position < len(ROLES) else f"input_{position}"
                wishes.setdefault(index, f"{name}/{role}")
        for position, index in enumerate(node.outputs):
            wishes.setdefault(index, name if position == 0 else f"{name}/{position}")
    kept = [i for i in sorted(referred) if is_plain(tensors.file_names[i])]
    result = {i: names.unique(tensors.file_names[i]) for i in kept}
    for i in sorted(referred - result.keys()):
        result[i] = names.unique(wishes.get(i) or f"tensor_{i}")
    return result
