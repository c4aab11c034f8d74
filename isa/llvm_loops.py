"""The walk over the axes of a sum as LLVM IR: written out or as loops, totals carried along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from .llvm_access import Accesses
from .llvm_ir import Value, type_text
from .nest import BOOL, I64, Expr, Select, Sum
from .traverse import walk

UNROLL = 16
"""Terms that are written out before the rest becomes a loop."""
CHUNK = 8
"""Terms that one trip of such a loop adds."""

Totals = tuple[Value, ...]
Term = Callable[[Totals], Totals]
Leaf = Callable[[Sum, Totals], Totals]


class Loops(Accesses):
    """Accesses, and ways to have something done at every point of some axes.

    What is done is a function from totals to totals, which names the point by the axes' names.
    """

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

    def plus(self, total: Value, value: Value) -> Value:
        """A total and one more term."""
        value = self.cast(value, total.dtype)
        if total.lanes:
            value = self.splat(value, total.lanes)
        kind = type_text(total.dtype, total.lanes)
        word = "fadd reassoc contract" if total.dtype.kind == "f" else "add"
        return self.op(f"{word} {kind} {total.text}, {value.text}", total.dtype, total.lanes)
