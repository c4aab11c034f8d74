"""A tensor graph as a TFLite file: what :mod:`weft.compiler.tflite.read` reads, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite

from ...isa.errors import ModelError
from ...isa.nest import BOOL, F32, F64, I8, I16, I32, I64, U8, U16, U32
from ..graph import (
    Add,
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Opaque,
    Quant,
    Reshape,
    Softmax,
    Sub,
    Tensor,
    Window,
)

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
DATA_ALIGNMENT = 16
"""Of a constant's bytes in the file, as the schema asks."""

TENSOR_TYPES = {
    I8: tflite.TensorType.INT8, I16: tflite.TensorType.INT16, I32: tflite.TensorType.INT32,
    I64: tflite.TensorType.INT64, U8: tflite.TensorType.UINT8, U16: tflite.TensorType.UINT16,
    U32: tflite.TensorType.UINT32, BOOL: tflite.TensorType.BOOL,
    F32: tflite.TensorType.FLOAT32, F64: tflite.TensorType.FLOAT64,
}  # fmt: skip
ACTIVATIONS = {
    "none": tflite.ActivationFunctionType.NONE,
    "relu": tflite.ActivationFunctionType.RELU,
    "relu6": tflite.ActivationFunctionType.RELU6,
    "relu_n1_to_1": tflite.ActivationFunctionType.RELU_N1_TO_1,
}
INT8_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "SUB": 2, "MUL": 2,
    "AVERAGE_POOL_2D": 2, "MAX_POOL_2D": 2, "SOFTMAX": 2,
}  # fmt: skip
"""The operators' versions from which they take int8; other types, and Reshape, came with 1."""


def write(graph: Graph) -> bytes:
    """The TFLite file (identifier TFL3, schema 3) that says what ``graph`` says.

    Tensors and nodes keep their order, tensors their names; nodes have no names in this format.
    Equal graphs give equal bytes.

    Raises
    ------
    ModelError
        If TFLite cannot say it: an Opaque operator, pads that are neither SAME nor VALID, a
        dilated pool, a type without a code, or a scale or beta that is no 32-bit float.
    """
    b = flatbuffers.Builder(1 << 16)
    constants = {name: t.data for name, t in graph.tensors.items() if t.data is not None}
    # Buffer 0 is empty by convention; a tensor that is no constant refers to it.
    buffers = [_table(b, "Buffer")]
    buffers += [_table(b, "Buffer", Data=_data(b, n, data)) for n, data in constants.items()]
    buffer_of = {name: i for i, name in enumerate(constants, 1)}
    tensors = [_tensor(b, tensor, buffer_of.get(n, 0)) for n, tensor in graph.tensors.items()]
    place = {name: i for i, name in enumerate(graph.tensors)} | {"": -1}
    codes: dict[tuple[str, int], int] = {}
    operators = [_operator(b, node, graph.tensors, place, codes) for node in graph.nodes]
    subgraph = _table(
        b,
        "SubGraph",
        Tensors=_offsets(b, tensors),
        Inputs=_vector(b, [place[name] for name in graph.inputs], np.int32),
        Outputs=_vector(b, [place[name] for name in graph.outputs], np.int32),
        Operators=_offsets(b, operators),
        Name=b.CreateString(graph.name),
    )
    model = _table(
        b,
        "Model",
        Version=SCHEMA_VERSION,
        OperatorCodes=_offsets(b, [_operator_code(b, *code) for code in codes]),
        Subgraphs=_offsets(b, [subgraph]),
        Description=b.CreateString("Weft"),
        Buffers=_offsets(b, buffers),
    )
    b.Finish(model, IDENTIFIER)
    return bytes(b.Output())


def _operator(
    b: flatbuffers.Builder,
    node: Node,
    tensors: Mapping[str, Tensor],
    place: Mapping[str, int],
    codes: dict[tuple[str, int], int],
) -> int:
    options, kind, make = _OPTIONS.get(type(node.op), ("", "", None))
    if make is None:
        raise ModelError(f"node {node.name!r}: TFLite's writer knows no {type(node.op).__name__}")
    if getattr(node.op, "guard", 0):
        raise ModelError(f"node {node.name!r}: TFLite has no guard bits")
    fields = make(node, tensors)
    if "NewShape" in fields:
        fields["NewShape"] = _vector(b, fields["NewShape"], np.int32)
    code = codes.setdefault((kind, _version(kind, node, tensors)), len(codes))
    return _table(
        b,
        "Operator",
        OpcodeIndex=code,
        Inputs=_vector(b, [place[name] for name in _present(node.inputs)], np.int32),
        Outputs=_vector(b, [place[name] for name in node.outputs], np.int32),
        BuiltinOptionsType=getattr(tflite.BuiltinOptions, options),
        BuiltinOptions=_table(b, options, **fields),
    )


def _present(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Without absent ones at the end: an absent bias is not mentioned."""
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def _version(kind: str, node: Node, tensors: Mapping[str, Tensor]) -> int:
    """The least version of the operator that has what ``node`` uses."""
    version = INT8_VERSIONS.get(kind, 1) if tensors[node.inputs[0]].dtype == I8 else 1
    if isinstance(node.op, DepthwiseConv2D) and node.op.window.dilations != (1, 1):
        version = max(version, 2)
    if isinstance(node.op, Mul) and version > 1:
        a, b, out = (tensors[name].quant for name in (*node.inputs, *node.outputs))
        if a and b and out and a.scale[0] * b.scale[0] >= out.scale[0]:
            version = 3
    if isinstance(node.op, FullyConnected):
        weights = tensors[node.inputs[1]].quant
        if weights is not None and weights.axis is not None:
            version = 12
        elif len(node.inputs) < 3 or not node.inputs[2]:
            version = 6
        elif _keeps_dimensions(node, tensors):
            version = max(version, 5)
    return version


# --- each operator's options -----------------------------------------------------------------


def _conv(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    assert isinstance(node.op, Conv2D)
    return _sliding(node, tensors, node.op.window) | _dilation(node.op.window) | _activation(node)


def _depthwise(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    assert isinstance(node.op, DepthwiseConv2D)
    window = node.op.window
    return (
        _sliding(node, tensors, window)
        | {"DepthMultiplier": node.op.multiplier}
        | _dilation(window)
        | _activation(node)
    )


def _pool(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    assert isinstance(node.op, AveragePool2D | MaxPool2D)
    window = node.op.window
    if getattr(node.op, "ties", "away") != "away":
        raise ModelError(f"node {node.name!r}: a mean of signed bytes rounds ties away from zero")
    if window.dilations != (1, 1):
        raise ModelError(f"node {node.name!r}: a pool has no dilations, not {window.dilations}")
    size = {"FilterHeight": window.size[0], "FilterWidth": window.size[1]}
    return _sliding(node, tensors, window) | size | _activation(node)


def _fully_connected(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return _activation(node) | {"KeepNumDims": _keeps_dimensions(node, tensors)}


def _keeps_dimensions(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    return len(tensors[node.outputs[0]].shape) != 2


def _pairwise(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return _activation(node)


def _reshape(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"NewShape": tensors[node.outputs[0]].shape}


def _softmax(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    assert isinstance(node.op, Softmax)
    return {"Beta": _float32(node.op.beta, f"node {node.name!r}: beta")}


_OPTIONS: dict[type, tuple[str, str, Callable[[Node, Mapping[str, Tensor]], dict[str, Any]]]] = {
    Conv2D: ("Conv2DOptions", "CONV_2D", _conv),
    DepthwiseConv2D: ("DepthwiseConv2DOptions", "DEPTHWISE_CONV_2D", _depthwise),
    FullyConnected: ("FullyConnectedOptions", "FULLY_CONNECTED", _fully_connected),
    Add: ("AddOptions", "ADD", _pairwise),
    Sub: ("SubOptions", "SUB", _pairwise),
    Mul: ("MulOptions", "MUL", _pairwise),
    AveragePool2D: ("Pool2DOptions", "AVERAGE_POOL_2D", _pool),
    MaxPool2D: ("Pool2DOptions", "MAX_POOL_2D", _pool),
    Reshape: ("ReshapeOptions", "RESHAPE", _reshape),
    Softmax: ("SoftmaxOptions", "SOFTMAX", _softmax),
}
"""The schema's name of the options, of the operator, and what fills the options."""


def _activation(node: Node) -> dict[str, Any]:
    assert not isinstance(node.op, Reshape | Softmax | Opaque | Call)
    return {"FusedActivationFunction": ACTIVATIONS[node.op.activation]}


def _dilation(window: Window) -> dict[str, Any]:
    return {"DilationHFactor": window.dilations[0], "DilationWFactor": window.dilations[1]}


def _sliding(node: Node, tensors: Mapping[str, Tensor], window: Window) -> dict[str, Any]:
    _, height, width, _ = tensors[node.inputs[0]].shape
    same = same_pads((height, width), window)
    if not any(window.pads):
        padding = tflite.Padding.VALID
    elif window.pads == same:
        padding = tflite.Padding.SAME
    else:
        raise ModelError(
            f"node {node.name!r}: TFLite pads SAME {same} or VALID (0, 0, 0, 0), "
            f"not {window.pads} (top, bottom, left, right)"
        )
    return {"Padding": padding, "StrideH": window.strides[0], "StrideW": window.strides[1]}


def same_pads(image: tuple[int, int], window: Window) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of TFLite's SAME on an image of (height, width).

    The output has ``ceil(image / stride)`` rows; of an odd number of pads, the last one is
    behind.
    """
    pads: list[int] = []
    for extent, size, stride, dilation in zip(
        image, window.size, window.strides, window.dilations, strict=True
    ):
        reach = (-(-extent // stride) - 1) * stride + (size - 1) * dilation + 1
        total = max(reach - extent, 0)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


# --- the schema's other tables ---------------------------------------------------------------


def _tensor(b: flatbuffers.Builder, tensor: Tensor, buffer: int) -> int:
    if tensor.dtype not in TENSOR_TYPES:
        raise ModelError(f"tensor {tensor.name!r}: TFLite's writer has no type {tensor.dtype}")
    return _table(
        b,
        "Tensor",
        Shape=_vector(b, tensor.shape, np.int32),
        Type=TENSOR_TYPES[tensor.dtype],
        Buffer=buffer,
        Name=b.CreateString(tensor.name),
        Quantization=None if tensor.quant is None else _quantization(b, tensor.name, tensor.quant),
    )


def _quantization(b: flatbuffers.Builder, name: str, quant: Quant) -> int:
    scales = [_float32(scale, f"tensor {name!r}: scale") for scale in quant.scale]
    return _table(
        b,
        "QuantizationParameters",
        Scale=_vector(b, scales, np.float32),
        ZeroPoint=_vector(b, quant.zero_point, np.int64),
        QuantizedDimension=quant.axis or 0,
    )


def _float32(value: float, what: str) -> float:
    if float(np.float32(value)) != value:
        raise ModelError(f"{what} must be a 32-bit float, not {value!r}")
    return value


def _operator_code(b: flatbuffers.Builder, kind: str, version: int) -> int:
    code = getattr(tflite.BuiltinOperator, kind)
    return _table(b, "OperatorCode", DeprecatedBuiltinCode=code, Version=version, BuiltinCode=code)


def _data(b: flatbuffers.Builder, name: str, data: np.ndarray) -> int:
    if not data.size:
        raise ModelError(f"tensor {name!r}: TFLite has no constants without elements")
    little = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
    return _raw_vector(b, little.tobytes(), 1, DATA_ALIGNMENT)


def _vector(b: flatbuffers.Builder, values: Sequence[float], dtype: type[np.generic]) -> int:
    little = np.array(values, np.dtype(dtype).newbyteorder("<"))
    return _raw_vector(b, little.tobytes(), little.itemsize, little.itemsize)


def _raw_vector(b: flatbuffers.Builder, data: bytes, item: int, alignment: int) -> int:
    b.StartVector(item, len(data) // item, alignment)
    b.head -= len(data)
    b.Bytes[b.head : b.head + len(data)] = data
    return b.EndVector()


def _offsets(b: flatbuffers.Builder, tables: Sequence[int]) -> int:
    b.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        b.PrependUOffsetTRelative(table)
    return b.EndVector()


def _table(b: flatbuffers.Builder, kind: str, **fields: Any) -> int:
    """A table of the schema; what it refers to has been written before, None is left out."""
    getattr(tflite, f"{kind}Start")(b)
    for name, value in fields.items():
        if value is not None:
            getattr(tflite, f"{kind}Add{name}")(b, value)
    return getattr(tflite, f"{kind}End")(b)
