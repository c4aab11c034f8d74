"""The reference kernels on Python's integers, written a second time and element by element.

Nothing here comes from the package: roundings are those of gemmlowp with C's truncating division,
multipliers are found with exact fractions.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np

from weft.compiler.graph import (
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Reshape,
    Softmax,
    Sub,
    Tensor,
    Window,
    element_dtype,
)


def i32(value: int) -> int:
    """The low 32 bits as a signed number."""
    return (value + 2**31) % 2**32 - 2**31


def truncated(a: int, b: int) -> int:
    """C's division."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def doubling_high(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul."""
    if a == b == -(2**31):
        return 2**31 - 1
    return truncated(a * b + (2**30 if a * b >= 0 else 1 - 2**30), 2**31)


def divide_by_power(x: int, exponent: int) -> int:
    """RoundingDivideByPOT, also beyond what fits a register of 32 bits."""
    assert exponent >= 0
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def scaled(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier."""
    return divide_by_power(doubling_high(i32(x << max(shift, 0)), multiplier), max(-shift, 0))


def scaled_to_even(x: int, multiplier: int, shift: int, places: int = 0) -> int:
    """The product of a real factor, rounded to so many binary places or more, then to even."""
    places = max(places, -shift, 0)
    fine = math.floor(Fraction(x * multiplier, 2**31) * 2 ** (shift + places) + Fraction(1, 2))
    return round(Fraction(fine, 2**places))


def rescaled(x: int, factor: tuple[int, int], rounding: str, places: int = 20) -> int:
    """By a node's way of rounding."""
    if rounding == "even":
        return scaled_to_even(x, *factor, places)
    assert rounding == "away"
    return scaled(x, *factor)


def multiplier_of(factor: float) -> tuple[int, int]:
    """QuantizeMultiplier: a Q31 fraction and a shift, found by exact arithmetic."""
    exact, shift = Fraction(factor), 0
    if exact == 0:
        return 0, 0
    while exact >= 1:
        exact, shift = exact / 2, shift + 1
    while exact < Fraction(1, 2):
        exact, shift = exact * 2, shift - 1
    q = math.floor(exact * 2**31 + Fraction(1, 2))
    if q == 2**31:
        q, shift = 2**30, shift + 1
    return (0, 0) if shift < -31 else (q, shift)


def clamp(value: int, activation: str, out: Tensor) -> int:
    """The fused activation's range of the output's type."""
    assert out.quant is not None
    zero_point, scale = out.quant.zero_point[0], np.float32(out.quant.scale[0])

    def quantized(real: float) -> int:
        ratio = float(np.float32(real) / scale)
        return zero_point + int(math.copysign(math.floor(abs(ratio) + 0.5), ratio))

    low, high = out.dtype.min, out.dtype.max
    if activation in ("relu", "relu6"):
        low = max(low, quantized(0.0))
    if activation == "relu6":
        high = min(high, quantized(6.0))
    if activation == "relu_n1_to_1":
        low, high = max(low, quantized(-1.0)), min(high, quantized(1.0))
    return min(max(value, low), high)


def evaluate(graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of the graph."""
    values = {t.name: t.data for t in graph.tensors.values() if t.data is not None} | inputs
    for node in graph.nodes:
        out = graph.tensors[node.outputs[0]]
        result = KERNELS[type(node.op)](graph, node, values)
        values[out.name] = np.asarray(result, element_dtype(out.dtype)).reshape(out.shape)
    return values


def _quants(graph: Graph, node: Node) -> list:
    return [graph.tensors[n].quant if n else None for n in (*node.inputs, *node.outputs)]


def _factor(graph: Graph, node: Node, o: int) -> tuple[int, int]:
    x, w, _, y = _quants(graph, node)
    if len(w.scale) == 1 and isinstance(node.op, FullyConnected):
        joint = np.float32(x.scale[0]) * np.float32(w.scale[0])
        return multiplier_of(float(joint) / y.scale[0])
    return multiplier_of(x.scale[0] * w.scale[o if len(w.scale) > 1 else 0] / y.scale[0])


def _finish(graph: Graph, node: Node, total: int, bias, o: int) -> int:
    out = graph.tensors[node.outputs[0]]
    if bias is not None:
        total += int(bias[o])
    value = rescaled(i32(total), _factor(graph, node, o), node.op.rounding)
    value += out.quant.zero_point[0]
    return clamp(value, node.op.activation, out)


def _taps(window: Window, y: int, x: int, height: int, width: int):
    """The taps inside: position in the window and in the image."""
    for ky, kx in product(*map(range, window.size)):
        row = y * window.strides[0] + ky * window.dilations[0] - window.pads[0]
        column = x * window.strides[1] + kx * window.dilations[1] - window.pads[2]
        if 0 <= row < height and 0 <= column < width:
            yield ky, kx, row, column


def _convolution(graph: Graph, node: Node, values) -> np.ndarray:
    x, w = (values[name].astype(object) for name in node.inputs[:2])
    bias = values.get(node.inputs[2])
    shape = graph.tensors[node.outputs[0]].shape
    x, w = (
        array - graph.tensors[name].quant.zero_point[0]
        for array, name in zip((x, w), node.inputs, strict=False)
    )
    result = np.empty(shape, object)
    for n, row, column, o in product(*map(range, shape)):
        total = 0
        for ky, kx, iy, ix in _taps(node.op.window, row, column, *x.shape[1:3]):
            if isinstance(node.op, DepthwiseConv2D):
                total += x[n, iy, ix, o // node.op.multiplier] * w[0, ky, kx, o]
            else:
                total += int(np.dot(x[n, iy, ix], w[o, ky, kx]))
        result[n, row, column, o] = _finish(graph, node, total, bias, o)
    return result


def _fully_connected(graph: Graph, node: Node, values) -> np.ndarray:
    w = values[node.inputs[1]].astype(object)
    x = values[node.inputs[0]].astype(object).reshape(-1, w.shape[1])
    x, w = (
        array - graph.tensors[name].quant.zero_point[0]
        for array, name in zip((x, w), node.inputs, strict=False)
    )
    bias = values.get(node.inputs[2])
    sums = x @ w.T
    return np.array(
        [[_finish(graph, node, sums[n, o], bias, o) for o in range(len(w))] for n in range(len(x))]
    )


def _sum(graph: Graph, node: Node, values) -> np.ndarray:
    sign = -1 if isinstance(node.op, Sub) else 1
    a, b, out = _quants(graph, node)
    common = 2 * max(a.scale[0], b.scale[0])
    of_a, of_b = multiplier_of(a.scale[0] / common), multiplier_of(b.scale[0] / common)
    of_out = multiplier_of(common / (2**20 * out.scale[0]))

    def element(left: int, right: int) -> int:
        rounding = node.op.rounding
        total = rescaled((left - a.zero_point[0]) << 20, of_a, rounding, places=0)
        total += sign * rescaled((right - b.zero_point[0]) << 20, of_b, rounding, places=0)
        value = rescaled(total, of_out, rounding) + out.zero_point[0]
        return clamp(value, node.op.activation, graph.tensors[node.outputs[0]])

    left, right = (values[name].astype(object) for name in node.inputs)
    return np.frompyfunc(element, 2, 1)(left, right)


def _product(graph: Graph, node: Node, values) -> np.ndarray:
    a, b, out = _quants(graph, node)
    factor = multiplier_of(a.scale[0] * b.scale[0] / out.scale[0])

    def element(left: int, right: int) -> int:
        product = (left - a.zero_point[0]) * (right - b.zero_point[0])
        value = rescaled(product, factor, node.op.rounding) + out.zero_point[0]
        return clamp(value, node.op.activation, graph.tensors[node.outputs[0]])

    left, right = (values[name].astype(object) for name in node.inputs)
    return np.frompyfunc(element, 2, 1)(left, right)


def _pool(graph: Graph, node: Node, values) -> np.ndarray:
    x, out = values[node.inputs[0]].astype(object), graph.tensors[node.outputs[0]]
    result = np.empty(out.shape, object)
    for n, row, column, c in product(*map(range, out.shape)):
        inside = [
            x[n, iy, ix, c] for _, _, iy, ix in _taps(node.op.window, row, column, *x.shape[1:3])
        ]
        value = max(inside)
        if isinstance(node.op, AveragePool2D):
            total, half = sum(inside), len(inside) // 2
            value = truncated(total + half if total > 0 else total - half, len(inside))
            if node.op.ties == "up":
                value = (total + half) // len(inside)
        result[n, row, column, c] = clamp(value, node.op.activation, out)
    return result


def _reshape(graph: Graph, node: Node, values) -> np.ndarray:
    return values[node.inputs[0]]


def _exp(a: int) -> int:
    """exp_on_negative_values of Q5.26, in Q0.31."""
    if a == 0:
        return 2**31 - 1
    quarter = (a & (2**24 - 1)) - 2**24
    x = (quarter << 5) + 2**28
    x2 = doubling_high(x, x)
    x3, x4 = doubling_high(x2, x), doubling_high(x2, x2)
    tail = doubling_high(divide_by_power(x4, 2) + x3, 715827883) + x2
    result = 1895147668 + doubling_high(1895147668, x + divide_by_power(tail, 1))
    remainder = quarter - a
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for bit, factor in enumerate(factors, 24):
        if remainder & (1 << bit):
            result = doubling_high(result, factor)
    return result


def _softmax(graph: Graph, node: Node, values) -> np.ndarray:
    x, out = values[node.inputs[0]], graph.tensors[node.outputs[0]]
    zero, low, high = out.quant.zero_point[0], out.dtype.min, out.dtype.max
    scale = graph.tensors[node.inputs[0]].quant.scale[0]
    factor = min(node.op.beta * scale * 2**26, 2.0**31 - 1)
    multiplier, shift = multiplier_of(factor)
    least = -math.floor(Fraction(31 * 2**26, 2**shift))
    rows = []
    for row in x.reshape(-1, x.shape[-1]).astype(object):
        differences = [v - max(row) for v in row]
        powers = [
            _exp(doubling_high(i32(d << shift), multiplier)) if d >= least else 0
            for d in differences
        ]
        total = sum(divide_by_power(p, 12) for p in powers)
        headroom = 32 - total.bit_length()
        half = ((total << headroom) - 2**31 + 2**31 - 1 + 1) // 2
        inverse = 1515870810 + doubling_high(half, -1010580540)
        for _ in range(3):
            inverse += doubling_high(inverse, 2**29 - doubling_high(half, inverse)) << 2
        inverse = min(inverse * 2, 2**31 - 1)
        exponent = 12 - headroom + 31 - 8
        rows.append(
            [
                min(max(divide_by_power(doubling_high(inverse, p), exponent) + zero, low), high)
                for p in powers
            ]
        )
    return np.array(rows)


KERNELS = {
    Conv2D: _convolution,
    DepthwiseConv2D: _convolution,
    FullyConnected: _fully_connected,
    Add: _sum,
    Sub: _sum,
    Mul: _product,
    AveragePool2D: _pool,
    MaxPool2D: _pool,
    Reshape: _reshape,
    Softmax: _softmax,
}
