"""Contractions as LLVM IR: register tiles; see :mod:`weft.isa.tiles`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from .lanes import Lanes
from .llvm_ir import Value, type_text
from .llvm_loops import Totals
from .llvm_terms import Following, Rows, Terms
from .nest import I64, Block, Load, Nest, Store
from .storage import LINE
from .tiles import NEAR_CACHE, NEAREST_CACHE, Contraction, Shape, Target, shape_of, split_of

PARTS = (1, 2, 4)
"""How many tiles may share the fetching of the next vectors."""


@dataclass(frozen=True)
class Stretch:
    """A part of the outermost axis of a sum.

    Attributes
    ----------
    name, start, extent
        Of the axis, and which part.
    go_on : bool
        Whether totals begin with what was stored, and not with 0.
    ends_raw : bool
        Whether totals are stored as they are, without what surrounds the sum.
    """

    name: str
    start: Value | int
    extent: int
    go_on: bool
    ends_raw: bool


class Tiles(Terms):
    """Sums, reductions, roundings, prefetches, and contractions in tiles.

    ``target`` is None where everything is left to lanes.
    """

    def __init__(self, nest: Nest, checked: frozenset[str], target: Target | None, pairs: bool):
        super().__init__(nest, checked, target, pairs)
        self.stretch_of_sum: Stretch | None = None

    def fits(self, c: Contraction) -> bool:
        """Whether full vectors may be loaded: what is beyond the last loop's end is there, too."""
        if c.x.buffer in self.checked or c.w.buffer in self.checked:
            return False
        assert self.target is not None
        over = -c.vector[1] % max(2, self.target.bits // c.dtype.bits)
        if not over:
            return True
        loads = [c.w] if c.spread else [c.x, c.w]
        spans = {**dict(c.loops), **dict(c.sum.axes)}
        for load in loads:
            buffer = self.buffers[load.buffer]
            steps = c.w_steps if load is c.w else c.x_steps
            last = sum(s * (spans[n] - 1) for n, s in steps.items() if s > 0)
            more = over * steps[c.vector[0]]
            unit = buffer.dtype.bits // 8
            if len(buffer.shape) != 1 or last + more + unit > buffer.shape[0] * unit:
                return False
        return True

    def tiles(self, c: Contraction) -> None:
        """The whole contraction, in an order of tiles that uses what the near cache holds."""
        assert self.target is not None
        c, shape = shape_of(c, self.target)
        split = split_of(c, shape)
        if split is None:
            self.all_rows(c, shape)
            return
        name, chunk, count = split
        self.stretch_of_sum = Stretch(name, 0, chunk, False, True)
        self.all_rows(c, shape)
        if count > 2:

            def middle(at: Value) -> None:
                start = self.binary("mul", at, self.constant(chunk, I64), " nuw nsw")
                self.stretch_of_sum = Stretch(name, start, chunk, True, True)
                self.all_rows(c, shape)

            one, last = self.constant(1, I64), self.constant(count - 1, I64)
            self.blocks("stretch", one, last, 1, middle)
        self.stretch_of_sum = Stretch(name, (count - 1) * chunk, chunk, True, False)
        self.all_rows(c, shape)
        self.stretch_of_sum = None

    def all_rows(self, c: Contraction, shape: Shape) -> None:
        """All rows and vectors, for the terms at hand."""
        count = math.prod(extent for _, extent in c.rows)
        block = self.rows_of_a_block(c, shape, count)
        if block >= count:
            self.outer(c, lambda: self.row_tiles(c, shape, 0, count))
            return
        whole = count // block * block
        zero, stop = self.constant(0, I64), self.constant(whole, I64)

        def one(first: Value, size: int) -> None:
            self.outer(c, lambda: self.row_tiles(c, shape, first, size))

        self.blocks("rows", zero, stop, block, lambda at: one(at, block))
        if whole < count:
            one(self.constant(whole, I64), count - whole)

    def rows_of_a_block(self, c: Contraction, shape: Shape, count: int) -> int:
        """Rows that are done with all vectors before the next ones; ``count`` for all."""
        extents = {**dict(c.loops), **dict(c.sum.axes)}

        def size(steps: dict[str, int], names: set[str]) -> int:
            return 1 + sum(abs(s) * (extents[n] - 1) for n, s in steps.items() if n in names)

        rows, axes = {n for n, _ in c.rows}, {n for n, _ in c.sum.axes}
        x = size(dict(c.x_steps), rows | axes)
        panel = size(dict(c.w_steps), axes | {c.vector[0]})
        again = math.prod(e for n, e in c.outer if not c.x_steps.get(n) and c.w_steps.get(n))
        if again <= 1:
            return count
        w, nearest = panel * again, NEAREST_CACHE // 2
        if w <= nearest or nearest < panel <= w <= NEAR_CACHE // 2:
            return min(count, shape.rows)  # which stay in the nearest cache, as all vectors or none
        if x + panel <= NEAR_CACHE * 3 // 4:
            return count
        each = x / count
        block = int(max(0, NEAR_CACHE // 2 - panel) / each) // shape.rows * shape.rows
        if block < 2 * shape.rows:
            return count
        passes = -(-count // block)
        if w > NEAR_CACHE // 2 and w * passes > x * again:
            return count
        return min(count, block)

    def outer(self, c: Contraction, body: Callable[[], None]) -> None:
        """``body`` under the loops that are neither rows nor vectors."""
        loops = list(c.outer)

        def level(k: int) -> None:
            if k == len(loops):
                body()
                return
            name, extent = loops[k]
            if extent == 1:
                with self.binding(name, self.constant(0, I64)):
                    level(k + 1)
                return
            zero, stop = self.constant(0, I64), self.constant(extent, I64)
            self.blocks(name, zero, stop, 1, lambda _: level(k + 1))

        level(0)

    def blocks(
        self, name: str, first: Value, stop: Value, step: int, body: Callable[[Value], None]
    ) -> None:
        """A loop of at least one trip."""
        head, end = self.label("tile"), self.label("tiled")
        before = self.block
        self.jump(head)
        self.start(head)
        index, at = self.label("%i"), len(self.lines)
        with self.binding(name, Value(index, I64)):
            body(Value(index, I64))
        following = Value(self.emit(f"add nuw nsw i64 {index}, {step}"), I64)
        edges = f"[ {first.text}, %{before} ], [ {following.text}, %{self.block} ]"
        self.lines.insert(at, f"  {index} = phi i64 {edges}")
        self.branch(self.binary("lt", following, stop), head, end)
        self.start(end)

    def row_tiles(self, c: Contraction, shape: Shape, first: Value | int, count: int) -> None:
        """Tiles of ``count`` rows from ``first`` on; the last one may do some rows again."""
        base = self.constant(first, I64) if isinstance(first, int) else first
        if count <= shape.rows:  # fewer in what is left of blocks
            self.tile(c, replace(shape, rows=count), base)
            return
        stop = self.binary("add", base, self.constant(count, I64))
        if count % shape.rows == 0:
            self.blocks("row", base, stop, shape.rows, lambda at: self.tile(c, shape, at))
            return
        if self.stretch_of_sum is not None:  # a row must not be added to twice
            whole = count // shape.rows * shape.rows
            stop = self.binary("add", base, self.constant(whole, I64))
            self.blocks("row", base, stop, shape.rows, lambda at: self.tile(c, shape, at))
            rest = replace(shape, rows=count - whole)
            self.tile(c, rest, self.binary("add", base, self.constant(whole, I64)))
            return
        last = self.binary("add", base, self.constant(count - shape.rows, I64))

        def tile(at: Value) -> None:
            self.tile(c, shape, self.binary("min", at, last))

        self.blocks("row", base, stop, shape.rows, tile)

    # --- one tile

    def tile(self, c: Contraction, shape: Shape, first: Value) -> None:
        """Sums and tails of ``shape.rows`` rows."""
        places = [self.place_of_row(c, first, i) for i in range(shape.rows)]
        x = self.pointers(c, places)
        w = self.pointer(c, c.w, {})
        zero = Value("zeroinitializer", c.dtype, shape.lanes)
        totals = (zero,) * (shape.rows * shape.vectors)
        axes = c.sum.axes[:-1] if c.group > 1 else c.sum.axes
        part = self.stretch_of_sum
        if part is not None:
            axes = tuple((n, part.extent if n == part.name else e) for n, e in axes)
            moved = self.further(x.at, c.x_steps.get(part.name, 0), part.start)
            x = replace(x, at=tuple(moved))
            w = self.further([w], c.w_steps.get(part.name, 0), part.start)[0]
            if part.go_on:
                totals = tuple(
                    value for place in places for value in self.partial_sums(c, shape, place)
                )
        totals = self.terms(c, shape, axes, x, w, totals, self.following(c, shape, first, w))
        for i, place in enumerate(places):
            self.tail(c, shape, place, totals[i * shape.vectors : (i + 1) * shape.vectors])

    def following(self, c: Contraction, shape: Shape, first: Value, w: str) -> Following | None:
        """Which part of the next vectors the tile at ``first`` fetches; None where they do not
        follow at once, or stay in the near cache.

        They are read once for all rows, and come from where memory is slow: the first tile would
        wait for what the others find.
        """
        around = [loop for loop in c.outer if loop[1] > 1]
        if not around or self.stretch_of_sum is not None:
            return None
        panel = c.depth * c.vector[1] * self.buffers[c.w.buffer].dtype.bits // 8
        again = math.prod(e for n, e in around if c.w_steps.get(n))
        if c.w_steps.get(around[-1][0]) != panel or panel * again <= NEAR_CACHE:
            return None
        tiles = math.prod(e for _, e in c.rows) // shape.rows
        parts = max(n for n in PARTS if n <= max(1, tiles) and panel % (n * LINE) == 0)
        part = self.op(f"udiv i64 {first.text}, {shape.rows}", I64)
        part = self.binary("and", part, self.constant(parts - 1, I64))
        offset = self.binary("mul", part, self.constant(panel // parts, I64), " nuw nsw")
        at = self.emit(f"getelementptr i8, ptr {self.at(w, panel)}, i64 {offset.text}")
        return Following(at, parts)

    def pointers(self, c: Contraction, places: Sequence[dict[str, Value]]) -> Rows:
        """Where the rows' first terms lie."""
        if len(c.rows) > 1:
            return Rows(tuple(self.pointer(c, c.x, place) for place in places), 0)
        apart = sum(c.x_steps[name] for name, _ in c.rows)
        return Rows((self.pointer(c, c.x, places[0]),), apart)

    def further(self, pointers: Sequence[str], step: int, start: Value | int) -> list[str]:
        """Pointers at the beginning of a stretch."""
        if isinstance(start, int):
            return [self.at(p, step * start) for p in pointers]
        offset = self.binary("mul", start, self.constant(step, I64), " nuw nsw")
        return [self.emit(f"getelementptr i8, ptr {p}, i64 {offset.text}") for p in pointers]

    def partial_sums(self, c: Contraction, shape: Shape, place: dict[str, Value]) -> Totals:
        """What was stored of a row's totals before."""
        assert isinstance(c.body, Store)
        name, found = c.vector[0], list[Value]()
        for v in range(shape.vectors):
            with ExitStack() as stack:
                for each, value in place.items():
                    stack.enter_context(self.binding(each, value))
                stack.enter_context(self.binding(name, self.constant(v * shape.lanes, I64)))
                self.lanes = Lanes(shape.lanes, name, {name: 1}, {}, even=True)
                found.append(self.load(self.buffers[c.body.buffer], c.body.indices))
                self.lanes = None
        return tuple(found)

    def place_of_row(self, c: Contraction, first: Value, i: int) -> dict[str, Value]:
        """The loops' indices at a row."""
        rest = self.binary("add", first, self.constant(i, I64), " nuw nsw")
        places: dict[str, Value] = {}
        loops = list(c.rows)
        for name, extent in reversed(loops[1:]):
            by = self.constant(extent, I64).text
            quotient = self.op(f"udiv i64 {rest.text}, {by}", I64)
            if extent == 1:
                places[name] = self.constant(0, I64)
                continue
            places[name] = self.op(f"urem i64 {rest.text}, {by}", I64)
            rest = quotient
        if loops:
            places[loops[0][0]] = rest
        return places

    def pointer(
        self, c: Contraction, load: Load, places: dict[str, Value]
    ) -> str:  # fmt: skip
        """Where a factor's first term lies."""
        with ExitStack() as stack:
            for name, value in places.items():
                stack.enter_context(self.binding(name, value))
            for name, _ in (*c.sum.axes, c.vector):
                stack.enter_context(self.binding(name, self.constant(0, I64)))
            for name, _ in c.rows:
                if name not in places:
                    stack.enter_context(self.binding(name, self.constant(0, I64)))
            offset, _ = self.place(self.buffers[load.buffer], load.indices)
            return self.address(self.buffers[load.buffer], offset)

    def tail(self, c: Contraction, shape: Shape, place: dict[str, Value], totals: Totals) -> None:
        """The stores of one row."""
        extent = c.vector[1]
        for v, total in enumerate(totals):
            left, at = min(shape.lanes, extent - v * shape.lanes), 0
            while left:
                count = 1 << (left.bit_length() - 1)
                self.tail_piece(c, place, v * shape.lanes + at, self.part(total, at, count), count)
                at, left = at + count, left - count

    def part(self, total: Value, at: int, count: int) -> Value:
        """Some lanes of a total."""
        if count == total.lanes:
            return total
        if count == 1:
            kind = type_text(total.dtype, total.lanes)
            return self.op(f"extractelement {kind} {total.text}, i64 {at}", total.dtype)
        return self.shuffle(total, total, list(range(at, at + count)))

    def tail_piece(
        self, c: Contraction, place: dict[str, Value], at: int, total: Value, count: int
    ) -> None:
        """The stores of neighbouring lanes."""
        name = c.vector[0]
        with ExitStack() as stack:
            for each, value in place.items():
                stack.enter_context(self.binding(each, value))
            stack.enter_context(self.binding(name, self.constant(at, I64)))
            if count > 1:
                self.lanes = Lanes(count, name, {name: 1}, {}, at % 2 == 0)
            stores = c.body.stmts if isinstance(c.body, Block) else (c.body,)
            if self.stretch_of_sum is not None and self.stretch_of_sum.ends_raw:
                assert isinstance(c.body, Store)
                stores = (Store(c.body.buffer, c.body.indices, c.sum),)
            for store in stores:
                assert isinstance(store, Store)
                self.known = {c.sum: (self.lanes, total)}
                self.store(store)
            self.known = {}
            self.lanes = None
