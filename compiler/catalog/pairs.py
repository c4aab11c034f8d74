"""Functions of the elements of several tensors, which broadcast, as loop nests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from ...isa.nest import BOOL, F32, I64, Binary, Cast, DType, Expr
from .site import ANY, FLOATS, NUMBERS, SIGNED, UNSIGNED, Code, Site, Types, define
from .terms import choose, computed, divide, equal, function, less, number, pointwise

INTEGERS = (*SIGNED, *UNSIGNED)


def _joint(types: Sequence[DType], result: DType | None = None) -> Callable[[Site], Types]:
    """Tensors of one of the types; an output of that type or ``result``."""

    def infer(site: Site) -> Types:
        inputs = site.present()
        site.expect(site.x, types)
        dtype = site.same_type(*inputs)
        return [(result or dtype, site.broadcast(*(t.shape for t in inputs)))]

    return infer


def truncated(a: Expr, b: Expr, dtype: DType) -> Expr:
    """The quotient of integers, rounded towards 0; by 0 it is 0."""
    if dtype.kind == "u":
        return a // b
    zero = number(0, dtype)
    quotient = a // b
    inexact = Binary("ne", quotient * b, a)
    return choose(less(quotient, zero) & inexact, quotient + 1, quotient)


def _divide(a: Expr, b: Expr, dtype: DType) -> Expr:
    return divide(a, b) if dtype.kind == "f" else truncated(a, b, dtype)


# fmt: off
ARITHMETIC: Mapping[str, Callable[[Expr, Expr, DType], Expr]] = {
    "Add": lambda a, b, t: a + b,
    "Sub": lambda a, b, t: a - b,
    "Mul": lambda a, b, t: a * b,
    "Div": _divide,
    "Max": lambda a, b, t: Binary("max", a, b),
    "Min": lambda a, b, t: Binary("min", a, b),
    "Sum": lambda a, b, t: a + b,
}
"""Of two elements of the same type; those of more than two from the left."""
COMPARISONS: Mapping[str, Callable[[Expr, Expr], Expr]] = {
    "Equal": equal,
    "Less": less,
    "Greater": lambda a, b: less(b, a),
    "LessOrEqual": lambda a, b: Binary("le", a, b),
    "GreaterOrEqual": lambda a, b: Binary("le", b, a),
}
LOGIC: Mapping[str, str] = {"And": "and", "Or": "or", "Xor": "xor"}
# fmt: on


def _arithmetic(kind: str) -> Callable[[Site], Code]:
    def lower(site: Site) -> Code:
        dtype = site.out.dtype
        return pointwise(
            site, lambda *terms: reduce(lambda a, b: ARITHMETIC[kind](a, b, dtype), terms)
        )

    return lower


for _kind in ARITHMETIC:
    define(_kind, infer=_joint(NUMBERS), native=True)(_arithmetic(_kind))


def _comparison(kind: str) -> Callable[[Site], Code]:
    return lambda site: pointwise(site, COMPARISONS[kind], BOOL)


for _kind in COMPARISONS:
    define(_kind, infer=_joint(ANY, BOOL), native=True)(_comparison(_kind))


def _logic(operation: str) -> Callable[[Site], Code]:
    return lambda site: pointwise(site, lambda a, b: Binary(operation, a, b))  # type: ignore[arg-type]


for _kind, _operation in LOGIC.items():
    define(_kind, infer=_joint((BOOL,)), native=True)(_logic(_operation))
    define(f"Bitwise{_kind}", infer=_joint(INTEGERS), native=True)(_logic(_operation))


@define("Mean", infer=_joint(FLOATS), native=True)
def mean(site: Site) -> Code:
    """The mean of all inputs."""
    share = number(1 / len(site.present()), site.x.dtype)
    return pointwise(site, lambda *terms: reduce(lambda a, b: a + b, terms) * share)


@define("Mod", infer=_joint(NUMBERS), native=True)
def modulo(site: Site) -> Code:
    """The rest of a division, with the divisor's sign or, as C's, with the dividend's."""
    dtype, as_c = site.x.dtype, site.integer("fmod", 0)
    if dtype.kind == "f":
        if not as_c:  # numpy's remainder, which some writers of models rely on
            return pointwise(site, _floored)
        return pointwise(site, lambda a, b: function("fmod", a, b))
    if as_c:
        return pointwise(site, lambda a, b: a - truncated(a, b, dtype) * b)
    return pointwise(site, lambda a, b: a % b)


def _floored(a: Expr, b: Expr) -> Expr:
    zero, rest = number(0, F32), function("fmod", a, b)
    other = choose(less(rest, zero), less(zero, b), less(b, zero) & Binary("ne", rest, zero))
    return choose(other, rest + b, rest)


@define("BitShift", infer=_joint(INTEGERS), native=True)
def bit_shift(site: Site) -> Code:
    """A shift, to the right an arithmetic one of signed integers; by the width or more, or by a
    negative amount, it is 0, or -1 of negative ones to the right."""
    dtype, left = site.x.dtype, site.text("direction", "") == "LEFT"
    limit, most = number(dtype.bits, dtype), number(dtype.bits - 1, dtype)
    zero = number(0, dtype)

    def value(a: Expr, b: Expr) -> Expr:
        amount = Binary("max", Binary("min", b, most), zero)
        fits = less(b, limit) & (zero <= b)
        if not left:
            beyond = choose(less(a, zero), number(-1, dtype), zero) if dtype.kind == "i" else zero
            return choose(fits, a >> amount, beyond)
        return choose(fits, a << amount, zero)

    return pointwise(site, value)


def _pow_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    site.expect(site.input(1), NUMBERS)
    return [(site.x.dtype, site.broadcast(site.x.shape, site.input(1).shape))]


@define("Pow", infer=_pow_infer, native=True)
def power(site: Site) -> Code:
    """A power, computed in floating point: in double precision where an integer takes part."""
    types = [tensor.dtype for tensor in site.present()]
    floats = all(t.kind == "f" for t in types)
    work = computed(max(types, key=lambda t: t.bits)) if floats else DType("f", 64)

    def value(a: Expr, b: Expr) -> Expr:
        result = function("pow", Cast(work, a), Cast(work, b))
        return result if site.out.dtype.kind == "f" else Cast(I64, result)

    return pointwise(site, value, work if site.out.dtype.kind == "f" else I64)


def _where_infer(site: Site) -> Types:
    site.expect(site.x, (BOOL,))
    dtype = site.same_type(site.input(1), site.input(2))
    return [(dtype, site.broadcast(*(site.input(i).shape for i in range(3))))]


@define("Where", infer=_where_infer, native=True)
def where(site: Site) -> Code:
    """The second input where the first holds, else the third."""
    return pointwise(site, choose)


def _prelu_infer(site: Site) -> Types:
    site.expect(site.x, (*FLOATS, *INTEGERS))
    dtype = site.same_type(site.x, site.input(1))
    if site.broadcast(site.x.shape, site.input(1).shape) != site.x.shape:
        site.fail(f"a slope of shape {list(site.input(1).shape)} for {list(site.x.shape)}")
    return [(dtype, site.x.shape)]


@define("PRelu", infer=_prelu_infer, native=True)
def prelu(site: Site) -> Code:
    """An element, times the slope where it is negative."""
    zero = number(0, site.x.dtype)
    return pointwise(site, lambda x, slope: choose(less(x, zero), x * slope, x))
