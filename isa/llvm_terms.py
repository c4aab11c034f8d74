"""Contractions as LLVM IR: the innermost loops of a register tile; see :mod:`weft.isa.tiles`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .llvm_ahead import Ahead
from .llvm_ir import Value, type_text
from .llvm_loops import Totals
from .nest import I32, I64, Load, Nest
from .tiles import Contraction, Shape, Target

UNROLL = {1: 4, 2: 2, 4: 2}
"""Turns of the innermost loop that are written out, by how many terms each takes."""
DOT = {
    4: "llvm.x86.avx512.vpdpbusd.128", 8: "llvm.x86.avx512.vpdpbusd.256",
    16: "llvm.x86.avx512.vpdpbusd.512",
}  # fmt: skip
"""What multiplies ``u8`` by ``i8`` and adds four products to a total, by the lanes of a total. It
wraps as every addition does. All of LLVM's versions know it with vectors of ``i32``."""


@dataclass(frozen=True)
class Rows:
    """Where the terms of a tile's rows lie.

    Attributes
    ----------
    at : tuple of str
        Pointers to one term of each row, or, if rows are evenly ``apart``, of the first one.
    apart : int
        Bytes from a row to the next one.
    """

    at: tuple[str, ...]
    apart: int

    def row(self, i: int) -> tuple[str, int]:
        """A pointer, and how many bytes from it the row's term is."""
        return (self.at[i], 0) if i < len(self.at) else (self.at[0], i * self.apart)


@dataclass(frozen=True)
class Following:
    """The part of the next vectors that a tile fetches while it works on its own.

    Attributes
    ----------
    at : str
        A pointer to it.
    parts : int
        How many tiles fetch all of them.
    """

    at: str
    parts: int


class Terms(Ahead):
    """Sums, reductions, roundings, prefetches, and the totals of a tile.

    ``target`` is None where there are no tiles.
    """

    def __init__(self, nest: Nest, checked: frozenset[str], target: Target | None, pairs: bool):
        super().__init__(nest, checked, pairs)
        self.target = target

    def terms(
        self, c: Contraction, shape: Shape, axes: tuple[tuple[str, int], ...], x: Rows,
        w: str, totals: Totals, following: Following | None,
    ) -> Totals:  # fmt: skip
        """Totals after all terms of ``axes``, from the pointers on."""
        if not axes:
            return self.term(c, shape, x, w, 0, 0, totals)
        (name, extent), *rest = axes
        by_x, by_w = c.x_steps.get(name, 0), c.w_steps.get(name, 0)

        def further() -> Following | None:
            if following is None:
                return None
            (at,) = self.moved((following.at,), by_w // following.parts, name)
            return replace(following, at=at)

        if rest:

            def row(totals: Totals) -> Totals:
                moved = replace(x, at=self.moved(x.at, by_x, name))
                (w_moved,) = self.moved((w,), by_w, name)
                return self.terms(c, shape, tuple(rest), moved, w_moved, totals, further())

            return (
                self.looped(name, extent, 1, totals, row)
                if extent > 1
                else self.terms(c, shape, tuple(rest), x, w, totals, following)
            )
        unroll = min(extent, UNROLL[c.group])
        whole = extent // unroll * unroll

        def trip(totals: Totals) -> Totals:
            moved = replace(x, at=self.moved(x.at, by_x, name))
            (w_moved,) = self.moved((w,), by_w, name)
            for k in range(unroll):
                totals = self.term(c, shape, moved, w_moved, by_x * k, by_w * k, totals)
            if (ahead := further()) is not None:
                self.fetch_lines(ahead.at, 0, by_w * unroll // ahead.parts)
            return totals

        if whole > unroll:
            totals = self.looped(name, whole, unroll, totals, trip)
            start = whole
        else:
            start = 0
        for k in range(start, extent):
            totals = self.term(c, shape, x, w, by_x * k, by_w * k, totals)
        return totals

    def moved(self, pointers: tuple[str, ...], step: int, name: str) -> tuple[str, ...]:
        """Pointers at an index of the sum."""
        if not step:
            return pointers
        offset = self.binary("mul", self.names[name], self.constant(step, I64), " nuw nsw")
        return tuple(self.emit(f"getelementptr i8, ptr {p}, i64 {offset.text}") for p in pointers)

    def at(self, pointer: str, offset: int) -> str:
        """A pointer a constant further."""
        return self.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    def term(
        self, c: Contraction, shape: Shape, x: Rows, w: str, x_at: int, w_at: int,
        totals: Totals,
    ) -> Totals:  # fmt: skip
        """Totals after one term, or a group of them."""
        by = c.w_steps[c.vector[0]] * shape.lanes
        columns = [
            self.vector_at(c, self.at(w, w_at + by * v), c.w.buffer, shape.lanes)
            for v in range(shape.vectors)
        ]
        sums: list[Value] = []
        for i in range(shape.rows):
            own = totals[i * shape.vectors : (i + 1) * shape.vectors]
            pointer, further = x.row(i)
            at = x_at + further
            if c.spread:
                factors = [self.spread(c, self.at(pointer, at), shape.lanes)] * shape.vectors
            else:
                step = c.x_steps[c.vector[0]] * shape.lanes
                factors = [
                    self.vector_at(c, self.at(pointer, at + step * v), c.x.buffer, shape.lanes)
                    for v in range(shape.vectors)
                ]
            for total, factor, column in zip(own, factors, columns, strict=True):
                sums.append(self.product(c, total, factor, column))
        return tuple(sums)

    def vector_at(self, c: Contraction, pointer: str, buffer: str, lanes: int) -> Value:
        """A vector of a factor, ready to be multiplied."""
        dtype = self.buffers[buffer].dtype
        kind = I32 if c.group > 1 else dtype
        text = f"load {type_text(kind, lanes)}, ptr {pointer}, align {dtype.bits // 8}"
        value = self.op(text, kind, lanes)
        return value if c.group > 1 else self.cast(value, c.dtype)

    def spread(self, c: Contraction, pointer: str, lanes: int) -> Value:
        """A scalar or group of the first factor, in all lanes."""
        dtype = self.buffers[c.x.buffer].dtype
        kind = I32 if c.group > 1 else dtype
        one = self.op(f"load {type_text(kind)}, ptr {pointer}, align {dtype.bits // 8}", kind)
        return self.splat(one if c.group > 1 else self.cast(one, c.dtype), lanes)

    def product(self, c: Contraction, total: Value, a: Value, b: Value) -> Value:
        """A total and one product, or those of each group; of groups, a lane of the factors is
        32 bits of neighbours."""
        kind = type_text(c.dtype, total.lanes)
        if c.group > 1:
            assert self.target is not None
            if c.group == 4 and self.target.quads:
                return self.call(DOT[total.lanes], (I32, total.lanes), total, a, b)
            a, b = self.members(c, c.x, a), self.members(c, c.w, b)
            if c.group == 2 and self.target.pairs:
                return self.multiply_add(total, a, b)
            products = self.binary("mul", self.cast(a, I32), self.cast(b, I32))
            while products.lanes > total.lanes:
                products = self.neighbours(products, None)
            return self.binary("add", total, products)
        if c.dtype.kind == "f":
            product = self.emit(f"fmul contract {kind} {a.text}, {b.text}")
            return self.op(f"fadd contract {kind} {total.text}, {product}", c.dtype, total.lanes)
        return self.binary("add", total, self.binary("mul", a, b))

    def members(self, c: Contraction, load: Load, groups: Value) -> Value:
        """The neighbours in each lane of a factor, one by one."""
        dtype, count = self.buffers[load.buffer].dtype, c.group * groups.lanes
        kinds = type_text(groups.dtype, groups.lanes), type_text(dtype, count)
        return self.op(f"bitcast {kinds[0]} {groups.text} to {kinds[1]}", dtype, count)
