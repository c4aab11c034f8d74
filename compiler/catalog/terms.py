"""What lowerings to loop nests share: buffers, loads and stores, loops, and small expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...isa.nest import (
    BOOL,
    F16,
    F32,
    I32,
    U8,
    Binary,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    Index,
    Load,
    Math,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    expr,
    promote,
)
from ...isa.traverse import loops
from ..graph import Tensor
from .site import Code, Shape, Site

ONE, ZERO = expr(1), expr(0)


def computed(dtype: DType) -> DType:
    """The type in which values of a type are computed with: half precision in single."""
    return F32 if dtype == F16 else dtype


def held(dtype: DType) -> DType:
    """The type of a tensor's buffer, a byte at least."""
    return DType(dtype.kind, max(dtype.bits, U8.bits))


def buffer(tensor: Tensor, shape: Shape | None = None) -> Buffer:
    """The buffer of a tensor; a scalar's has one element."""
    shape = tensor.shape if shape is None else shape
    return Buffer(tensor.name, held(tensor.dtype), shape or (1,))


def load(tensor: Tensor, indices: Sequence[Expr]) -> Expr:
    """An element of a tensor, in the type to compute with."""
    value = Load(tensor.name, tuple(indices) or (ZERO,))
    return Cast(F32, value) if tensor.dtype == F16 else value


def store(tensor: Tensor, indices: Sequence[Expr], value: Expr, dtype: DType) -> Stmt:
    """A store of a value of type ``dtype``; truth values become 0 or 1."""
    if tensor.dtype == BOOL:
        value = Cast(U8, value)
    elif tensor.dtype != dtype and (tensor.dtype.kind == "f" or dtype.kind == "f"):
        value = Cast(tensor.dtype, value)
    return Store(tensor.name, tuple(indices) or (ZERO,), value)


def number(value: float, dtype: DType) -> Expr:
    """A literal of the type that values of ``dtype`` are computed in."""
    kind = computed(dtype)
    if kind.kind == "f":
        return Const(float(value), kind)
    return Const(int(value), kind if kind.bits >= 32 else I32)


def axes_of(shape: Shape, prefix: str = "i") -> tuple[tuple[str, int], ...]:
    """A loop for every axis of a shape."""
    return tuple((f"{prefix}{k}", extent) for k, extent in enumerate(shape))


def indices_of(axes: Sequence[tuple[str, int]]) -> tuple[Expr, ...]:
    """The indices of loops."""
    return tuple(Index(name) for name, _ in axes)


def broadcast_load(tensor: Tensor, shape: Shape, indices: Sequence[Expr]) -> Expr:
    """The element that belongs to the element of a broadcast shape at ``indices``."""
    own = indices[len(shape) - len(tensor.shape) :]
    return load(tensor, [ZERO if n == 1 else i for n, i in zip(tensor.shape, own, strict=True)])


def pointwise(site: Site, value: Callable[..., Expr], dtype: DType | None = None) -> Code:
    """An output whose elements are ``value`` of the elements of the present inputs.

    ``dtype`` is the type of the value, by default that of the output.
    """
    inputs, out = site.present(), site.out
    same = all(t.shape == out.shape or math.prod(t.shape) == 1 for t in inputs)
    if same and len(out.shape) < 3:  # images may lie otherwise than row by row
        return flat(site, inputs, value, dtype)
    axes = axes_of(out.shape)
    indices = indices_of(axes)
    operands = [broadcast_load(t, out.shape, indices) for t in inputs]
    body = store(out, indices, value(*operands), dtype or computed(out.dtype))
    names = {t.name: buffer(t) for t in (*inputs, out)}
    return Code(Nest(site.name, (), tuple(names.values()), loops(axes, body)), {})


def flat(
    site: Site, inputs: Sequence[Tensor], value: Callable[..., Expr], dtype: DType | None = None
) -> Code:
    """The same where inputs are of the output's shape, or of one element."""
    out, i = site.out, Index("i")
    count = math.prod(out.shape)
    sizes = [math.prod(t.shape) for t in inputs]
    operands = [
        load(t, (ZERO if size == 1 and count != 1 else i,))
        for t, size in zip(inputs, sizes, strict=True)
    ]
    body = store(out, (i,), value(*operands), dtype or computed(out.dtype))
    names = {t.name: buffer(t, (math.prod(t.shape),)) for t in (*inputs, out)}
    return Code(Nest(site.name, (), tuple(names.values()), loops([("i", count)], body)), {})


def code(
    site: Site,
    buffers: Sequence[Buffer],
    body: Stmt,
    constants: Mapping[str, np.ndarray] | None = None,
    scratch: Sequence[Buffer] = (),
) -> Code:
    """A nest over these buffers; each stands once."""
    names = {b.name: b for b in (*buffers, *scratch)}
    nest = Nest(site.name, (), tuple(names.values()), body)
    return Code(nest, constants or {}, tuple(b.name for b in scratch))


def added(site: Site, suffix: str) -> str:
    """A name for an array that a lowering makes; no tensor is called so."""
    return f"{site.name} {suffix}"


# --- small expressions -----------------------------------------------------------------------


def divide(a: Expr, b: Expr) -> Expr:
    """The quotient of floats."""
    return Binary("div", a, b)


def function(name: str, *arguments: Expr) -> Expr:
    """A function of floating point."""
    return Math(name, arguments)


def equal(a: Expr, b: Expr) -> Expr:
    """Whether they are equal."""
    return Binary("eq", a, b)


def invert(a: Expr) -> Expr:
    """A truth value's contrary."""
    return Binary("eq", a, ZERO)


def less(a: Expr, b: Expr) -> Expr:
    """Whether ``a`` is less."""
    return Binary("lt", a, b)


def choose(cond: Expr, a: Expr, b: Expr) -> Expr:
    """``a`` where the condition holds, else ``b``."""
    return Select(cond, a, b)


def total(axes: Sequence[tuple[str, int]], body: Expr) -> Expr:
    """A sum over axes; of no axes, ``body``."""
    return Sum(tuple(axes), body) if axes else body


__all__ = [
    "ONE", "ZERO", "added", "axes_of", "broadcast_load", "buffer", "choose", "code", "computed",
    "divide", "equal", "flat", "function", "held", "indices_of", "invert", "less", "load", "loops",
    "number", "pointwise", "promote", "store", "total",
]  # fmt: skip
