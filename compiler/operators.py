"""Operators as loop nests: what each node of the tensor graph computes, integer by integer.

The forms are fixed, so that instructions can be matched with them. Notation: ``x`` input, ``w``
weights, ``out`` output under their names in the graph and in TFLite's layouts; all constants that
a lowering makes are arrays ``<node>.bias``, ``.multiplier``, ``.left``, ``.right`` of ``i32``, one
element an output channel. Nothing is simplified: strides of 1 and pads of 0 are written out.

Conv2D
    for n, y, x, o: ``out[n,y,x,o] = requantize(bias[o] + Sum[ky,kx,c](pixel * w[o,ky,kx,c]), ...)``
    where ``pixel`` is ``x[n, y*sy + ky*dy - top, x*sx + kx*dx - left, c]``; if the window has any
    pad, ``Select(inside, x[...], zero_point)`` with
    ``inside = (0 <= row) & (row < H) & (0 <= column) & (column < W)``. ``bias[o]`` is the node's
    bias less ``zero_point * sum(w[o])``, modulo 2**32.
DepthwiseConv2D
    The same with channel ``o // multiplier`` (``o`` if that is 1) and ``w[0,ky,kx,o]``.
FullyConnected
    for n, o: the same over ``x[n,c] * w[o,c]``, with ``x`` as [rows, depth], ``out`` as [rows, O].
Add
    for every element: ``requantize(rescale(a - zp_a, m_a, 20, r_a) + rescale(b - zp_b, m_b, 20,
    r_b), m, 0, r, zp_out, low, high)``; an operand that is broadcast has index 0 there.
AveragePool2D, MaxPool2D
    Over the elements inside; the mean is rounded half away from zero.
Reshape
    for i: ``out[i] = x[i]``, both flat.
Softmax
    See :mod:`.softmax`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..isa.errors import UnsupportedError
from ..isa.nest import (
    F32,
    I8,
    I32,
    Block,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Operand,
    Select,
    Stmt,
    Store,
    Sum,
    expr,
    maximum,
    minimum,
)
from ..isa.requantize import requantize, rescale
from . import softmax
from .graph import (
    Activation,
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Node,
    Op,
    Opaque,
    Quant,
    Reshape,
    Softmax,
    Tensor,
    Window,
)
from .scales import LEFT_LIMIT, Rescale, clamp_range, filter_factors

CONSTANTS = ("bias", "multiplier", "left", "right")
"""What a convolution's lowering makes, one element a channel each."""
ADD_LEFT = 20
"""By how much the operands of an addition are shifted left before they are rescaled."""


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


def nest_of(graph: Graph, node: Node) -> Operator:
    """What ``node`` computes.

    Parameters
    ----------
    graph : Graph
        A verified graph.
    node : Node
        One of its nodes.

    Raises
    ------
    UnsupportedError
        Where :func:`reason_against` gives a reason.
    """
    reason = reason_against(graph, node)
    if reason is not None:
        raise UnsupportedError(f"{graph.name}: node {node.name!r}: {reason}")
    return LOWERINGS[type(node.op)](_Use(graph, node))


def reason_against(graph: Graph, node: Node) -> str | None:
    """Why ``node`` has no loop nest; None if it has one."""
    use = _Use(graph, node)
    match node.op:
        case Opaque(kind):
            return f"Weft has no operator {kind}"
        case Reshape():
            return use.other_type((F32, I8, I32))
        case _:
            reason = use.other_type((I8,))
    if reason is not None:
        return reason
    made = {f"{node.name}.{suffix}" for suffix in (*CONSTANTS, *softmax.SCRATCH)}
    for name in made.intersection((*node.inputs[:2], *node.outputs)):
        return f"its tensor {name!r} is called like an array that Weft makes for it"
    match node.op:
        case Conv2D() | DepthwiseConv2D() | FullyConnected():
            return _reason_against_filter(use)
        case Add():
            if _add_scales(use)[2].left:
                return "the output's scale is too small for that of the inputs"
        case Softmax(beta):
            return softmax.reason_against(
                use.x, use.quant(use.x).scale[0], beta, use.quant(use.out)
            )
        case _:
            pass
    return None


@dataclass(frozen=True)
class _Use:
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


# --- convolutions ---------------------------------------------------------------------------------


def _reason_against_filter(use: _Use) -> str | None:
    for tensor in filter(None, (use.w, use.tensor(2))):
        if tensor.data is None:
            return f"{tensor.name!r} is computed; constant weights and bias are expected"
    if any(use.quant(use.w).zero_point):
        return f"{use.w.name!r} has a zero point other than 0"
    if any(scale.left > LEFT_LIMIT for scale in _filter_scales(use)):
        return f"the output's scale is less than 2**-{LEFT_LIMIT} of that of the products"
    return None


def _filter_scales(use: _Use) -> list[Rescale]:
    x, weights, out = (use.quant(tensor) for tensor in (use.x, use.w, use.out))
    joint = isinstance(use.node.op, FullyConnected)
    factors = filter_factors(x, weights, out, use.out.shape[-1], joint)
    return [Rescale.of(factor) for factor in factors]


def _filter_constants(use: _Use) -> dict[str, np.ndarray]:
    """Bias with the input's zero point folded in, and the scales, one element a channel."""
    weights, bias = use.w.data, use.tensor(2)
    assert weights is not None
    axis = 3 if isinstance(use.node.op, DepthwiseConv2D) else 0
    sums = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).sum(1, dtype=np.int64)
    folded = -use.zero_point(use.x) * sums
    if bias is not None:
        assert bias.data is not None
        folded += bias.data.reshape(-1)
    scales = _filter_scales(use)
    columns = (
        folded.astype(np.int32),  # keeps the low bits, as the accumulator does
        np.array([s.multiplier for s in scales], np.int32),
        np.array([s.left for s in scales], np.int32),
        np.array([s.right for s in scales], np.int32),
    )
    return {f"{use.node.name}.{name}": c for name, c in zip(CONSTANTS, columns, strict=True)}


def _filter(use: _Use, loops: tuple[str, ...], x: Buffer, out: Buffer, total: Expr) -> Operator:
    """``total`` summed for each element of ``out``, whose last loop is the channel, requantized."""
    constants = _filter_constants(use)
    channel = Index(loops[-1])
    bias, multiplier, left, right = (Load(name, (channel,)) for name in constants)
    low, high = use.clamp()
    value = requantize(bias + total, multiplier, left, right, use.zero_point(use.out), low, high)
    buffers = (
        x,
        _buffer(use.w),
        *(Buffer(name, I32, (out.shape[-1],)) for name in constants),
        out,
    )
    store = Store(out.name, tuple(map(Index, loops)), value)
    body = _parallel(zip(loops, out.shape, strict=True), store)
    return Operator(Nest(use.node.name, (), buffers, body), constants)


def _pixel(use: _Use, window: Window, channel: Expr) -> Expr:
    """The input's element under tap (ky, kx) of the window at (y, x); its zero point outside."""
    row, column = _position(window)
    value = Load(use.x.name, (Index("n"), row, column, channel))
    if not any(window.pads):
        return value
    return Select(_inside(use.x, row, column), value, Const(use.zero_point(use.x)))


def _position(window: Window) -> tuple[Expr, Expr]:
    """Row and column of the input under tap (ky, kx) of the window at (y, x)."""
    top, _, left, _ = window.pads
    row = Index("y") * window.strides[0] + Index("ky") * window.dilations[0] - top
    column = Index("x") * window.strides[1] + Index("kx") * window.dilations[1] - left
    return row, column


def _inside(x: Tensor, row: Expr, column: Expr) -> Expr:
    _, height, width, _ = x.shape
    return (expr(0) <= row) & (row < height) & (expr(0) <= column) & (column < width)


def _taps(window: Window) -> tuple[tuple[str, int], ...]:
    return ("ky", window.size[0]), ("kx", window.size[1])


def _conv2d(use: _Use) -> Operator:
    op = use.node.op
    assert isinstance(op, Conv2D)
    c, o, taps = Index("c"), Index("o"), (Index("ky"), Index("kx"))
    product = _pixel(use, op.window, c) * Load(use.w.name, (o, *taps, c))
    total = Sum((*_taps(op.window), ("c", use.x.shape[3])), product)
    return _filter(use, ("n", "y", "x", "o"), _buffer(use.x), _buffer(use.out), total)


def _depthwise(use: _Use) -> Operator:
    op = use.node.op
    assert isinstance(op, DepthwiseConv2D)
    o, taps = Index("o"), (Index("ky"), Index("kx"))
    channel = o if op.multiplier == 1 else o // op.multiplier
    product = _pixel(use, op.window, channel) * Load(use.w.name, (expr(0), *taps, o))
    total = Sum(_taps(op.window), product)
    return _filter(use, ("n", "y", "x", "o"), _buffer(use.x), _buffer(use.out), total)


def _fully_connected(use: _Use) -> Operator:
    channels, depth = use.w.shape
    rows = math.prod(use.out.shape) // channels
    x, out = _buffer(use.x, (rows, depth)), _buffer(use.out, (rows, channels))
    c = Index("c")
    product = Load(x.name, (Index("n"), c)) * Load(use.w.name, (Index("o"), c))
    return _filter(use, ("n", "o"), x, out, Sum((("c", depth),), product))


# --- the others -----------------------------------------------------------------------------------


def _add_scales(use: _Use) -> tuple[Rescale, Rescale, Rescale]:
    """Of the operands to twice the larger scale, and from there to the output."""
    a, b, out = (use.quant(tensor).scale[0] for tensor in (use.x, use.w, use.out))
    common = 2 * max(a, b)
    return (
        Rescale.of(a / common),
        Rescale.of(b / common),
        Rescale.of(common / ((1 << ADD_LEFT) * out)),
    )


def _add(use: _Use) -> Operator:
    shape = use.out.shape or (1,)
    loops = (
        LOOPS[4 - len(shape) :] if len(shape) <= 4 else tuple(f"d{i}" for i in range(len(shape)))
    )
    *scales, scale = _add_scales(use)

    def operand(tensor: Tensor, scale: Rescale) -> Expr:
        own = (1,) * (len(shape) - len(tensor.shape)) + tensor.shape
        indices = [
            Index(loop) if extent == whole else expr(0)
            for loop, extent, whole in zip(loops, own, shape, strict=True)
        ][len(shape) - len(tensor.shape or (1,)) :]
        value = Load(tensor.name, tuple(indices)) - use.zero_point(tensor)
        return rescale(value, scale.multiplier, ADD_LEFT, scale.right)

    total = operand(use.x, scales[0]) + operand(use.w, scales[1])
    zero_point, (low, high) = use.zero_point(use.out), use.clamp()
    value = requantize(total, scale.multiplier, 0, scale.right, zero_point, low, high)
    store = Store(use.out.name, tuple(map(Index, loops)), value)
    buffers = {t.name: _buffer(t, t.shape or (1,)) for t in (use.x, use.w, use.out)}
    body = _parallel(zip(loops, shape, strict=True), store)
    return Operator(Nest(use.node.name, (), tuple(buffers.values()), body), {})


def _average_pool(use: _Use) -> Operator:
    op = use.node.op
    assert isinstance(op, AveragePool2D)
    window, x = op.window, use.x
    row, column = _position(window)
    value: Expr = Load(x.name, (Index("n"), row, column, Index("c")))
    count: Expr = Const(window.size[0] * window.size[1])
    if any(window.pads):
        value = Select(_inside(x, row, column), value, Const(0))
        count = _count("y", window, 0, x.shape[1]) * _count("x", window, 1, x.shape[2])
    total, many = Index("total"), Index("count")
    half = many // 2
    mean = Select(total > 0, (total + half) // many, -((half - total) // many))
    store = Store(use.out.name, tuple(map(Index, LOOPS)), _clamped(mean, use.clamp()))
    body = Let("count", count, Let("total", Sum(_taps(window), value), store))
    return _pool(use, _parallel(zip(LOOPS, use.out.shape, strict=True), body))


def _count(index: str, window: Window, axis: int, extent: int) -> Expr:
    """How many taps of the window at ``index`` lie inside along an axis."""
    first = Index(index) * window.strides[axis] - window.pads[2 * axis]
    return minimum(first + window.size[axis], extent) - maximum(first, 0)


def _max_pool(use: _Use) -> Operator:
    """The output's element is the running maximum."""
    op = use.node.op
    assert isinstance(op, MaxPool2D)
    window, x, out = op.window, use.x, use.out
    row, column = _position(window)
    element = tuple(map(Index, LOOPS))
    so_far = Load(out.name, element)

    def channels(value: Operand) -> Stmt:
        return _parallel([("c", out.shape[3])], Store(out.name, element, expr(value)))

    tap = channels(maximum(so_far, Load(x.name, (Index("n"), row, column, Index("c")))))
    if any(window.pads):
        tap = If(_inside(x, row, column), tap)
    for index, extent in reversed(_taps(window)):
        tap = For(index, expr(0), expr(extent), tap)
    body = Block((channels(out.dtype.min), tap, channels(_clamped(so_far, use.clamp()))))
    return _pool(use, _parallel(zip(LOOPS[:3], out.shape[:3], strict=True), body))


def _pool(use: _Use, body: Stmt) -> Operator:
    return Operator(Nest(use.node.name, (), (_buffer(use.x), _buffer(use.out)), body), {})


def _reshape(use: _Use) -> Operator:
    count = (math.prod(use.x.shape),)
    i = Index("i")
    body = _parallel([("i", *count)], Store(use.out.name, (i,), Load(use.x.name, (i,))))
    buffers = (_buffer(use.x, count), _buffer(use.out, count))
    return Operator(Nest(use.node.name, (), buffers, body), {})


def _softmax(use: _Use) -> Operator:
    op = use.node.op
    assert isinstance(op, Softmax)
    rows = (math.prod(use.x.shape[:-1]), use.x.shape[-1])
    x, out = _buffer(use.x, rows), _buffer(use.out, rows)
    nest, scratch = softmax.nest(use.node.name, x, out, use.quant(use.x).scale[0], op.beta)
    return Operator(nest, {}, scratch)


# --- common ---------------------------------------------------------------------------------------

LOOPS = ("n", "y", "x", "c")
"""The indices of an activation; of one of lower rank, the last ones."""


def _buffer(tensor: Tensor, shape: tuple[int, ...] | None = None) -> Buffer:
    return Buffer(tensor.name, tensor.dtype, tensor.shape if shape is None else shape)


def _parallel(loops: Iterable[tuple[str, int]], body: Stmt) -> Stmt:
    """``body`` under loops from 0, the first outermost."""
    for index, extent in reversed(list(loops)):
        body = For(index, expr(0), expr(extent), body, parallel=True)
    return body


def _clamped(value: Expr, bounds: tuple[int, int]) -> Expr:
    low, high = bounds
    return minimum(maximum(value, low), high)


LOWERINGS: Mapping[type[Op], Callable[[_Use], Operator]] = {
    Conv2D: _conv2d,
    DepthwiseConv2D: _depthwise,
    FullyConnected: _fully_connected,
    Add: _add,
    AveragePool2D: _average_pool,
    MaxPool2D: _max_pool,
    Reshape: _reshape,
    Softmax: _softmax,
}
"""From a node to its loop nest."""
