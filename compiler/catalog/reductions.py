"""Reductions over axes, and what normalizes along an axis, as loop nests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...isa.nest import (
    BOOL,
    F16,
    F32,
    F64,
    I32,
    I64,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    If,
    Index,
    Load,
    Stmt,
    Store,
    Sum,
)
from .site import FLOATS, NUMBERS, Code, Shape, Site, Types, define, same
from .terms import (
    ZERO,
    added,
    axes_of,
    buffer,
    choose,
    code,
    computed,
    divide,
    function,
    indices_of,
    less,
    load,
    loops,
    number,
    store,
)


def reduced_axes(site: Site) -> tuple[int, ...]:
    """The axes that a reduction goes over, in order."""
    rank = len(site.x.shape)
    asked = site.list_of("axes", 1)
    if not asked:
        return () if site.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(site.axes(asked, rank)))


def without(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    """A shape after a reduction."""
    if keep:
        return tuple(1 if k in axes else extent for k, extent in enumerate(shape))
    return tuple(extent for k, extent in enumerate(shape) if k not in axes)


@dataclass(frozen=True)
class Walk:
    """The loops of a reduction: over what stays, and over what is reduced."""

    outer: tuple[tuple[str, int], ...]
    inner: tuple[tuple[str, int], ...]
    x: tuple[Expr, ...]
    """Where the element of the input lies."""
    out: tuple[Expr, ...]
    """Where that of the output lies, which has the input's shape without ``inner``'s axes."""

    @property
    def shape(self) -> Shape:
        """Of the output, without the axes that are reduced."""
        return tuple(extent for _, extent in self.outer)

    @property
    def count(self) -> int:
        """Elements that become one."""
        return math.prod(extent for _, extent in self.inner)


def walk_of(shape: Shape, axes: Sequence[int]) -> Walk:
    """The loops of a reduction of these axes."""
    every = axes_of(shape)
    outer = tuple(axis for k, axis in enumerate(every) if k not in axes)
    inner = tuple(axis for k, axis in enumerate(every) if k in axes)
    return Walk(outer, inner, indices_of(every), indices_of(outer) or (ZERO,))


def running(
    place: Sequence[Expr], walk: Walk, into: Buffer, first: Expr, update: Callable[[Expr], Expr]
) -> Stmt:
    """``into`` at ``place`` becomes ``first``, then ``update`` of itself for every point."""
    value = Load(into.name, tuple(place))
    change = Store(into.name, tuple(place), update(value))
    return Block((Store(into.name, tuple(place), first), loops(walk.inner, change, parallel=False)))


def _infer(types: Sequence[DType]) -> Callable[[Site], Types]:
    def infer(site: Site) -> Types:
        site.expect(site.x, types)
        shape = without(site.x.shape, reduced_axes(site), bool(site.integer("keepdims", 1)))
        return [(site.x.dtype, shape)]

    return infer


def accumulator(dtype: DType) -> DType:
    """The type in which values are summed."""
    dtype = computed(dtype)
    return dtype if dtype.bits >= 32 else I32


# fmt: off
TERMS: dict[str, Callable[[Expr, DType], Expr]] = {
    "ReduceSum": lambda x, t: x,
    "ReduceMean": lambda x, t: x,
    "ReduceL1":
        lambda x, t: function("abs", x) if t.kind == "f" else Binary("max", x, x * -1),
    "ReduceL2": lambda x, t: x * x,
    "ReduceSumSquare": lambda x, t: x * x,
    "ReduceLogSum": lambda x, t: x,
}
"""What a reduction sums."""
# fmt: on


@define(*TERMS, infer=_infer(NUMBERS), native=True)
def reduce_sum(site: Site) -> Code:
    """A sum of terms, and what is made of it."""
    x, out, dtype = site.x, site.out, site.x.dtype
    walk = walk_of(x.shape, reduced_axes(site))
    work = accumulator(dtype)
    value: Expr = TERMS[site.kind](load(x, walk.x), dtype)
    value = Sum(walk.inner, value) if walk.inner else value
    done = work
    match site.kind:
        case "ReduceMean" if dtype.kind == "f":
            value = divide(value, number(walk.count, dtype))
        case "ReduceMean":
            value, done = divide(Cast(F64, value), Const(float(walk.count), F64)), F64
        case "ReduceL2":
            done = work if dtype.kind == "f" else F64
            value = function("sqrt", Cast(done, value))
        case "ReduceLogSum":
            done = work if dtype.kind == "f" else F64
            value = function("log", Cast(done, value))
        case _:
            pass
    body = loops(walk.outer, store(out, walk.out, value, done))
    return code(site, (buffer(x), buffer(out, walk.shape)), body)


def extreme(dtype: DType, greatest: bool) -> Expr:
    """The number that is greater, or less, than every other one."""
    if dtype.kind == "f":
        return number(math.inf if greatest else -math.inf, dtype)
    if dtype == BOOL:
        return Const(int(greatest))
    return number(dtype.max if greatest else dtype.min, dtype)


# fmt: off
FOLDS: dict[str, tuple[Callable[[DType], Expr], Callable[[Expr, Expr], Expr]]] = {
    "ReduceMax": (lambda t: extreme(t, False), lambda a, b: Binary("max", a, b)),
    "ReduceMin": (lambda t: extreme(t, True), lambda a, b: Binary("min", a, b)),
    "ReduceProd": (lambda t: number(1, t), lambda a, b: a * b),
}
"""Where other reductions start and how they go on."""
# fmt: on


@define(*FOLDS, infer=_infer((*NUMBERS, BOOL)), native=True)
def reduce_fold(site: Site) -> Code:
    """A running extremum or product."""
    x, out, dtype = site.x, site.out, site.x.dtype
    walk = walk_of(x.shape, reduced_axes(site))
    first, step = FOLDS[site.kind]
    work = accumulator(dtype)
    total = Buffer(added(site, "total"), work, walk.shape or (1,))
    value = load(x, walk.x)
    steps = running(walk.out, walk, total, first(dtype), lambda t: step(t, value))
    end = store(out, walk.out, Load(total.name, walk.out), work)
    body = loops(walk.outer, Block((steps, end)))
    return code(site, (buffer(x), buffer(out, walk.shape)), body, scratch=(total,))


@define("ReduceLogSumExp", infer=_infer(FLOATS), native=True)
def reduce_log_sum_exp(site: Site) -> Code:
    """The logarithm of a sum of powers of e, less their greatest exponent meanwhile."""
    x, out, dtype = site.x, site.out, site.x.dtype
    walk = walk_of(x.shape, reduced_axes(site))
    work = computed(dtype)
    most = Buffer(added(site, "most"), work, walk.shape or (1,))
    top, value = Load(most.name, walk.out), load(x, walk.x)
    finding = running(
        walk.out, walk, most, extreme(dtype, False), lambda t: Binary("max", t, value)
    )
    # Of infinities nothing is subtracted: infinity less itself would be no number.
    finite = less(function("abs", top), number(math.inf, dtype))
    keep = Store(most.name, walk.out, Cast(work, choose(finite, top, number(0, dtype))))
    power = function("exp", value - top)
    total = Sum(walk.inner, power) if walk.inner else power
    end = store(out, walk.out, function("log", total) + top, work)
    body = loops(walk.outer, Block((finding, keep, end)))
    return code(site, (buffer(x), buffer(out, walk.shape)), body, scratch=(most,))


# --- the place of an extremum ------------------------------------------------------------------


def _arg_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    axis = site.axis(site.integer("axis", 0), len(site.x.shape))
    if not site.x.shape or not site.x.shape[axis]:
        site.fail("there is no element to choose")
    return [(I64, without(site.x.shape, (axis,), bool(site.integer("keepdims", 1))))]


@define("ArgMax", "ArgMin", infer=_arg_infer, native=True)
def arg_extremum(site: Site) -> Code:
    """Where the extremum stands: its first place, or its last one."""
    x, out = site.x, site.out
    walk = walk_of(x.shape, (site.axis(site.integer("axis", 0), len(x.shape)),))
    best = Load(out.name, walk.out)
    ((name, _),) = walk.inner
    at = tuple(best if i == Index(name) else i for i in walk.x)
    here, there = load(x, walk.x), load(x, at)
    a, b = (there, here) if site.kind == "ArgMax" else (here, there)
    better = Binary("le" if site.integer("select_last_index", 0) else "lt", a, b)
    change = If(better, Store(out.name, walk.out, Index(name)))
    first = Store(out.name, walk.out, Const(0, I64))
    body = loops(walk.outer, Block((first, loops(walk.inner, change, parallel=False))))
    return code(site, (buffer(x), buffer(out, walk.shape)), body)


# --- along an axis -----------------------------------------------------------------------------


def _softmax_axes(site: Site) -> tuple[int, ...]:
    return (site.axis(site.integer("axis", -1), len(site.x.shape)),) if site.x.shape else ()


def _softmax_infer(site: Site) -> Types:
    _softmax_axes(site)
    return same(FLOATS)(site)


@define("Softmax", "LogSoftmax", infer=_softmax_infer, native=True)
def softmax(site: Site) -> Code:
    """Powers of e, as shares of their sum; or the logarithms of the shares, which are those of
    TensorFlow Lite's reference kernel to the bit: it adds one power after another.

    Of half precision every step is rounded to it, as in the function that defines the operator."""
    x, out, dtype = site.x, site.out, site.x.dtype
    work = computed(dtype)
    walk = walk_of(x.shape, _softmax_axes(site))
    most, total = (Buffer(added(site, what), work, walk.shape or (1,)) for what in ("most", "sum"))
    # The output holds the powers meanwhile, if it can.
    own = out.dtype == work
    powers = buffer(out) if own else Buffer(added(site, "powers"), work, x.shape or (1,))
    top, sum_ = Load(most.name, walk.out), Load(total.name, walk.out)
    place = walk.x or (ZERO,)
    # What is no number need not be found: its power makes the whole row none.
    element = load(x, place)
    finding = running(
        walk.out, walk, most, extreme(dtype, False), lambda t: choose(less(t, element), element, t)
    )
    less_most = _rounded(load(x, place) - top, dtype)
    raised = _rounded(function("exp", less_most), dtype)
    if site.kind == "Softmax":
        raising = loops(walk.inner, Store(powers.name, place, raised))
        power: Expr = Load(powers.name, place)
        all_of_them = _rounded(Sum(walk.inner, power) if walk.inner else power, dtype)
        summing = Store(total.name, walk.out, all_of_them)
        value: Expr = power * sum_ if dtype != F16 else divide(power, sum_)
        inverse = divide(number(1, dtype), sum_) if dtype != F16 else sum_
        invert = Store(total.name, walk.out, inverse)
    else:
        raising = Store(total.name, walk.out, number(0, work))
        adding = Store(total.name, walk.out, sum_ + raised)
        summing = loops(walk.inner, adding, parallel=False)
        value = less_most - sum_
        invert = Store(total.name, walk.out, function("log", sum_))
    ending = loops(walk.inner, store(out, place, value, work))
    body = loops(walk.outer, Block((finding, raising, summing, invert, ending)))
    holds_powers = site.kind == "Softmax" and not own
    scratch = (most, total, powers) if holds_powers else (most, total)
    return code(site, (buffer(x), buffer(out)), body, scratch=scratch)


def _rounded(value: Expr, dtype: DType) -> Expr:
    """A value as a tensor of that type would hold it, to be computed with further."""
    return Cast(F32, Cast(F16, value)) if dtype == F16 else value


@define("Hardmax", infer=_softmax_infer, native=True)
def hardmax(site: Site) -> Code:
    """1 where the first maximum along the axis stands, else 0."""
    x, out, dtype = site.x, site.out, site.x.dtype
    if not x.shape:
        site.unsupported("a scalar")
    walk = walk_of(x.shape, _softmax_axes(site))
    best = Buffer(added(site, "best"), I64, walk.shape or (1,))
    ((name, _),) = walk.inner
    found = Load(best.name, walk.out)
    at = tuple(found if i == Index(name) else i for i in walk.x)
    change = If(less(load(x, at), load(x, walk.x)), Store(best.name, walk.out, Index(name)))
    one = choose(Binary("eq", found, Index(name)), number(1, dtype), number(0, dtype))
    steps = (
        Store(best.name, walk.out, Const(0, I64)),
        loops(walk.inner, change, parallel=False),
        loops(walk.inner, store(out, walk.x, one, computed(dtype))),
    )
    return code(site, (buffer(x), buffer(out)), loops(walk.outer, Block(steps)), scratch=(best,))


def _cumulative_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    _cumulative_axis(site)
    return [(site.x.dtype, site.x.shape)]


def _cumulative_axis(site: Site) -> int:
    values = site.constant(1).reshape(-1)
    if values.size != 1 or not site.x.shape:
        site.fail("one axis of a tensor of rank 1 or more is expected")
    return site.axis(int(values[0]), len(site.x.shape))


@define("CumSum", "CumProd", infer=_cumulative_infer, native=True)
def cumulative(site: Site) -> Code:
    """Sums or products of all elements so far, forwards or backwards."""
    x, out, dtype = site.x, site.out, site.x.dtype
    work = accumulator(dtype)
    walk = walk_of(x.shape, (_cumulative_axis(site),))
    ((name, extent),) = walk.inner
    place: Expr = Index(name)
    if site.integer("reverse", 0):
        place = Const(extent - 1, I64) - place
    at = tuple(place if i == Index(name) else i for i in walk.x)
    total = Buffer(added(site, "total"), work, walk.shape or (1,))
    so_far, value = Load(total.name, walk.out), load(x, at)
    change = Store(
        total.name, walk.out, so_far + value if site.kind == "CumSum" else so_far * value
    )
    put = store(out, at, so_far, work)
    steps = (put, change) if site.integer("exclusive", 0) else (change, put)
    first = Store(total.name, walk.out, number(int(site.kind == "CumProd"), work))
    body = Block((first, loops(walk.inner, Block(steps), parallel=False)))
    return code(site, (buffer(x), buffer(out)), loops(walk.outer, body), scratch=(total,))
