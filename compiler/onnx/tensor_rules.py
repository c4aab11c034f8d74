"""Quantized operators on tensors of any rank: element by element, products, and moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..graph import Activation, Add, Call, FullyConnected, Mul, Node, Quant, Sub
from .pattern import TO_NCHW, TO_NHWC, Real, Rewriter

PAIRS: Mapping[str, type[Add | Sub | Mul]] = {"Add": Add, "Sub": Sub, "Mul": Mul}
MOVES = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity"))
"""Operators whose result is quantized as their input is."""


def pair(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """A sum, difference or product of two tensors."""
    if len(node.inputs) != 2:
        return None
    a, b = (rewriter.activation(name) for name in node.inputs)
    if a is None or b is None:
        return None
    assert isinstance(node.op, Call)
    op = PAIRS[node.op.kind](activation, "even")
    shapes = {a.tensor.shape, b.tensor.shape, out.tensor.shape}
    if len(shapes) == 1 and len(out.tensor.shape) == 4:
        return rewriter.emit_image(node, (rewriter.image(a), rewriter.image(b)), op, out)
    for real in (a, b):
        rewriter.mark(real.tensor.name, real.quant)
    return rewriter.emit(node, (a.tensor.name, b.tensor.name), op, out)


def gemm(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """A product with constant weights."""
    site = rewriter.site(node)
    if site.integer("transA", 0) or site.real("alpha", 1.0) != 1 or site.real("beta", 1.0) != 1:
        return None
    transposed = not site.integer("transB", 0)
    x, weights = (
        rewriter.activation(node.inputs[0]),
        rewriter.weights(node.inputs[1], int(transposed)),
    )
    if x is None or weights is None:
        return None
    bias = None
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = rewriter.bias(node.inputs[2], x.quant, weights.quant, out.tensor.shape[1])
        if bias is None:
            return None
    return matrix(rewriter, node, x, weights, bias, out, activation, transposed)


def matmul(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """A product with constant weights, or of two activations."""
    x = rewriter.activation(node.inputs[0])
    if x is None:
        return None
    weights = rewriter.weights(node.inputs[1], 1)
    if weights is not None and len(weights.tensor.shape) == 2 and len(x.tensor.shape) > 1:
        return matrix(rewriter, node, x, weights, None, out, activation, transposed=True)
    other = rewriter.activation(node.inputs[1])
    if other is None or activation != "none":
        return None
    (a, b), quantize = (
        (rewriter.makers[name] for name in node.inputs),
        rewriter.makers[out.tensor.name],
    )
    if not all(len(n.inputs) == 3 and n.inputs[2] for n in (a, b, quantize)):
        return None
    inputs = (*a.inputs, *b.inputs, *quantize.inputs[1:])
    made = Node(node.name, Call("QLinearMatMul"), inputs, (out.tensor.name,))
    rewriter.nodes.append(made)
    return made


def matrix(
    rewriter: Rewriter, node: Node, x: Real, weights: Real, bias: np.ndarray | None, out: Real,
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
    rewriter.mark(x.tensor.name, x.quant)
    source = rewriter.flat.get(x.tensor.name, x.tensor.name)
    if rewriter.tensors[source].quant != x.quant:
        source = x.tensor.name
    inputs = [source, rewriter.constant(f"{node.name}/weights", w, quant)]
    if bias is not None:
        inputs.append(rewriter.constant(f"{node.name}/bias", bias.astype(np.int32)))
    return rewriter.emit(node, inputs, FullyConnected(activation, rounding="even"), out)


def move(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """Elements that are moved, of the same quantization before and after."""
    x = rewriter.activation(node.inputs[0])
    if x is None or x.quant != out.quant or activation != "none":
        return None
    assert isinstance(node.op, Call)
    name, source = out.tensor.name, x.tensor.name
    inputs = (source, *node.inputs[1:])
    rewriter.mark(name, out.quant)
    rewriter.mark(source, x.quant)
    perm, shape = dict(node.op.attributes).get("perm"), out.tensor.shape
    if node.op.kind != "Transpose":
        rewriter.flat[name] = rewriter.flat.get(source, source)
        one = len(shape) == 4 and (shape[1] == 1 or shape[2] == shape[3] == 1)
        if one and x.tensor.shape == tuple(shape[k] for k in TO_NHWC):
            rewriter.lying[name] = source
    elif perm == TO_NCHW:
        rewriter.lying[name] = source
    elif perm == TO_NHWC and source in rewriter.lying:
        rewriter.flat[name] = rewriter.lying[source]
    made = Node(node.name, node.op, inputs, (name,))
    rewriter.nodes.append(made)
    return made


def join(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """Tensors behind one another, all of one quantization."""
    reals = [real for name in node.inputs if (real := rewriter.activation(name)) is not None]
    if len(reals) != len(node.inputs) or any(real.quant != out.quant for real in reals):
        return None
    rank = len(out.tensor.shape)
    axis = rewriter.site(node).axis(rewriter.site(node).integer("axis", 0), rank)
    if rank == 4:
        op = Call("Concat", (("axis", TO_NHWC.index(axis)),))
        return rewriter.emit_image(node, [rewriter.image(real) for real in reals], op, out)
    for real in reals:
        rewriter.mark(real.tensor.name, real.quant)
    op = Call("Concat", (("axis", axis),))
    return rewriter.emit(node, [real.tensor.name for real in reals], op, out)
