"""The operand with columns, packed in panels: by numpy, by a nest at compile time, or by a step."""

from __future__ import annotations

import math

import numpy as np

from ..isa.interpret import interpret
from ..isa.nest import (
    I32,
    I64,
    Buffer,
    Cast,
    Const,
    Expr,
    Index,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    dtype_of,
)
from ..isa.storage import numpy_dtype
from ..isa.traverse import loops, rewrite, substitute, walk
from .factors import Axis, Factors
from .memory import aligned
from .pack_forms import Form, Packed
from .ranges import folded

TOGETHER = 64
"""Columns that are packed at a time."""


class Columns(Factors):
    """A contraction whose columns are made ready."""

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


def _shaped(data: np.ndarray | None, buffer: Buffer) -> np.ndarray:
    assert data is not None
    if data.dtype == bool:
        data = data.view(np.uint8)
    return data.reshape(buffer.shape)
