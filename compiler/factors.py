"""Contractions as loop nests have them: which factor has rows, and which one columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..isa.nest import (
    I16,
    I32,
    I64,
    Binary,
    Block,
    Buffer,
    Const,
    DType,
    Expr,
    Load,
    Node,
    Stmt,
    Store,
    Sum,
    dtype_of,
    promote,
)
from ..isa.storage import unit_strides
from ..isa.traverse import distinct, rewrite, substitute, under_loops
from .affine import Affine, affine, indices_of
from .ranges import folded, of_types, range_of

Constant = Callable[[str], "np.ndarray | None"]
"""The value of a buffer that never changes, in any shape; None of others."""
FEW = 8
"""Columns that are few: another loop becomes columns if it has more; if there is none, so many of
them lie side by side."""
CROWD = 2048
"""Bytes from row to row, or a multiple, at which few of them fit into the nearest cache at once."""

Axis = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Operand:
    """A factor whose one main load has affine indices."""

    value: Expr
    load: Load
    places: tuple[Affine, ...]
    names: frozenset[str]

    @classmethod
    def of(cls, value: Expr, axes: Sequence[Axis]) -> Operand | None:
        """``value`` in this form; None if it has another one."""
        names = {name for name, _ in axes}
        loads = {n for n in distinct(value) if isinstance(n, Load) and names & indices_of(n)}
        if len(loads) != 1:
            return None
        (load,) = loads
        places = [affine(i) for i in load.indices]
        if any(p is None for p in places) or any(isinstance(n, Sum) for n in distinct(value)):
            return None
        return cls(value, load, tuple(p for p in places if p), indices_of(value) & names)

    @property
    def plain(self) -> bool:
        """Whether it is the load and nothing else."""
        return self.value == self.load


@dataclass(frozen=True, eq=False)
class Factors:
    """A contraction as a nest has it: loops around stores of what one sum has in common.

    Attributes
    ----------
    loops : tuple
        Name and extent of each parallel loop, the outermost first; none has one trip only.
    stores : tuple of Store
        What is inside, with the sum somewhere in their values.
    sum : Sum
        Of products of two operands.
    dtype : DType
        Of a total.
    x, w : Operand
        That with rows, and that with columns.
    vector : tuple
        The loop that becomes columns.
    buffers : mapping
        Those of the nest, by name.
    constant : callable
        The value of a buffer that never changes; None of others.
    """

    loops: tuple[Axis, ...]
    stores: tuple[Store, ...]
    sum: Sum
    dtype: DType
    x: Operand
    w: Operand
    vector: Axis
    buffers: Mapping[str, Buffer]
    constant: Constant

    @classmethod
    def of(cls, stmt: Stmt, buffers: Mapping[str, Buffer], constant: Constant) -> Self | None:
        """``stmt`` in this form; None if it has another one."""
        around, stmt = under_loops(stmt)
        loops = tuple(loop for loop in around if loop[1] != 1)
        stores = stmt.stmts if isinstance(stmt, Block) else (stmt,)
        if not loops or any(extent <= 0 for _, extent in loops):
            return None
        if not all(isinstance(s, Store) for s in stores):
            return None
        sums = {n for s in stores for n in distinct(s) if isinstance(n, Sum)}
        written = {s.buffer for s in stores if isinstance(s, Store)}
        if len(sums) != 1 or any(
            isinstance(n, Load) and n.buffer in written for s in stores for n in distinct(s)
        ):
            return None
        (total,) = sums
        names = [name for name, _ in (*loops, *total.axes)]
        if len(set(names)) != len(names) or not all(extent for _, extent in total.axes):
            return None
        once = (*around, *total.axes)
        ones: dict[str, Expr] = {name: Const(0, I64) for name, extent in once if extent == 1}
        axes = tuple(a for a in total.axes if a[1] > 1)
        if not axes:
            return None
        stores = tuple(
            _without(rewrite(s, lambda n: Sum(axes, n.body) if isinstance(n, Sum) else None), ones)
            for s in stores
        )
        (total,) = {n for s in stores for n in distinct(s) if isinstance(n, Sum)}
        if not isinstance(total.body, Binary) or total.body.op != "mul":
            return None
        dtype = promote(dtype_of(total.body, buffers), I32)
        every = (*loops, *axes)
        a, b = Operand.of(total.body.a, every), Operand.of(total.body.b, every)
        if a is None or b is None or any(buffers[o.load.buffer].dtype.bits < 8 for o in (a, b)):
            return None
        if dtype.kind != "f":
            spans = [range_of(o.value, of_types(buffers)) for o in (a, b)]
            if dtype != I32 or any(s is None or s[0] < I16.min or s[1] > I16.max for s in spans):
                return None
        elif any(dtype_of(o.value, buffers) != dtype for o in (a, b)):
            return None
        chosen = _vector(loops, stores, a, b, buffers, constant)
        if chosen is None:
            return None
        vector, x, w = chosen
        return cls(
            loops, tuple(s for s in stores if isinstance(s, Store)), total, dtype, x, w,
            vector, buffers, constant,
        )  # fmt: skip


def _vector(
    loops: tuple[Axis, ...], stores: Sequence[Node], a: Operand, b: Operand,
    buffers: Mapping[str, Buffer], constant: Constant,
) -> tuple[Axis, Operand, Operand] | None:  # fmt: skip
    """The loop that becomes columns, the operand of rows and that of columns."""
    by_store: dict[str, int] = {}
    for s in stores:
        if isinstance(s, Store):
            buffer = buffers[s.buffer]
            for index, stride in zip(s.indices, unit_strides(buffer), strict=True):
                form = affine(index)
                if form is None:
                    return None
                for name, c in form.coefficients:
                    by_store[name] = abs(c) * stride
    if any(name not in by_store for name, _ in loops):
        return None
    fixed = [constant(o.load.buffer) is not None for o in (a, b)]
    best: tuple[tuple[int, ...], Axis, Operand, Operand] | None = None
    for name, extent in loops:
        inside = name in a.names, name in b.names
        if not any(inside):
            continue
        near = -by_store[name]
        if all(inside):
            x, w = (a, b) if fixed[1] or not fixed[0] else (b, a)
            score: tuple[int, ...] = (int(extent >= FEW), 0, near)
        else:
            x, w = (a, b) if inside[1] else (b, a)
            known = fixed[1] if inside[1] else fixed[0]
            if any(fixed) and not known:
                continue
            score = (int(extent >= FEW), 1, near)
        if best is None or score > best[0]:
            best = score, (name, extent), x, w
    if best is None:
        return None
    return best[1], best[2], best[3]


def _without(node: Node, ones: Mapping[str, Expr]) -> Node:
    """``node`` with indices of one trip as what they are."""
    return rewrite(substitute(node, ones), folded)


def replaced(e: Expr, at: Mapping[Expr, Expr]) -> Expr:
    """``e`` with whole subexpressions replaced, from the outside."""
    if e in at:
        return at[e]

    def rule(node: Node) -> Node | None:
        return at.get(node) if isinstance(node, Expr) else None

    changed = rewrite(e, rule)
    assert isinstance(changed, Expr)
    return changed
