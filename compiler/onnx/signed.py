"""Unsigned activations as signed ones: they are moved down by 128, which changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...isa.nest import I8, U8
from ..graph import Graph, Node, Tensor
from .pattern import is_call


def signed(graph: Graph) -> Graph:
    """Unsigned activations as signed ones, where they only pass from quantizing to dequantizing."""
    tensors = dict(graph.tensors)
    changed: dict[str, Node] = {}
    of: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in set(node.inputs):
            of.setdefault(name, []).append(node)
    for node in graph.nodes:
        if not is_call(node, "QuantizeLinear") or len(node.inputs) != 3:
            continue
        out, zero = tensors[node.outputs[0]], tensors[node.inputs[2]]
        readers = of.get(out.name, [])
        if (
            out.dtype != U8
            or zero.data is None
            or zero.data.size != 1
            or out.name in graph.outputs
            or not all(
                is_call(n, "DequantizeLinear")
                and len(n.inputs) == 3
                and n.inputs[0] == out.name
                and tensors[n.inputs[2]].data is not None
                for n in readers
            )
        ):
            continue
        for user in (node, *readers):
            old = tensors[user.inputs[2]]
            assert old.data is not None
            lower = f"{user.name}/zero"
            if lower in tensors:
                break
            moved = (old.data.astype(np.int32) - 128).astype(np.int8)
            tensors[lower] = Tensor(lower, I8, old.shape, None, moved)
            changed[user.name] = replace(user, inputs=(*user.inputs[:2], lower))
        else:
            tensors[out.name] = replace(out, dtype=I8)
    nodes = tuple(changed.get(node.name, node) for node in graph.nodes)
    return replace(graph, tensors=tensors, nodes=nodes)
