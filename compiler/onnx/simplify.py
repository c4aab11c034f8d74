"""Rewrites of a graph that was built: integers for QDQ patterns, and nothing that nobody reads."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node


def simplified(graph: Graph) -> Graph:
    """The graph after all rewrites."""
    return pruned(graph)


def pruned(graph: Graph) -> Graph:
    """Without nodes whose outputs nobody reads, and without tensors of nobody."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(name for name in node.inputs if name)
    kept.reverse()
    named = {*graph.inputs, *needed, *(name for node in kept for name in node.outputs)}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in named}
    return replace(graph, tensors=tensors, nodes=tuple(kept))
