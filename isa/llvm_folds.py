"""Reductions outside of lanes as LLVM IR: lanes along what is reduced.

A sum, and a loop that keeps the greatest or least of what it meets, go through memory some vectors
at a time where their terms lie side by side, and come together at the end. Floating point may be
added in any order (:mod:`weft.isa.nest`), integers wrap, and of extrema the order is no matter.
A sum of what a loop has just stored is taken along with that loop (:func:`sum_of_stored`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .lanes import is_together, mentions, speculates
from .llvm_ir import Value, type_text
from .llvm_loops import Totals
from .llvm_rounding import Roundings
from .nest import (
    I32,
    I64,
    Binary,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    Index,
    Load,
    Select,
    Stmt,
    Store,
    Sum,
    promote,
)
from .traverse import substitute, walk

LEAST_BITS = 256
"""Of a vector, also where a register is shorter."""
ABREAST = 4
"""Vectors that are on their way at once."""

Step = Callable[[Value, Value], Value]


def sum_of_stored(loop: Stmt, following: Stmt, buffers: Mapping[str, Buffer]) -> Sum | None:
    """The sum, in a store that follows a parallel loop, of exactly the elements that it stores."""
    match loop, following:
        case For(index, Const(0), Const(stop), Store(buffer, indices, _), True), Store():
            pass
        case _:
            return None
    dtype = buffers[buffer].dtype
    if promote(dtype, I32) != dtype:
        return None
    for e in walk(following):
        match e:
            case Sum(((axis, extent),), body) if extent == stop:
                if body == substitute(Load(buffer, indices), {index: Index(axis)}):
                    return e
            case _:
                pass
    return None


class Folds(Roundings):
    """Sums, roundings, and reductions along memory, where code is not left to LLVM's passes."""

    def sum(self, e: Sum) -> Value:
        """The value of a sum."""
        dtype = promote(self.dtype(e.body), I32)
        if self.target is None or self.lanes is not None or not e.axes or dtype.bits > 64:
            return super().sum(e)
        name, extent = e.axes[-1]
        lanes = self.abreast(dtype, extent)
        if not lanes or not self.goes_along(e.body, name):
            return super().sum(e)
        zeros = (Value("zeroinitializer", dtype, lanes),) * min(ABREAST, extent // lanes)
        step: Step = self.plus
        totals = self.loops(
            e.axes[:-1], zeros, lambda t: self.stretch(e.body, name, extent, t, step)
        )
        rest = extent % lanes
        total = self.together(totals, step)
        if not rest:
            return total
        tail = Sum((*e.axes[:-1], (name, rest)), e.body)
        return self.plus(total, self.tail_of_sum(tail, extent - rest))

    def abreast(self, dtype: DType, extent: int) -> int:
        """How many of ``extent`` elements a vector takes: what a register holds, or half of that
        where there are no more; 0 where there are fewer."""
        assert self.target is not None
        bits = max(LEAST_BITS, self.target.bits)
        while bits > LEAST_BITS and extent * dtype.bits < bits:
            bits //= 2
        return bits // dtype.bits if extent * dtype.bits >= bits else 0

    def tail_of_sum(self, e: Sum, first: int) -> Value:
        """The last terms of every stretch, one by one."""
        (name, rest) = e.axes[-1]
        zero = self.constant(0, promote(self.dtype(e.body), I32))

        def terms(totals: Totals) -> Totals:
            return self.written_out(
                name, range(first, first + rest), totals,
                lambda t: (self.plus(t[0], self.expr(e.body)),),
            )  # fmt: skip

        (total,) = self.loops(e.axes[:-1], (zero,), terms)
        return total

    def goes_along(self, e: Expr, name: str) -> bool:
        """Whether the values of ``e`` at neighbouring values of ``name`` lie side by side."""
        nodes = list(walk(e))
        if any(isinstance(n, Sum) for n in nodes) or speculates(e, {name: 1}):
            return False
        loads = [n for n in nodes if isinstance(n, Load)]
        return all(is_together(n, {name: 1}, self.buffers) for n in loads)

    def stretch(self, e: Expr, name: str, extent: int, totals: Totals, step: Step) -> Totals:
        """Totals after the whole vectors of one stretch."""
        lanes, abreast = totals[0].lanes, len(totals)
        whole = extent // (lanes * abreast) * (lanes * abreast)

        def trip(totals: Totals) -> Totals:
            at = self.names[name]
            found: list[Value] = []
            for k, total in enumerate(totals):
                place = self.binary("add", at, self.constant(k * lanes, I64), " nsw")
                with self.binding(name, place):
                    found.append(step(total, self.along(e, name, lanes)))
            return tuple(found)

        totals = self.looped(name, whole, lanes * abreast, totals, trip)
        for at in range(whole, extent // lanes * lanes, lanes):
            with self.binding(name, self.constant(at, I64)):
                totals = (step(totals[0], self.along(e, name, lanes)), *totals[1:])
        return totals

    def together(self, totals: Totals, step: Step) -> Value:
        """All lanes of all totals as one scalar."""
        parts = list(totals)
        while len(parts) > 1:
            parts = [step(parts[0], parts[1]), *parts[2:]]
        total = parts[0]
        while total.lanes > 1:
            half = total.lanes // 2
            low = self.shuffle(total, total, list(range(half)))
            total = step(low, self.shuffle(total, total, list(range(half, 2 * half))))
        kind = type_text(total.dtype, 1)
        return self.op(f"extractelement {kind} {total.text}, i64 0", total.dtype)

    def extremum(self, stmt: For) -> bool:
        """Emit a loop that keeps the greatest or least of what it meets, if ``stmt`` is one.

        It is kept by ``min`` or ``max``, or, where what is no number does not count, by a
        selection.
        """
        match stmt:
            case For(index, Const(0), Const(stop), Store(buffer, place, update), False):
                extent = int(stop)
            case _:
                return False
        step: Step
        match update:
            case Binary("min" | "max" as op, Load() as old, value):
                step = lambda a, b: self.binary(op, a, b)  # noqa: E731
            case Select(Binary("lt", Load() as old, value), a, b) if a == value and b == old:
                step = lambda a, b: self.choose(self.binary("lt", a, b), b, a)  # noqa: E731
            case _:
                return False
        dtype = self.buffers[buffer].dtype
        if old != Load(buffer, place) or self.lanes is not None or buffer in self.checked:
            return False
        if any(mentions(i, (index,)) for i in place):
            return False
        if any(isinstance(n, Load) and n.buffer == buffer for n in walk(value)):
            return False
        if self.dtype(value) != dtype or dtype.bits < 32:
            return False
        lanes = self.abreast(dtype, extent)
        if not lanes:
            return False
        if not self.goes_along(value, index):
            return False
        first = self.splat(self.expr(old), lanes)
        totals = (first,) * min(ABREAST, extent // lanes)
        wide: Step = lambda a, b: step(a, self.splat(b, a.lanes))  # noqa: E731
        total = self.together(self.stretch(value, index, extent, totals, wide), wide)
        for at in range(extent // lanes * lanes, extent):
            with self.binding(index, self.constant(at, I64)):
                total = step(total, self.expr(value))
        self.stores += 1
        self.known = {}
        offset, _ = self.place(self.buffers[buffer], place)
        self.store_one(self.buffers[buffer], offset, total)
        return True
