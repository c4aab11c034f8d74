"""The state of a rewrite to integers: what a real tensor is made of, and what operators write.

Images become NHWC before the first operator that takes them so and NCHW again after the last:
every tensor in between exists in both layouts, and :func:`.simplify.pruned` drops the one that
nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...isa.nest import I8, I32
from ..catalog import Site
from ..catalog.narrow import NARROW
from ..graph import Call, Graph, Node, Op, Quant, Tensor
from ..operators import reason_against

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
WEIGHTS = (I8, *(dtype for dtype in NARROW if dtype.kind == "i"))
"""Types of weights; narrow ones have a byte each, as all others."""


@dataclass(frozen=True)
class Real:
    """A real tensor as the integers that stand for it."""

    tensor: Tensor
    quant: Quant


def is_call(node: Node | None, *kinds: str) -> bool:
    """Whether a node is one of these operators of the catalog."""
    return node is not None and isinstance(node.op, Call) and node.op.kind in kinds


class Rewriter:
    """A graph on its way: the nodes so far, and what is known of the tensors.

    Parameters
    ----------
    graph : Graph
        What becomes another one, node by node.
    """

    def __init__(self, graph: Graph):
        self.old = graph
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.makers = {name: node for node in graph.nodes for name in node.outputs}
        self.readers: dict[str, int] = dict.fromkeys(graph.outputs, 2)
        for node in graph.nodes:
            for name in set(node.inputs):
                self.readers[name] = self.readers.get(name, 0) + 1
        self.lying: dict[str, str] = {}
        """The NHWC form of a tensor."""
        self.flat: dict[str, str] = {}
        """Another tensor with the same elements in the same order."""

    def graph(self) -> Graph:
        """The graph with the nodes so far."""
        return replace(self.old, tensors=self.tensors, nodes=tuple(self.nodes))

    # --- what is there

    def scale(self, names: Sequence[str], axis: int | None) -> Quant | None:
        """The parameters in a scale and a zero point, if they are constants of that form."""
        scale = self.tensors[names[0]].data
        zero = self.tensors[names[1]].data if len(names) > 1 and names[1] else None
        if (
            scale is None
            or scale.dtype != np.float32
            or not (np.isfinite(scale) & (scale > 0)).all()
        ):
            return None
        if zero is None:
            if len(names) > 1 and names[1]:
                return None
            zero = np.zeros(scale.shape, np.int32)
        if scale.size != 1 and (axis is None or scale.ndim != 1 or zero.shape != scale.shape):
            return None
        return Quant(
            tuple(map(float, scale.reshape(-1))),
            tuple(map(int, zero.reshape(-1))),
            None if scale.size == 1 else axis,
        )

    def real(self, name: str) -> Real | None:
        """What a DequantizeLinear makes ``name`` of."""
        node = self.makers.get(name)
        if node is None or not is_call(node, "DequantizeLinear"):
            return None
        assert isinstance(node.op, Call)
        attributes = dict(node.op.attributes)
        if attributes.get("block_size", 0):
            return None
        tensor = self.tensors[node.inputs[0]]
        axis = int(attributes.get("axis", 1))  # type: ignore[arg-type]  # it was inferred with it
        quant = self.scale(node.inputs[1:], axis % max(1, len(tensor.shape)))
        return None if quant is None else Real(tensor, quant)

    def activation(self, name: str) -> Real | None:
        """The same of signed bytes with one scale, that are computed."""
        real = self.real(name)
        if real is None or real.tensor.dtype != I8 or real.quant.axis is not None:
            return None
        return None if real.tensor.data is not None else real

    def weights(self, name: str, axis: int) -> Real | None:
        """Constant weights of signed bytes with zero point 0, per channel along ``axis`` or not."""
        return self.usable(self.real(name), axis)

    def usable(self, real: Real | None, axis: int) -> Real | None:
        """``real`` if it is such weights."""
        if real is None or real.tensor.data is None or real.tensor.dtype not in WEIGHTS:
            return None
        if any(real.quant.zero_point) or real.quant.axis not in (None, axis):
            return None
        return real

    def bias(self, name: str, x: Quant, weights: Quant, channels: int) -> np.ndarray | None:
        """A bias in the scale of the accumulator."""
        scale = np.array(weights.scale, np.float64) * x.scale[0]
        real = self.real(name)
        tensor = self.tensors[name]
        if real is not None and real.tensor.data is not None and real.tensor.dtype == I32:
            value = real.tensor.data.astype(np.float64) - np.array(real.quant.zero_point)
            value = value * np.array(real.quant.scale)
        elif tensor.data is not None and tensor.dtype.kind == "f":
            value = tensor.data.astype(np.float64)
        else:
            return None
        if value.size != channels:
            return None
        rounded = np.rint(value.reshape(-1) / scale)
        fits = np.abs(rounded) < 1 << 31
        return rounded.astype(np.int32) if fits.all() else None

    def alone(self, name: str) -> Node | None:
        """The node that writes ``name``, if only one reads it."""
        return self.makers.get(name) if self.readers.get(name) == 1 else None

    def site(self, node: Node) -> Site:
        """A node with its tensors as they are by now."""
        return Site.of(replace(self.old, tensors=self.tensors), node)

    # --- what is made

    def fresh(self, wish: str) -> str:
        """A name that no tensor has."""
        name, k = wish, 0
        while name in self.tensors:
            k += 1
            name = f"{wish}_{k}"
        return name

    def constant(self, wish: str, data: np.ndarray, quant: Quant | None = None) -> str:
        """The name of a constant of bytes, or of ``i32``."""
        name = self.fresh(wish)
        dtype = I8 if data.dtype == np.int8 else I32
        data = np.ascontiguousarray(data)
        self.tensors[name] = Tensor(name, dtype, data.shape, quant, data)
        return name

    def image(self, real: Real) -> str:
        """The NHWC form of an image."""
        name = real.tensor.name
        self.mark(name, real.quant)
        if name not in self.lying:
            n, c, h, w = real.tensor.shape
            made = self.fresh(f"{name}/nhwc")
            self.tensors[made] = Tensor(made, I8, (n, h, w, c), real.quant)
            self.nodes.append(
                Node(f"{made}/transpose", Call("Transpose", (("perm", TO_NHWC),)), (name,), (made,))
            )
            self.lying[name] = made
        return self.lying[name]

    def mark(self, name: str, quant: Quant) -> None:
        """The tensor is quantized so."""
        self.tensors[name] = replace(self.tensors[name], quant=quant)

    def emit(self, node: Node, inputs: Sequence[str], op: Op, out: Real) -> Node | None:
        """An operator for ``node`` that writes ``out``; None, and nothing, if it cannot run."""
        made = Node(node.name, op, tuple(inputs), (out.tensor.name,))
        before = self.tensors[out.tensor.name]
        self.mark(out.tensor.name, out.quant)
        if reason_against(replace(self.old, tensors=self.tensors), made) is not None:
            self.tensors[out.tensor.name] = before
            return None
        self.nodes.append(made)
        return made

    def emit_image(self, node: Node, inputs: Sequence[str], op: Op, out: Real) -> Node | None:
        """The same where inputs and output are NHWC; the output is made NCHW, too."""
        name = out.tensor.name
        n, c, h, w = out.tensor.shape
        lying = self.fresh(f"{name}/nhwc")
        self.tensors[lying] = Tensor(lying, I8, (n, h, w, c), out.quant)
        made = self.emit(node, inputs, op, Real(self.tensors[lying], out.quant))
        if made is None:
            return None
        self.lying[name] = lying
        self.mark(name, out.quant)
        back = Call("Transpose", (("perm", TO_NCHW),))
        self.nodes.append(Node(f"{node.name}/nchw", back, (lying,), (name,)))
        if h == w == 1:
            self.flat[name] = lying
        return made
