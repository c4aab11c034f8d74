"""The tensor graph: typed, quantized tensors and the operators between them.

Grammar
-------
::

    graph  := Graph(name, tensors, nodes, inputs, outputs, carried)
    tensor := Tensor(name, dtype, shape, quant, data)          data only for constants
    node   := Node(name, op, inputs, outputs)                  tensors by name, "" for absent
    op     := Conv2D | DepthwiseConv2D | FullyConnected | Add | Sub | Mul | AveragePool2D
            | MaxPool2D | Reshape | Softmax | Call | Opaque

Layouts are those of TFLite: activations NHWC, convolution weights OHWI, depthwise weights 1HWC,
fully connected weights OI. A :class:`Call` is any operator of :mod:`weft.compiler.catalog`, which
says what it takes and computes; those have ONNX's names, layouts (NCHW) and meanings. The real
value of a quantized integer ``q`` is ``scale * (q - zero_point)``. A graph is immutable; nodes
stand in an order in which every tensor is written before it is read, and every tensor has one
writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..isa.nest import BOOL, DType
from ..isa.storage import numpy_dtype


def element_dtype(dtype: DType) -> np.dtype[Any]:
    """The numpy type of a tensor's elements; truth values are numpy's, a byte each."""
    return np.dtype(bool) if dtype == BOOL else numpy_dtype(dtype)


def op_name(op: Op) -> str:
    """What an operator is called in reports and messages."""
    return op.kind if isinstance(op, Call) else type(op).__name__


@dataclass(frozen=True)
class Quant:
    """Affine quantization, of the whole tensor or of each slice along ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value; ``data`` (C-contiguous, of ``shape``) makes it a constant."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    quant: Quant | None = None
    data: np.ndarray | None = field(default=None, repr=False)


Activation = Literal["none", "relu", "relu6", "relu_n1_to_1"]
Rounding = Literal["away", "fine", "even"]
"""How a sum becomes a byte, in two roundings (:mod:`weft.isa.requantize`).

``away`` is TensorFlow Lite's. ``fine`` is the same, but a filter's accumulators are shifted left,
before they are scaled, by as many bits as a channel's sum certainly has to spare: so much finer is
the first rounding. ``even``, ONNX's, has a first rounding to ``weft.compiler.scales.EVEN_PLACES``
binary places whatever a sum may be, and a second one whose ties go to even. Hardware without the
extension ``to_even`` takes ``fine`` in its place (:mod:`.rounding`).
"""


@dataclass(frozen=True)
class Window:
    """How a filter slides: all pairs are (vertical, horizontal), in elements."""

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, bottom, left, right."""


@dataclass(frozen=True)
class Conv2D:
    """Inputs x [N,H,W,C], weights [O,KH,KW,C], bias [O] i32 or absent."""

    window: Window
    activation: Activation = "none"
    rounding: Rounding = "away"


@dataclass(frozen=True)
class DepthwiseConv2D:
    """Inputs x [N,H,W,C], weights [1,KH,KW,C*multiplier], bias or absent.

    Output channel ``o`` reads input channel ``o // multiplier``.
    """

    window: Window
    multiplier: int = 1
    activation: Activation = "none"
    rounding: Rounding = "away"


@dataclass(frozen=True)
class FullyConnected:
    """Inputs x (flattened to [rows, I]), weights [O,I], bias [O] or absent."""

    activation: Activation = "none"
    rounding: Rounding = "away"


@dataclass(frozen=True)
class Add:
    """Element-wise sum of two tensors; shapes broadcast as numpy's do."""

    activation: Activation = "none"
    rounding: Rounding = "away"


@dataclass(frozen=True)
class Sub:
    """Element-wise difference of two tensors; shapes broadcast as numpy's do."""

    activation: Activation = "none"
    rounding: Rounding = "away"


@dataclass(frozen=True)
class Mul:
    """Element-wise product of two tensors; shapes broadcast as numpy's do."""

    activation: Activation = "none"
    rounding: Rounding = "away"


Ties = Literal["away", "up"]


@dataclass(frozen=True)
class AveragePool2D:
    """Mean over the window's elements inside the image."""

    window: Window
    activation: Activation = "none"
    ties: Ties = "away"
    """Where a mean between two integers goes: away from zero, or up."""


@dataclass(frozen=True)
class MaxPool2D:
    """Maximum over the window's elements inside the image."""

    window: Window
    activation: Activation = "none"


@dataclass(frozen=True)
class Reshape:
    """The same elements in row-major order under the output's shape."""


@dataclass(frozen=True)
class Softmax:
    """Over the last axis, of ``beta`` times the real value."""

    beta: float = 1.0


Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """An operator of the catalog, by its name there."""

    kind: str
    attributes: tuple[tuple[str, Attribute], ...] = ()
    """By name, in the names' order."""


@dataclass(frozen=True)
class Opaque:
    """An operator of the model file that Weft does not know, kept by its name."""

    kind: str


Filter = Conv2D | DepthwiseConv2D | FullyConnected
"""Operators that sum products with weights."""
Rounded = Filter | Add | Sub | Mul
"""Operators that have a way of rounding."""
Op = Rounded | AveragePool2D | MaxPool2D | Reshape | Softmax | Call | Opaque


@dataclass(frozen=True)
class Node:
    """One use of an operator; ``name`` is unique in its graph."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: what goes in, what is computed, what comes out."""

    name: str
    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    carried: Mapping[str, str] = field(default_factory=dict[str, str])
    """Constants that have another value in the next inference, each with the tensor whose value
    that is. Their own data are what the first one begins with."""
