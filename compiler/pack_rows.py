"""The operand with rows, as register tiles read it: where it lies, or a copy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..isa.nest import I32, I64, Buffer, Cast, Const, Expr, Index, Stmt, Store
from ..isa.storage import unit_strides
from ..isa.traverse import loops, rewrite
from .factors import CROWD, Axis, Factors, Operand, replaced
from .pack_forms import Form, Packed
from .ranges import folded

LANES = 16
"""Elements of 32 bits in the widest vector there is."""
MANY = 128
"""Columns for which it is worth while to copy rows."""
SLACK = 32
"""Elements behind a copy that may be read, though they count for nothing."""


class Rows(Factors):
    """A contraction whose rows are made ready."""

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

    def step(self, axis: tuple[Axis, ...], moves: Mapping[str, int]) -> int:
        """How far the next value of a merged axis lies."""
        return moves.get(axis[-1][0], 0)


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
