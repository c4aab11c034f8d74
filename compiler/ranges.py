"""Which integers an expression can come to, and index arithmetic without what does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..isa.nest import (
    I64,
    Binary,
    Buffer,
    Cast,
    Const,
    Expr,
    Index,
    Load,
    Node,
    Select,
)

Span = tuple[int, int]
"""The least and the greatest value."""
Loaded = Callable[[str], Span | None]
"""Of what a buffer holds; None where nothing is known."""


def range_of(e: Expr, loaded: Loaded) -> Span | None:
    """The least and the greatest value of an integer expression; None where nothing is known."""
    match e:
        case Const(value=int(value)):
            return value, value
        case Load(buffer):
            return loaded(buffer)
        case Cast(dtype, a):
            span = range_of(a, loaded)
            if span is None or dtype.kind == "f" or span[0] < dtype.min or span[1] > dtype.max:
                return None
            return span
        case Select(_, a, b):
            x, y = range_of(a, loaded), range_of(b, loaded)
            return None if x is None or y is None else (min(x[0], y[0]), max(x[1], y[1]))
        case Binary("add" | "sub" | "min" | "max" as op, a, b):
            x, y = range_of(a, loaded), range_of(b, loaded)
            if x is None or y is None:
                return None
            if op == "add":
                return x[0] + y[0], x[1] + y[1]
            if op == "sub":
                return x[0] - y[1], x[1] - y[0]
            least = min if op == "min" else max
            return least(x[0], y[0]), least(x[1], y[1])
    return None


def within(e: Expr, span: Span, loaded: Loaded) -> bool:
    """Whether an expression cannot leave a span, whatever its parts of unknown range come to."""
    known = range_of(e, loaded)
    if known is not None:
        return span[0] <= known[0] and known[1] <= span[1]
    match e:
        case Binary("min" | "max" as op, a, b):
            return all(
                combine(within(part, end, loaded) for part in (a, b))
                for end, combine in zip(
                    ((span[0], NO_LIMIT), (-NO_LIMIT, span[1])),
                    (any, all) if op == "max" else (all, any),
                    strict=True,
                )
            )
    return span == (-NO_LIMIT, NO_LIMIT)


NO_LIMIT = 1 << 64
"""Greater than every integer of an expression."""


def of_types(buffers: Mapping[str, Buffer]) -> Loaded:
    """What the types of buffers say of narrow integers in them."""

    def loaded(buffer: str) -> Span | None:
        dtype = buffers[buffer].dtype
        return None if dtype.kind == "f" or dtype.bits > 16 else (dtype.min, dtype.max)

    return loaded


def folded(node: Node) -> Node | None:
    """A rule: additions of 0, products and quotients by 1 and 0, arithmetic of literals.

    Only of ``i64``, in which indices are computed.
    """
    match node:
        case Binary("add" | "sub" | "mul" as op, Const(value=int(x)), Const(value=int(y))) if (
            abs(x) < 1 << 30 and abs(y) < 1 << 30
        ):
            value = x + y if op == "add" else x - y if op == "sub" else x * y
            wide = value.bit_length() > 30 or I64 in (node.a.dtype, node.b.dtype)  # type: ignore[union-attr]
            return Const(value, I64) if wide else Const(value)
        case Binary("div" | "mod" as op, Const(value=int(x), dtype=d), Const(value=int(y))) if (
            y > 0
        ):
            return Const(x // y if op == "div" else x % y, d)
        case Binary("add", a, Const(value=0)) | Binary("add", Const(value=0), a) if _index(a):
            return a
        case Binary("sub", a, Const(value=0)) if _index(a):
            return a
        case Binary("mul", a, Const(value=1)) | Binary("mul", Const(value=1), a) if _index(a):
            return a
        case Binary("mul", a, Const(value=0)) | Binary("mul", Const(value=0), a) if _index(a):
            return Const(0, I64)
        case Binary("div", a, Const(value=1)) if _index(a):
            return a
        case Binary("mod", a, Const(value=1)) if _index(a):
            return Const(0, I64)
    return None


def _index(e: Expr) -> bool:
    """Whether an expression is made of indices and literals, and is ``i64`` with that."""
    match e:
        case Index():
            return True
        case Binary(_, Const(), b):
            return _index(b)
        case Binary(_, a, Const()):
            return _index(a)
        case Binary(_, a, b):
            return _index(a) and _index(b)
        case _:
            return False
