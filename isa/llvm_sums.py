"""Sums as LLVM IR, in one of three forms.

*plain*: one total, in every lane; terms written out or as loops.

*pairs*: products of integers that fit ``i16``, where the lanes of each factor lie side by side in
memory or are one element. Two terms at a time are multiplied and added by one instruction of x86.

*rows*: products whose lanes lie far apart but whose terms lie side by side, a row of memory for
each lane, as the weights of a layer. Each lane has a vector of totals, which is added up at the
end; a row that all lanes share is loaded once.

Integer addition wraps, so that every form gives the same bits. A sum over selections between
sums, as padded convolutions have, carries its totals through both branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from .lanes import Lanes, in_rows, is_narrow, lane_step, leaves, mentions, speculates
from .llvm_access import Accesses
from .llvm_ir import Value, type_text
from .nest import BOOL, I16, I32, I64, Binary, DType, Expr, Load, Nest, Select, Sum, promote, walk
from .storage import unit_strides

UNROLL = 16
"""Terms that are written out before the rest becomes a loop."""
CHUNK = 8
"""Terms that one trip of such a loop adds."""
WIDTH = 8
"""Lanes of a total in the forms of pairs and rows: 256 bits of ``i32``."""
WRITTEN_ROWS = 4
"""Pieces of a row that are written out before the row becomes a loop."""

Totals = tuple[Value, ...]
Term = Callable[[Totals], Totals]
Leaf = Callable[[Sum, Totals], Totals]


class Sums(Accesses):
    """Accesses, and the sums over them.

    ``pairs`` says whether the target has x86's multiplication of pairs of ``i16`` that adds the
    two products; that addition wraps as any other.
    """

    def __init__(self, nest: Nest, checked: frozenset[str], pairs: bool):
        super().__init__(nest, checked)
        self.pairs = pairs

    def sum(self, e: Sum) -> Value:
        """The value of a sum, for all lanes."""
        lanes = self.lanes
        if lanes is None:
            return self.plain(e)
        if not mentions(e.body, lanes.steps):
            return self.first_lane(e)
        found = leaves(e, lanes.steps)
        dtype = promote(self.dtype(e.body), I32)
        if found is None or any(promote(self.dtype(x.body), I32) != dtype for x in found):
            return self.plain(e)
        products = self.pairs and all(map(self.is_product, found))
        if any(in_rows(leaf, lanes.steps, self.buffers) for leaf in found):
            return self.rows(e, dtype, products)
        width = min(WIDTH, lanes.count)
        if products and width >= 4:
            return self.in_pairs(e, width)
        return self.plain(e)

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

    # --- the walk over the axes

    def accumulate(self, e: Expr, totals: Totals, leaf: Leaf) -> Totals:
        """Totals after all terms of a sum, of sums within it, and of selections among those."""
        match e:
            case Sum(axes, body) if any(isinstance(node, Sum) for node in walk(body)):
                inner: Term = lambda t: self.accumulate(body, t, leaf)  # noqa: E731
                return self.loops(axes, totals, inner)
            case Sum(axes, _):
                return leaf(e, totals) if all(extent for _, extent in axes) else totals
            case Select(cond, a, b):
                return self.either_totals(
                    self.holds(self.expr(cond)),
                    lambda: self.accumulate(a, totals, leaf),
                    lambda: self.accumulate(b, totals, leaf),
                )
        raise TypeError(f"not a sum of sums: {e!r}")

    def either_totals(
        self, cond: Value, a: Callable[[], Totals], b: Callable[[], Totals]
    ) -> Totals:
        """The totals of the branch that is taken."""
        ends: list[tuple[Totals, str]] = []
        yes, no, end = self.label("yes"), self.label("no"), self.label("end")
        self.branch(cond, yes, no)
        for label, branch in ((yes, a), (no, b)):
            self.start(label)
            with self.region():
                ends.append((branch(), self.block))
            self.jump(end)
        self.start(end)
        (x, x_block), (y, y_block) = ends
        return tuple(
            self.phi(v, ((v.text, x_block), (w.text, y_block))) for v, w in zip(x, y, strict=True)
        )

    def phi(self, like: Value, edges: Iterable[tuple[str, str]]) -> Value:
        """A value by the block that control came from."""
        text = ", ".join(f"[ {value}, %{block} ]" for value, block in edges)
        kind = type_text(like.dtype, like.lanes)
        return self.op(f"phi {kind} {text}", like.dtype, like.lanes)

    def loops(self, axes: tuple[tuple[str, int], ...], totals: Totals, term: Term) -> Totals:
        """``term`` at every point of ``axes``, as loops."""
        if not all(extent for _, extent in axes):
            return totals
        if not axes:
            return term(totals)
        (name, extent), *rest = axes
        inner: Term = lambda t: self.loops(tuple(rest), t, term)  # noqa: E731
        return self.looped(name, extent, 1, totals, inner)

    def written(
        self, axes: tuple[tuple[str, int], ...], totals: Totals, term: Term, step: int = 1
    ) -> Totals:
        """``term`` at every point of ``axes``, the last by ``step``, written out where short."""
        if not axes:
            return term(totals)
        (name, extent), *rest = axes
        if rest:
            inner: Term = lambda t: self.written(tuple(rest), t, term, step)  # noqa: E731
            terms = extent
            for _, other in rest:
                terms *= other
            if terms <= UNROLL * step:
                return self.written_out(name, range(extent), totals, inner)
            return self.looped(name, extent, 1, totals, inner)
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
        self, name: str, places: Iterable[int] | Iterator[Value], totals: Totals, term: Term
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

    # --- plain

    def plain(self, e: Sum) -> Value:
        """One total."""
        dtype, lanes = promote(self.dtype(e.body), I32), self.lanes
        zero = self.constant(0, dtype)
        if not all(extent for _, extent in e.axes):
            return zero
        term: Term = lambda totals: (self.plus(totals[0], self.expr(e.body)),)  # noqa: E731
        nested = any(isinstance(node, Sum) for node in walk(e.body))
        if lanes is None:
            (total,) = self.loops(e.axes, (zero,), term)
            return total
        zero = Value("zeroinitializer", dtype, lanes.count)
        (total,) = (self.loops if nested else self.written)(e.axes, (zero,), term)
        return total

    def plus(self, total: Value, value: Value) -> Value:
        """A total and one more term."""
        value = self.cast(value, total.dtype)
        if total.lanes:
            value = self.splat(value, total.lanes)
        kind = type_text(total.dtype, total.lanes)
        word = "fadd reassoc contract" if total.dtype.kind == "f" else "add"
        return self.op(f"{word} {kind} {total.text}, {value.text}", total.dtype, total.lanes)

    # --- pairs

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
        name = "llvm.x86.avx2.pmadd.wd" if total.lanes == 8 else "llvm.x86.sse2.pmadd.wd"
        return self.binary("add", total, self.call(name, (I32, total.lanes), a, b))

    # --- rows

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
            if whole > WRITTEN_ROWS * piece:
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
