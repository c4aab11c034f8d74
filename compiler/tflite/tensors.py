"""The tensors of a TFLite file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tflite

from ...isa.errors import UnsupportedError
from ...isa.nest import F32, F64, I8, I16, I32, I64, U8, U16, U32, DType
from ..catalog.narrow import unpacked
from ..graph import Quant, Tensor
from ..verify import RANK_LIMIT
from .source import Source

DTYPES: Mapping[int, DType] = {
    tflite.TensorType.INT8: I8,
    tflite.TensorType.INT16: I16,
    tflite.TensorType.INT32: I32,
    tflite.TensorType.INT64: I64,
    tflite.TensorType.UINT8: U8,
    tflite.TensorType.UINT16: U16,
    tflite.TensorType.UINT32: U32,
    tflite.TensorType.FLOAT16: DType("f", 16),
    tflite.TensorType.FLOAT32: F32,
    tflite.TensorType.FLOAT64: F64,
}
"""The element types that a graph can hold."""
PACKED: Mapping[int, int] = {tflite.TensorType.INT4: 4}
"""Signed integers of fewer bits; constants of these are held as bytes."""
TYPE_NAMES: Mapping[int, str] = {
    value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)
}


class Tensors:
    """The tensors of a subgraph by their index, read when they are asked for.

    Parameters
    ----------
    source : Source
        The file.
    model, subgraph
        Its tables.
    """

    def __init__(self, source: Source, model: Any, subgraph: Any):
        self.source = source
        self.buffers = source.tables(model, "Buffers")
        self.tables = source.tables(subgraph, "Tensors")
        self.file_names = [source.text(table.Name) for table in self.tables]
        self.variables: set[int] = set()
        """Those met so far that keep their value from one inference to the next."""
        self._read: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> Tensor:
        """The tensor of that index, under the file's name."""
        if not 0 <= index < len(self.tables):
            raise self.source.error(
                f"damaged TFLite file: tensor {index} of {len(self.tables)} is referred to"
            )
        if index not in self._read:
            self._read[index] = self._tensor(index)
        return self._read[index]

    def is_constant(self, index: int) -> bool:
        """Whether there is a tensor of that index with a value in the file; -1 is none."""
        return index >= 0 and self[index].data is not None

    def called(self, index: int) -> str:
        """A tensor for messages: its index and what the file calls it."""
        name = self.file_names[index]
        return f"tensor {index} ({name[:60]}{'...' * (len(name) > 60)})"

    def _tensor(self, index: int) -> Tensor:
        source, table, name = self.source, self.tables[index], self.called(index)
        code = source.access(table.Type)
        dtype = I8 if code in PACKED else DTYPES.get(code)
        if dtype is None:
            raise UnsupportedError(
                f"{source.name}: {name} has elements of type {TYPE_NAMES.get(code, code)}"
            )
        if source.access(table.Sparsity) is not None:
            raise UnsupportedError(f"{source.name}: {name} is stored sparsely")
        if source.access(table.IsVariable):
            self.variables.add(index)
        shape = source.integers(table, "Shape")
        if len(shape) > RANK_LIMIT or any(extent <= 0 for extent in shape):
            raise source.error(f"{name} has shape {list(shape[:RANK_LIMIT])} of rank {len(shape)}")
        data = self._data(index, dtype, shape, PACKED.get(code))
        if data is not None and index in self.variables:  # TensorFlow Lite's interpreter refuses it
            raise UnsupportedError(f"{source.name}: {name} is a variable with a value in the file")
        if code in PACKED and data is None:
            raise UnsupportedError(f"{source.name}: {name} is computed and of type INT4")
        return Tensor(self.file_names[index], dtype, shape, self._quant(index, shape), data)

    def _data(
        self, index: int, dtype: DType, shape: tuple[int, ...], bits: int | None
    ) -> np.ndarray | None:
        """The value of a constant, whose elements have so many bits in the file."""
        source, name = self.source, self.called(index)
        place = source.access(self.tables[index].Buffer)
        if place >= len(self.buffers):
            raise source.error(
                f"damaged TFLite file: {name} lies in buffer {place} of {len(self.buffers)}"
            )
        buffer = self.buffers[place]
        if source.access(buffer.Size) > 1:
            raise UnsupportedError(f"{source.name}: {name} lies outside of the flatbuffer")
        if source.access(buffer.DataLength) == 0:
            return None
        data = source.access(buffer.DataAsNumpy)
        expected = -(-math.prod(shape) * (bits or dtype.bits) // 8)
        if data.nbytes != expected:
            raise source.error(
                f"{name} of type {dtype} and shape {list(shape)} needs "
                f"{expected} bytes, its buffer has {data.nbytes}"
            )
        if bits is not None:
            return unpacked(data.view(np.uint8), DType("i", bits), math.prod(shape)).reshape(shape)
        return data.view(np.dtype(f"<{dtype.kind}{dtype.bits // 8}")).reshape(shape)

    def _quant(self, index: int, shape: tuple[int, ...]) -> Quant | None:
        source, name = self.source, self.called(index)
        table = source.access(self.tables[index].Quantization)
        if table is None:
            return None
        scale = tuple(float(s) for s in source.vector(table, "Scale", 4))
        zero_point = source.integers(table, "ZeroPoint", 8)
        if not scale:
            return None
        if len(zero_point) != len(scale):
            if len(zero_point) > 1:
                raise source.error(
                    f"{name} has {len(scale)} scales and {len(zero_point)} zero points"
                )
            zero_point = (zero_point or (0,)) * len(scale)
        if len(scale) == 1:
            return Quant(scale, zero_point)
        axis = source.access(table.QuantizedDimension)
        if not 0 <= axis < len(shape):
            raise source.error(f"{name} of rank {len(shape)} is quantized along axis {axis}")
        return Quant(scale, zero_point, axis)
