"""Integers for QDQ patterns: operators between DequantizeLinear and QuantizeLinear, and QOperator
nodes, become the graph's own quantized operators, which the accelerator takes.

Rounding. The float graph rounds the real result once, to nearest with ties to even. What comes
from here has an exact accumulator, which is scaled by a Q31 multiplier in two roundings
(:mod:`weft.isa.requantize`): to 20 binary places, then with ties to even. The two results
can differ by one where the real value lies within half of such a place of a tie, and in a sum of
two quantized tensors, whose operands are rounded to a common scale of 20 more bits first. What
hardware without that does is said in :mod:`weft.compiler.rounding`. A bias
in another scale than the product of those of input and weights is rounded to that one. Products of
two activations keep ONNX's rounding: the host computes them as QLinearMatMul, scaled in double
precision.

Activations are signed bytes with one scale, weights signed bytes, or integers of fewer bits, with
zero point 0. Unsigned
activations between operators are moved down by 128, which changes nothing else. What is
quantized otherwise stays in floating point, as it stands in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ...isa.nest import I8
from ..graph import Activation, Call, Graph, Node
from .image_rules import average, conv, convolution, maximum
from .pattern import Real, Rewriter, is_call
from .signed import signed
from .tensor_rules import MOVES, PAIRS, gemm, join, matmul, matrix, move, pair

CLAMPS: Mapping[tuple[float, float], Activation] = {
    (0.0, 6.0): "relu6", (-1.0, 1.0): "relu_n1_to_1", (0.0, math.inf): "relu",
}  # fmt: skip

Rule = Callable[[Rewriter, Node, Real, Activation], Node | None]
RULES: Mapping[str, Rule] = {
    "Conv": conv,
    "GlobalAveragePool": average,
    "AveragePool": average,
    "MaxPool": maximum,
    "Gemm": gemm,
    "MatMul": matmul,
    "Concat": join,
    **dict.fromkeys(PAIRS, pair),
    **dict.fromkeys(MOVES, move),
}
"""What is made of an operator whose result is quantized."""
WITH_RELU = frozenset(("Conv", "Gemm", "MatMul", *PAIRS))
"""Operators that may have a Relu behind them."""


def integers(graph: Graph) -> Graph:
    """``graph`` with quantized operators where its patterns allow them."""
    rewriter = Rewriter(signed(graph))
    for node in rewriter.old.nodes:
        made = None
        if is_call(node, "QuantizeLinear"):
            made = quantized(rewriter, node)
        elif is_call(node, "QLinearConv", "QLinearMatMul"):
            made = qoperator(rewriter, node)
        if made is None:
            rewriter.nodes.append(node)
    return rewriter.graph()


def quantized(rewriter: Rewriter, node: Node) -> Node | None:
    """The operator before ``node`` and itself as one."""
    out = rewriter.tensors[node.outputs[0]]
    quant = rewriter.scale(node.inputs[1:], None)
    if out.dtype != I8 or quant is None:
        return None
    source = rewriter.alone(node.inputs[0])
    activation = clamp(rewriter, source)
    if source is not None and activation != "none":
        source = rewriter.alone(source.inputs[0])
    if source is None or not isinstance(source.op, Call):
        return None
    rule = RULES.get(source.op.kind)
    if rule is None or (activation != "none" and source.op.kind not in WITH_RELU):
        return None
    return rule(rewriter, source, Real(out, quant), activation)


def clamp(rewriter: Rewriter, node: Node | None) -> Activation:
    """Which activation a node is, of those that a clamp does."""
    if node is None or not is_call(node, "Relu", "Clip"):
        return "none"
    if is_call(node, "Relu"):
        return "relu"
    bounds = [rewriter.tensors[name].data if name else None for name in node.inputs[1:]]
    if len(bounds) != 2 or any(b is None or b.size != 1 for b in bounds):
        return "none"
    low, high = (float(b.reshape(-1)[0]) for b in bounds if b is not None)
    return CLAMPS.get((low, high), "none")


def qoperator(rewriter: Rewriter, node: Node) -> Node | None:
    """A QLinearConv, or a QLinearMatMul with constant weights."""
    names = node.inputs
    x, w, out = (rewriter.tensors[name] for name in (names[0], names[3], node.outputs[0]))
    conv = is_call(node, "QLinearConv")
    axis = 0 if conv else 1
    quants = [rewriter.scale(names[k : k + 2], a) for k, a in ((1, None), (4, axis), (6, None))]
    x_quant, w_quant, out_quant = quants
    if x_quant is None or w_quant is None or out_quant is None:
        return None
    if x.dtype != I8 or out.dtype != I8:
        return None
    weights = rewriter.usable(Real(w, w_quant), axis)
    if weights is None or x.data is not None or x_quant.axis is not None:
        return None
    bias = None
    if conv and len(names) > 8 and names[8]:
        bias = rewriter.tensors[names[8]].data
        if bias is None:
            return None
    sides = Real(x, x_quant), Real(out, out_quant)
    if conv:
        return convolution(rewriter, node, sides[0], weights, bias, sides[1], "none")
    return matrix(rewriter, node, sides[0], weights, bias, sides[1], "none", transposed=True)
