"""Random loop nests, memory for them, and the slowest possible interpreter of the language."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from weft.isa.nest import (
    BOOL,
    COMPARISONS,
    F32,
    F64,
    I4,
    I8,
    I16,
    I32,
    I64,
    U8,
    U32,
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
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    dtype_of,
    promote,
)

INTEGERS = (I4, DType("u", 2), I8, U8, I16, DType("u", 16), I32, U32, I64, DType("u", 64))
FLOATS = (F32, F64)


# --- one element at a time, on Python's own integers ---------------------------------------------


def to_type(value: Any, dtype: DType) -> Any:
    """A number in a type, from the language's definition."""
    if dtype.kind == "f":
        return (np.float32 if dtype.bits == 32 else np.float64)(value)
    if isinstance(value, np.floating | float):
        if math.isnan(value):
            return 0
        if math.isinf(value):
            return dtype.max if value > 0 else dtype.min
        return min(max(math.trunc(float(value)), dtype.min), dtype.max)
    value = int(value) % (1 << dtype.bits)
    return value - (1 << dtype.bits) if value > dtype.max else value


class Scalars:
    """Executes a nest element by element; ``memory`` maps names to dicts from indices."""

    def __init__(self, nest: Nest, params: Mapping[str, int], memory: dict[str, dict[Any, Any]]):
        self.buffers = {b.name: b for b in nest.buffers}
        self.memory = memory
        self.stmt(nest.body, dict(params))

    def expr(self, e: Expr, names: dict[str, int]) -> Any:
        dtype = dtype_of(e, self.buffers)
        match e:
            case Const(value):
                return to_type(value, dtype)
            case Index(name):
                return names[name]
            case Load(buffer, indices):
                return self.memory[buffer][tuple(int(self.expr(i, names)) for i in indices)]
            case Cast(_, a):
                return to_type(self.expr(a, names), dtype)
            case Select(cond, a, b):
                return to_type(self.expr(a if self.expr(cond, names) else b, names), dtype)
            case Sum(axes, body):
                total = to_type(0, dtype)
                for at in np.ndindex(*(extent for _, extent in axes)):
                    inner = names | {name: int(k) for (name, _), k in zip(axes, at, strict=True)}
                    total = to_type(total + to_type(self.expr(body, inner), dtype), dtype)
                return total
            case Binary(op, a, b):
                common = promote(dtype_of(a, self.buffers), dtype_of(b, self.buffers))
                x, y = (to_type(self.expr(o, names), common) for o in (a, b))
                if op in COMPARISONS:
                    return int({"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y}[op])
                return to_type(self.binary(op, x, y), dtype)
        raise TypeError(e)

    def binary(self, op: str, x: Any, y: Any) -> Any:
        match op:
            case "add":
                return x + y
            case "sub":
                return x - y
            case "mul":
                return x * y
            case "div":
                if isinstance(x, np.floating):
                    return x / y
                return x // y if y else 0
            case "mod":
                return x % y if y else 0
            case "min" | "max":
                if math.isnan(x) or math.isnan(y):
                    return float("nan")
                return min(x, y) if op == "min" else max(x, y)
            case "shl":
                return x << y
            case "shr":
                return x >> y
            case "and":
                return x & y
            case "or":
                return x | y
            case "xor":
                return x ^ y
        raise ValueError(op)

    def stmt(self, s: Stmt, names: dict[str, int]) -> None:
        match s:
            case Block(stmts):
                for inner in stmts:
                    self.stmt(inner, names)
            case For(index, start, stop, body):
                for at in range(self.expr(start, names), self.expr(stop, names)):
                    self.stmt(body, names | {index: at})
            case Let(name, value, body):
                self.stmt(body, names | {name: to_type(self.expr(value, names), I64)})
            case If(cond, body):
                if self.expr(cond, names):
                    self.stmt(body, names)
            case Store(buffer, indices, value):
                at = tuple(int(self.expr(i, names)) for i in indices)
                dtype = self.buffers[buffer].dtype
                self.memory[buffer][at] = to_type(self.expr(value, names), dtype)


# --- memory --------------------------------------------------------------------------------------


def memory_for(buffer: Buffer, seed: int) -> np.ndarray:
    """Random contents: an array of the buffer's type, or packed bytes below 8 bits."""
    rng = np.random.default_rng([seed, sum(buffer.name.encode())])
    count = math.prod(buffer.shape)
    if buffer.dtype.kind == "f":
        values = rng.normal(0, 10.0 ** rng.integers(-3, 12, count), count)
        return values.reshape(buffer.shape).astype(f"f{buffer.dtype.bits // 8}")
    if buffer.dtype.bits < 8:
        return rng.integers(0, 256, -(-count * buffer.dtype.bits // 8), dtype=np.uint8)
    raw = rng.integers(0, 256, count * buffer.dtype.bits // 8, dtype=np.uint8)
    return raw.view(f"{buffer.dtype.kind}{buffer.dtype.bits // 8}").reshape(buffer.shape)


def elements(buffer: Buffer, array: np.ndarray) -> dict[Any, Any]:
    """The contents of :func:`memory_for`'s array by index."""
    if buffer.dtype.bits >= 8:
        convert = int if buffer.dtype.kind != "f" else (lambda v: v)
        return {at: convert(array[at]) for at in np.ndindex(*buffer.shape)}
    bits = int.from_bytes(array.tobytes(), "little")
    return {
        at: to_type(bits >> (i * buffer.dtype.bits), buffer.dtype)
        for i, at in enumerate(np.ndindex(*buffer.shape))
    }


# --- random nests --------------------------------------------------------------------------------


@st.composite
def expressions(
    draw: st.DrawFn, buffers: tuple[Buffer, ...], names: tuple[str, ...], floating: bool, depth: int
) -> Expr:
    """An expression over ``names`` and ``buffers`` whose loads are within range."""
    inner = expressions(buffers, names, floating, depth - 1)
    integer = expressions(buffers, names, False, depth - 1)
    kinds = FLOATS if floating else INTEGERS
    fitting = [b for b in buffers if (b.dtype.kind == "f") == floating]
    choices = ["const"]
    choices += ["load"] * (2 * bool(fitting))
    if names and not floating:
        choices += ["index"]
    if depth > 0:
        choices += ["binary"] * 4 + ["cast", "select"]
        choices += [] if floating else ["compare", "shift", "sum", "cross"]
    match draw(st.sampled_from(choices)):
        case "const":
            dtype = draw(st.sampled_from(kinds))
            if floating:
                return Const(draw(st.integers(-1000, 1000)) / 8, dtype)
            return Const(draw(st.integers(dtype.min, dtype.max)), dtype)
        case "index":
            return Index(draw(st.sampled_from(names)))
        case "load":
            return draw(loads(st.sampled_from(fitting), buffers, names, depth))
        case "binary":
            ops = ("add", "sub", "mul", "min", "max")
            ops += () if floating else ("div", "mod", "and", "or", "xor")
            return Binary(draw(st.sampled_from(ops)), draw(inner), draw(inner))
        case "cast":
            return Cast(draw(st.sampled_from(kinds)), draw(inner))
        case "cross":
            other = expressions(buffers, names, True, depth - 1)
            return Cast(draw(st.sampled_from(kinds)), draw(other))
        case "select":
            return Select(draw(integer), draw(inner), draw(inner))
        case "compare":
            op = draw(st.sampled_from(sorted(COMPARISONS)))
            either = expressions(buffers, names, draw(st.booleans()), depth - 1)
            return Binary(op, draw(either), draw(either))
        case "shift":
            amount = Binary("and", draw(inner), Const(31))
            return Binary(draw(st.sampled_from(("shl", "shr"))), draw(inner), amount)
        case _:
            axes = draw(
                st.lists(st.tuples(st.sampled_from("cde"), st.integers(0, 3)), min_size=1,
                         max_size=2, unique_by=lambda a: a[0])
            )  # fmt: skip
            more = tuple(dict.fromkeys((*names, *(name for name, _ in axes))))
            return Sum(tuple(axes), draw(expressions(buffers, more, False, depth - 1)))


@st.composite
def loads(
    draw: st.DrawFn,
    which: st.SearchStrategy[Buffer],
    buffers: tuple[Buffer, ...],
    names: tuple[str, ...],
    depth: int,
) -> Expr:
    buffer = draw(which)
    index = expressions(buffers, names, False, min(depth - 1, 1))
    indices: list[Expr] = []
    for extent in buffer.shape:
        if names and draw(st.integers(0, 3)):
            e: Expr = Index(draw(st.sampled_from(names)))
        else:
            e = Cast(I64, draw(index))
        indices.append(Binary("mod", e, Const(extent, I64)))
    return Load(buffer.name, tuple(indices))


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@st.composite
def nests(draw: st.DrawFn, floats: bool = True) -> Nest:
    """A nest that stores to ``out`` within range, in parallel or in order."""
    kinds = (*INTEGERS, *FLOATS) if floats else INTEGERS
    inputs = tuple(
        Buffer(name, draw(st.sampled_from(kinds)), draw(shapes)) for name in ("a", "b.x", "c")
    )
    floating = floats and draw(st.booleans())
    out = Buffer("out", draw(st.sampled_from(FLOATS if floating else INTEGERS)), draw(shapes))
    axes = tuple("xyz"[: len(out.shape)])
    sequential = draw(st.booleans())
    names, guards = (
        ("n", *axes),
        draw(st.lists(st.sampled_from(("let", "if", "extra")), max_size=3)),
    )
    readable = (*inputs, out) if sequential else inputs
    value = draw(expressions(readable, (*names, "k"), floating, draw(st.integers(0, 4))))
    body: Stmt = Store("out", tuple(map(Index, axes)), value)
    if sequential and draw(st.booleans()):
        at = tuple(
            Binary("mod", Index(name) + Index("k"), Const(extent))
            for name, extent in zip(axes, out.shape, strict=True)
        )
        body = Block((body, Store("out", at, Load("out", tuple(map(Index, axes))))))
    for guard in guards:
        inner = expressions(inputs, names, False, 2)
        if guard == "let":
            body = Let("k", draw(inner), body)
        elif guard == "if":
            body = If(draw(inner), body)
        else:
            start = Binary("mod", draw(inner), Const(3))
            body = For("w", start, start + draw(st.integers(0, 2)), body)
    body = Let("k", draw(expressions(inputs, names, False, 2)), body)
    for name, extent in reversed(list(zip(axes, out.shape, strict=True))):
        parallel = not sequential and draw(st.booleans())
        body = For(name, Const(0), Const(extent), body, parallel)
    return Nest("random", ("n",), (*inputs, out), body)


def assert_equal(buffer: Buffer, array: np.ndarray, wanted: Mapping[Any, Any]) -> None:
    """``array`` holds ``wanted``, NaN equal to NaN."""
    for at, value in elements(buffer, array).items():
        same = value == wanted[at] or (math.isnan(value) and math.isnan(wanted[at]))
        assert same, (at, value, wanted[at])


__all__ = [
    "BOOL",
    "Scalars",
    "assert_equal",
    "elements",
    "expressions",
    "memory_for",
    "nests",
    "to_type",
]
