"""Sums over rows of memory as LLVM IR.

The lanes lie far apart in memory but the terms of each lie side by side, as in the weights of a
layer. Each lane has a vector of totals, which is added up at the end; a row that all lanes share is
loaded once for some of them.
"""

from __future__ import annotations

from contextlib import ExitStack

from .lanes import Lanes, mentions
from .llvm_ir import Value, type_text
from .llvm_loops import Leaf, Term, Totals
from .llvm_pairs import WIDTH, Pairs
from .nest import I16, I64, Binary, DType, Expr, Sum

WRITTEN_PIECES = 4
"""Pieces of a row that are written out before the row becomes a loop."""


class Rows(Pairs):
    """Sums in pairs, and sums over rows."""

    def rows(self, e: Sum, dtype: DType, pairs: bool) -> Value:
        """A sum whose lanes are rows of memory, some lanes at a time."""
        lanes = self.lanes
        assert lanes is not None
        width = WIDTH * 32 // max(32, dtype.bits)
        parts: list[Value] = []
        for first in range(0, lanes.count, WIDTH):
            group = range(first, min(first + WIDTH, lanes.count))
            zeros = (Value("zeroinitializer", dtype, width),) * len(group)
            self.lanes = None
            leaf: Leaf = lambda e, t, g=group: self.row_leaf(e, t, g, lanes, pairs)  # noqa: E731
            totals = self.accumulate(e, zeros, leaf)
            parts.append(self.added_up(list(totals), dtype))
            self.lanes = lanes
        return self.joined(parts)

    def row_leaf(self, e: Sum, totals: Totals, group: range, lanes: Lanes, pairs: bool) -> Totals:
        """Totals after the terms of one sum, pieces of rows at a time."""
        name, extent = e.axes[-1]
        piece = totals[0].lanes * (1 + pairs)

        def term(count: int) -> Term:
            return lambda totals: self.row_term(e.body, totals, name, count, group, lanes, pairs)

        def row(totals: Totals) -> Totals:
            whole = extent // piece * piece
            if whole > WRITTEN_PIECES * piece:
                totals = self.looped(name, whole, piece, totals, term(piece))
            else:
                totals = self.written_out(name, range(0, whole, piece), totals, term(piece))
            at, size = whole, piece // 2
            while at < extent:
                if extent - at >= size:
                    totals = self.written_out(name, [at], totals, term(size))
                    at += size
                size //= 2
            return totals

        return self.loops(e.axes[:-1], totals, row)

    def row_term(
        self, body: Expr, totals: Totals, name: str, count: int, group: range, lanes: Lanes,
        pairs: bool,
    ) -> Totals:  # fmt: skip
        """Totals after ``count`` neighbouring terms of each lane."""
        factors = (body.a, body.b) if pairs and isinstance(body, Binary) else (body,)
        shared = {f: self.along(f, name, count) for f in factors if not mentions(f, lanes.steps)}
        sums: list[Value] = []
        for lane, total in zip(group, totals, strict=True):
            with ExitStack() as stack:
                for each in lanes.steps:
                    stack.enter_context(self.binding(each, self.at_lane(each, lane, lanes)))
                values = [shared[f] if f in shared else self.along(f, name, count) for f in factors]
            if pairs:
                a, b = (self.filled(self.cast(v, I16), 2 * total.lanes) for v in values)
                sums.append(self.multiply_add(total, a, b))
            else:
                value = self.filled(self.cast(values[0], total.dtype), total.lanes)
                sums.append(self.plus(total, value))
        return tuple(sums)

    def along(self, e: Expr, name: str, count: int) -> Value:
        """``count`` neighbouring values of an expression of ``name``."""
        if count == 1:
            value = self.expr(e)
            kind = type_text(value.dtype, 1)
            scalar = type_text(value.dtype)
            text = f"insertelement {kind} poison, {scalar} {value.text}, i64 0"
            return self.op(text, value.dtype, 1)
        with self.lanes_over(name, count):
            return self.splat(self.expr(e), count)

    def at_lane(self, name: str, lane: int, lanes: Lanes) -> Value:
        """What a name that depends on the lane is in one lane."""
        step = lanes.steps[name]
        if step is None:
            kind = type_text(I64, lanes.count)
            text = f"extractelement {kind} {lanes.values[name].text}, i64 {lane}"
            return self.op(text, I64)
        return self.binary("add", self.names[name], self.constant(step * lane, I64), " nsw")

    def filled(self, value: Value, width: int) -> Value:
        """A vector with zeros behind it."""
        if value.lanes == width:
            return value
        zero = Value("zeroinitializer", value.dtype, value.lanes)
        order = [min(i, value.lanes) for i in range(width)]
        return self.shuffle(value, zero, order)

    def added_up(self, totals: list[Value], dtype: DType) -> Value:
        """The sum of each total's lanes, side by side."""
        width = totals[0].lanes
        while len(totals) > 1 and width > 1:
            pairs = zip(totals[::2], totals[1::2], strict=True)
            totals = [self.neighbours(a, b) for a, b in pairs]
            width //= 2
        total = self.joined(totals)
        while width > 1:  # each lane's sum is still in `width` neighbours
            total = self.neighbours(total, None)
            width //= 2
        return total

    def neighbours(self, a: Value, b: Value | None) -> Value:
        """The sums of neighbouring lanes, of ``a`` and then of ``b``."""
        other = a if b is None else b
        count = a.lanes * (1 if b is None else 2)
        even = self.shuffle(a, other, list(range(0, count, 2)))
        odd = self.shuffle(a, other, list(range(1, count, 2)))
        return self.plus(even, odd)
