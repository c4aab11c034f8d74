"""Rewrites of a graph that was built: integers for QDQ patterns, and nothing that nobody reads."""

from __future__ import annotations

import math
from dataclasses import replace

from ..catalog import Site
from ..graph import Call, Graph, Node
from .fold import evaluate
from .qdq import integers


def simplified(graph: Graph) -> Graph:
    """The graph after all rewrites."""
    return pruned(known(pruned(integers(graph))))


REAL_LIMIT = 1 << 30
"""Elements of all constants that become real; more are dequantized at every call."""


def known(graph: Graph) -> Graph:
    """With constants for what constants are dequantized to: no weights are, at every call."""
    left = REAL_LIMIT
    tensors, nodes = dict(graph.tensors), list[Node]()
    for node in graph.nodes:
        site = Site.of(graph, node) if isinstance(node.op, Call) else None
        if (
            site is None
            or site.kind != "DequantizeLinear"
            or site.x.data is None
            or any(t.data is None for t in site.present())
            or graph.outputs.count(site.out.name)
            or math.prod(site.out.shape) > left
        ):
            nodes.append(node)
            continue
        left -= math.prod(site.out.shape)
        values = evaluate(site, [t.data if t else None for t in site.inputs])
        assert values is not None
        (value,) = values
        tensors[site.out.name] = replace(site.out, data=value)
    return replace(graph, tensors=tensors, nodes=tuple(nodes))


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
