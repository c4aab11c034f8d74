"""Sums of products in pairs as LLVM IR.

Two products of integers that fit ``i16`` are made and added by one instruction of x86. Both factors
are vectors of pairs, a pair for each lane: as memory has them, interleaved from two vectors, or one
pair for all lanes. The addition wraps as any other, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .lanes import Lanes, is_narrow, lane_step, mentions, speculates
from .llvm_ir import Value, type_text
from .llvm_loops import Loops, Term, Totals
from .nest import I16, I32, I64, Binary, Expr, Load, Sum, promote
from .storage import unit_strides

WIDTH = 8
"""Lanes of a total: 256 bits of ``i32``."""

MADD = {
    4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512",
}  # fmt: skip
"""The instruction, by the lanes of a total."""


class Pairs(Loops):
    """Walks, and sums of narrow products over lanes."""

    def is_product(self, e: Sum) -> bool:
        """Whether the terms are products of integers that fit ``i16``."""
        body = e.body
        return (
            bool(e.axes)
            and isinstance(body, Binary)
            and body.op == "mul"
            and promote(self.dtype(body), I32) == I32
            and is_narrow(body.a, self.buffers)
            and is_narrow(body.b, self.buffers)
        )

    def in_pairs(self, e: Sum, width: int) -> Value:
        """A sum of narrow products, in totals of ``width`` lanes."""
        assert self.lanes is not None
        zeros = (Value("zeroinitializer", I32, width),) * (self.lanes.count // width)
        return self.joined(list(self.accumulate(e, zeros, self.pair_leaf)))

    def pair_leaf(self, e: Sum, totals: Totals) -> Totals:
        """Totals after the terms of one sum, two at a time."""
        product, (name, extent) = e.body, e.axes[-1]
        assert isinstance(product, Binary)

        def pair(both: bool) -> Term:
            def term(totals: Totals) -> Totals:
                a, b = (self.pair(factor, name, both) for factor in (product.a, product.b))
                return tuple(
                    self.multiply_add(t, self.interleaved(a, i, t), self.interleaved(b, i, t))
                    for i, t in enumerate(totals)
                )

            return term

        if extent > 1:
            even = (*e.axes[:-1], (name, extent - extent % 2))
            totals = self.written(even, totals, pair(both=True), step=2)
        if extent % 2:
            with self.binding(name, self.constant(extent - 1, I64)):
                totals = self.written(e.axes[:-1], totals, pair(both=False))
        return totals

    def joined(self, parts: list[Value]) -> Value:
        """Vectors put side by side; there are a power of two of them."""
        while len(parts) > 1:
            order = list(range(2 * parts[0].lanes))
            halves = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.shuffle(a, b, order) for a, b in halves]
        return parts[0]

    def pair(self, e: Expr, name: str, both: bool) -> Totals:
        """A factor at ``name`` and one further, or 0.

        A vector each; or one vector of the pairs, of all lanes or of one for all of them.
        """
        lanes = self.lanes
        assert lanes is not None
        if both and isinstance(e, Load) and self.pairs_lie_together(e, name):
            return (self.cast(self.load_pairs(e), I16),)
        if both and not mentions(e, lanes.steps) and not speculates(e, {name: 1}):
            with self.lanes_over(name, 2):
                return (self.cast(self.splat(self.expr(e), 2), I16),)
        first = self.cast(self.splat(self.expr(e), lanes.count), I16)
        if not both:
            return first, Value("zeroinitializer", I16, lanes.count)
        after = self.binary("add", self.names[name], self.constant(1, I64), " nsw")
        with self.binding(name, after):
            return first, self.cast(self.splat(self.expr(e), lanes.count), I16)

    def pairs_lie_together(self, e: Load, name: str) -> bool:
        """Whether memory holds the pairs of ``name``, one lane's after another's."""
        buffer, lanes = self.buffers[e.buffer], self.lanes
        assert lanes is not None
        if buffer.dtype.bits < 8:
            return False
        steps = [(lanes.step(i), lane_step(i, {name: 1})) for i in e.indices]
        strides = unit_strides(buffer)
        if any(None in step for step in steps):
            return False
        by_lane, by_name = (
            sum(stride * (step[k] or 0) for stride, step in zip(strides, steps, strict=True))
            for k in (0, 1)
        )
        unit = buffer.dtype.bits // 8
        return (by_lane, by_name) == (2 * unit, unit)

    def load_pairs(self, e: Load) -> Value:
        """Those pairs, of all lanes."""
        buffer, lanes = self.buffers[e.buffer], self.lanes
        assert lanes is not None
        offset, _ = self.place(buffer, e.indices)
        at, dtype = self.address(buffer, offset), buffer.dtype
        kind = type_text(dtype, 2 * lanes.count)
        text = f"load {kind}, ptr {at}, align {dtype.bits // 8}"
        return self.op(text, dtype, 2 * lanes.count)

    @contextmanager
    def lanes_over(self, name: str, count: int) -> Iterator[None]:
        """Lanes along another index for a while."""
        outer = self.lanes
        self.lanes = Lanes(count, name, {name: 1}, {}, even=False)
        yield
        self.lanes = outer

    def interleaved(self, pair: Totals, part: int, total: Value) -> Value:
        """The pairs of one total's lanes, ``i16``: first, second, first, second."""
        width = total.lanes
        if len(pair) == 1 and pair[0].lanes > 2:
            order = list(range(2 * width * part, 2 * width * (part + 1)))
            return self.shuffle(pair[0], pair[0], order)
        if len(pair) == 1:
            both = self.op(f"bitcast <2 x i16> {pair[0].text} to i32", I32)
            kinds = type_text(I32, width), type_text(I16, 2 * width)
            text = f"bitcast {kinds[0]} {self.splat(both, width).text} to {kinds[1]}"
            return self.op(text, I16, 2 * width)
        order = [part * width + i // 2 + pair[0].lanes * (i % 2) for i in range(2 * width)]
        return self.shuffle(pair[0], pair[1], order)

    def multiply_add(self, total: Value, a: Value, b: Value) -> Value:
        """A total and the two products of each lane's pairs."""
        return self.binary("add", total, self.call(MADD[total.lanes], (I32, total.lanes), a, b))
