"""A quantized network in TFLite's terms: integers from the input to the output.

What rounds an input, and what makes an output real, is left out: the inputs and outputs are bytes,
as TFLite's files have them. Images are channels-last. A softmax before an output is one of
integers. Sums are rounded as TensorFlow Lite Micro rounds them, whose first rounding is less fine;
some differ by one in the last place from what the ONNX file says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...isa.errors import UnsupportedError
from ...isa.nest import I8
from ..graph import (
    Call,
    Filter,
    Graph,
    Node,
    Quant,
    Reshape,
    Softmax,
    Tensor,
    op_name,
)
from ..onnx.simplify import pruned
from ..rounding import rounding
from ..verify import verify

TO_NHWC = (0, 2, 3, 1)
PROBABILITY = Quant((1 / 256,), (-128,))
"""Of a softmax, by TFLite's definition."""
FLAT = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))


def lite(graph: Graph) -> Graph:
    """``graph``, the operators of integers of a quantized network, as TFLite has them.

    Raises
    ------
    UnsupportedError
        If an operator has no such form; it lists all of them.
    """
    return _Lite(graph).graph()


class _Lite:
    def __init__(self, graph: Graph):
        self.old = graph
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.inputs: dict[str, str] = dict.fromkeys(graph.inputs, "")
        """The bytes that stand for an input."""
        self.integers: dict[str, str] = {}
        """The bytes that a real tensor was made of."""
        self.lost: list[str] = []

    def graph(self) -> Graph:
        for node in self.old.nodes:
            if not self.put(node):
                self.lost.append(f"node {node.name!r} ({op_name(node.op)})")
        outputs = [self.integers.get(name, name) for name in self.old.outputs]
        for names, what in ((self.inputs.values(), "input"), (outputs, "output")):
            for name in names:
                if not name or self.tensors[name].dtype != I8:
                    self.lost.append(f"an {what} that is no tensor of bytes")
        if self.lost:
            lost = "; ".join(dict.fromkeys(self.lost))
            raise UnsupportedError(f"{self.old.name}: TFLite has no form of integers for {lost}")
        made = replace(
            self.old, tensors=self.tensors, nodes=tuple(self.nodes),
            inputs=tuple(self.inputs.values()), outputs=tuple(outputs),
        )  # fmt: skip
        made = pruned(made)
        verify(made)
        return made

    def put(self, node: Node) -> bool:
        """The node in TFLite's terms; whether there is one."""
        kind, out = op_name(node.op), node.outputs[0]
        source = self.integers.get(node.inputs[0], node.inputs[0])
        if not isinstance(node.op, Call):
            self.nodes.append(rounding(self.filter(node), "away"))
            return True
        if kind == "QuantizeLinear" and self.inputs.get(source) == "":
            self.inputs[source] = out
            return self.tensors[out].quant is not None
        if kind == "DequantizeLinear":
            self.integers[out] = source
            return self.tensors[source].quant is not None
        if kind == "Transpose" and self.is_input(source):
            # Channels-last: an image comes as TFLite's users have it.
            if dict(node.op.attributes).get("perm") != TO_NHWC or self.readers(source) > 1:
                return False
            name = next(name for name, integers in self.inputs.items() if integers == source)
            self.inputs[name] = out
            return True
        if kind in FLAT and self.tensors[out].dtype == I8:
            self.nodes.append(Node(node.name, Reshape(), (source,), (out,)))
            return True
        if kind == "Softmax" and self.last(node, source):
            self.tensors[out] = Tensor(out, I8, self.tensors[out].shape, PROBABILITY)
            self.nodes.append(Node(node.name, Softmax(), (source,), (out,)))
            return True
        return False

    def is_input(self, name: str) -> bool:
        return name in self.inputs.values()

    def readers(self, name: str) -> int:
        return sum(name in node.inputs for node in self.old.nodes)

    def last(self, node: Node, source: str) -> bool:
        """Whether a softmax is over the last axis of bytes."""
        assert isinstance(node.op, Call)
        axis, rank = dict(node.op.attributes).get("axis", -1), len(self.tensors[source].shape)
        return axis in (-1, rank - 1) and self.tensors[source].dtype == I8

    def filter(self, node: Node) -> Node:
        """A node whose bias says its scale."""
        if not isinstance(node.op, Filter):
            return node
        x, w = (self.tensors[name] for name in node.inputs[:2])
        assert x.quant is not None
        assert w.quant is not None
        scales = np.array(w.quant.scale, np.float32)  # the file's; a mean's is 1 over its window
        self.tensors[w.name] = replace(w, quant=replace(w.quant, scale=tuple(map(float, scales))))
        if len(node.inputs) > 2 and node.inputs[2]:
            steps = np.float32(x.quant.scale[0]) * scales
            axis = 0 if len(steps) > 1 else None
            quant = Quant(tuple(map(float, steps)), (0,) * len(steps), axis)
            bias = self.tensors[node.inputs[2]]
            self.tensors[bias.name] = replace(bias, quant=quant)
        return node
