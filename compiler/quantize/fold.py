"""A float graph made simple before it is quantized: fewer operators, whose results are the same
but for the last bits of their sums.

* An operator that does nothing at inference (Identity, Dropout) is left out.
* A batch normalization, or a sum or product with one constant a channel, behind a convolution or
  Gemm becomes part of its weights and bias. A batch normalization elsewhere becomes a depthwise
  convolution of 1x1, which the accelerator runs.
* A border of zeros before a convolution becomes its pads.
* A mean over the image is a GlobalAveragePool.
* A product with constant weights and a sum with a constant behind it are a Gemm, of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...isa.nest import F32, I64
from ..catalog import CATALOG, Site
from ..graph import Attribute, Call, Graph, Node, Tensor
from ..onnx.simplify import pruned

FILTERS = ("Conv", "Gemm")


def folded(graph: Graph) -> Graph:
    """``graph``, a legal one of catalog operators, made simple."""
    folder = _Folder(graph)
    rules = (folder.silent, folder.mean, folder.dense, folder.border, folder.affine)
    for rule in (*rules, folder.normalization):
        folder.apply(rule)
    return pruned(folder.graph)


Rule = Callable[[Node], Sequence[Node] | None]


class _Folder:
    """The graph as it is now; a rule puts nodes for a node, or lets it be."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.tensors = dict(graph.tensors)
        self.index()

    def index(self) -> None:
        self.makers = {name: node for node in self.graph.nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def apply(self, rule: Rule) -> None:
        """The rule at each node, until it changes none."""
        changed = True
        while changed:
            changed = False
            for k, node in enumerate(self.graph.nodes):
                made = rule(node)
                if made is None:
                    continue
                nodes = (*self.graph.nodes[:k], *made, *self.graph.nodes[k + 1 :])
                # A node whose work has moved into `made` writes nothing that anybody reads.
                self.graph = pruned(replace(self.graph, nodes=nodes, tensors=self.tensors))
                self.tensors = dict(self.graph.tensors)
                self.index()
                changed = True
                break

    # --- what is there

    def kind(self, node: Node | None) -> str:
        return node.op.kind if node is not None and isinstance(node.op, Call) else ""

    def attributes(self, node: Node) -> dict[str, Attribute]:
        assert isinstance(node.op, Call)
        return dict(node.op.attributes)

    def alone(self, name: str) -> Node | None:
        """The node that writes ``name``, if one node alone reads it."""
        once = len(self.readers.get(name, ())) == 1 and name not in self.graph.outputs
        return self.makers.get(name) if once else None

    def constant(self, node: Node, position: int) -> np.ndarray | None:
        """The value of an input, if it is a constant of floats."""
        if position >= len(node.inputs) or not node.inputs[position]:
            return None
        tensor = self.tensors[node.inputs[position]]
        return tensor.data if tensor.dtype == F32 else None

    # --- what is made

    def put(self, wish: str, data: np.ndarray) -> str:
        """A constant."""
        dtype = I64 if data.dtype == np.int64 else F32
        data = np.ascontiguousarray(data, None if dtype == I64 else np.float32)
        name = self.fresh(wish)
        self.tensors[name] = Tensor(name, dtype, data.shape, None, data)
        return name

    def fresh(self, wish: str) -> str:
        while wish in self.tensors:
            wish += "_"
        return wish

    def node(
        self, like: Node, kind: str, inputs: Sequence[str], output: str,
        attributes: Mapping[str, Attribute] | None = None, suffix: str = "",
    ) -> Node:  # fmt: skip
        """A node of float tensors; ``output`` is made if it does not exist."""
        attributes = attributes or {}
        made = Node(
            like.name + suffix, Call(kind, tuple(sorted(attributes.items()))), tuple(inputs),
            (output,),
        )  # fmt: skip
        if output not in self.tensors:
            given = tuple(self.tensors[n] if n else None for n in inputs)
            site = Site(made.name, kind, attributes, given, 1)
            ((dtype, shape),) = CATALOG[kind].types(site)
            self.tensors[output] = Tensor(output, dtype, tuple(shape))
        return made

    # --- rules

    def silent(self, node: Node) -> Sequence[Node] | None:
        """Without what does nothing; its readers read what it read."""
        if self.kind(node) not in ("Identity", "Dropout") or len(node.outputs) != 1:
            return None
        if node.outputs[0] in self.graph.outputs:
            return None
        if self.kind(node) == "Dropout" and node.inputs[2:]:
            return None
        old, new = node.outputs[0], node.inputs[0]
        nodes = tuple(
            replace(n, inputs=tuple(new if name == old else name for name in n.inputs))
            for n in self.graph.nodes
        )
        self.graph = replace(self.graph, nodes=nodes)
        return ()

    def mean(self, node: Node) -> Sequence[Node] | None:
        """A mean over height and width."""
        x = self.tensors[node.inputs[0]] if node.inputs else None
        if self.kind(node) != "ReduceMean" or x is None or len(x.shape) != 4 or x.dtype != F32:
            return None
        attributes = self.attributes(node)
        axes = attributes.get("axes")
        if len(node.inputs) > 1 and node.inputs[1]:
            data = self.tensors[node.inputs[1]].data
            axes = None if data is None else tuple(map(int, data.reshape(-1)))
        if not isinstance(axes, tuple) or {int(a) % 4 for a in axes} != {2, 3}:
            return None
        out = node.outputs[0]
        if attributes.get("keepdims", 1):
            return [self.node(node, "GlobalAveragePool", (x.name,), out)]
        pooled = self.fresh(f"{out}/pooled")
        shape = self.put(f"{node.name}/shape", np.array(self.tensors[out].shape, np.int64))
        return [
            self.node(node, "GlobalAveragePool", (x.name,), pooled),
            self.node(node, "Reshape", (pooled, shape), out, suffix="/flat"),
        ]

    def dense(self, node: Node) -> Sequence[Node] | None:
        """A product with constant weights and a sum with a constant."""
        if self.kind(node) != "Add":
            return None
        for k in (0, 1):
            product, shift = self.alone(node.inputs[k]), self.constant(node, 1 - k)
            if self.kind(product) != "MatMul" or product is None or shift is None:
                continue
            weights, x = self.constant(product, 1), self.tensors[product.inputs[0]]
            if weights is None or weights.ndim != 2 or len(x.shape) < 2 or x.data is not None:
                continue
            if shift.size not in (1, weights.shape[1]) or shift.shape[-1:] != (shift.size,):
                continue
            bias = self.put(
                f"{product.name}/shift",
                np.broadcast_to(shift.reshape(-1), weights.shape[1:]),
            )
            return list(self.rows(node, product, bias))
        return None

    def rows(self, node: Node, product: Node, bias: str) -> Iterator[Node]:
        """The Gemm of all rows, under the product's name."""
        x, out = self.tensors[product.inputs[0]], self.tensors[node.outputs[0]]
        weights = product.inputs[1]
        if len(x.shape) == 2:
            yield self.node(product, "Gemm", (x.name, weights, bias), out.name)
            return
        count = math.prod(x.shape[:-1])
        flat, made = self.fresh(f"{product.name}/rows"), self.fresh(f"{out.name}/rows")
        before = self.put(f"{product.name}/in", np.array([count, x.shape[-1]], np.int64))
        after = self.put(f"{product.name}/out", np.array(out.shape, np.int64))
        yield self.node(product, "Reshape", (x.name, before), flat, suffix="/rows")
        yield self.node(product, "Gemm", (flat, weights, bias), made)
        yield self.node(product, "Reshape", (made, after), out.name, suffix="/shape")

    def border(self, node: Node) -> Sequence[Node] | None:
        """A convolution of an image with a border of zeros."""
        if self.kind(node) != "Conv":
            return None
        pad = self.alone(node.inputs[0])
        attributes = self.attributes(node)
        if self.kind(pad) != "Pad" or pad is None or attributes.get("auto_pad", "NOTSET") not in (
            "NOTSET", "VALID",
        ):  # fmt: skip
            return None
        around = self.attributes(pad)
        pads = around.get("pads")
        if pad.inputs[1:]:
            data = self.tensors[pad.inputs[1]].data
            pads = None if data is None else tuple(map(int, data.reshape(-1)))
        value = self.constant(pad, 2)
        zero = not around.get("value", 0) and not any(pad.inputs[2:3])
        zero = zero or (value is not None and not value.any())
        plain = around.get("mode", "constant") == "constant" and not pad.inputs[3:] and zero
        if not plain or not isinstance(pads, tuple) or len(pads) != 8 or min(map(int, pads)) < 0:
            return None
        if any(pads[k] for k in (0, 1, 4, 5)):
            return None
        own = attributes.get("pads", (0, 0, 0, 0))
        if attributes.pop("auto_pad", "NOTSET") == "VALID":
            own = (0, 0, 0, 0)
        added = (pads[2], pads[3], pads[6], pads[7])
        assert isinstance(own, tuple)
        attributes["pads"] = tuple(int(a) + int(b) for a, b in zip(own, added, strict=True))
        inputs = (pad.inputs[0], *node.inputs[1:])
        return [self.node(node, "Conv", inputs, node.outputs[0], attributes)]

    def affine(self, node: Node) -> Sequence[Node] | None:
        """A factor and a summand for each channel behind a filter, as part of that."""
        for k, name in enumerate(node.inputs[:2]):
            source = self.alone(name)
            if source is None or self.kind(source) not in FILTERS:
                continue
            pair = self.scaling(node, k)
            weights = self.constant(source, 1)
            if pair is None or weights is None:
                continue
            factor, summand = pair
            attributes = self.attributes(source)
            bias = self.constant(source, 2)
            absent = not any(source.inputs[2:])
            if bias is None and not absent:
                continue
            if bias is not None and bias.size not in (1, len(factor)):
                continue
            if self.kind(source) == "Gemm" and (
                attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1
            ):
                continue
            axis = 1 if self.kind(source) == "Gemm" and not attributes.get("transB", 0) else 0
            shape = [1] * weights.ndim
            shape[axis] = -1
            old = np.zeros(len(factor))
            if bias is not None:
                old = np.broadcast_to(bias.reshape(-1), factor.shape)
            inputs = (
                source.inputs[0],
                self.put(f"{source.name}/scaled", weights * factor.reshape(shape)),
                self.put(f"{source.name}/shifted", old * factor + summand),
            )
            made = self.node(source, self.kind(source), inputs, node.outputs[0], attributes)
            return [made]
        return None

    def scaling(self, node: Node, position: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Factor and summand of each channel, if that is all that ``node`` does to an input."""
        x = self.tensors[node.inputs[position]]
        if x.dtype != F32 or len(x.shape) < 2:
            return None
        channels = x.shape[1]
        if self.kind(node) == "BatchNormalization":
            values = [self.constant(node, k) for k in range(1, 5)]
            if position or len(node.outputs) != 1 or any(v is None for v in values):
                return None
            if self.attributes(node).get("training_mode", 0):
                return None
            gain, shift, mean, variance = (np.float64(v) for v in values if v is not None)
            epsilon = self.attributes(node).get("epsilon", 1e-5)
            assert isinstance(epsilon, float)
            factor = gain / np.sqrt(variance + epsilon)
            return factor, shift - mean * factor
        if self.kind(node) not in ("Add", "Mul", "Sub"):
            return None
        other = self.constant(node, 1 - position)
        if other is None or self.tensors[node.outputs[0]].shape != x.shape:
            return None
        wide = (1,) * (len(x.shape) - other.ndim) + other.shape
        if wide[1] not in (1, channels) or math.prod(wide) != wide[1]:
            return None
        value = np.broadcast_to(other.reshape(-1), (channels,)).astype(np.float64)
        if self.kind(node) == "Mul":
            return value, np.zeros(channels)
        if self.kind(node) == "Add":
            return np.ones(channels), value
        return (np.ones(channels), -value) if position == 0 else (-np.ones(channels), value)

    def normalization(self, node: Node) -> Sequence[Node] | None:
        """A batch normalization as a depthwise convolution."""
        if self.kind(node) != "BatchNormalization":
            return None
        pair = self.scaling(node, 0)
        if pair is None or len(self.tensors[node.inputs[0]].shape) != 4:
            return None
        factor, summand = pair
        inputs = (
            node.inputs[0],
            self.put(f"{node.name}/factor", factor.reshape(-1, 1, 1, 1)),
            self.put(f"{node.name}/summand", summand),
        )
        attributes: dict[str, Attribute] = {"group": len(factor), "kernel_shape": (1, 1)}
        return [self.node(node, "Conv", inputs, node.outputs[0], attributes)]
