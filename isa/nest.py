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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, reduce
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


# --- types and traversal -----------------------------------------------------------------------


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


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below ``node``, in the order of evaluation."""
    known: tuple[Node, ...] | None = node.__dict__.get(_BELOW)
    if known is None:
        found: list[Node] = []
        for name in _field_names(type(node)):
            value = getattr(node, name)
            if isinstance(value, _NODES):
                found.append(value)
            elif isinstance(value, tuple):
                found += [item for item in value if isinstance(item, _NODES)]
        known = tuple(found)
        node.__dict__[_BELOW] = known  # nodes never change, and are walked often
    return known


_NODES = (Expr, Stmt)
_BELOW = "_below"
"""Where a node remembers its children; no field, so that it counts for nothing else."""


_PLAIN = frozenset(
    ("str", "int", "bool", "int | float", "DType", "BinaryOp", "tuple[tuple[str, int], ...]")
)
"""Types of fields, as they are written, that are no nodes."""


@lru_cache(maxsize=64)
def _field_names(kind: type) -> tuple[str, ...]:
    # Every node is a dataclass; most of its fields can hold no node.
    return tuple(field.name for field in fields(kind) if field.type not in _PLAIN)


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything below it, parents first."""
    below = [node]
    while below:
        node = below.pop()
        yield node
        further = children(node)
        if further:
            below += further[::-1]


def distinct(node: Node) -> Iterator[Node]:
    """As :func:`walk`, but what stands in several places as one object only once."""
    below, seen = [node], {id(node)}
    while below:
        node = below.pop()
        yield node
        for child in reversed(children(node)):
            if id(child) not in seen:
                seen.add(id(child))
                below.append(child)


def rewrite(node: Node, rule: Callable[[Node], Node | None]) -> Node:
    """``node`` rebuilt from the leaves up; ``rule`` returns a replacement or None to keep.

    What stands in several places as one object is rebuilt once, and is one object again.
    """
    return _rewritten(node, rule, {})


def _rewritten(
    node: Node, rule: Callable[[Node], Node | None], done: dict[int, tuple[Node, Node]]
) -> Node:
    rebuilt = node
    below = node.__dict__.get(_BELOW)
    if below is None:
        below = children(node)
    if below:
        changed = False
        now: list[Node] = []
        for child in below:
            before = done.get(id(child))
            new = _rewritten(child, rule, done) if before is None else before[1]
            now.append(new)
            changed = changed or new is not child
        if changed:
            # What :func:`dataclasses.replace` does, at a tenth of its cost.
            rebuilt = object.__new__(type(node))
            rebuilt.__dict__.update(node.__dict__)
            rebuilt.__dict__[_BELOW] = tuple(now)
            rest = iter(now)
            for name in _field_names(type(node)):
                value = getattr(node, name)
                if isinstance(value, _NODES):
                    rebuilt.__dict__[name] = next(rest)
                elif isinstance(value, tuple):
                    items = (next(rest) if isinstance(i, _NODES) else i for i in value)
                    rebuilt.__dict__[name] = tuple(items)
    result = rule(rebuilt)
    final = rebuilt if result is None else result
    done[id(node)] = node, final
    return final


def loops(axes: Sequence[tuple[str, int]], body: Stmt, parallel: bool = True) -> Stmt:
    """``body`` under loops from 0, the first outermost: (index, extent) each."""
    for name, extent in reversed(axes):
        body = For(name, Const(0, I64), Const(extent, I64), body, parallel)
    return body


def under_loops(stmt: Stmt) -> tuple[tuple[tuple[str, int], ...], Stmt]:
    """The parallel loops from 0 to a literal around a statement, and what they are around.

    :func:`loops` puts it together again.
    """
    axes: list[tuple[str, int]] = []
    while True:
        match stmt:
            case For(index, Const(value=0), Const(value=int(stop)), body, True):
                axes.append((index, stop))
                stmt = body
            case _:
                return tuple(axes), stmt


def substitute(node: Node, values: Mapping[str, Expr]) -> Node:
    """``node`` with every :class:`Index` named in ``values`` replaced."""
    return rewrite(node, lambda n: values.get(n.name) if isinstance(n, Index) else None)
