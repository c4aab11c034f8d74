"""What a quantized ONNX file says when nothing but its own QuantizeLinear nodes round: every
operator in double precision, by numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.compiler.onnx.models import helper, numpy_helper

Array = np.ndarray
Attributes = Mapping[str, Any]


def evaluated(proto: Any, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs of a model."""
    values = {t.name: _wide(numpy_helper.to_array(t)) for t in proto.graph.initializer}
    values.update({name: _wide(value) for name, value in inputs.items()})
    for node in proto.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        given = [values[name] for name in node.input]
        values[node.output[0]] = OPERATORS[node.op_type](given, attributes)
    return [values[info.name] for info in proto.graph.output]


def _wide(value: Array) -> Array:
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _along(value: Array, x: Array, attributes: Attributes) -> Array:
    """A scale or zero point as it broadcasts over ``x``."""
    if value.size == 1:
        return value.reshape(())
    shape = [1] * x.ndim
    shape[attributes.get("axis", 1)] = -1
    return value.reshape(shape)


def _quantize(given: Sequence[Array], attributes: Attributes) -> Array:
    x, (scale, zero) = given[0], (_along(v, given[0], attributes) for v in given[1:])
    bounds = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero, bounds.min, bounds.max).astype(zero.dtype)


def _dequantize(given: Sequence[Array], attributes: Attributes) -> Array:
    q, (scale, zero) = given[0], (_along(v, given[0], attributes) for v in given[1:])
    return (q.astype(np.int64) - zero.astype(np.int64)) * scale


def _softmax(given: Sequence[Array], attributes: Attributes) -> Array:
    axis = attributes.get("axis", -1)
    powers = np.exp(given[0] - given[0].max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _gemm(given: Sequence[Array], attributes: Attributes) -> Array:
    a, b = given[:2]
    total = a @ (b.T if attributes.get("transB") else b)
    return total + given[2] if len(given) > 2 else total


def _mean(given: Sequence[Array], attributes: Attributes) -> Array:
    return given[0].mean(tuple(attributes["axes"]), keepdims=bool(attributes.get("keepdims", 1)))


def _conv(given: Sequence[Array], attributes: Attributes) -> Array:
    """Of one group, as a sum over the places in the window."""
    x, w = given[:2]
    pads, (sy, sx) = attributes["pads"], attributes.get("strides", (1, 1))
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    height, width = ((x.shape[2 + k] - w.shape[2 + k]) // s + 1 for k, s in enumerate((sy, sx)))
    total: Array = np.zeros((x.shape[0], w.shape[0], height, width))
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            seen = x[:, :, i : i + sy * height : sy, j : j + sx * width : sx]
            total += np.einsum("nchw,oc->nohw", seen[:, :, :height, :width], w[:, :, i, j])
    return total + given[2].reshape(-1, 1, 1) if len(given) > 2 else total


OPERATORS: Mapping[str, Callable[[Sequence[Array], Attributes], Array]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Softmax": _softmax,
    "Gemm": _gemm,
    "ReduceMean": _mean,
    "Conv": _conv,
    "Add": lambda v, _: v[0] + v[1],
    "Sub": lambda v, _: v[0] - v[1],
    "Mul": lambda v, _: v[0] * v[1],
    "Div": lambda v, _: v[0] / v[1],
    "MatMul": lambda v, _: v[0] @ v[1],
    "Sqrt": lambda v, _: np.sqrt(v[0]),
    "Tanh": lambda v, _: np.tanh(v[0]),
    "Relu": lambda v, _: np.maximum(v[0], 0),
    "Identity": lambda v, _: v[0],
    "Transpose": lambda v, a: v[0].transpose(a["perm"]),
    "Concat": lambda v, a: np.concatenate(v, a["axis"]),
    "Gather": lambda v, a: np.take(v[0], v[1], a.get("axis", 0)),
    "Flatten": lambda v, _: v[0].reshape(len(v[0]), -1),
    "GlobalAveragePool": lambda v, _: v[0].mean((2, 3), keepdims=True),
}
"""The operators of the networks in these tests."""
