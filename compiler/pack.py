"""Contractions made ready for register tiles: operands as the innermost loop wants to read them.

A nest of parallel loops around a sum of products becomes up to three steps, which are nests of the
same language again and mean the same:

* The operand with *rows* is copied into a buffer of its own where it is not a plain load: with a
  border instead of a condition, the axes that are summed over innermost. Integers are widened to
  ``i16``; or, where the processor multiplies bytes and columns are constants that fit ``i8``, they
  become ``u8``: what they are above the least value that they can have.
* The operand with *columns* is packed as ``[column // n][term][column % n]``, integers in groups
  of 2 or 4 neighbouring terms, filled up with zeros: at compile time where it is a constant. The
  processor decides on ``n``, 16 or 32.
* The sum runs over plain loads from both, axes that lie one within the other merged into one, and
  the columns are the innermost loop. Of rows above a least value it lacks that value times the
  column's sum, which is added.

:mod:`weft.isa.tiles` then has such a loop nest as tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..isa.interpret import interpret
from ..isa.nest import (
    I8,
    I16,
    I32,
    I64,
    U8,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    Index,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    distinct,
    dtype_of,
    loops,
    rewrite,
    substitute,
    under_loops,
    walk,
)
from ..isa.storage import numpy_dtype, unit_strides
from ..isa.tiles import GROUPS, NEAR_CACHE, Target
from .factors import CROWD, FEW, Axis, Constant, Factors, Operand, replaced
from .memory import aligned
from .ranges import folded, of_types, range_of
from .winograd import winograd

LANES = 16
"""Elements of 32 bits in the widest vector there is."""
TOGETHER = 64
"""Columns that are packed at a time."""
NEAR = 3 * NEAR_CACHE // 4
"""Bytes of rows that stay near while columns are packed and multiplied group by group."""
MANY = 128
"""Columns for which it is worth while to copy rows."""
SLACK = 32
"""Elements behind a copy that may be read, though they count for nothing."""


@dataclass(frozen=True)
class Form:
    """How operands are kept.

    Attributes
    ----------
    rows, columns : DType
        Of their elements.
    group : int
        Neighbouring terms that are multiplied together.
    least : int
        What rows are less by.
    """

    rows: DType
    columns: DType
    group: int = 1
    least: int = 0


@dataclass(eq=False)
class Packed:
    """A nest with its operands made ready.

    Attributes
    ----------
    nest : Nest
        What to run.
    constants : dict
        Arrays that were packed, by buffer name.
    views : dict
        Buffers that are others' memory under a flat shape, to be read only.
    scratch : tuple of str
        Buffers that hold nothing before or after.
    """

    nest: Nest
    constants: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    views: dict[str, str] = field(default_factory=dict[str, str])
    scratch: tuple[str, ...] = ()


def packed(nest: Nest, constant: Constant, target: Target) -> Packed | None:
    """``nest`` with its contractions made ready; None if it has none.

    Parameters
    ----------
    nest : Nest
        Anything.
    constant : callable
        The value of a buffer that never changes, in any shape; None of others.
    target : Target
        What will run it.
    """
    result = Packed(nest)
    buffers = {b.name: b for b in nest.buffers}
    stmts = nest.body.stmts if isinstance(nest.body, Block) else (nest.body,)
    made: list[Stmt] = []
    found = False
    for k, stmt in enumerate(stmts):
        one = _Ready.of(stmt, buffers, constant)
        if one is None:
            made.append(stmt)
            continue
        found = True
        prefix = f"{nest.name} {k}"
        fewer = None if one.bytes_of(target) else winograd(one, prefix)
        if fewer is None:
            made += one.statements(prefix, result, buffers, target)
            continue
        buffers.update((b.name, b) for b in fewer.buffers)
        result.scratch = (*result.scratch, *fewer.scratch)
        known = {fewer.filters: fewer.array}
        for part in fewer.statements:
            two = _Ready.of(part, buffers, known.get)
            made += [part] if two is None else two.statements(prefix, result, buffers, target)
    if not found:
        return None
    body = made[0] if len(made) == 1 else Block(tuple(made))
    used = {n.buffer for n in distinct(body) if isinstance(n, Load | Store)}
    kept = tuple(b for b in buffers.values() if b.name in used)
    result.nest = replace(nest, buffers=kept, body=body)
    return result


class _Ready(Factors):
    """What becomes of a contraction."""

    def statements(
        self, prefix: str, result: Packed, buffers: dict[str, Buffer], target: Target
    ) -> list[Stmt]:
        """The steps; what they need is added to ``result`` and ``buffers``."""
        steps: list[Stmt] = []
        name = self.vector[0]
        size = max(FEW, target.bits // 32) if self.vector[1] <= FEW else target.columns
        form = self.bytes_of(target) or (
            Form(self.dtype, self.dtype)
            if self.dtype.kind == "f"
            else Form(I16, I16, GROUPS[I16, I16])
        )
        x, moves = self.rows(f"{prefix} rows", form, steps, result, buffers)
        axes = self.merged(moves)
        if name in self.x.names or self.step(axes[-1], moves) != 1:
            form = replace(form, group=1)
        w, terms, grouped = self.columns(
            f"{prefix} columns", form, axes, size, steps, result, buffers
        )
        places = {n: Index(n) for n, _ in (*self.loops, *self.sum.axes)}
        sums: list[Axis] = []
        place: Expr = Const(0, I64)
        for k, (axis, (own, extent)) in enumerate(zip(axes, terms, strict=True)):
            at: Expr = Index(own)
            if form.group > 1 and k == len(axes) - 1:
                at = at * form.group + Index("p")
            place = place + at * Const(self.step(axis, moves), I64)
            sums.append((own, extent))
        if form.group > 1:
            sums.append(("p", form.group))
        for n, _ in self.loops:
            if moves.get(n):
                place = place + places[n] * Const(moves[n], I64)
        body = Load(x, (place,)) * w
        block, lane = Index("vb"), Index("vi")
        column: Expr = block * size + lane
        total: Expr = Sum(tuple(sums), body)
        if form.least:
            total = total + self.lacking(f"{prefix} columns", form, size, result, buffers)
        replaced = tuple(
            rewrite(s, lambda n: total if isinstance(n, Sum) else None) for s in self.stores
        )
        inner = substitute(Block(tuple(s for s in replaced if isinstance(s, Stmt))), {name: column})
        inner = rewrite(inner, folded)
        assert isinstance(inner, Block)
        body_of = inner.stmts[0] if len(inner.stmts) == 1 else inner
        others = [loop for loop in self.loops if loop != self.vector]
        rows = [a for a in others if a[0] not in self.w.names]
        outer = [a for a in others if a[0] in self.w.names]
        whole, rest = divmod(self.vector[1], size)
        if grouped and not rest and math.prod(e for _, e in rows) * self.bytes_of_row() <= NEAR:
            packing = steps.pop()
            count = TOGETHER // size
            group = substitute(body_of, {"vb": Index("vg") * count + Index("vs")})
            group = rewrite(group, folded)
            assert isinstance(group, Stmt)
            products = loops([*rows, ("vs", count), ("vi", size)], group)
            around = [*outer, ("vg", whole // count)]
            both = _without(packing, {n for n, _ in around}), products
            steps.append(loops(around, Block(both)))
        elif whole:
            steps.append(loops([*outer, *rows, ("vb", whole), ("vi", size)], body_of))
        if rest:
            last = substitute(body_of, {"vb": Const(whole, I64)})
            last = rewrite(last, folded)
            assert isinstance(last, Stmt)
            steps.append(loops([*outer, *rows, ("vi", rest)], last))
        return steps

    def bytes_of(self, target: Target) -> Form | None:
        """The form of products of bytes; None where the processor has none, or they do not fit."""
        if not target.quads or self.dtype.kind == "f" or self.vector[0] in self.x.names:
            return None
        known = of_types(self.buffers)

        def loaded(name: str) -> tuple[int, int] | None:
            data = self.constant(name)
            return known(name) if data is None else (int(data.min()), int(data.max()))

        x, w = range_of(self.x.value, known), range_of(self.w.value, loaded)
        if x is None or w is None or x[1] - x[0] > U8.max or w[0] < I8.min or w[1] > I8.max:
            return None
        fixed = all(
            self.constant(n.buffer) is not None for n in walk(self.w.value) if isinstance(n, Load)
        )
        return Form(U8, I8, GROUPS[U8, I8], x[0]) if fixed or x[0] == 0 else None

    def lacking(
        self, columns: str, form: Form, size: int, result: Packed, buffers: dict[str, Buffer]
    ) -> Expr:
        """What a column's total lacks if rows are less by a value."""
        outer = [a for a in self.loops if a[0] in self.w.names and a != self.vector]
        blocks = -(-self.vector[1] // size)
        packed = result.constants[columns].reshape(
            math.prod(e for _, e in outer) * blocks, -1, size, form.group
        )
        sums = packed.sum((1, 3), np.int64) * form.least
        name = f"{columns} lack"
        array = aligned((sums.size,), numpy_dtype(I32))
        array[...] = sums.reshape(-1).astype(np.int32)
        result.constants[name] = array
        buffers[name] = Buffer(name, I32, array.shape)
        place: Expr = Const(0, I64)
        for n, extent in (*outer, ("vb", blocks)):
            place = place * extent + Index(n)
        found = rewrite(Load(name, (place * size + Index("vi"),)), folded)
        assert isinstance(found, Load)
        return found

    def bytes_of_row(self) -> int:
        """Of all terms of a row."""
        return math.prod(e for _, e in self.sum.axes) * self.dtype.bits // 8

    def step(self, axis: tuple[Axis, ...], moves: Mapping[str, int]) -> int:
        """How far the next value of a merged axis lies."""
        return moves.get(axis[-1][0], 0)

    def rows(
        self, name: str, form: Form, steps: list[Stmt], result: Packed,
        buffers: dict[str, Buffer],
    ) -> tuple[str, dict[str, int]]:  # fmt: skip
        """The buffer that rows are read from, flat, and by how many elements an index moves it."""
        x, vector, element = self.x, self.vector[0], form.rows
        source = buffers[x.load.buffer]
        extents = dict((*self.loops, *self.sum.axes))
        unit = source.dtype.bits // 8
        plain = x.plain or x.value == Cast(I32, x.load) - Const(-form.least)
        if plain and source.dtype == element:
            moves = _moves(x, [s // unit for s in unit_strides(source)])
            dense = sorted(unit_strides(source)) == sorted(_dense(source, unit))
            full = vector not in x.names or (moves[vector] == 1 and self.vector[1] % LANES == 0)
            crowded = self.crowded(moves, unit)
            start = sum(
                p.const * s // unit for p, s in zip(x.places, unit_strides(source), strict=True)
            )
            inner = math.prod(e for _, e in self.merged(moves)[-1])
            whole = inner % form.group == 0  # or the last group would reach beyond the buffer
            if dense and full and start == 0 and not crowded and whole:
                flat = f"{name}/{source.name}"
                size = math.prod(source.shape)
                buffers[flat] = Buffer(flat, source.dtype, (size,))
                result.views[flat] = source.name
                return flat, moves
        summed = {n for n, _ in self.sum.axes}
        order: list[int] = []
        for wanted in (0, 1, 2):
            for d, linear in enumerate(x.places):
                names = linear.indices
                kind = 0 if not names & summed else 1 if names - summed else 2
                if vector in names:
                    kind = 2
                if names and kind == wanted:
                    order.append(d)
        if vector in x.names:  # its axis goes last
            order.sort(key=lambda d: vector in x.places[d].indices)
        bounds = {d: x.places[d].bounds(extents) for d in order}
        spans = {d: bounds[d][1] - bounds[d][0] + 1 for d in order}
        strides: dict[int, int] = {}
        size = 1
        for d in reversed(order):
            strides[d] = size
            size *= spans[d]
            if d == order[-1] and len(order) > 1 and size * element.bits // 8 % CROWD == 0:
                size += SLACK
        at = {x.load.indices[d]: Index(f"s{d}") + Const(bounds[d][0], I64) for d in order}
        assert len(at) == len(order)
        value = replaced(x.value, at)
        if form.least:
            value = Cast(element, value - Const(form.least))
        value = rewrite(value, folded)
        assert isinstance(value, Expr)
        place: Expr = Const(0, I64)
        for d in order:
            place = place + Index(f"s{d}") * Const(strides[d], I64)
        buffers[name] = Buffer(name, element, (size + SLACK,))
        result.scratch = (*result.scratch, name)
        store = Store(name, (place,), value)
        steps.append(loops([(f"s{d}", spans[d]) for d in order], store))
        step_of = [strides.get(d, 0) for d in range(len(x.places))]
        return name, _moves(x, step_of)

    def crowded(self, moves: Mapping[str, int], unit: int) -> bool:
        """Whether rows compete for the same places of the nearest cache, and meet often."""
        rows = [n for n, _ in self.loops if n in self.x.names and n not in self.w.names]
        near = min((moves[n] * unit for n in rows), default=1)
        return self.vector[1] >= MANY and near % CROWD == 0

    def merged(self, moves: Mapping[str, int]) -> list[tuple[Axis, ...]]:
        """The axes of the sum, those that go on where the next one ends as one."""
        axes = sorted(self.sum.axes, key=lambda a: -moves.get(a[0], 0))
        found: list[tuple[Axis, ...]] = []
        for axis in axes:
            if found:
                reach = moves.get(axis[0], 0) * axis[1]
                if reach and moves.get(found[-1][-1][0], 0) == reach:
                    found[-1] = (*found[-1], axis)
                    continue
            found.append((axis,))
        return found

    def columns(
        self, name: str, form: Form, axes: list[tuple[Axis, ...]], size: int,
        steps: list[Stmt], result: Packed, buffers: dict[str, Buffer],
    ) -> tuple[Expr, list[Axis], bool]:  # fmt: skip
        """A load of the packed columns, the axes of the sum that it is read along, and whether the
        last step packs them, some panels at a time."""
        vector, extent = self.vector
        outer = [a for a in self.loops if a[0] in self.w.names and a != self.vector]
        terms = [(f"t{k}", math.prod(e for _, e in axis)) for k, axis in enumerate(axes)]
        values: dict[str, Expr] = {vector: Index("vb") * size + Index("vi")}
        certain: list[Expr] = []
        if extent % size:
            certain.append(values[vector] < extent)
        read = list(terms)
        for k, (axis, (own, count)) in enumerate(zip(axes, terms, strict=True)):
            at: Expr = Index(own)
            if form.group > 1 and k == len(axes) - 1:
                at = at * form.group + Index("p")
                read[k] = (own, -(-count // form.group))
                if count % form.group:
                    certain.append(at < count)
            for n, e in reversed(axis):
                values[n] = at if axis[0][0] == n else at % e
                at = at // e
        blocks = -(-extent // size)
        lie: list[Axis] = [*outer, ("vb", blocks), *read, ("vi", size)]
        if form.group > 1:
            lie.append(("p", form.group))
        place: Expr = Const(0, I64)
        step = 1
        for n, e in reversed(lie):
            place = Index(n) * Const(step, I64) + place
            step *= e
        buffers[name] = Buffer(name, form.columns, (step,))
        load = rewrite(Load(name, (place,)), folded)
        assert isinstance(load, Load)
        data = self.constant(self.w.load.buffer)
        if data is not None and self.w.value == self.w.load:
            transposed = self.transposed(data, form, axes, size)
            if transposed is not None:
                result.constants[name] = transposed.reshape(-1)
                return load, read, False
        value = substitute(self.w.value, values)
        for condition in certain:
            assert isinstance(value, Expr)
            value = Select(condition, value, Cast(dtype_of(self.w.value, buffers), Const(0)))
        value = rewrite(value, folded)
        assert isinstance(value, Expr)
        body = loops(lie, Store(name, load.indices, value))
        count = TOGETHER // size
        grouped = blocks % count == 0 and form.group == 1
        if grouped:
            # Rows of memory are read some panels at a time: there is a cost for every row.
            each = [a for a in lie if a[0] not in ("vb", "vi")]
            order = [*each[: len(outer)], ("vg", blocks // count), *each[len(outer) :],
                     ("vs", count), ("vi", size)]  # fmt: skip
            panels = rewrite(
                substitute(
                    Store(name, load.indices, value), {"vb": Index("vg") * count + Index("vs")}
                ),
                folded,
            )
            assert isinstance(panels, Stmt)
            body = loops(order, panels)
        others = {n.buffer for n in walk(value) if isinstance(n, Load)}
        if any(self.constant(n) is None for n in others):
            result.scratch = (*result.scratch, name)
            steps.append(body)
            return load, read, grouped
        arrays = {n: _shaped(self.constant(n), buffers[n]) for n in others}
        arrays[name] = aligned((step,), numpy_dtype(form.columns))
        used = tuple(buffers[n] for n in (*others, name))
        interpret(Nest("pack", (), used, body), {}, arrays, checked=False)
        result.constants[name] = arrays[name]
        return load, read, False

    def transposed(
        self, data: np.ndarray, form: Form, axes: list[tuple[Axis, ...]], size: int
    ) -> np.ndarray | None:
        """The packed columns of a plain load, by numpy; None if its indices are no plain ones."""
        source = self.buffers[self.w.load.buffer]
        if source.strides is not None:
            return None
        names: list[str] = []
        for place, extent in zip(self.w.places, source.shape, strict=True):
            if place.coefficients and (place.const or place.coefficients[0][1] != 1):
                return None
            if len(place.coefficients) > 1 or (not place.coefficients and extent > 1):
                return None
            names.append(place.coefficients[0][0] if place.coefficients else "")
        kept = [n for n in names if n]
        if len(set(kept)) != len(kept):
            return None
        extents = dict((*self.loops, *self.sum.axes))
        shape = tuple(e for n, e in zip(names, source.shape, strict=True) if n)
        if any(extents[n] != e for n, e in zip(kept, shape, strict=True)):
            return None
        array = data.reshape(shape)
        outer = [n for n, _ in self.loops if n in kept and n != self.vector[0]]
        terms = [n for axis in axes for n, _ in axis]
        if any(n not in kept for n in terms):
            return None
        array = array.transpose([kept.index(n) for n in (*outer, self.vector[0], *terms)])
        lead = array.shape[: len(outer)]
        counts = [math.prod(e for _, e in axis) for axis in axes]
        array = array.reshape((*lead, self.vector[1], *counts))
        last = -(-counts[-1] // form.group) * form.group
        columns = -(-self.vector[1] // size) * size
        if (columns, last) != (self.vector[1], counts[-1]):
            wide = np.zeros((*lead, columns, *counts[:-1], last), array.dtype)
            wide[tuple(slice(0, n) for n in array.shape)] = array
            array = wide
        inner = (*counts[:-1], last // form.group, form.group) if form.group > 1 else tuple(counts)
        array = array.reshape((*lead, columns // size, size, *inner))
        k = len(lead)
        order = [*range(k + 1), *range(k + 2, k + 2 + len(counts)), k + 1]
        if form.group > 1:
            order.append(k + 2 + len(counts))
        array = array.transpose(order)
        made = aligned(array.shape, numpy_dtype(form.columns))
        made[...] = array
        return made


def _without(stmt: Stmt, names: set[str]) -> Stmt:
    """A statement without some of the loops around it."""
    around, inner = under_loops(stmt)
    return loops([loop for loop in around if loop[0] not in names], inner)


def _moves(operand: Operand, strides: Sequence[int]) -> dict[str, int]:
    moves: dict[str, int] = {}
    for place, stride in zip(operand.places, strides, strict=True):
        for name, c in place.coefficients:
            moves[name] = moves.get(name, 0) + c * stride
    return moves


def _dense(buffer: Buffer, unit: int) -> list[int]:
    strides, step = list[int](), unit
    order = sorted(range(len(buffer.shape)), key=lambda d: unit_strides(buffer)[d])
    for d in order:
        strides.append(step)
        step *= buffer.shape[d]
    return strides


def _shaped(data: np.ndarray | None, buffer: Buffer) -> np.ndarray:
    assert data is not None
    if data.dtype == bool:
        data = data.view(np.uint8)
    return data.reshape(buffer.shape)
