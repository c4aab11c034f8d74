"""TFLite's UNIDIRECTIONAL_SEQUENCE_LSTM as nodes of the graph.

On bytes: all products with the input at once, then for each step the product with the hidden state
and a cell. Products are such that an accelerator can run them (:mod:`weft.compiler.catalog.wide`).
On floats: one node. The states go from one inference to the next, as those of
TFLite's do; the first one begins with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...isa.nest import F32, I8, I16, I32
from ..catalog.wide import digits_of
from ..graph import Call, Graph, Node, Quant, Reshape, Tensor
from .lstm_form import BIAS, GATES, KIND, OF_HIDDEN, OF_INPUT, scales_of
from .names import Names

STATES = ("hidden", "state")
"""What the two states are called."""


def expanded(graph: Graph) -> Graph:
    """``graph`` with other nodes for those of :data:`KIND`, whose tensors have been checked."""
    if not any(isinstance(node.op, Call) and node.op.kind == KIND for node in graph.nodes):
        return graph
    made = _Maker(graph)
    for node in graph.nodes:
        if isinstance(node.op, Call) and node.op.kind == KIND:
            (made.floats if graph.tensors[node.inputs[0]].dtype == F32 else made.bytes)(node)
        else:
            made.nodes.append(node)
    used = {*graph.inputs, *graph.outputs}
    used.update(name for node in made.nodes for name in (*node.inputs, *node.outputs))
    tensors = {name: tensor for name, tensor in made.tensors.items() if name in used}
    return replace(graph, tensors=tensors, nodes=tuple(made.nodes), carried=made.carried)


class _Maker:
    """Nodes and tensors of the new graph, in order."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.carried: dict[str, str] = {}
        self.names = Names()
        for name in (*graph.tensors, *(node.name for node in graph.nodes)):
            self.names.unique(name)

    def constant(self, name: str, data: np.ndarray) -> str:
        dtypes = {1: I8, 2: I16, 4: I32}
        dtype = F32 if data.dtype == np.float32 else dtypes[data.itemsize]
        name = self.names.unique(name)
        self.tensors[name] = Tensor(name, dtype, data.shape, None, np.ascontiguousarray(data))
        return name

    def node(self, name: str, op: Call | Reshape, inputs: Sequence[str], *made: Tensor) -> None:
        self.tensors |= {tensor.name: tensor for tensor in made}
        self.nodes.append(Node(name, op, tuple(inputs), tuple(t.name for t in made)))

    def data(self, node: Node, first: int) -> list[np.ndarray]:
        """The values of four inputs."""
        found = [self.graph.tensors[name].data for name in node.inputs[first : first + GATES]]
        return [array for array in found if array is not None]

    # --- floats ----------------------------------------------------------------------------------

    def floats(self, node: Node) -> None:
        """One node for the whole layer."""
        options = dict(node.op.attributes)  # type: ignore[union-attr]  # a Call
        x, out = self.graph.tensors[node.inputs[0]], self.graph.tensors[node.outputs[0]]
        constants = [
            self.constant(f"{node.name}/{what}", np.concatenate(self.data(node, first)))
            for what, first in (("weights", OF_INPUT), ("recurrent", OF_HIDDEN), ("bias", BIAS))
        ]
        shape = (x.shape[1 if options["time_major"] else 0], out.shape[2])
        begins = [self.constant(f"{node.name}/{s}", np.zeros(shape, np.float32)) for s in STATES]
        after = [Tensor(self.names.unique(f"{node.name}/{s}.last"), F32, shape) for s in STATES]
        op = Call("tfl.lstm", (("clip", options["clip"]), ("time_major", options["time_major"])))
        self.node(node.name, op, (x.name, *constants, *begins), out, *after)
        self.carried |= dict(zip(begins, (t.name for t in after), strict=True))

    # --- bytes -----------------------------------------------------------------------------------

    def bytes(self, node: Node) -> None:
        """Products and cells, step by step."""
        given = dict(node.op.attributes)  # type: ignore[union-attr]  # a Call
        power = int(given["power"])  # type: ignore[arg-type]  # an integer
        x, out = self.graph.tensors[node.inputs[0]], self.graph.tensors[node.outputs[0]]
        assert out.quant is not None
        batch, steps, units = out.shape
        shape, zero = (batch, 1, units), out.quant.zero_point[0]
        weights, recurrent = (
            np.concatenate(self.data(node, first)) for first in (OF_INPUT, OF_HIDDEN)
        )
        tensors = [self.graph.tensors[name] if name else None for name in node.inputs]
        scales = [
            (scale.multiplier, scale.left, scale.right) for scale in scales_of(tensors, out, power)
        ]
        bias = np.concatenate(self.data(node, BIAS)) + _less_zero(weights, x)
        constants = (
            self.constant(f"{node.name}/bias", bias.astype(np.int32)),
            self.constant(f"{node.name}/offset", _less_zero(recurrent, out).astype(np.int32)),
            self.constant(f"{node.name}/scales", np.array(scales, np.int32)),
        )
        of_input = _Weights(self, f"{node.name}/weights", weights)
        of_hidden = _Weights(self, f"{node.name}/recurrent", recurrent)
        sums = of_input.product(node.name, x)
        begins = (
            self.constant(f"{node.name}/hidden", np.full(shape, zero, np.int8)),
            self.constant(f"{node.name}/state", np.zeros(shape, np.int16)),
        )
        hidden = Tensor(self.names.unique(f"{node.name}/hidden.first"), I8, shape, out.quant)
        self.node(hidden.name, Reshape(), begins[:1], hidden)
        state = begins[1]
        kept = Quant((2.0**power,), (0,))
        every: list[str] = []
        for step in range(steps):
            name = f"{node.name}.{step}"
            inputs = (sums, of_hidden.product(name, hidden), state, *constants)
            clip = min(int(given["clip"] / 2.0**power), I16.max)  # type: ignore[operator]
            options = {"clip": clip, "power": power, "step": step, "zero": zero}
            hidden = Tensor(self.names.unique(f"{name}/hidden"), I8, shape, out.quant)
            after = Tensor(self.names.unique(f"{name}/state"), I16, shape, kept)
            op = Call("tfl.lstm_cell", tuple(sorted(options.items())))
            self.node(self.names.unique(f"{name}/cell"), op, inputs, hidden, after)
            state = after.name
            every.append(hidden.name)
        self.carried |= dict(zip(begins, (hidden.name, state), strict=True))
        self.node(node.name, Call("Concat", (("axis", 1),)), every, out)


class _Weights:
    """Weights of a product of bytes with exact sums."""

    def __init__(self, maker: _Maker, name: str, weights: np.ndarray):
        digits = digits_of(weights)
        assert digits is not None
        data, self.parts, self.shift = digits
        self.maker, self.name, self.rows = maker, maker.constant(name, data), len(data)

    def product(self, name: str, x: Tensor) -> str:
        """The tensor of the sums of ``x``'s rows."""
        maker = self.maker
        halves: list[str] = []
        for kind in ("wide.high", "wide.low"):
            half = maker.names.unique(f"{name}/{kind[5:]}")
            made = Tensor(half, I8, (*x.shape[:-1], self.rows))
            maker.node(half, Call(kind, (("parts", self.parts),)), (x.name, self.name), made)
            halves.append(half)
        whole = maker.names.unique(f"{name}/sums")
        op = Call("wide.join", (("parts", self.parts), ("shift", self.shift)))
        maker.node(whole, op, halves, Tensor(whole, I32, (*x.shape[:-1], self.rows // self.parts)))
        return whole


def _less_zero(weights: np.ndarray, x: Tensor) -> np.ndarray:
    """What the zero point of ``x`` adds to each sum, times -1."""
    assert x.quant is not None
    return -x.quant.zero_point[0] * weights.sum(1, dtype=np.int64)
