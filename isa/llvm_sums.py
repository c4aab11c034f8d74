"""Sums as LLVM IR: written out or as loops, products of narrow integers two terms at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from .lanes import Lanes, is_narrow, mentions, speculates
from .llvm_access import Accesses
from .llvm_ir import Value, type_text
from .nest import BOOL, I16, I32, I64, Binary, Expr, Nest, Sum, promote

UNROLL = 16
"""Terms that are written out before the rest becomes a loop."""
CHUNK = 8
"""Terms that one trip of such a loop adds."""

Totals = tuple[Value, ...]
Term = Callable[[Totals], Totals]


class Sums(Accesses):
    """Accesses, and the sums over them.

    ``pairs`` says whether the target has x86's multiplication of pairs of ``i16`` that adds the
    two products. A sum over lanes uses it where both factors fit ``i16``: exact, for the
    addition wraps as any other.
    """

    def __init__(self, nest: Nest, checked: frozenset[str], pairs: bool):
        super().__init__(nest, checked)
        self.pairs = pairs

    def sum(self, e: Sum) -> Value:
        """The value of a sum, for all lanes."""
        dtype = promote(self.dtype(e.body), I32)
        lanes = self.lanes
        if lanes is not None and not mentions(e.body, lanes.steps):
            return self.first_lane(e)
        if not all(extent for _, extent in e.axes):
            return self.constant(0, dtype)
        if lanes is not None and self.pairs:
            body = e.body
            width = min(8, lanes.count)
            if (
                dtype == I32
                and width >= 4
                and lanes.count % width == 0
                and e.axes[-1][1] >= 2
                and isinstance(body, Binary)
                and body.op == "mul"
                and is_narrow(body.a, self.buffers)
                and is_narrow(body.b, self.buffers)
            ):
                return self.sum_of_pairs(e, body, width)
        zero = self.constant(0, dtype)
        if lanes is not None:
            zero = Value("zeroinitializer", dtype, lanes.count)
        (total,) = self.over(e.axes, (zero,), lambda totals: (self.plus(totals[0], e.body),))
        return total

    def plus(self, total: Value, term: Expr) -> Value:
        """A total and one more term."""
        value = self.cast(self.expr(term), total.dtype)
        if total.lanes:
            value = self.splat(value, total.lanes)
        kind = type_text(total.dtype, total.lanes)
        word = "fadd reassoc contract" if total.dtype.kind == "f" else "add"
        return self.op(f"{word} {kind} {total.text}, {value.text}", total.dtype, total.lanes)

    # --- the walk over the axes

    def over(
        self, axes: tuple[tuple[str, int], ...], totals: Totals, term: Term, step: int = 1
    ) -> Totals:
        """Totals after ``term`` at every point of ``axes``; the last is walked by ``step``."""
        if not axes:
            return term(totals)
        (name, extent), *rest = axes
        if rest:
            inner: Term = lambda t: self.over(tuple(rest), t, term, step)  # noqa: E731
            terms = extent
            for _, other in rest:
                terms *= other
            if self.lanes is not None and terms <= UNROLL * step:
                return self.written_out(name, range(extent), totals, inner)
            return self.looped(name, extent, 1, totals, inner)
        if self.lanes is None:
            return self.looped(name, extent, 1, totals, term)
        whole = extent // step * step
        if whole <= UNROLL * step:
            return self.written_out(name, range(0, whole, step), totals, term)
        chunk = CHUNK * step
        looped = whole // chunk * chunk

        def trip(totals: Totals) -> Totals:
            at = self.names[name]
            places = (
                self.binary("add", at, self.constant(k, I64), " nsw") for k in range(0, chunk, step)
            )
            return self.written_out(name, places, totals, term)

        totals = self.looped(name, looped, chunk, totals, trip)
        return self.written_out(name, range(looped, whole, step), totals, term)

    def written_out(
        self, name: str, places: range | Iterator[Value], totals: Totals, term: Term
    ) -> Totals:
        """One term after another."""
        for place in places:
            at = self.constant(place, I64) if isinstance(place, int) else place
            with self.binding(name, at):
                totals = term(totals)
        return totals

    def looped(self, name: str, stop: int, step: int, totals: Totals, term: Term) -> Totals:
        """A loop from 0 to ``stop``, which is positive, with totals carried along."""
        head, end = self.label("sum"), self.label("summed")
        before = self.block
        self.jump(head)
        self.start(head)
        index = self.label("%i")
        phis = [self.label("%t") for _ in totals]
        at = len(self.lines)
        carried = tuple(replace(t, text=phi) for phi, t in zip(phis, totals, strict=True))
        with self.binding(name, Value(index, I64)):
            carried = term(carried)
        following = self.emit(f"add nuw nsw i64 {index}, {step}")
        lines = [f"  {index} = phi i64 [ 0, %{before} ], [ {following}, %{self.block} ]"]
        for phi, first, after in zip(phis, totals, carried, strict=True):
            kind = type_text(first.dtype, first.lanes)
            edges = f"[ {first.text}, %{before} ], [ {after.text}, %{self.block} ]"
            lines.append(f"  {phi} = phi {kind} {edges}")
        self.lines[at:at] = lines
        self.branch(self.op(f"icmp ult i64 {following}, {stop}", BOOL), head, end)
        self.start(end)
        return carried

    # --- pairs

    def sum_of_pairs(self, e: Sum, product: Binary, width: int) -> Value:
        """A sum of narrow products, in accumulators of ``width`` lanes."""
        assert self.lanes is not None
        count, (name, extent) = self.lanes.count, e.axes[-1]

        def pair(totals: Totals) -> Totals:
            a, b = self.pair(product.a, name), self.pair(product.b, name)
            return tuple(
                self.multiply_add(t, self.interleaved(a, i, width), self.interleaved(b, i, width))
                for i, t in enumerate(totals)
            )

        zeros = (Value("zeroinitializer", I32, width),) * (count // width)
        even = (*e.axes[:-1], (name, extent - extent % 2))
        total = self.joined(list(self.over(even, zeros, pair, step=2)))
        if extent % 2:
            with self.binding(name, self.constant(extent - 1, I64)):
                rest: Term = lambda t: (self.plus(t[0], product),)  # noqa: E731
                (total,) = self.over(e.axes[:-1], (total,), rest)
        return total

    def joined(self, parts: list[Value]) -> Value:
        """Accumulators put side by side; there are a power of two of them."""
        while len(parts) > 1:
            order = list(range(2 * parts[0].lanes))
            halves = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.shuffle(a, b, order) for a, b in halves]
        return parts[0]

    def pair(self, e: Expr, name: str) -> Totals:
        """A factor at ``name`` and one further: a vector each, or both in one for all lanes."""
        assert self.lanes is not None
        if not mentions(e, self.lanes.steps) and not speculates(e, {name: 1}):
            with self.lanes_over(name, 2):
                return (self.cast(self.splat(self.expr(e), 2), I16),)
        first = self.cast(self.splat(self.expr(e), self.lanes.count), I16)
        after = self.binary("add", self.names[name], self.constant(1, I64), " nsw")
        with self.binding(name, after):
            return first, self.cast(self.splat(self.expr(e), self.lanes.count), I16)

    @contextmanager
    def lanes_over(self, name: str, count: int) -> Iterator[None]:
        """Lanes along another index for a while."""
        outer = self.lanes
        self.lanes = Lanes(count, name, {name: 1}, {}, even=False)
        yield
        self.lanes = outer

    def interleaved(self, pair: Totals, part: int, width: int) -> Value:
        """The pairs of ``width`` lanes, ``i16``: first, second, first, second."""
        if len(pair) == 1:
            both = self.op(f"bitcast <2 x i16> {pair[0].text} to i32", I32)
            kinds = type_text(I32, width), type_text(I16, 2 * width)
            text = f"bitcast {kinds[0]} {self.splat(both, width).text} to {kinds[1]}"
            return self.op(text, I16, 2 * width)
        order = [part * width + i // 2 + pair[0].lanes * (i % 2) for i in range(2 * width)]
        return self.shuffle(pair[0], pair[1], order)

    def multiply_add(self, total: Value, a: Value, b: Value) -> Value:
        """A total and the two products of each lane's pairs."""
        name = "llvm.x86.avx2.pmadd.wd" if total.lanes == 8 else "llvm.x86.sse2.pmadd.wd"
        return self.binary("add", total, self.call(name, (I32, total.lanes), a, b))
