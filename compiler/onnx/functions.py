"""Operators that are composed of others: functions of a model, and those of ONNX's schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...isa.nest import BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, DType
from ..graph import Tensor
from .source import onnx

CODES: Mapping[DType, int] = {
    F32: 1, U8: 2, I8: 3, U16: 4, I16: 5, I32: 6, I64: 7, BOOL: 9, F16: 10, F64: 11, U32: 12,
    DType("u", 64): 13, DType("u", 4): 21, DType("i", 4): 22, DType("u", 2): 25, DType("i", 2): 26,
}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """The nodes that a node stands for."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: Sequence[Any]
    opsets: Mapping[str, int]
    defaults: Mapping[str, Any]

    @classmethod
    def local(cls, proto: Any) -> Body:
        """A FunctionProto's."""
        versions = {
            "" if o.domain == "ai.onnx" else o.domain: int(o.version) for o in proto.opset_import
        }
        defaults = {attribute.name: attribute for attribute in proto.attribute_proto}
        return cls(tuple(proto.input), tuple(proto.output), proto.node, versions, defaults)


def body_of(
    schema: Any,
    version: int,
    node: Any,
    attributes: Mapping[str, Any],
    inputs: Sequence[Tensor | None],
) -> Body | None:
    """What ONNX's schema composes a node of; None where it is an operator of its own."""
    package = onnx()
    proto = package.FunctionProto()
    whole = package.NodeProto()
    whole.CopyFrom(node)
    del whole.attribute[:]
    for name, attribute in attributes.items():
        copy = whole.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = name
    # A body is written in an opset; where the model's is newer than any, the newest one holds.
    chosen = [v for v in schema.function_opset_versions if v <= version]
    dependent = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    try:
        if chosen:
            proto.ParseFromString(schema.get_function_with_opset_version(max(chosen)))
        elif dependent:
            types = [_type(tensor) for tensor in inputs]
            raw = schema.get_context_dependent_function_with_opset_version(
                max(dependent), whole.SerializeToString(), types
            )
            proto.ParseFromString(raw)
        else:
            return None
    except (RuntimeError, ValueError):
        return None
    if not proto.node:
        return None
    body = Body.local(proto)
    defaults = {
        name: wanted.default_value
        for name, wanted in schema.attributes.items()
        if wanted.default_value.name
    }
    return Body(body.inputs, body.outputs, body.nodes, body.opsets, {**defaults, **body.defaults})


def _type(tensor: Tensor | None) -> bytes:
    proto = onnx().TypeProto()
    if tensor is not None:
        proto.tensor_type.elem_type = CODES[tensor.dtype]
        for extent in tensor.shape:
            proto.tensor_type.shape.dim.add().dim_value = extent
        if not tensor.shape:
            proto.tensor_type.shape.SetInParent()
    return proto.SerializeToString()
