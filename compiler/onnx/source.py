"""What is inside of an ONNX file, with nothing taken on trust: types, tensors, attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...isa.errors import MissingToolError, ModelError, UnsupportedError
from ...isa.nest import DType
from ..catalog.narrow import NARROW, unpacked
from ..catalog.pointwise import type_of_code
from ..graph import Attribute, element_dtype

BYTES_LIMIT = 1 << 31
"""No tensor of a file is larger."""


def onnx() -> Any:
    """The package, imported where it is needed.

    Raises
    ------
    MissingToolError
        If it is not installed.
    """
    try:
        import onnx as package
    except ImportError:
        raise MissingToolError(
            "reading ONNX files needs the package onnx: pip install 'weft[onnx]'"
        ) from None
    return package


def parse(data: bytes, name: str) -> Any:
    """The protobuf message of a model file; ModelError if it is none."""
    package = onnx()
    from google.protobuf.message import DecodeError

    model = package.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError):
        raise ModelError(f"{name}: not an ONNX file, or a damaged one") from None
    if not _readable(model):
        raise ModelError(f"{name}: a damaged ONNX file: a text in it is not UTF-8")
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{name}: not an ONNX file, or a damaged one: it has no graph or opset")
    return model


def _readable(message: Any) -> bool:
    """Whether all texts are; protobuf gives the bytes of one that is not."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if isinstance(value, bytes):
                return False
            if not isinstance(value, str) and any(isinstance(text, bytes) for text in value):
                return False
        elif field.type == field.TYPE_MESSAGE:
            inner = [value] if hasattr(value, "ListFields") else value
            if not all(map(_readable, inner)):
                return False
    return True


def type_name(code: int) -> str:
    """What ONNX calls an element type."""
    names = onnx().TensorProto.DataType
    return names.Name(code).lower() if code in names.values() else f"type {code}"


def array_of(tensor: Any, folder: Path | None, where: str) -> np.ndarray:
    """The value of a tensor in the file, or in a file beside it.

    Raises
    ------
    ModelError
        If its bytes do not fit its shape, or lie outside of the model's folder.
    UnsupportedError
        If its type is none that a graph holds.
    """
    dtype = type_of_code(tensor.data_type)
    if dtype is None:
        raise UnsupportedError(f"{where}: elements of type {type_name(tensor.data_type)}")
    kind, shape = element_dtype(dtype), tuple(tensor.dims)
    if any(extent < 0 for extent in shape) or math.prod(shape) * kind.itemsize > BYTES_LIMIT:
        raise ModelError(f"{where}: a constant of shape {list(shape)}")
    if tensor.data_location == onnx().TensorProto.EXTERNAL:
        if dtype in NARROW:
            raw = _external(tensor, folder, -(-math.prod(shape) * dtype.bits // 8), where)
            data = np.frombuffer(raw, np.uint8)
            return unpacked(data, dtype, math.prod(shape)).reshape(shape)
        raw = _external(tensor, folder, math.prod(shape) * kind.itemsize, where)
        return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind).reshape(shape)
    try:
        value = onnx().numpy_helper.to_array(tensor)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        text = str(error).splitlines() or [""]
        raise ModelError(f"{where}: a damaged constant ({text[0]:.80})") from None
    if value.shape != shape:
        raise ModelError(f"{where}: a constant of {value.size} elements, not {list(shape)}")
    return np.require(value, kind, "C").reshape(shape)


def _external(tensor: Any, folder: Path | None, size: int, where: str) -> bytes:
    """The bytes of a tensor in another file of the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(f"{where}: its data is in {location!r}, and the model has no folder")
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        inside = path.is_relative_to(root) and path.is_file()
    except (OSError, ValueError):
        inside, path = False, root
    if not location or not inside:
        raise ModelError(f"{where}: its data is in {location!r}, not a file in the model's folder")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise ModelError(f"{where}: its data has no place in {location!r}") from None
    if offset < 0 or length != size:
        raise ModelError(f"{where}: {length} bytes of {location!r} from {offset}, not {size}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
    except (OSError, OverflowError, ValueError) as error:
        raise ModelError(f"{where}: {location!r} cannot be read ({error})") from None
    if len(raw) != size:
        raise ModelError(f"{where}: {location!r} ends before its {size} bytes from {offset}")
    return raw


def attribute_of(proto: Any, where: str) -> Attribute | None:
    """A plain attribute's value; None for a tensor, a graph and other things.

    Raises
    ------
    ModelError
        If it is a text that is none.
    """
    kinds = onnx().AttributeProto
    try:
        match proto.type:
            case kinds.INT:
                return int(proto.i)
            case kinds.FLOAT:
                return float(proto.f)
            case kinds.STRING:
                return proto.s.decode()
            case kinds.INTS:
                return tuple(int(v) for v in proto.ints)
            case kinds.FLOATS:
                return tuple(float(v) for v in proto.floats)
            case kinds.STRINGS:
                return tuple(v.decode() for v in proto.strings)
    except UnicodeDecodeError:
        raise ModelError(f"{where}: attribute {proto.name!r} is no text") from None
    return None


def type_of_value(info: Any, where: str) -> tuple[DType, tuple[int | str, ...]]:
    """The type of a graph's input, and its extents: numbers, or names of symbols.

    Raises
    ------
    UnsupportedError
        If it is no tensor, or of a type that a graph does not hold.
    """
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(f"{where}: input {info.name!r} is a {kind or 'thing of no type'}")
    tensor = info.type.tensor_type
    dtype = type_of_code(tensor.elem_type)
    if dtype is None:
        raise UnsupportedError(
            f"{where}: input {info.name!r} has elements of type {type_name(tensor.elem_type)}"
        )
    if not tensor.HasField("shape"):
        raise UnsupportedError(f"{where}: input {info.name!r} has no rank")
    dims: list[int | str] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.WhichOneof("value") == "dim_value":
            if not 0 <= dim.dim_value < BYTES_LIMIT:
                raise ModelError(f"{where}: input {info.name!r} has an extent of {dim.dim_value}")
            dims.append(int(dim.dim_value))
        else:
            dims.append(dim.dim_param or f"{info.name}.{axis}")
    return dtype, tuple(dims)


def opsets(model: Any, where: str) -> Mapping[str, int]:
    """The version of each domain that a model or function uses.

    Raises
    ------
    UnsupportedError
        If it is older or newer than what is known.
    """
    found = {"" if o.domain == "ai.onnx" else o.domain: int(o.version) for o in model.opset_import}
    version, newest = found.get(""), onnx().defs.onnx_opset_version()
    if version is not None and not OLDEST_OPSET <= version <= newest:
        raise UnsupportedError(
            f"{where}: opset {version}; {OLDEST_OPSET} to {newest} are supported"
        )
    return found


OLDEST_OPSET = 7
"""From 13 on everything is meant as it is now; before, what :mod:`.older` lists was not."""
