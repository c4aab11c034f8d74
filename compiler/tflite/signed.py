"""Networks of unsigned bytes as networks of signed ones: everything is moved down by 128.

A byte ``q`` and ``q - 128`` stand for the same real number if the zero point moves with them, so
every operator of the graph computes the same with the same scales. Two things are not symmetric
around the new zero: a mean of unsigned bytes rounds ties up, and weights may have zero points
anywhere, which the lowering subtracts from them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...isa.nest import I8, U8
from ..graph import AveragePool2D, Call, Graph, Node, Tensor
from .names import Names

MOVED = 128
"""By how much values and zero points become less."""


def signed(graph: Graph) -> Graph:
    """``graph`` with quantized unsigned bytes only at its ends, where a node converts them."""
    chosen = {name for name, tensor in graph.tensors.items() if tensor.dtype == U8 and tensor.quant}
    if not chosen:
        return graph
    names = Names()
    for name in (*graph.tensors, *(node.name for node in graph.nodes)):
        names.unique(name)
    ends = chosen & {*graph.inputs, *graph.outputs}
    inner = {name: names.unique(f"{name}/signed") if name in ends else name for name in chosen}
    tensors = {
        name: tensor for name, tensor in graph.tensors.items() if name not in chosen or name in ends
    }
    tensors |= {inner[name]: _moved(graph.tensors[name], inner[name]) for name in chosen}
    before = [
        Node(inner[name], Call("tfl.quantize", (("to", "i8"),)), (name,), (inner[name],))
        for name in graph.inputs
        if name in chosen
    ]
    after = [
        Node(
            names.unique(f"{name}/unsigned"),
            Call("tfl.quantize", (("to", "u8"),)),
            (inner[name],),
            (name,),
        )
        for name in dict.fromkeys(graph.outputs)
        if name in chosen and name not in graph.inputs
    ]
    nodes = [_node(node, inner) for node in graph.nodes]
    return replace(graph, tensors=tensors, nodes=(*before, *nodes, *after))


def _moved(tensor: Tensor, name: str) -> Tensor:
    """A tensor of unsigned bytes as one of signed bytes."""
    assert tensor.quant is not None
    zeros = tuple(z - MOVED for z in tensor.quant.zero_point)
    data = None
    if tensor.data is not None:
        data = (tensor.data ^ np.uint8(MOVED)).view(np.int8)
    return Tensor(name, I8, tensor.shape, replace(tensor.quant, zero_point=zeros), data)


def _node(node: Node, inner: dict[str, str]) -> Node:
    op = node.op
    if any(name in inner for name in node.outputs):
        if isinstance(op, AveragePool2D):
            op = replace(op, ties="up")
        elif op == Call("tfl.quantize", (("to", "u8"),)):
            op = Call("tfl.quantize", (("to", "i8"),))
    inputs, outputs = (
        tuple(inner.get(name, name) for name in ends) for ends in (node.inputs, node.outputs)
    )
    return Node(node.name, op, inputs, outputs)
