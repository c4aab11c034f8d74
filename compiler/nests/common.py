"""What every lowering from a node to a loop nest shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ...isa.nest import (
    Buffer,
    Const,
    DType,
    Expr,
    For,
    Index,
    Load,
    Nest,
    Stmt,
    expr,
    maximum,
    minimum,
)
from ..graph import Activation, Graph, Node, Quant, Rounded, Rounding, Tensor, Window
from ..scales import clamp_range

LOOPS = ("n", "y", "x", "c")
"""The indices of an activation; of one of lower rank, the last ones."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A node as a loop nest.

    Attributes
    ----------
    nest : Nest
        Its buffers are the node's inputs and outputs under the graph's names (some flattened),
        ``constants``, and ``scratch``.
    constants : mapping
        The arrays that the lowering made, by buffer name; read only.
    scratch : tuple of str
        Buffers that hold nothing before or after.
    """

    nest: Nest
    constants: Mapping[str, np.ndarray]
    scratch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Use:
    """A node with its tensors."""

    graph: Graph
    node: Node

    def tensor(self, position: int) -> Tensor | None:
        """An input; None where it is absent."""
        names = self.node.inputs[position : position + 1]
        return self.graph.tensors[names[0]] if names and names[0] else None

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.graph.tensors[self.node.inputs[0]]

    @property
    def w(self) -> Tensor:
        """The second input."""
        return self.graph.tensors[self.node.inputs[1]]

    @property
    def out(self) -> Tensor:
        """The output."""
        return self.graph.tensors[self.node.outputs[0]]

    def quant(self, tensor: Tensor) -> Quant:
        """The quantization of a tensor that has one in a verified graph."""
        assert tensor.quant is not None, tensor.name
        return tensor.quant

    def zero_point(self, tensor: Tensor) -> int:
        """Of a tensor that is quantized as a whole."""
        return self.quant(tensor).zero_point[0]

    def other_type(self, types: tuple[DType, ...]) -> str | None:
        """A complaint if the first input is of none of these types."""
        if self.x.dtype in types:
            return None
        return f"{self.x.name!r} is {self.x.dtype}; {' or '.join(map(str, types))} is expected"

    def clamp(self) -> tuple[int, int]:
        """The range of the output after the fused activation."""
        activation: Activation = getattr(self.node.op, "activation", "none")
        return clamp_range(activation, self.quant(self.out), self.out.dtype)

    @property
    def rounding(self) -> Rounding:
        """How sums become bytes."""
        return self.node.op.rounding if isinstance(self.node.op, Rounded) else "away"


def buffer_of(tensor: Tensor, shape: tuple[int, ...] | None = None) -> Buffer:
    """The buffer of a tensor, if need be under another shape."""
    return Buffer(tensor.name, tensor.dtype, tensor.shape if shape is None else shape)


def parallel(loops: Iterable[tuple[str, int]], body: Stmt) -> Stmt:
    """``body`` under loops from 0, the first outermost."""
    for index, extent in reversed(list(loops)):
        body = For(index, expr(0), expr(extent), body, parallel=True)
    return body


def clamped(value: Expr, bounds: tuple[int, int]) -> Expr:
    """``value``, but at least and at most."""
    low, high = bounds
    return minimum(maximum(value, low), high)


def position(window: Window) -> tuple[Expr, Expr]:
    """Row and column of the input under tap (ky, kx) of the window at (y, x)."""
    top, _, left, _ = window.pads
    row = Index("y") * window.strides[0] + Index("ky") * window.dilations[0] - top
    column = Index("x") * window.strides[1] + Index("kx") * window.dilations[1] - left
    return row, column


def inside(x: Tensor, row: Expr, column: Expr) -> Expr:
    """Whether that row and column are within the image."""
    _, height, width, _ = x.shape
    return (expr(0) <= row) & (row < height) & (expr(0) <= column) & (column < width)


def taps_of(window: Window) -> tuple[tuple[str, int], ...]:
    """The axes of a sum over the taps of a window."""
    return ("ky", window.size[0]), ("kx", window.size[1])


def valid_taps(window: Window, x: Tensor) -> Expr:
    """How many taps of the window at (y, x) lie inside the image."""
    if not any(window.pads):
        return Const(window.size[0] * window.size[1])
    return _count("y", window, 0, x.shape[1]) * _count("x", window, 1, x.shape[2])


def _count(index: str, window: Window, axis: int, extent: int) -> Expr:
    """How many taps of the window at ``index`` lie inside along an axis."""
    first = Index(index) * window.strides[axis] - window.pads[2 * axis]
    return minimum(first + window.size[axis], extent) - maximum(first, 0)


def loops_of(use: Use) -> tuple[tuple[str, int], ...]:
    """The loops over the elements of the output."""
    shape = use.out.shape or (1,)
    few = len(shape) <= len(LOOPS)
    names = LOOPS[len(LOOPS) - len(shape) :] if few else [f"d{i}" for i in range(len(shape))]
    return tuple(zip(names, shape, strict=True))


def element_of(use: Use, tensor: Tensor) -> Expr:
    """The operand's element that belongs to the output's; index 0 where it is broadcast."""
    loops = loops_of(use)
    own = (1,) * (len(loops) - len(tensor.shape)) + tensor.shape
    indices = [
        Index(loop) if extent == whole else expr(0)
        for (loop, whole), extent in zip(loops, own, strict=True)
    ]
    return Load(tensor.name, tuple(indices[len(loops) - len(tensor.shape or (1,)) :]))
