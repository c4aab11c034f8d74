"""TFLite's operators on floats as the catalog's: one form for what is to be quantized.

Images become channels-first before the first operator on images and channels-last again where
something else reads them; tensors keep their names in the layout in which TFLite has them, and a
channels-first one is called ``<name>/nchw``. Weights of bytes in an otherwise float network stand
for the real numbers that they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ...isa.errors import UnsupportedError
from ...isa.nest import F32, I64
from ..catalog import CATALOG, Site
from ..graph import (
    Add,
    Attribute,
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Op,
    Reshape,
    Softmax,
    Sub,
    Tensor,
    Window,
    op_name,
)
from ..onnx.simplify import pruned

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
CLIPS: Mapping[str, tuple[float, float]] = {"relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}


def called(graph: Graph) -> Graph:
    """``graph`` with catalog operators alone.

    Raises
    ------
    UnsupportedError
        If an operator on floats has no such form.
    """
    if all(isinstance(node.op, Call) for node in graph.nodes):
        return graph
    return _Caller(graph).graph()


class _Caller:
    def __init__(self, graph: Graph):
        self.old = graph
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.images: dict[str, str] = {}
        """The channels-first form of a tensor."""

    def graph(self) -> Graph:
        for node in self.old.nodes:
            if isinstance(node.op, Call):
                self.nodes.append(node)
                continue
            rule = RULES.get(type(node.op))
            floats = all(self.tensors[name].dtype == F32 for name in node.outputs)
            if rule is None or not floats:
                raise UnsupportedError(
                    f"{self.old.name}: node {node.name!r}: {op_name(node.op)} on "
                    f"{self.tensors[node.outputs[0]].dtype} cannot be quantized"
                )
            rule(self, node)
        return pruned(replace(self.old, tensors=self.tensors, nodes=tuple(self.nodes)))

    # --- what is made

    def call(
        self, name: str, kind: str, inputs: tuple[str, ...], output: str, **attributes: Attribute
    ) -> str:
        """A node that writes ``output``, a float tensor of the shape that follows."""
        site = Site(
            name, kind, attributes, tuple(self.tensors[n] if n else None for n in inputs), 1
        )
        ((dtype, shape),) = CATALOG[kind].types(site)
        self.tensors[output] = Tensor(output, dtype, tuple(shape))
        call = Call(kind, tuple(sorted(attributes.items())))
        self.nodes.append(Node(name, call, inputs, (output,)))
        return output

    def constant(self, name: str, data: np.ndarray) -> str:
        dtype = I64 if data.dtype == np.int64 else F32
        self.tensors[name] = Tensor(name, dtype, data.shape, None, np.ascontiguousarray(data))
        return name

    def reals(self, name: str) -> np.ndarray:
        """The real values of a constant."""
        tensor = self.tensors[name]
        if tensor.data is None:
            raise UnsupportedError(f"{self.old.name}: {name!r} is computed; constants are expected")
        if tensor.quant is None:
            return tensor.data.astype(np.float32)
        shape = [1] * tensor.data.ndim
        if tensor.quant.axis is not None:
            shape[tensor.quant.axis] = -1
        zero, scale = (
            np.array(v).reshape(shape) for v in (tensor.quant.zero_point, tensor.quant.scale)
        )
        return ((tensor.data.astype(np.float64) - zero) * scale).astype(np.float32)

    def moved(self, node: str, source: str, output: str, perm: tuple[int, ...]) -> None:
        """A transposition, or a Reshape where that is the same."""
        shape = self.tensors[source].shape
        if [k for k in perm if shape[k] != 1] == [k for k in range(4) if shape[k] != 1]:
            new = self.constant(f"{node}/shape", np.array([shape[k] for k in perm], np.int64))
            self.call(node, "Reshape", (source, new), output)
        else:
            self.call(node, "Transpose", (source,), output, perm=perm)

    def image(self, name: str) -> str:
        """The channels-first form of an image."""
        if name not in self.images:
            self.images[name] = f"{name}/nchw"
            self.moved(f"{name}/to_nchw", name, f"{name}/nchw", TO_NCHW)
        return self.images[name]

    def put_image(self, node: Node, kind: str, inputs: tuple[str, ...], **attributes: Attribute):
        """A node on images and its activation; its output in both layouts."""
        out = node.outputs[0]
        self.activated(node, kind, inputs, f"{out}/nchw", **attributes)
        self.images[out] = f"{out}/nchw"
        self.moved(f"{node.name}/to_nhwc", f"{out}/nchw", out, TO_NHWC)

    def activated(
        self, node: Node, kind: str, inputs: tuple[str, ...], output: str, **attributes: Attribute
    ) -> None:
        """A node and its activation."""
        activation = getattr(node.op, "activation", "none")
        if activation == "none":
            self.call(node.name, kind, inputs, output, **attributes)
            return
        plain = self.call(node.name, kind, inputs, f"{output}/plain", **attributes)
        name = f"{node.name}/{activation}"
        if activation == "relu":
            self.call(name, "Relu", (plain,), output)
            return
        bounds = (
            self.constant(f"{name}/{end}", np.array(value, np.float32))
            for end, value in zip(("low", "high"), CLIPS[activation], strict=True)
        )
        self.call(name, "Clip", (plain, *bounds), output)

    # --- rules

    def filter(self, node: Node) -> None:
        """A convolution."""
        op = node.op
        assert isinstance(op, Conv2D | DepthwiseConv2D)
        w = self.reals(node.inputs[1])
        group = 1
        if isinstance(op, DepthwiseConv2D):
            w, group = w.transpose(3, 0, 1, 2), w.shape[3] // op.multiplier
        else:
            w = w.transpose(0, 3, 1, 2)
        inputs = [self.image(node.inputs[0]), self.constant(f"{node.name}/filter", w)]
        if len(node.inputs) > 2 and node.inputs[2]:
            inputs.append(self.constant(f"{node.name}/shift", self.reals(node.inputs[2])))
        self.put_image(node, "Conv", tuple(inputs), group=group, **_window(op.window))

    def pool(self, node: Node) -> None:
        """A maximum or a mean."""
        assert isinstance(node.op, AveragePool2D | MaxPool2D)
        kind = "AveragePool" if isinstance(node.op, AveragePool2D) else "MaxPool"
        attributes = _window(node.op.window)
        del attributes["dilations"]
        self.put_image(node, kind, (self.image(node.inputs[0]),), **attributes)

    def pair(self, node: Node) -> None:
        """A sum, difference or product."""
        kind, out = op_name(node.op), self.tensors[node.outputs[0]]
        if len(out.shape) == 4 and all(
            self.tensors[n].data is None and self.tensors[n].shape == out.shape for n in node.inputs
        ):
            self.put_image(node, kind, tuple(self.image(n) for n in node.inputs))
            return
        self.activated(node, kind, node.inputs, node.outputs[0])

    def dense(self, node: Node) -> None:
        """A fully connected layer, of rows that may have to be made first."""
        x, out = self.tensors[node.inputs[0]], self.tensors[node.outputs[0]]
        w = self.constant(f"{node.name}/filter", self.reals(node.inputs[1]))
        rows = (-1, self.tensors[w].shape[1])
        source = x.name
        if len(x.shape) != 2 or x.shape[1] != rows[1]:
            shape = self.constant(f"{node.name}/rows", np.array(rows, np.int64))
            source = self.call(f"{node.name}/in", "Reshape", (x.name, shape), f"{out.name}/rows")
        inputs = [source, w]
        if len(node.inputs) > 2 and node.inputs[2]:
            inputs.append(self.constant(f"{node.name}/shift", self.reals(node.inputs[2])))
        flat = len(out.shape) == 2
        output = out.name if flat else f"{out.name}/flat"
        self.activated(node, "Gemm", tuple(inputs), output, transB=1)
        if not flat:
            shape = self.constant(f"{node.name}/shape", np.array(out.shape, np.int64))
            self.call(f"{node.name}/out", "Reshape", (output, shape), out.name)

    def reshape(self, node: Node) -> None:
        """The same elements."""
        out = self.tensors[node.outputs[0]]
        shape = self.constant(f"{node.name}/shape", np.array(out.shape, np.int64))
        self.call(node.name, "Reshape", (node.inputs[0], shape), out.name)

    def softmax(self, node: Node) -> None:
        """Over the last axis."""
        assert isinstance(node.op, Softmax)
        source = node.inputs[0]
        if node.op.beta != 1:
            beta = self.constant(f"{node.name}/beta", np.array(node.op.beta, np.float32))
            source = self.call(f"{node.name}/in", "Mul", (source, beta), f"{source}/scaled")
        self.call(node.name, "Softmax", (source,), node.outputs[0], axis=-1)


def _window(window: Window) -> dict[str, Attribute]:
    top, bottom, left, right = window.pads
    return {
        "kernel_shape": window.size, "strides": window.strides, "dilations": window.dilations,
        "pads": (top, left, bottom, right),
    }  # fmt: skip


RULES: Mapping[type[Op], Callable[[_Caller, Node], None]] = {
    Conv2D: _Caller.filter,
    DepthwiseConv2D: _Caller.filter,
    AveragePool2D: _Caller.pool,
    MaxPool2D: _Caller.pool,
    Add: _Caller.pair,
    Sub: _Caller.pair,
    Mul: _Caller.pair,
    FullyConnected: _Caller.dense,
    Reshape: _Caller.reshape,
    Softmax: _Caller.softmax,
}
