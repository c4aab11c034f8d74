"""The operators of a TFLite file: from its records to the graph's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tflite

from ...isa.nest import F16, F32, I8, I16, U8
from ..graph import (
    Activation,
    Add,
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    MaxPool2D,
    Mul,
    Op,
    Opaque,
    Reshape,
    Softmax,
    Sub,
    Tensor,
    Window,
)
from . import lstm_form
from .source import Source
from .tensors import Tensors

ACTIVATIONS: Mapping[int, Activation] = {
    tflite.ActivationFunctionType.NONE: "none",
    tflite.ActivationFunctionType.RELU: "relu",
    tflite.ActivationFunctionType.RELU6: "relu6",
    tflite.ActivationFunctionType.RELU_N1_TO_1: "relu_n1_to_1",
}


@dataclass(frozen=True)
class RawNode:
    """An operator with its tensors by index, -1 for an absent one."""

    op: Op
    kind: str
    """TFLite's name of it."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_operators(source: Source, model: Any, subgraph: Any, tensors: Tensors) -> list[RawNode]:
    """The operators of a subgraph in the order of the file, which is that of execution."""
    kinds = [_kind(source, code) for code in source.tables(model, "OperatorCodes")]
    nodes: list[RawNode] = []
    for position, table in enumerate(source.tables(subgraph, "Operators")):
        code = source.access(table.OpcodeIndex)
        if code >= len(kinds):
            raise source.error(
                f"damaged TFLite file: operator {position} has code {code} of {len(kinds)}"
            )
        inputs, outputs = source.integers(table, "Inputs"), source.integers(table, "Outputs")
        for index in (*(i for i in inputs if i != -1), *outputs):
            tensors[index]
        where = f"operator {position} ({kinds[code]})"
        nodes.append(_node(_Operator(source, tensors, table, kinds[code], where, inputs, outputs)))
    return nodes


def _kind(source: Source, code: Any) -> str:
    """TFLite's name of an operator code."""
    builtin = max(source.access(code.DeprecatedBuiltinCode), source.access(code.BuiltinCode))
    if builtin == tflite.BuiltinOperator.CUSTOM:
        return source.text(code.CustomCode) or "CUSTOM"
    return tflite.BUILTIN_OPCODE2NAME.get(builtin, f"BUILTIN_{builtin}")


def _node(operator: _Operator) -> RawNode:
    make = MAKERS.get(operator.kind)
    if make is None:
        op, inputs = Opaque(operator.kind), operator.inputs
    else:
        if not operator.outputs:
            raise operator.error("has no output")
        op, inputs = make(operator)
    if isinstance(op, Opaque | Call):
        variables = operator.tensors.variables
        inputs = tuple(-1 if i in variables else i for i in inputs)
    kind = op.kind if isinstance(op, Opaque) else operator.kind
    return RawNode(op, kind, inputs, operator.outputs)


@dataclass(frozen=True)
class _Operator:
    """One record of the file."""

    source: Source
    tensors: Tensors
    table: Any
    kind: str
    where: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def error(self, message: str):
        """What to raise because of this operator."""
        return self.source.error(f"{self.where} {message}")

    def input(self, position: int, what: str) -> Tensor:
        """The tensor at a position where one must be."""
        if len(self.inputs) <= position or self.inputs[position] < 0:
            raise self.error(f"has no {what}")
        return self.tensors[self.inputs[position]]

    def options(self, options: Any) -> Any:
        """The options as an object of the generated class ``options``."""
        expected = getattr(tflite.BuiltinOptions, options.__name__)
        table = self.source.access(self.table.BuiltinOptions)
        if table is None or self.source.access(self.table.BuiltinOptionsType) != expected:
            raise self.error(f"has no {options.__name__}")
        typed = options()
        self.source.access(typed.Init, table.Bytes, table.Pos)
        return typed

    def fused(self, options: Any, node: Callable[[Activation], Op]) -> Op:
        """``node`` with the fused activation; an ``Opaque`` where that is unknown."""
        code = self.source.access(options.FusedActivationFunction)
        if code in ACTIVATIONS:
            return node(ACTIVATIONS[code])
        names = {v: n for n, v in vars(tflite.ActivationFunctionType).items() if isinstance(v, int)}
        return Opaque(f"{self.kind}+{names.get(code, code)}")

    def window(self, options: Any, size: tuple[int, int], dilated: bool) -> Window:
        """How the filter slides over the first input; ``SAME`` pads more at bottom and right."""
        access = self.source.access
        shape = self.input(0, "input").shape
        if len(shape) != 4:
            raise self.error(f"takes an input of rank 4, not {list(shape)}")
        strides = (access(options.StrideH), access(options.StrideW))
        dilations = (1, 1)
        if dilated:
            dilations = (access(options.DilationHFactor), access(options.DilationWFactor))
        padding = access(options.Padding)
        if padding not in (tflite.Padding.SAME, tflite.Padding.VALID):
            raise self.error(f"has padding {padding}, neither SAME nor VALID")
        if min(*size, *strides, *dilations) < 1:
            raise self.error(
                f"has a window of {list(size)}, strides {list(strides)}, "
                f"dilations {list(dilations)}"
            )
        if padding == tflite.Padding.VALID:
            return Window(size, strides, dilations)
        vertical, horizontal = (
            _same(extent, k, stride, dilation)
            for extent, k, stride, dilation in zip(
                shape[1:3], size, strides, dilations, strict=True
            )
        )
        return Window(size, strides, dilations, (*vertical, *horizontal))

    def filter_shape(self) -> tuple[int, ...]:
        """The shape of the weights of a convolution."""
        shape = self.input(1, "weights").shape
        if len(shape) != 4:
            raise self.error(f"takes weights of rank 4, not {list(shape)}")
        return shape

    def with_bias(self) -> tuple[int, ...]:
        """Input, weights and bias, an absent bias spelled out."""
        return (*self.inputs, -1)[:3]


def _same(extent: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding before and after so that ``ceil(extent / stride)`` windows fit."""
    count = -(-extent // stride)
    total = max((count - 1) * stride + (size - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2


_Made = tuple[Op, tuple[int, ...]]


def _conv2d(operator: _Operator) -> _Made:
    options = operator.options(tflite.Conv2DOptions)
    shape = operator.filter_shape()
    window = operator.window(options, (shape[1], shape[2]), dilated=True)
    channels = operator.input(0, "input").shape[3]
    if channels > shape[3] and channels % shape[3] == 0:
        return Opaque("CONV_2D+GROUPS"), operator.inputs
    return operator.fused(options, lambda a: Conv2D(window, a)), operator.with_bias()


def _depthwise(operator: _Operator) -> _Made:
    options = operator.options(tflite.DepthwiseConv2DOptions)
    shape = operator.filter_shape()
    window = operator.window(options, (shape[1], shape[2]), dilated=True)
    multiplier, rest = divmod(shape[3], operator.input(0, "input").shape[3])
    if rest:
        raise operator.error(f"makes {shape[3]} channels, no multiple of its input's")
    op = operator.fused(options, lambda a: DepthwiseConv2D(window, multiplier, a))
    return op, operator.with_bias()


def _fully_connected(operator: _Operator) -> _Made:
    options = operator.options(tflite.FullyConnectedOptions)
    operator.input(1, "weights")
    if operator.source.access(options.WeightsFormat) != 0:
        return Opaque("FULLY_CONNECTED+SHUFFLED"), operator.inputs
    return operator.fused(options, FullyConnected), operator.with_bias()


def _pairwise(options: Any, node: Callable[[Activation], Op]) -> Callable[[_Operator], _Made]:
    return lambda operator: (operator.fused(operator.options(options), node), operator.inputs)


def _pool(node: Callable[[Window, Activation], Op]) -> Callable[[_Operator], _Made]:
    def make(operator: _Operator) -> _Made:
        options = operator.options(tflite.Pool2DOptions)
        access = operator.source.access
        size = (access(options.FilterHeight), access(options.FilterWidth))
        window = operator.window(options, size, dilated=False)
        return operator.fused(options, lambda a: node(window, a)), operator.inputs

    return make


def _reshape(operator: _Operator) -> _Made:
    """The new shape is the output's own; the tensor that repeats it is dropped."""
    return Reshape(), operator.inputs[:1]


def _softmax(operator: _Operator) -> _Made:
    options = operator.options(tflite.SoftmaxOptions)
    return Softmax(float(operator.source.access(options.Beta))), operator.inputs


def _quantize(operator: _Operator) -> _Made:
    """Between real numbers and a quantization, or two quantizations."""
    x, out = operator.input(0, "input"), operator.tensors[operator.outputs[0]]
    if x.dtype not in (F32, I8, U8, I16) or out.dtype not in (I8, U8, I16):
        return Opaque(f"QUANTIZE+{x.dtype}+{out.dtype}"), operator.inputs
    for tensor in (x, out):
        if tensor.dtype != F32 and (tensor.quant is None or tensor.quant.axis is not None):
            raise operator.error("takes and makes tensors that are quantized as a whole")
    return Call("tfl.quantize", (("to", str(out.dtype)),)), operator.inputs[:1]


def _dequantize(operator: _Operator) -> _Made:
    x = operator.input(0, "input")
    if x.dtype not in (F16, I8, U8, I16) or (x.quant is not None and x.quant.axis is not None):
        return Opaque(f"DEQUANTIZE+{x.dtype}"), operator.inputs
    return Call("tfl.dequantize"), operator.inputs[:1]


def _log_softmax(operator: _Operator) -> _Made:
    if operator.input(0, "input").dtype != F32:
        return Opaque("LOG_SOFTMAX"), operator.inputs
    return Call("LogSoftmax"), operator.inputs[:1]


def _lstm(operator: _Operator) -> _Made:
    """A layer over time; its states are dropped, what is needed of them becomes attributes."""
    options = operator.options(tflite.UnidirectionalSequenceLSTMOptions)
    access, inputs = operator.source.access, (*operator.inputs, *[-1] * 24)[:24]
    tensors = [operator.tensors[i] if i >= 0 else None for i in inputs]
    out = operator.tensors[operator.outputs[0]]
    time_major = bool(access(options.TimeMajor))
    reason = lstm_form.refusal(tensors, out, time_major)
    if inputs[0] in operator.tensors.variables:
        reason = "VARIABLE"
    code = access(options.FusedActivationFunction)
    if code != tflite.ActivationFunctionType.TANH:
        reason = f"ACTIVATION_{code}"
    clip = float(access(options.CellClip))
    if not 0 <= clip < math.inf:
        raise operator.error(f"clips its cell state at {clip}")
    if reason is not None:
        return Opaque(f"{operator.kind}+{reason}"), operator.inputs
    return Call(lstm_form.KIND, lstm_form.attributes(tensors, time_major, clip)), inputs


MAKERS: Mapping[str, Callable[[_Operator], _Made]] = {
    "CONV_2D": _conv2d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _pairwise(tflite.AddOptions, Add),
    "SUB": _pairwise(tflite.SubOptions, Sub),
    "MUL": _pairwise(tflite.MulOptions, Mul),
    "AVERAGE_POOL_2D": _pool(AveragePool2D),
    "MAX_POOL_2D": _pool(MaxPool2D),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _log_softmax,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
}
"""TFLite's operators that the graph has nodes for."""
