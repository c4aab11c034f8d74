"""Loop nests over buffers of integers: the language in which a meaning is written.

The same few nodes say what an instruction does (:mod:`weft.isa.operations`) and what a
network's operator does (the middle level of the compiler), so that one printer, one numpy
interpreter, one code generator and one matcher serve both.

Grammar
-------
::

    nest := Nest(name, params, buffers, body)
    stmt := For(index, start, stop, body, parallel) | Let(name, value, body) | Block(stmts)
          | Store(buffer, indices, value) | If(cond, body)
    expr := Const(value, dtype) | Index(name) | Load(buffer, indices) | Binary(op, a, b)
          | Cast(dtype, a) | Select(cond, a, b) | Sum(axes, body) | Math(function, arguments)

Arithmetic is two's complement as C++20 has it: operands narrower than 32 bits are promoted to
``i32``, an ``i64`` operand makes the operation ``i64``, results wrap. An :class:`Index` is
``i64``. ``div`` and ``mod`` round towards minus infinity, and by 0 give 0; ``shr`` is arithmetic
on signed types and logical on unsigned ones. Conditions hold where they are not 0. Shift amounts
must lie in ``[0, width)``. Comparisons give ``bool`` (u1). A ``Store`` keeps the low bits of its
value. ``Select`` evaluates only the branch that it takes. Floating point follows IEEE 754 with
the operands' type, where a ``Sum`` may add in any order and fuse a multiplication into an
addition; ``Cast`` from float to integer truncates and saturates. :class:`Math` is a function of
floating point, to within the last few bits. A loop's index, a ``Let`` name
and the axes of a ``Sum`` hide outer names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal


@dataclass(frozen=True)
class DType:
    """A scalar type: ``kind`` is ``i`` (signed), ``u`` (unsigned) or ``f``; ``bits`` its width.

    Widths below 8 are stored packed from the low bits up.
    """

    kind: Literal["i", "u", "f"]
    bits: int

    def __str__(self) -> str:
        return f"{self.kind}{self.bits}"

    @classmethod
    def parse(cls, text: str) -> DType:
        """The type that ``str`` printed; ``ValueError`` for anything else."""
        kind, bits = text[:1], text[1:]
        if kind not in ("i", "u", "f") or not bits.isdigit():
            raise ValueError(f"expected a type such as i8, u8 or f32, not {text!r}")
        return cls(kind, int(bits))

    @property
    def min(self) -> int:
        """The least integer of this type."""
        return -(1 << (self.bits - 1)) if self.kind == "i" else 0

    @property
    def max(self) -> int:
        """The greatest integer of this type."""
        return (1 << (self.bits - (self.kind == "i"))) - 1


BOOL = DType("u", 1)
I4, I8, I16, I32, I64 = (DType("i", bits) for bits in (4, 8, 16, 32, 64))
U8, U16, U32 = (DType("u", bits) for bits in (8, 16, 32))
F16, F32, F64 = (DType("f", bits) for bits in (16, 32, 64))


@dataclass(frozen=True)
class Buffer:
    """An array in memory.

    Parameters
    ----------
    name : str
        How loads and stores refer to it.
    dtype : DType
        Of one element.
    shape : tuple of int
        Extents. The first may be 0 for "as far as the memory goes" (a view of DRAM).
    strides : tuple of int or None
        In bytes, one an axis; None for C-contiguous.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None


# --- expressions -------------------------------------------------------------------------------

BinaryOp = Literal[
    "add", "sub", "mul", "div", "mod", "min", "max", "shl", "shr", "and", "or", "xor",
    "eq", "ne", "lt", "le",
]  # fmt: skip
COMPARISONS = frozenset({"eq", "ne", "lt", "le"})


class Expr:
    """Base of the expressions; arithmetic operators build :class:`Binary` nodes."""

    def __add__(self, other: Operand) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return binary("mul", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return binary("div", self, other)

    def __mod__(self, other: Operand) -> Expr:
        return binary("mod", self, other)

    def __lshift__(self, other: Operand) -> Expr:
        return binary("shl", self, other)

    def __rshift__(self, other: Operand) -> Expr:
        return binary("shr", self, other)

    def __and__(self, other: Operand) -> Expr:
        return binary("and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return binary("or", self, other)

    def __neg__(self) -> Expr:
        return binary("sub", 0, self)

    def __lt__(self, other: Operand) -> Expr:
        return binary("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return binary("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return binary("lt", other, self)

    def __ge__(self, other: Operand) -> Expr:
        return binary("le", other, self)


@dataclass(frozen=True)
class Const(Expr):
    """A literal."""

    value: int | float
    dtype: DType = I32


@dataclass(frozen=True)
class Index(Expr):
    """A loop index, a ``Let`` name or a parameter of the nest; ``i64``."""

    name: str


@dataclass(frozen=True)
class Load(Expr):
    """One element of a buffer."""

    buffer: str
    indices: tuple[Expr, ...]


@dataclass(frozen=True)
class Binary(Expr):
    """An operation on two operands, after promotion."""

    op: BinaryOp
    a: Expr
    b: Expr


@dataclass(frozen=True)
class Cast(Expr):
    """``a`` in another type: sign- or zero-extended, or its low bits."""

    dtype: DType
    a: Expr


@dataclass(frozen=True)
class Select(Expr):
    """``a`` where ``cond`` holds, else ``b``; the other one is not evaluated."""

    cond: Expr
    a: Expr
    b: Expr


@dataclass(frozen=True)
class Sum(Expr):
    """``body`` summed over the product of ``axes``, (index name, extent) each, from 0."""

    axes: tuple[tuple[str, int], ...]
    body: Expr


MATH: Mapping[str, int] = {
    **dict.fromkeys(("abs", "floor", "ceil", "rint", "sqrt"), 1),
    **dict.fromkeys(("exp", "log", "sin", "cos", "tan", "asin", "acos", "atan"), 1),
    **dict.fromkeys(("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf"), 1),
    **dict.fromkeys(("pow", "fmod"), 2),
}
"""How many arguments each function of floating point takes. ``rint`` rounds ties to even; those
before ``exp`` are exact, the others as good as the C library's."""


@dataclass(frozen=True)
class Math(Expr):
    """A function of :data:`MATH`, of floats of 32 or 64 bits, which are promoted."""

    function: str
    arguments: tuple[Expr, ...]


Operand = Expr | int


def expr(value: Operand) -> Expr:
    """``value`` as an expression; a plain int becomes an ``i32`` or, if it must, ``i64``."""
    if isinstance(value, Expr):
        return value
    return Const(value, I32 if I32.min <= value <= I32.max else I64)


def binary(op: BinaryOp, a: Operand, b: Operand) -> Expr:
    """``a op b`` as a node; nothing is simplified."""
    return Binary(op, expr(a), expr(b))


def minimum(a: Operand, b: Operand) -> Expr:
    """The lesser of two."""
    return binary("min", a, b)


def maximum(a: Operand, b: Operand) -> Expr:
    """The greater of two."""
    return binary("max", a, b)


# --- statements --------------------------------------------------------------------------------


class Stmt:
    """Base of the statements."""


@dataclass(frozen=True)
class Block(Stmt):
    """Statements one after another."""

    stmts: tuple[Stmt, ...]


@dataclass(frozen=True)
class For(Stmt):
    """``body`` for ``index`` in ``[start, stop)``.

    ``parallel`` says that the trips do not depend on one another, in any order.
    """

    index: str
    start: Expr
    stop: Expr
    body: Stmt
    parallel: bool = False


@dataclass(frozen=True)
class Let(Stmt):
    """``name`` (an ``i64``) stands for ``value`` in ``body``."""

    name: str
    value: Expr
    body: Stmt


@dataclass(frozen=True)
class If(Stmt):
    """``body`` where ``cond`` holds."""

    cond: Expr
    body: Stmt


@dataclass(frozen=True)
class Store(Stmt):
    """One element of a buffer takes the low bits of ``value``."""

    buffer: str
    indices: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True)
class Nest:
    """A named procedure.

    Parameters
    ----------
    name : str
        For printing and for the generated function.
    params : tuple of str
        Integers (``i64``) that the caller gives: an instruction's fields.
    buffers : tuple of Buffer
        Everything that ``body`` reads or writes; no two overlap.
    body : Stmt
        What it does.
    """

    name: str
    params: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    body: Stmt

    def buffer(self, name: str) -> Buffer:
        """The buffer of that name; ``KeyError`` if there is none."""
        for buffer in self.buffers:
            if buffer.name == name:
                return buffer
        raise KeyError(name)


# --- types -------------------------------------------------------------------------------------


def promote(a: DType, b: DType) -> DType:
    """The type in which ``a op b`` is computed."""
    if "f" in (a.kind, b.kind):
        return max((t for t in (a, b) if t.kind == "f"), key=lambda t: t.bits)
    bits = max(32, a.bits, b.bits)
    unsigned = any(t.kind == "u" and t.bits == bits for t in (a, b))
    return DType("u" if unsigned else "i", bits)


def dtype_of(e: Expr, buffers: Mapping[str, Buffer]) -> DType:
    """The type of an expression whose loads refer to ``buffers``."""
    match e:
        case Const(dtype=dtype) | Cast(dtype=dtype):
            return dtype
        case Index():
            return I64
        case Load(buffer=name):
            return buffers[name].dtype
        case Binary(op, a, b):
            if op in COMPARISONS:
                return BOOL
            return promote(dtype_of(a, buffers), dtype_of(b, buffers))
        case Select(_, a, b):
            return promote(dtype_of(a, buffers), dtype_of(b, buffers))
        case Sum(_, body):
            return promote(dtype_of(body, buffers), I32)
        case Math(_, arguments):
            return reduce(promote, (dtype_of(a, buffers) for a in arguments))
    raise TypeError(f"not an expression: {e!r}")


Node = Expr | Stmt
