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
from dataclasses import replace

from ..isa.nest import (
    I8,
    I16,
    I64,
    U8,
    Block,
    Buffer,
    Const,
    Expr,
    Index,
    Load,
    Nest,
    Stmt,
    Store,
    Sum,
)
from ..isa.tiles import GROUPS, NEAR_CACHE, Target
from ..isa.traverse import distinct, loops, rewrite, substitute, under_loops, walk
from .factors import FEW, Axis, Constant
from .pack_columns import TOGETHER, Columns
from .pack_forms import Form, Packed
from .pack_rows import Rows
from .ranges import folded, of_types, range_of
from .winograd import winograd

NEAR = 3 * NEAR_CACHE // 4
"""Bytes of rows that stay near while columns are packed and multiplied group by group."""


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
        form = one.form(target)
        # Of bytes there are no fewer products: the sums that those are made of take more bits.
        fewer = None if form.columns == I8 else winograd(one, prefix)
        if fewer is None:
            made += one.statements(prefix, form, result, buffers, target)
            continue
        buffers.update((b.name, b) for b in fewer.buffers)
        result.scratch = (*result.scratch, *fewer.scratch)
        known = {fewer.filters: fewer.array}
        for part in fewer.statements:
            two = _Ready.of(part, buffers, known.get)
            if two is None:
                made.append(part)
            else:
                made += two.statements(prefix, two.form(target), result, buffers, target)
    if not found:
        return None
    body = made[0] if len(made) == 1 else Block(tuple(made))
    used = {n.buffer for n in distinct(body) if isinstance(n, Load | Store)}
    kept = tuple(b for b in buffers.values() if b.name in used)
    result.nest = replace(nest, buffers=kept, body=body)
    return result


class _Ready(Rows, Columns):
    """A contraction whose operands are made ready."""

    def statements(
        self, prefix: str, form: Form, result: Packed, buffers: dict[str, Buffer], target: Target
    ) -> list[Stmt]:
        """The steps; what they need is added to ``result`` and ``buffers``."""
        steps: list[Stmt] = []
        name = self.vector[0]
        size = max(FEW, target.bits // 32) if self.vector[1] <= FEW else target.columns
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

    def form(self, target: Target) -> Form:
        """How the operands are to be kept."""
        if self.dtype.kind == "f":
            return Form(self.dtype, self.dtype)
        return self.form_of_bytes(target) or Form(I16, I16, GROUPS[I16, I16])

    def form_of_bytes(self, target: Target) -> Form | None:
        """That of products of bytes; None where the processor has none, or they do not fit."""
        if not target.quads or self.vector[0] in self.x.names:
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

    def bytes_of_row(self) -> int:
        """Of all terms of a row."""
        return math.prod(e for _, e in self.sum.axes) * self.dtype.bits // 8


def _without(stmt: Stmt, names: set[str]) -> Stmt:
    """A statement without some of the loops around it."""
    around, inner = under_loops(stmt)
    return loops([loop for loop in around if loop[0] not in names], inner)
