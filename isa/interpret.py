"""The meaning of the meanings: loop nests executed by numpy, plainly.

This is the oracle that the code generator, the simulators and the compiler are compared with.
Parallel loops and sums become axes of numpy arrays, so that a step of GEMM is a handful of numpy
operations; everything else is a Python loop. Nothing is simplified or reordered besides that.

A loop's or a sum's axis is put before those that are already open, so that values from outside
broadcast by themselves. Where a condition differs along an axis, both branches are computed
under a mask, and a load under a mask touches only the elements whose mask is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from .nest import (
    BOOL,
    COMPARISONS,
    I32,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Math,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    promote,
)
from .storage import bound_array, numpy_dtype
from .traverse import children

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTOR_LIMIT = 1 << 20
"""Elements that one numpy operation works on at most, roughly; longer loops go in pieces."""

Array = np.ndarray
Value = Any
"""A Python int or numpy float (the same for every open axis), or an array over the open axes."""


class AccessError(IndexError):
    """A nest would have touched an element that its buffer does not have.

    Attributes
    ----------
    buffer : str
        The buffer's name.
    axis : int
        On which axis.
    index : int or None
        At which index, where that is known.
    """

    def __init__(self, buffer: str, axis: int = 0, index: int | None = None, extent: str = ""):
        at = "" if index is None else f" at {index}"
        super().__init__(f"{buffer} was accessed beyond its extent{extent} on axis {axis}{at}")
        self.buffer, self.axis, self.index = buffer, axis, index


def interpret(
    nest: Nest,
    params: Mapping[str, int],
    arrays: Mapping[str, NDArray[Any]],
    checked: bool = True,
) -> None:
    """Execute ``nest``, changing ``arrays`` in place.

    Parameters
    ----------
    nest : Nest
        What to do.
    params : mapping
        A value for each of ``nest.params``; they wrap to ``i64``.
    arrays : mapping
        Memory for each of ``nest.buffers``, by name: an array of the buffer's type and shape, or
        memory as :func:`weft.isa.storage.bound_array` explains.
    checked : bool
        Whether every index is compared with its extent, and every shift amount with its width.
        Without, the caller knows that they are legal.

    Raises
    ------
    AccessError
        For an index out of range. What was stored before stays.
    ValueError
        For a shift amount out of range, or an array that does not fit its buffer.
    """
    memories = {b.name: _Memory(b, bound_array(b, arrays[b.name]), checked) for b in nest.buffers}
    state = _State({p: _wrap(int(params[p]), 64, "i") for p in nest.params}, memories)
    with np.errstate(all="ignore"):
        _plan(nest, checked)(state)


# --- values --------------------------------------------------------------------------------------


def _wrap(value: int, bits: int, kind: str) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind == "i" and value >> (bits - 1) else value


def convert(value: Value, source: DType, target: DType) -> Value:
    """``value`` of one type in another, as :class:`weft.isa.nest.Cast` has it."""
    if source == target:
        return value
    dtype = numpy_dtype(target)
    if target.kind == "f":
        return value.astype(dtype) if isinstance(value, np.ndarray) else dtype.type(value)
    if source.kind == "f":
        value = _saturated(value, target)
    if not isinstance(value, np.ndarray):
        return _wrap(int(value), target.bits, target.kind)
    value = value.astype(dtype)
    unused = dtype.itemsize * 8 - target.bits
    return (value << unused) >> unused if unused else value


def _saturated(value: Value, target: DType) -> Value:
    if not isinstance(value, np.ndarray):
        if math.isnan(value):
            return 0
        return min(max(int(value), target.min), target.max) if math.isfinite(value) else (
            target.max if value > 0 else target.min
        )  # fmt: skip
    low, high = float(target.min), float(target.max + 1)
    inside = (value > low) & (value < high)
    whole = np.where(inside, value, 0).astype(np.uint64 if target.kind == "u" else np.int64)
    wide = whole.astype(numpy_dtype(DType(target.kind, 64)))
    wide = np.where(value >= high, wide.dtype.type(target.max), wide)
    return np.where(value <= low, wide.dtype.type(target.min), wide)


def _holds(value: Value) -> Value:
    return value != 0


class _Memory:
    """A buffer with the array that stands for it."""

    def __init__(self, buffer: Buffer, array: Array, checked: bool):
        self.name, self.dtype, self.array, self.checked = buffer.name, buffer.dtype, array, checked
        self.packed = buffer.dtype.bits < 8
        self.extents = array.shape
        if self.packed:
            per_byte = 8 // buffer.dtype.bits
            inner = buffer.shape[1:]
            first = buffer.shape[0] or array.size * per_byte // math.prod(inner)
            self.extents = (first, *inner)

    def load(self, indices: list[Value], mask: Array | None) -> Value:
        indices, active = self._legal(indices, mask)
        if not active:
            return 0 if self.dtype.kind != "f" else numpy_dtype(self.dtype).type(0)
        if self.packed:
            return self._unpacked(indices)
        value = self.array[tuple(indices)]
        if isinstance(value, np.ndarray) or self.dtype.kind == "f":
            return value
        return int(value)

    def store(self, indices: list[Value], value: Value, mask: Array | None) -> None:
        indices, active = self._legal(indices, mask)
        if not active:
            return
        together = [value, *indices] if mask is None else [value, *indices, mask]
        if any(isinstance(v, np.ndarray) for v in together):
            # Every trip stores, also along an axis that the place does not depend on.
            value, *indices = np.broadcast_arrays(*together)
            if mask is not None:
                chosen = indices.pop()
                value, indices = value[chosen], [i[chosen] for i in indices]
        if self.packed:
            self._pack(indices, value)
        else:
            self.array[tuple(indices)] = value

    def _legal(self, indices: list[Value], mask: Array | None) -> tuple[list[Value], bool]:
        """The indices with those under a cleared mask made harmless, and whether any is left."""
        if mask is not None:
            if not mask.any():
                return indices, False
            indices = [np.where(mask, i, 0) if isinstance(i, np.ndarray) else i for i in indices]
        if self.checked:
            for axis, (index, extent) in enumerate(zip(indices, self.extents, strict=True)):
                least, most = _bounds(index)
                if least < 0 or most >= extent:
                    bad = least if least < 0 else most
                    raise AccessError(self.name, axis, bad, f" {extent}")
        return indices, True

    def _bits(self, indices: list[Value]) -> tuple[Value, Value]:
        at: Value = 0
        for index, extent in zip(indices, self.extents, strict=True):
            at = at * extent + index
        at = at * self.dtype.bits
        return at >> 3, at & 7

    def _unpacked(self, indices: list[Value]) -> Value:
        byte, bit = self._bits(indices)
        value = self.array[byte]
        if not isinstance(value, np.ndarray):
            return _wrap(int(value) >> int(bit), self.dtype.bits, self.dtype.kind)
        value = value >> bit.astype(np.uint8) if isinstance(bit, np.ndarray) else value >> bit
        return convert(value, DType("u", 8), self.dtype)

    def _pack(self, indices: list[Value], value: Value) -> None:
        byte, bit = self._bits(indices)
        mask = (1 << self.dtype.bits) - 1
        np.bitwise_and.at(self.array, byte, (~(mask << np.asarray(bit)) & 255).astype(np.uint8))
        shifted = ((np.asarray(value).astype(np.int64) & mask) << bit).astype(np.uint8)
        np.bitwise_or.at(self.array, byte, shifted)


class _State:
    """What an execution knows: bound names, memories, the mask and the open axes."""

    __slots__ = ("mask", "memories", "names", "rank", "size")

    def __init__(self, names: dict[str, Value], memories: Mapping[str, _Memory]):
        self.names, self.memories = names, memories
        self.mask: Array | None = None
        self.rank = 0
        self.size = 1

    def under(self, condition: Array) -> Array:
        """The mask narrowed by a condition."""
        return condition if self.mask is None else self.mask & condition


_axes: dict[tuple[int, int, int], Array] = {}
_axis_bounds: dict[int, tuple[int, int]] = {}
_AXES = 512


def _axis(start: int, stop: int, rank: int) -> Array:
    """A new axis of indices, before ``rank`` open ones."""
    axis = _axes.get((start, stop, rank))
    if axis is None:
        if len(_axes) >= _AXES:
            _axes.clear()
            _axis_bounds.clear()
        axis = np.arange(start, stop, dtype=np.int64).reshape((-1, *(1,) * rank))
        axis.flags.writeable = False
        _axes[start, stop, rank] = axis
        _axis_bounds[id(axis)] = start, stop - 1
    return axis


def _bounds(index: Value) -> tuple[int, int]:
    """The least and the greatest of an index; known without looking for a plain axis."""
    if not isinstance(index, np.ndarray):
        return index, index
    known = _axis_bounds.get(id(index))
    return known or (int(index.min()), int(index.max()))


# --- plans: nodes made into Python closures ------------------------------------------------------

Evaluate = Callable[[_State], Value]
Execute = Callable[[_State], None]

_plans: dict[tuple[int, bool], tuple[Nest, Execute]] = {}
_PLANS = 512


def _plan(nest: Nest, checked: bool) -> Execute:
    """The closure of a nest; kept by identity, for hashing a nest costs as much as running it."""
    found = _plans.get((id(nest), checked))
    if found is None or found[0] is not nest:
        if len(_plans) >= _PLANS:
            _plans.clear()
        planner = _Planner({b.name: b for b in nest.buffers}, checked)
        found = _plans[id(nest), checked] = nest, planner.stmt(nest.body)
    return found[1]


class _Planner:
    """Turns nodes into closures over a :class:`_State`."""

    def __init__(self, buffers: Mapping[str, Buffer], checked: bool):
        self.buffers, self.checked = buffers, checked
        self._done: dict[int, tuple[Evaluate, DType]] = {}

    # --- expressions

    def expr(self, e: Expr) -> tuple[Evaluate, DType]:
        """An expression's closure and type; each node is planned once, however deep it lies."""
        done = self._done.get(id(e))
        if done is None:
            done = self._done[id(e)] = self._expr(e)
        return done

    def _expr(self, e: Expr) -> tuple[Evaluate, DType]:
        match e:
            case Const(value, dtype):
                if dtype.kind == "f":
                    constant: Value = numpy_dtype(dtype).type(value)
                else:
                    constant = _wrap(int(value), dtype.bits, dtype.kind)
                return lambda s: constant, dtype
            case Index(name):
                return lambda s: s.names[name], DType("i", 64)
            case Load(buffer, indices):
                plans = [self.to(i, DType("i", 64)) for i in indices]
                load = lambda s: s.memories[buffer].load([p(s) for p in plans], s.mask)  # noqa: E731
                return load, self.buffers[buffer].dtype
            case Cast(dtype, a):
                return self.to(a, dtype), dtype
            case Select():
                return self._select(e)
            case Sum():
                return self._sum(e)
            case Binary():
                return self._binary(e)
            case Math():
                return self._math(e)
        raise TypeError(f"not an expression: {e!r}")

    def to(self, e: Expr, dtype: DType) -> Evaluate:
        """An expression converted to a type."""
        plan, source = self.expr(e)
        if source == dtype:
            return plan
        return lambda s: convert(plan(s), source, dtype)

    def _binary(self, e: Binary) -> tuple[Evaluate, DType]:
        (a, a_type), (b, b_type) = self.expr(e.a), self.expr(e.b)
        dtype = promote(a_type, b_type)
        a, b = self.to(e.a, dtype), self.to(e.b, dtype)
        if e.op in COMPARISONS:
            compare = _COMPARE[e.op]
            return lambda s: compare(a(s), b(s)), BOOL
        if dtype.kind == "f":
            if e.op not in _FLOAT:
                raise TypeError(f"{e.op} is not defined on {dtype}")
            operation = _FLOAT[e.op]
            return lambda s: operation(a(s), b(s)), dtype
        scalar, vector = _SCALAR[e.op], _VECTOR[e.op]
        bits, kind = dtype.bits, dtype.kind
        shifts = e.op in ("shl", "shr") and self.checked
        arrays = np.ndarray

        def evaluate(s: _State) -> Value:
            x, y = a(s), b(s)
            if shifts:
                _check_shift(y, bits, s.mask)
            if isinstance(x, arrays) or isinstance(y, arrays):
                return vector(x, y)
            return _wrap(scalar(x, y), bits, kind)

        return evaluate, dtype

    def _math(self, e: Math) -> tuple[Evaluate, DType]:
        dtype = reduce(promote, (self.expr(a)[1] for a in e.arguments))
        plans = [self.to(a, dtype) for a in e.arguments]
        function, kind = _MATH[e.function], numpy_dtype(dtype)

        def evaluate(s: _State) -> Value:
            value = function(*(plan(s) for plan in plans))
            return (
                value.astype(kind, copy=False)
                if isinstance(value, np.ndarray)
                else kind.type(value)
            )

        return evaluate, dtype

    def _select(self, e: Select) -> tuple[Evaluate, DType]:
        cond, _ = self.expr(e.cond)
        dtype = promote(self.expr(e.a)[1], self.expr(e.b)[1])
        a, b = self.to(e.a, dtype), self.to(e.b, dtype)

        def evaluate(s: _State) -> Value:
            holds = _holds(cond(s))
            if not isinstance(holds, np.ndarray):
                return a(s) if holds else b(s)
            if holds.all():
                return a(s)
            if not holds.any():
                return b(s)
            outer = s.mask
            s.mask = holds if outer is None else outer & holds
            x = a(s)
            s.mask = ~holds if outer is None else outer & ~holds
            y = b(s)
            s.mask = outer
            return np.where(holds, x, y).astype(numpy_dtype(dtype), copy=False)

        return evaluate, dtype

    def _sum(self, e: Sum) -> tuple[Evaluate, DType]:
        dtype = promote(self.expr(e.body)[1], I32)
        body = self.to(e.body, dtype)
        extents = tuple(extent for _, extent in e.axes)
        zero: Value = numpy_dtype(dtype).type(0) if dtype.kind == "f" else 0

        def evaluate(s: _State) -> Value:
            if not all(extents):
                return zero
            rank = s.rank
            outer = [s.names.get(name) for name, _ in e.axes]
            for name, extent in e.axes:
                s.names[name] = _axis(0, extent, s.rank)
                s.rank += 1
            value = np.asarray(body(s), numpy_dtype(dtype))
            s.rank = rank
            for (name, _), before in zip(e.axes, outer, strict=True):
                s.names[name] = before
            shape = (*(1,) * (rank + len(extents) - value.ndim), *value.shape)
            value = np.broadcast_to(value, (*reversed(extents), *shape[len(extents) :]))
            total = np.add.reduce(value, tuple(range(len(extents))), dtype=value.dtype)
            return total if rank else (total[()] if dtype.kind == "f" else int(total))

        return evaluate, dtype

    # --- statements

    def stmt(self, stmt: Stmt) -> Execute:
        match stmt:
            case Block(stmts):
                plans = [self.stmt(s) for s in stmts]

                def block(s: _State) -> None:
                    for plan in plans:
                        plan(s)

                return block
            case Store(buffer, indices, value):
                places = [self.to(i, DType("i", 64)) for i in indices]
                source = self.expr(value)[1]
                target = self.buffers[buffer].dtype
                if (source.kind == "f") != (target.kind == "f"):
                    raise TypeError(f"{buffer} holds {target}; a value of {source} needs a Cast")
                plan = self.to(value, target)
                return lambda s: s.memories[buffer].store([p(s) for p in places], plan(s), s.mask)
            case Let(name, value, body):
                plan, inner = self.to(value, DType("i", 64)), self.stmt(body)

                def let(s: _State) -> None:
                    before = s.names.get(name)
                    s.names[name] = plan(s)
                    inner(s)
                    s.names[name] = before

                return let
            case If(cond, body):
                holds, inner = self.expr(cond)[0], self.stmt(body)

                def if_(s: _State) -> None:
                    _guarded(s, _holds(holds(s)), inner)

                return if_
            case For():
                return self._for(stmt)
        raise TypeError(f"not a statement: {stmt!r}")

    def _for(self, stmt: For) -> Execute:
        start, stop = self.to(stmt.start, DType("i", 64)), self.to(stmt.stop, DType("i", 64))
        body, index, weight = self.stmt(stmt.body), stmt.index, _weight(stmt.body)

        def pieces(s: _State, first: int, last: int) -> None:
            step = max(1, VECTOR_LIMIT // (weight * s.size))
            rank, size = s.rank, s.size
            s.rank = rank + 1
            for at in range(first, last, step):
                s.size = size * min(step, last - at)
                s.names[index] = _axis(at, min(at + step, last), rank)
                body(s)
            s.rank, s.size = rank, size

        def loop(s: _State) -> None:
            first, last = start(s), stop(s)
            before = s.names.get(index)
            if isinstance(first, np.ndarray) or isinstance(last, np.ndarray):
                for at in range(int(np.min(first)), int(np.max(last))):
                    s.names[index] = at
                    _guarded(s, np.asarray((first <= at) & (at < last)), body)
            elif stmt.parallel:
                pieces(s, first, last)
            else:
                for at in range(first, last):
                    s.names[index] = at
                    body(s)
            s.names[index] = before

        return loop


def _guarded(s: _State, holds: Value, body: Execute) -> None:
    if not isinstance(holds, np.ndarray):
        if holds:
            body(s)
        return
    outer = s.mask
    s.mask = s.under(holds)
    if s.mask.any():
        body(s)
    s.mask = outer


def _weight(node: Stmt | Expr) -> int:
    """Elements that an operation below ``node`` works on, as far as constants tell."""
    inner = max((_weight(child) for child in children(node)), default=1)
    match node:
        case Sum(axes, _):
            return inner * max(1, math.prod(extent for _, extent in axes))
        case For(_, Const(start), Const(stop), _, True):
            return inner * max(1, int(stop - start))
    return inner


def _check_shift(amount: Value, bits: int, mask: Array | None) -> None:
    bad = (amount < 0) | (amount >= bits)
    if mask is not None:
        bad = bad & mask
    if np.any(bad):
        raise ValueError(f"a shift amount lies outside of [0, {bits})")


# --- operations ----------------------------------------------------------------------------------

# fmt: off
_SCALAR: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "min": min, "max": max,
    "shl": lambda a, b: a << (b & 63), "shr": lambda a, b: a >> (b & 63),
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
}
_VECTOR: Mapping[str, Callable[[Value, Value], Value]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply,
    "div": np.floor_divide, "mod": np.remainder, "min": np.minimum, "max": np.maximum,
    "shl": np.left_shift, "shr": np.right_shift,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}
_FLOAT: Mapping[str, Callable[[Value, Value], Value]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "min": np.minimum, "max": np.maximum,
}
_MATH: Mapping[str, Callable[..., Value]] = {
    "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "rint": np.rint, "sqrt": np.sqrt,
    "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]), "pow": np.power, "fmod": np.fmod,
}
_COMPARE: Mapping[str, Callable[[Value, Value], Value]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
}
# fmt: on
