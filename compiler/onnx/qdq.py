"""Integers for QDQ patterns: operators between DequantizeLinear and QuantizeLinear, and QOperator
nodes, become the graph's own quantized operators, which the accelerator takes.

Rounding. The float graph rounds the real result once, to nearest with ties to even. What comes
from here is requantized as everything else in Weft is, as TensorFlow Lite does: the accumulator is
exact, and is scaled by a Q31 multiplier in two roundings (:mod:`weft.isa.requantize`), ties away
from zero. The first rounding is as fine as the accumulator's range allows: as many bits as no sum
of this layer needs (``guard``) lie below the last place of the output. The two results can differ
by one in that place where the real value lies within about ``2**-guard`` of a tie, and in a sum of
two quantized tensors, whose operands are rounded to a common scale of 20 more bits first. A bias
in another scale than the product of those of input and weights is rounded to that one. Products of
two activations keep ONNX's rounding: the host computes them as QLinearMatMul, scaled in double
precision.

Activations are signed bytes with one scale, weights signed bytes, or integers of fewer bits, with
zero point 0. Unsigned
activations between operators are moved down by 128, which changes nothing else. What is
quantized otherwise stays in floating point, as it stands in the file.

Images become NHWC before the first such operator and NCHW again after the last: every tensor in
between exists in both layouts, and :func:`.simplify.pruned` drops the one that nobody reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...isa.nest import I8, I32, U8
from ..catalog import Site
from ..catalog.narrow import NARROW
from ..catalog.windows import window_of
from ..graph import (
    Activation,
    Add,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Op,
    Quant,
    Sub,
    Tensor,
    Window,
)
from ..operators import reason_against
from ..verify import WINDOW_LIMIT

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
MOVES = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity"))
"""Operators whose result is quantized as their input is."""
WEIGHTS = (I8, *(dtype for dtype in NARROW if dtype.kind == "i"))
"""Types of weights; narrow ones have a byte each, as all others."""
PAIRS: Mapping[str, type[Add | Sub | Mul]] = {"Add": Add, "Sub": Sub, "Mul": Mul}


CLAMPS: Mapping[tuple[float, float], Activation] = {
    (0.0, 6.0): "relu6", (-1.0, 1.0): "relu_n1_to_1", (0.0, math.inf): "relu",
}  # fmt: skip


@dataclass(frozen=True)
class Real:
    """A real tensor as the integers that stand for it."""

    tensor: Tensor
    quant: Quant


def integers(graph: Graph) -> Graph:
    """``graph`` with quantized operators where its patterns allow them."""
    return _Rewriter(signed(graph)).graph()


def signed(graph: Graph) -> Graph:
    """Unsigned activations as signed ones, where they only pass from quantizing to dequantizing."""
    tensors = dict(graph.tensors)
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        if not _is(node, "QuantizeLinear") or len(node.inputs) != 3:
            continue
        out, zero = tensors[node.outputs[0]], tensors[node.inputs[2]]
        readers = [n for n in graph.nodes if out.name in n.inputs]
        if (
            out.dtype != U8
            or zero.data is None
            or zero.data.size != 1
            or out.name in graph.outputs
            or not all(
                _is(n, "DequantizeLinear")
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


def guard_bits(sums: np.ndarray, x: Quant, bias: np.ndarray | None) -> int:
    """How many bits no accumulator needs, given each channel's sum of the weights' magnitudes."""
    zero = x.zero_point[0]
    most = sums * max(I8.max - zero, zero - I8.min)
    if bias is not None:
        most = most + np.abs(bias.astype(np.int64))
    return max(0, I32.bits - 1 - int(most.max(initial=0)).bit_length())


def _is(node: Node | None, *kinds: str) -> bool:
    return node is not None and isinstance(node.op, Call) and node.op.kind in kinds


class _Rewriter:
    """One walk over the nodes, in which each QuantizeLinear looks at what it rounds."""

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
        for node in self.old.nodes:
            made = None
            if _is(node, "QuantizeLinear"):
                made = self.quantized(node)
            elif _is(node, "QLinearConv", "QLinearMatMul"):
                made = self.qoperator(node)
            if made is None:
                self.nodes.append(node)
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
        if node is None or not _is(node, "DequantizeLinear"):
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

    # --- from QuantizeLinear back

    def quantized(self, node: Node) -> Node | None:
        """The operator before ``node`` and itself as one."""
        out = self.tensors[node.outputs[0]]
        quant = self.scale(node.inputs[1:], None)
        if out.dtype != I8 or quant is None:
            return None
        source = self.alone(node.inputs[0])
        activation = self.clamp(source)
        if source is not None and activation != "none":
            source = self.alone(source.inputs[0])
        if source is None or not isinstance(source.op, Call):
            return None
        rule = RULES.get(source.op.kind)
        if rule is None or (activation != "none" and source.op.kind not in WITH_RELU):
            return None
        return rule(self, source, Real(out, quant), activation)

    def clamp(self, node: Node | None) -> Activation:
        """Which activation a node is, of those that a clamp does."""
        if node is None or not _is(node, "Relu", "Clip"):
            return "none"
        if _is(node, "Relu"):
            return "relu"
        bounds = [self.tensors[name].data if name else None for name in node.inputs[1:]]
        if len(bounds) != 2 or any(b is None or b.size != 1 for b in bounds):
            return "none"
        low, high = (float(b.reshape(-1)[0]) for b in bounds if b is not None)
        return CLAMPS.get((low, high), "none")

    def alone(self, name: str) -> Node | None:
        """The node that writes ``name``, if only one reads it."""
        return self.makers.get(name) if self.readers.get(name) == 1 else None

    def site(self, node: Node) -> Site:
        return Site.of(replace(self.old, tensors=self.tensors), node)

    # --- what is made

    def fresh(self, wish: str) -> str:
        name, k = wish, 0
        while name in self.tensors:
            k += 1
            name = f"{wish}_{k}"
        return name

    def constant(self, wish: str, data: np.ndarray, quant: Quant | None = None) -> str:
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

    # --- rules

    def qoperator(self, node: Node) -> Node | None:
        """A QLinearConv, or a QLinearMatMul with constant weights."""
        names = node.inputs
        x, w, out = (self.tensors[name] for name in (names[0], names[3], node.outputs[0]))
        conv = _is(node, "QLinearConv")
        axis = 0 if conv else 1
        quants = [self.scale(names[k : k + 2], a) for k, a in ((1, None), (4, axis), (6, None))]
        x_quant, w_quant, out_quant = quants
        if x_quant is None or w_quant is None or out_quant is None:
            return None
        if x.dtype != I8 or out.dtype != I8:
            return None
        weights = self.usable(Real(w, w_quant), axis)
        if weights is None or x.data is not None or x_quant.axis is not None:
            return None
        bias = None
        if conv and len(names) > 8 and names[8]:
            bias = self.tensors[names[8]].data
            if bias is None:
                return None
        sides = Real(x, x_quant), Real(out, out_quant)
        if conv:
            return self.convolution(node, sides[0], weights, bias, sides[1], "none")
        return self.matrix(node, sides[0], weights, bias, sides[1], "none", transposed=True)

    def conv(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """A convolution of an image."""
        x, weights = self.activation(node.inputs[0]), self.weights(node.inputs[1], 0)
        if x is None or weights is None:
            return None
        bias = None
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = self.bias(node.inputs[2], x.quant, weights.quant, out.tensor.shape[1])
            if bias is None:
                return None
        return self.convolution(node, x, weights, bias, out, activation)

    def convolution(
        self, node: Node, x: Real, weights: Real, bias: np.ndarray | None, out: Real,
        activation: Activation,
    ) -> Node | None:  # fmt: skip
        """A convolution whose integers are all known."""
        site, w = self.site(node), weights.tensor.data
        assert w is not None
        group = site.integer("group", 1)
        channels = x.tensor.shape[1]
        if w.ndim != 4 or group not in (1, channels) or w.shape[0] % group:
            return None
        window = self.window(site, x.tensor.shape[2:], w.shape[2:])
        if window is None:
            return None
        scale, o = weights.quant.scale, w.shape[0]
        guard = guard_bits(np.abs(w.astype(np.int64)).reshape(o, -1).sum(1), x.quant, bias)
        if group == 1:
            op: Op = Conv2D(window, activation, guard)
            w, axis = w.transpose(0, 2, 3, 1), 0
        else:
            op = DepthwiseConv2D(window, o // group, activation, guard)
            w, axis = w.transpose(1, 2, 3, 0), 3
        quant = Quant(scale, (0,) * len(scale), axis if len(scale) > 1 else None)
        inputs = [self.image(x), self.constant(f"{node.name}/weights", w, quant)]
        if bias is not None:
            inputs.append(self.constant(f"{node.name}/bias", bias.astype(np.int32)))
        return self.emit_image(node, inputs, op, out)

    def window(self, site: Site, extents: tuple[int, ...], size: tuple[int, ...]) -> Window | None:
        """The window of a node as the graph's operators take it."""
        ceil = bool(site.integer("ceil_mode", 0))
        w = window_of(site, extents, size, ceil)
        (top, left), (bottom, right) = w.begins, w.ends
        reach = [(n - 1) * d + 1 for n, d in zip(w.size, w.dilations, strict=True)]
        pads = ((top, bottom), (left, right))
        if any(max(p) >= r for p, r in zip(pads, reach, strict=True)):
            return None
        whole = [
            (n + sum(p) - r) // s + 1
            for n, p, r, s in zip(extents, pads, reach, w.strides, strict=True)
        ]
        if tuple(whole) != w.counts or max((*w.size, *w.strides, *w.dilations)) >= WINDOW_LIMIT:
            return None
        return Window(
            (w.size[0], w.size[1]), (w.strides[0], w.strides[1]),
            (w.dilations[0], w.dilations[1]), (top, bottom, left, right),
        )  # fmt: skip

    def average(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """A mean over windows: a depthwise convolution with weights of 1 of ``1 / size``."""
        x = self.activation(node.inputs[0])
        if x is None or len(x.tensor.shape) != 4:
            return None
        site, extents = self.site(node), x.tensor.shape[2:]
        if _is(node, "GlobalAveragePool"):
            window: Window | None = Window((extents[0], extents[1]))
        else:
            window = self.window(site, extents, site.integers("kernel_shape"))
        if window is None or (any(window.pads) and not site.integer("count_include_pad", 0)):
            return None
        if max(window.size) >= WINDOW_LIMIT or window.dilations != (1, 1):
            return None
        ones = np.ones((1, *window.size, x.tensor.shape[1]), np.int8)
        quant = Quant((1 / math.prod(window.size),), (0,))
        inputs = (self.image(x), self.constant(f"{node.name}/ones", ones, quant))
        guard = guard_bits(np.array([math.prod(window.size)]), x.quant, None)
        op = DepthwiseConv2D(window, 1, activation, guard)
        return self.emit_image(node, inputs, op, out)

    def maximum(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """A maximum over windows, of the same quantization."""
        x = self.activation(node.inputs[0])
        if x is None or len(x.tensor.shape) != 4 or x.quant != out.quant or len(node.outputs) > 1:
            return None
        site = self.site(node)
        window = self.window(site, x.tensor.shape[2:], site.integers("kernel_shape"))
        if window is None or window.dilations != (1, 1):
            return None
        return self.emit_image(node, (self.image(x),), MaxPool2D(window, activation), out)

    def pair(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """A sum, difference or product of two tensors."""
        if len(node.inputs) != 2:
            return None
        a, b = (self.activation(name) for name in node.inputs)
        if a is None or b is None:
            return None
        assert isinstance(node.op, Call)
        op = PAIRS[node.op.kind](activation)
        shapes = {a.tensor.shape, b.tensor.shape, out.tensor.shape}
        if len(shapes) == 1 and len(out.tensor.shape) == 4:
            return self.emit_image(node, (self.image(a), self.image(b)), op, out)
        for real in (a, b):
            self.mark(real.tensor.name, real.quant)
        return self.emit(node, (a.tensor.name, b.tensor.name), op, out)

    def gemm(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """A product with constant weights."""
        site = self.site(node)
        if site.integer("transA", 0) or site.real("alpha", 1.0) != 1 or site.real("beta", 1.0) != 1:
            return None
        transposed = not site.integer("transB", 0)
        x, weights = self.activation(node.inputs[0]), self.weights(node.inputs[1], int(transposed))
        if x is None or weights is None:
            return None
        bias = None
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = self.bias(node.inputs[2], x.quant, weights.quant, out.tensor.shape[1])
            if bias is None:
                return None
        return self.matrix(node, x, weights, bias, out, activation, transposed)

    def matmul(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """A product with constant weights, or of two activations."""
        x = self.activation(node.inputs[0])
        if x is None:
            return None
        weights = self.weights(node.inputs[1], 1)
        if weights is not None and len(weights.tensor.shape) == 2 and len(x.tensor.shape) > 1:
            return self.matrix(node, x, weights, None, out, activation, transposed=True)
        other = self.activation(node.inputs[1])
        if other is None or activation != "none":
            return None
        (a, b), quantize = (self.makers[name] for name in node.inputs), self.makers[out.tensor.name]
        if not all(len(n.inputs) == 3 and n.inputs[2] for n in (a, b, quantize)):
            return None
        inputs = (*a.inputs, *b.inputs, *quantize.inputs[1:])
        made = Node(node.name, Call("QLinearMatMul"), inputs, (out.tensor.name,))
        self.nodes.append(made)
        return made

    def matrix(
        self, node: Node, x: Real, weights: Real, bias: np.ndarray | None, out: Real,
        activation: Activation, transposed: bool,
    ) -> Node | None:  # fmt: skip
        """A fully connected layer; its input may be seen in any shape of the same elements."""
        w = weights.tensor.data
        assert w is not None
        if w.ndim != 2:
            return None
        if transposed:
            w = w.T
        scale = weights.quant.scale
        quant = Quant(scale, (0,) * len(scale), 0 if len(scale) > 1 else None)
        self.mark(x.tensor.name, x.quant)
        source = self.flat.get(x.tensor.name, x.tensor.name)
        if self.tensors[source].quant != x.quant:
            source = x.tensor.name
        inputs = [source, self.constant(f"{node.name}/weights", w, quant)]
        if bias is not None:
            inputs.append(self.constant(f"{node.name}/bias", bias.astype(np.int32)))
        guard = guard_bits(np.abs(w.astype(np.int64)).sum(1), x.quant, bias)
        return self.emit(node, inputs, FullyConnected(activation, guard), out)

    def move(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """Elements that are moved, of the same quantization before and after."""
        x = self.activation(node.inputs[0])
        if x is None or x.quant != out.quant or activation != "none":
            return None
        assert isinstance(node.op, Call)
        name, source = out.tensor.name, x.tensor.name
        inputs = (source, *node.inputs[1:])
        self.mark(name, out.quant)
        self.mark(source, x.quant)
        perm, shape = dict(node.op.attributes).get("perm"), out.tensor.shape
        if node.op.kind != "Transpose":
            self.flat[name] = self.flat.get(source, source)
            one = len(shape) == 4 and (shape[1] == 1 or shape[2] == shape[3] == 1)
            if one and x.tensor.shape == tuple(shape[k] for k in TO_NHWC):
                self.lying[name] = source
        elif perm == TO_NCHW:
            self.lying[name] = source
        elif perm == TO_NHWC and source in self.lying:
            self.flat[name] = self.lying[source]
        made = Node(node.name, node.op, inputs, (name,))
        self.nodes.append(made)
        return made

    def join(self, node: Node, out: Real, activation: Activation) -> Node | None:
        """Tensors behind one another, all of one quantization."""
        reals = [real for name in node.inputs if (real := self.activation(name)) is not None]
        if len(reals) != len(node.inputs) or any(real.quant != out.quant for real in reals):
            return None
        rank = len(out.tensor.shape)
        axis = self.site(node).axis(self.site(node).integer("axis", 0), rank)
        if rank == 4:
            op = Call("Concat", (("axis", TO_NHWC.index(axis)),))
            return self.emit_image(node, [self.image(real) for real in reals], op, out)
        for real in reals:
            self.mark(real.tensor.name, real.quant)
        op = Call("Concat", (("axis", axis),))
        return self.emit(node, [real.tensor.name for real in reals], op, out)


Rule = Callable[[_Rewriter, Node, Real, Activation], Node | None]
RULES: Mapping[str, Rule] = {
    "Conv": _Rewriter.conv,
    "GlobalAveragePool": _Rewriter.average,
    "AveragePool": _Rewriter.average,
    "MaxPool": _Rewriter.maximum,
    "Gemm": _Rewriter.gemm,
    "MatMul": _Rewriter.matmul,
    "Concat": _Rewriter.join,
    **dict.fromkeys(PAIRS, _Rewriter.pair),
    **dict.fromkeys(MOVES, _Rewriter.move),
}
"""What is made of an operator whose result is quantized."""
WITH_RELU = frozenset(("Conv", "Gemm", "MatMul", *PAIRS))
"""Operators that may have a Relu behind them."""
