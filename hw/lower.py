"""Expressions of the instruction set as hardware: the nest language's arithmetic in Amaranth.

Every lane of the ALU, of requantization and of the matrix unit is lowered from its
instruction's meaning by :class:`Lowering`; no operation is described a second time.

A value is kept exact, as wide as the range that it can take (an interval is carried along), and
cut only where its type in the nest language wraps. So a product of two ``i64`` casts of ``i32``
is a 32 x 32 multiplier, and a shift by ``left & 31`` has a 5-bit amount.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product as crossed

from amaranth import *
from amaranth.hdl import ValueLike

from ..isa.errors import UnsupportedError
from ..isa.nest import (
    BOOL,
    COMPARISONS,
    I32,
    I64,
    Binary,
    Cast,
    DType,
    Expr,
    Index,
    Load,
    Nest,
    Node,
    Select,
    Store,
    Sum,
    promote,
)
from ..isa.nest import (
    Const as Literal,
)
from ..isa.traverse import rewrite, substitute, walk

Leaf = Callable[[Load | Index], ValueLike]
"""The value of a load or of a name. A load has the type that the value's shape says, a name is
``i64``; the value's shape bounds what it can be."""


@dataclass(frozen=True)
class Term:
    """A lowered expression.

    ``value`` is exact and lies in ``[low, high]``, a part of ``dtype``'s range. ``stage`` and
    ``depth`` say when it is there: after how many registers and how much logic behind them
    (see :class:`weft.hw.pipeline.Pipelining`; 0 without).
    """

    value: Value
    low: int
    high: int
    dtype: DType
    stage: int = 0
    depth: int = 0

    @property
    def constant(self) -> bool:
        """Whether it can only be one number."""
        return self.low == self.high

    def at(self, stage: int, depth: int) -> Term:
        """The same, declared to be there at another time."""
        return replace(self, stage=stage, depth=depth)


class Lowering:
    """Builds values for expressions; what two of them share is built once.

    Parameters
    ----------
    leaf : Leaf
        Gives the loads and names.
    m : Module or None
        Takes a signal for every value, so that it is in the netlist once, too; None to build
        values alone.
    """

    def __init__(self, leaf: Leaf, m: Module | None = None):
        self._leaf = leaf
        self._m = m
        self._terms: dict[int, Term] = {}

    def __call__(self, e: Expr) -> Value:
        """``e``'s value, exact; its shape is just wide enough for every value it can take.

        Raises
        ------
        UnsupportedError
            For floating point.
        """
        return self.term(e).value

    def term(self, e: Expr) -> Term:
        """``e`` with its range."""
        return self._term(_interned(e))

    def _term(self, e: Expr) -> Term:
        if id(e) not in self._terms:
            self._terms[id(e)] = self._build(e)
        return self._terms[id(e)]

    def _build(self, e: Expr) -> Term:
        match e:
            case Literal(value, dtype) if dtype.kind != "f" and isinstance(value, int):
                number = _wrapped_int(value, dtype)
                return Term(C(number, _shape(number, number)), number, number, dtype)
            case Index():
                return self._once(e.name, _given(self._leaf(e), I64))
            case Load():
                return self._once(e.buffer, _given(self._leaf(e)))
            case Cast(dtype, a) if dtype.kind != "f":
                return _wrap(self._term(a), dtype)
            case Select(cond, a, b):
                return self._select(self._term(cond), self._term(a), self._term(b))
            case Binary("shr", Binary("add", x, Literal(nudge)), Literal(amount)) if (
                rounded := self._rounded_shift(self._term(x), nudge, amount)
            ):
                return rounded
            case Binary(op, a, b):
                return self._binary(op, self._term(a), self._term(b))
            case Sum(axes, body):
                return self._sum(axes, body)
        raise UnsupportedError(f"hardware computes on integers, not {e!r}")

    def _select(self, cond: Term, a: Term, b: Term) -> Term:
        dtype = promote(a.dtype, b.dtype)
        if cond.constant:
            return _wrap(a if cond.low else b, dtype)
        a, b = _wrap(a, dtype), _wrap(b, dtype)
        low, high = min(a.low, b.low), max(a.high, b.high)
        build = lambda c, x, y: Mux(c.bool(), x, y)  # noqa: E731
        return self.combine("select", build, (cond, a, b), low, high, dtype)

    def _binary(self, op: str, a: Term, b: Term) -> Term:
        dtype = promote(a.dtype, b.dtype)
        if dtype.kind == "f":
            raise UnsupportedError(f"hardware computes on integers, not {dtype}")
        a, b = _wrap(a, dtype), _wrap(b, dtype)
        if op in ("shl", "shr"):
            b = _shift_amount(b, dtype)
        low, high = _RANGES[op](a, b)
        result = BOOL if op in COMPARISONS else dtype
        if low == high:
            return _wrap(Term(C(low, _shape(low, low)), low, high, result), result)
        build = _BUILDERS[op]
        if op in _MODULAR and not (dtype.min <= low and high <= dtype.max):
            build, low, high = _modulo(build, dtype), dtype.min, dtype.max
        return _wrap(self.combine(op, build, (a, b), low, high, result), result)

    def _rounded_shift(self, x: Term, nudge: int | float, amount: int | float) -> Term | None:
        """``(x + 2**k) >> n`` as ``((x >> k) + 1) >> (n - k)``: an adder k bits shorter.

        None where the nudge is something else or the sum could wrap.
        """
        assert isinstance(nudge, int)
        assert isinstance(amount, int)
        if not isinstance(nudge, int) or x.dtype != I64:
            return None
        k = nudge.bit_length() - 1
        if nudge != 1 << max(k, 0) or not 0 < k < amount:
            return None
        if x.high + nudge > I64.max:
            return None
        number = lambda value: self._term(_interned(Literal(value)))  # noqa: E731
        high = self._binary("shr", x, number(k))
        return self._binary("shr", self._binary("add", high, number(1)), number(amount - k))

    def _sum(self, axes: tuple[tuple[str, int], ...], body: Expr) -> Term:
        names = [name for name, _ in axes]
        terms = [
            self.term(substitute(body, dict(zip(names, map(_index, trip), strict=True))))
            for trip in crossed(*(range(extent) for _, extent in axes))
        ]
        if not terms:
            return self.term(Literal(0))
        dtype = promote(terms[0].dtype, I32)
        terms = [_wrap(t, dtype) for t in terms]
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2], strict=False)
            rest = terms[len(terms) & ~1 :]
            terms = [self._binary("add", a, b) for a, b in pairs] + rest
        return terms[0]

    def combine(
        self,
        op: str,
        build: Callable[..., Value],
        operands: tuple[Term, ...],
        low: int,
        high: int,
        dtype: DType,
    ) -> Term:
        """``build`` of the operands' values, known to lie in ``[low, high]``.

        Whoever decides in which cycle an operation happens overrides this.
        """
        value = _fit(build(*(t.value for t in operands)), low, high)
        return self._once(op, Term(value, low, high, dtype))

    def _once(self, name: str, term: Term) -> Term:
        """``term`` with a signal for its value."""
        if self._m is None or term.constant:
            return term
        value = Signal(term.value.shape(), name=name)
        self._m.d.comb += value.eq(term.value)
        return replace(term, value=value)


@lru_cache(maxsize=4096)
def _interned(e: Expr) -> Expr:
    """``e`` with one object for all of its subexpressions that are equal, kept for good."""
    table: dict[Node, Node] = {}
    return rewrite(e, lambda node: table.setdefault(node, node))


def named(values: Mapping[str, ValueLike]) -> Leaf:
    """A leaf that looks its values up.

    The key of a name is the name; that of a load is its buffer with a named first index,
    ``acc[dst]``, or else the buffer alone: whoever lowers a lane has chosen element and lane.
    """

    def leaf(e: Load | Index) -> ValueLike:
        if isinstance(e, Index):
            return values[e.name]
        first = e.indices[0] if e.indices else None
        key = f"{e.buffer}[{first.name}]" if isinstance(first, Index) else e.buffer
        return values[key] if key in values else values[e.buffer]

    return leaf


def low_bits(value: Value, bits: int) -> Value:
    """The low bits of a value, which is sign- or zero-extended if it has fewer."""
    if len(value) >= bits:
        return value[:bits]
    top = value[-1] if value.shape().signed else C(0, 1)
    return Cat(value, top.replicate(bits - len(value)))


def stored(nest: Nest) -> Store:
    """The one store of a nest: its value is what the operation does to a lane."""
    stores = [node for node in walk(nest.body) if isinstance(node, Store)]
    if len(stores) != 1:
        raise UnsupportedError(f"{nest.name} has {len(stores)} stores where one is expected")
    return stores[0]


# --- operators -----------------------------------------------------------------------------------

Range = tuple[int, int]


def _corners(f: Callable[[int, int], int]) -> Callable[[Term, Term], Range]:
    """The range of a function that is monotonic in each argument while the other one stays."""

    def of(a: Term, b: Term) -> Range:
        values = [f(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        return min(values), max(values)

    return of


def _compared(certain: Callable[[Term, Term], bool | None]) -> Callable[[Term, Term], Range]:
    def of(a: Term, b: Term) -> Range:
        known = certain(a, b)
        return (0, 1) if known is None else (int(known), int(known))

    return of


def _less(a: Term, b: Term) -> bool | None:
    return True if a.high < b.low else False if a.low >= b.high else None


def _less_equal(a: Term, b: Term) -> bool | None:
    return True if a.high <= b.low else False if a.low > b.high else None


def _unknown(a: Term, b: Term) -> bool | None:
    return None


def _and_range(a: Term, b: Term) -> Range:
    bounds = [t.high for t in (a, b) if t.low >= 0]
    return (0, min(bounds)) if bounds else _bits_range(a, b)


def _bits_range(a: Term, b: Term) -> Range:
    """What as many bits as the wider one has can hold."""
    shape = _shape(min(a.low, b.low), max(a.high, b.high))
    half = 1 << (shape.width - shape.signed)
    return (-half if shape.signed else 0), half - 1


def _quotient_range(a: Term, b: Term) -> Range:
    if a.low >= 0 and b.low >= 0:
        return 0, a.high
    most = max(-a.low, a.high, 0)
    return -most, most


def _remainder_range(a: Term, b: Term) -> Range:
    return min(b.low + 1, 0), max(b.high - 1, 0)


# fmt: off
_RANGES: dict[str, Callable[[Term, Term], Range]] = {
    "add": lambda a, b: (a.low + b.low, a.high + b.high),
    "sub": lambda a, b: (a.low - b.high, a.high - b.low),
    "mul": _corners(lambda x, y: x * y),
    "div": _quotient_range,
    "mod": _remainder_range,
    "min": lambda a, b: (min(a.low, b.low), min(a.high, b.high)),
    "max": lambda a, b: (max(a.low, b.low), max(a.high, b.high)),
    "shl": _corners(lambda x, n: x << n),
    "shr": _corners(lambda x, n: x >> n),
    "and": _and_range,
    "or":  _bits_range,
    "xor": _bits_range,
    "eq":  _compared(_unknown),
    "ne":  _compared(_unknown),
    "lt":  _compared(_less),
    "le":  _compared(_less_equal),
}
_BUILDERS: dict[str, Callable[[Value, Value], Value]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": lambda a, b: Mux(a < b, a, b),
    "max": lambda a, b: Mux(a < b, b, a),
    "shl": lambda a, b: a.shift_left(b.value) if isinstance(b, Const) else a << b,
    "shr": lambda a, b: a.shift_right(b.value) if isinstance(b, Const) else a >> b,
    "and": lambda a, b: a & b,
    "or":  lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq":  lambda a, b: a == b,
    "ne":  lambda a, b: a != b,
    "lt":  lambda a, b: a < b,
    "le":  lambda a, b: a <= b,
}
# fmt: on
_MODULAR = ("add", "sub", "mul")
"""Operations whose low bits depend on those of the operands alone."""


def _modulo(build: Callable[[Value, Value], Value], dtype: DType) -> Callable[..., Value]:
    """A modular operation where it wraps: no wider than its type, in a simulator neither."""

    def wrapped(a: Value, b: Value) -> Value:
        value = build(low_bits(a, dtype.bits), low_bits(b, dtype.bits))[: dtype.bits]
        return value.as_signed() if dtype.kind == "i" else value

    return wrapped


# --- ranges and widths ---------------------------------------------------------------------------


def _index(value: int) -> Expr:
    return Literal(value, I64)


def _shape(low: int, high: int) -> Shape:
    """The narrowest shape that holds both; at least a bit wide."""
    if low >= 0:
        return unsigned(max(1, high.bit_length()))
    return signed(1 + max((~low).bit_length(), high.bit_length() if high >= 0 else 0))


def _fit(value: Value, low: int, high: int) -> Value:
    """``value``, which lies in ``[low, high]``, without bits that the range does not need."""
    shape = _shape(low, high)
    if len(value) > shape.width:
        value = value[: shape.width]
    if value.shape().signed == shape.signed:
        return value
    if not shape.signed:
        return value.as_unsigned()
    # An unsigned value of fewer bits than the range's shape fits as it is.
    return value.as_signed() if len(value) == shape.width else value


def _given(value: ValueLike, dtype: DType | None = None) -> Term:
    value = Value.cast(value)
    shape = value.shape()
    own = DType("i" if shape.signed else "u", shape.width)
    return _wrap(Term(value, own.min, own.max, own), dtype or own)


def _wrap(term: Term, dtype: DType) -> Term:
    """The term in another type: sign- or zero-extended, or its low bits."""
    if dtype.min <= term.low and term.high <= dtype.max:
        return replace(term, dtype=dtype)
    value = low_bits(term.value, dtype.bits)
    value = value.as_signed() if dtype.kind == "i" else value
    return replace(term, value=value, low=dtype.min, high=dtype.max, dtype=dtype)


def _wrapped_int(value: int, dtype: DType) -> int:
    return (value - dtype.min) % (1 << dtype.bits) + dtype.min


def _shift_amount(b: Term, dtype: DType) -> Term:
    """Only amounts in ``[0, bits)`` are defined, so no more bits than those need are looked at."""
    high = max(0, min(b.high, dtype.bits - 1))
    low = max(0, min(b.low, high))
    if low == high:
        return replace(b, value=C(low, _shape(low, low)), low=low, high=high)
    return replace(b, value=b.value[: _shape(low, high).width], low=low, high=high)
