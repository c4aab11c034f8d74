"""Functions of one element, and casts, as loop nests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...isa.nest import BOOL, F16, F32, F64, I32, I64, Binary, Cast, Const, DType, Expr, expr
from .narrow import NARROW
from .site import FLOATS, NUMBERS, SIGNED, UNSIGNED, Code, Kernel, Site, Types, define, same
from .terms import choose, computed, divide, equal, function, invert, less, number, pointwise


def _sigmoid(x: Expr, one: Expr) -> Expr:
    return divide(one, one + function("exp", _minus(x)))


def _minus(x: Expr) -> Expr:
    """The negative, of zero too."""
    return x * Const(-1.0, F32)


def _softplus(x: Expr, one: Expr, zero: Expr) -> Expr:
    """log(1 + e**x) without an overflow."""
    positive = Binary("max", x, zero)
    return positive + function("log", one + function("exp", _minus(function("abs", x))))


def _float(function_of: Callable[..., Expr]) -> Callable[[Site], Code]:
    """A lowering of ``function_of(x, literal, site)``."""

    def lower(site: Site) -> Code:
        def literal(value: float) -> Expr:
            return number(value, site.x.dtype)

        return pointwise(site, lambda x: function_of(x, literal, site))

    return lower


Literal = Callable[[float], Expr]


def _gelu(x: Expr, c: Literal, site: Site) -> Expr:
    if site.text("approximate", "none") == "tanh":
        inner = c(math.sqrt(2 / math.pi)) * (x + c(0.044715) * x * x * x)
        return c(0.5) * x * (c(1) + function("tanh", inner))
    return c(0.5) * x * (c(1) + function("erf", x * c(math.sqrt(0.5))))


def _celu(x: Expr, c: Literal, site: Site) -> Expr:
    alpha = site.real("alpha", 1.0)
    bent = c(alpha) * (function("exp", x * c(1 / alpha)) - c(1))
    return Binary("max", x, c(0)) + Binary("min", bent, c(0))


def _hard(x: Expr, c: Literal, alpha: float, beta: float) -> Expr:
    return Binary("max", c(0), Binary("min", c(1), c(alpha) * x + c(beta)))


def _library(name: str) -> Callable[[Expr, Literal, Site], Expr]:
    return lambda x, c, s: function(name, x)


# fmt: off
FUNCTIONS: Mapping[str, Callable[[Expr, Literal, Site], Expr]] = {
    **{kind: _library(kind.lower()) for kind in (
        "Floor", "Ceil", "Sqrt", "Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan",
        "Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh", "Erf",
    )},
    "Round": lambda x, c, s: function("rint", x),
    "Reciprocal": lambda x, c, s: divide(c(1), x),
    "Sigmoid": lambda x, c, s: _sigmoid(x, c(1)),
    "Softplus": lambda x, c, s: _softplus(x, c(1), c(0)),
    "Softsign": lambda x, c, s: divide(x, c(1) + function("abs", x)),
    "Mish": lambda x, c, s: x * function("tanh", _softplus(x, c(1), c(0))),
    "Swish": lambda x, c, s: x * _sigmoid(c(s.real("alpha", 1.0)) * x, c(1)),
    "HardSwish": lambda x, c, s: x * _hard(x, c, 1 / 6, 0.5),
    "HardSigmoid":
        lambda x, c, s: _hard(x, c, s.real("alpha", 0.2), s.real("beta", 0.5)),
    "LeakyRelu":
        lambda x, c, s: choose(less(x, c(0)), x * c(s.real("alpha", 0.01)), x),
    "Elu": lambda x, c, s: choose(
        less(x, c(0)), c(s.real("alpha", 1.0)) * (function("exp", x) - c(1)), x),
    "Selu": lambda x, c, s: c(s.real("gamma", 1.0507009873554805)) * choose(
        less(c(0), x), x,
        c(s.real("alpha", 1.6732632423543772)) * (function("exp", x) - c(1))),
    "Celu": _celu,
    "ThresholdedRelu": lambda x, c, s: choose(less(c(s.real("alpha", 1.0)), x), x, c(0)),
    "Gelu": _gelu,
}
"""Of floats: from an element, a maker of literals and the site."""
# fmt: on

for _kind, _function in FUNCTIONS.items():
    define(_kind, infer=same(FLOATS), native=True)(_float(_function))


# --- of floats and integers ------------------------------------------------------------------


def _first(site: Site) -> Types:
    if site.kind == "Dropout" and site.has(2) and bool(site.constant(2).any()):
        site.unsupported("training")
    shape = site.x.shape
    return [(site.x.dtype, shape), (BOOL, shape)][: site.count]


@define("Identity", "Dropout", infer=_first, native=True)
def identity(site: Site) -> Code | Kernel:
    """A copy; of Dropout's mask, nothing but truth."""
    if site.count == 2:
        return Kernel(lambda x, *_: (x, np.ones(x.shape, bool)))
    x, out = site.x, site.out
    dtype = DType("u", x.dtype.bits) if x.dtype == BOOL else x.dtype
    only = Site(site.name, site.kind, {}, (x,), 1, (out,))
    return pointwise(only, lambda a: a, computed(dtype))


@define("Abs", infer=same(NUMBERS), native=True)
def absolute(site: Site) -> Code:
    """The magnitude; of the least integer, itself."""
    kind = site.x.dtype.kind
    if kind == "f":
        return pointwise(site, lambda x: function("abs", x))
    if kind == "u":
        return pointwise(site, lambda x: x)
    return pointwise(site, lambda x: choose(less(x, number(0, site.x.dtype)), -x, x))


@define("Neg", infer=same((*FLOATS, *SIGNED)), native=True)
def negate(site: Site) -> Code:
    """The negative."""
    return pointwise(site, lambda x: x * number(-1, site.x.dtype))


@define("Sign", infer=same(NUMBERS), native=True)
def sign(site: Site) -> Code:
    """-1, 0 or 1; NaN stays."""
    dtype = site.x.dtype
    zero, one, minus = number(0, dtype), number(1, dtype), number(-1, dtype)

    def value(x: Expr) -> Expr:
        positive = choose(less(zero, x), one, choose(equal(x, zero), zero, x))
        return positive if dtype.kind == "u" else choose(less(x, zero), minus, positive)

    return pointwise(site, value)


@define("Relu", infer=same((*FLOATS, *SIGNED)), native=True)
def relu(site: Site) -> Code:
    """The greater of an element and 0."""
    return pointwise(site, lambda x: Binary("max", x, number(0, site.x.dtype)))


@define("Shrink", infer=same(NUMBERS), native=True)
def shrink(site: Site) -> Code:
    """Towards 0 by ``bias`` beyond ``lambd``, else 0."""
    dtype, bias, edge = site.x.dtype, site.real("bias", 0.0), site.real("lambd", 0.5)
    work = computed(dtype) if dtype.kind == "f" else F64

    def value(x: Expr) -> Expr:
        x = Cast(work, x)
        c = lambda v: Const(float(v), work)  # noqa: E731
        high = choose(less(c(edge), x), x - c(bias), c(0))
        return choose(less(x, c(-edge)), x + c(bias), high)

    return pointwise(site, value, work)


def _truth(types: Sequence[DType]) -> Callable[[Site], Types]:
    def infer(site: Site) -> Types:
        site.expect(site.x, types)
        return [(BOOL, site.x.shape)]

    return infer


@define("IsNaN", infer=_truth(FLOATS), native=True)
def is_nan(site: Site) -> Code:
    """Whether it is no number."""
    return pointwise(site, lambda x: invert(equal(x, x)), BOOL)


@define("IsInf", infer=_truth(FLOATS), native=True)
def is_inf(site: Site) -> Code:
    """Whether it is infinite, of the signs asked for."""
    infinity = number(math.inf, site.x.dtype)
    minus = number(-math.inf, site.x.dtype)
    wanted = [
        value
        for value, name in ((infinity, "detect_positive"), (minus, "detect_negative"))
        if site.integer(name, 1)
    ]

    def value(x: Expr) -> Expr:
        found: Expr = Const(0)
        for one in wanted:
            found = found | equal(x, one)
        return found

    return pointwise(site, value, BOOL)


@define("Not", infer=same((BOOL,)), native=True)
def negation(site: Site) -> Code:
    """The contrary."""
    return pointwise(site, invert, BOOL)


@define("BitwiseNot", infer=same((*SIGNED, *UNSIGNED)), native=True)
def bitwise_not(site: Site) -> Code:
    """Every bit's contrary."""
    return pointwise(site, lambda x: Binary("xor", x, number(-1, site.x.dtype)))


# --- clipping and casts ----------------------------------------------------------------------


@define("Clip", infer=same(NUMBERS), native=True)
def clip(site: Site) -> Code:
    """At least the second input and at most the third; they may be absent."""
    low, high = site.has(1), site.has(2)
    for tensor in site.present()[1:]:
        site.same_type(site.x, tensor)
        if tensor.shape not in ((), (1,)):
            site.fail(f"{tensor.name!r} has shape {list(tensor.shape)}, not that of a scalar")

    def value(x: Expr, *bounds: Expr) -> Expr:
        if low:
            x = Binary("max", x, bounds[0])
        return Binary("min", x, bounds[-1]) if high else x

    return pointwise(site, value)


def convert(value: Expr, source: DType, target: DType) -> tuple[Expr, DType]:
    """A value as ``Cast`` of ONNX has it, and its type; from float to integer it truncates.

    Of floats beyond an integer's range the result is as numpy's on this kind of machine for the
    common ones: through ``i64`` where the integer is narrower, whose low bits are kept.
    """
    if target == BOOL:
        return Binary("ne", value, number(0, source)), BOOL
    if source == BOOL:
        value, source = Cast(I32, value), I32
    if target in NARROW:
        spare = I32.bits - target.bits
        kept = Cast(I32, value)
        if target.kind == "u":
            return kept & Const(target.max), I32
        return (kept << Const(spare)) >> Const(spare), I32
    if source.kind == "f" and target.kind != "f" and target.bits < 32:
        return Cast(target, Cast(I32, value)), target
    work = computed(target)
    return Cast(work, value), work


def type_of_code(code: int) -> DType | None:
    """The type that ONNX numbers so; None for those that a graph does not hold."""
    return {
        1: F32, 2: DType("u", 8), 3: DType("i", 8), 4: DType("u", 16), 5: DType("i", 16), 6: I32,
        7: I64, 9: BOOL, 10: F16, 11: F64, 12: DType("u", 32), 13: DType("u", 64),
        21: DType("u", 4), 22: DType("i", 4), 25: DType("u", 2), 26: DType("i", 2),
    }.get(code)  # fmt: skip


def _cast_infer(site: Site) -> Types:
    if site.kind == "CastLike":
        return [(site.input(1).dtype, site.x.shape)]
    target = type_of_code(site.integer("to", 0))
    if target is None:
        site.unsupported(f"a cast to ONNX's type {site.integer('to', 0)}")
    return [(target, site.x.shape)]


@define("Cast", "CastLike", infer=_cast_infer, native=True)
def cast(site: Site) -> Code:
    """Another type."""
    only = Site(site.name, site.kind, {}, (site.x,), 1, site.outputs)
    source, target = site.x.dtype, site.out.dtype
    _, dtype = convert(expr(0), source, target)
    return pointwise(only, lambda x: convert(x, computed(source), target)[0], dtype)
