"""Loop nests joined where one reads just what another one writes, element by element.

A nest that stores a tensor at the plain indices of its parallel loops, and one that loads it only
at the plain indices of its own, of the same extents, become one: the loads are replaced by the
value that would have been stored. The tensor itself is written only where somebody else reads it.
So bias, residual, activation and requantization are computed where a sum still is in registers, and
a chain of element-wise operators reads and writes memory once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..isa.nest import (
    Block,
    Cast,
    Const,
    Expr,
    Index,
    Load,
    Math,
    Nest,
    Node,
    Select,
    Store,
    Sum,
    dtype_of,
)
from ..isa.traverse import children, distinct, loops, rewrite, substitute, under_loops, walk

SIZE_LIMIT = 160
"""Nodes of a value, as a tree, that is put where it was loaded."""
REPEAT_LIMIT = 12
"""Nodes of one that is put there more than once."""


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A nest of parallel loops around stores."""

    loops: tuple[tuple[str, int], ...]
    stores: tuple[Store, ...]

    @classmethod
    def of(cls, nest: Nest) -> Pointwise | None:
        """``nest`` in this form; None if it has another one."""
        loops, stmt = under_loops(nest.body)
        stores = stmt.stmts if isinstance(stmt, Block) else (stmt,)
        found = tuple(s for s in stores if isinstance(s, Store))
        if len(found) != len(stores) or nest.params:
            return None
        return cls(loops, found)


def fused(first: Nest, second: Nest, tensor: str, kept: bool) -> Nest | None:
    """Both nests as one, which does what they do one after the other; None if they do not fit.

    Parameters
    ----------
    first, second : Nest
        The first stores ``tensor``, the second loads it; buffers of the same name are the same.
    tensor : str
        A buffer of both.
    kept : bool
        Whether it must be stored.
    """
    a, b = Pointwise.of(first), Pointwise.of(second)
    if a is None or b is None or first.buffer(tensor) != second.buffer(tensor):
        return None
    writing = [s for s in a.stores if s.buffer == tensor]
    if len(writing) != 1:
        return None
    (source,) = writing
    buffers = {x.name: x for x in (*first.buffers, *second.buffers)}
    if any(x != buffers[x.name] for x in first.buffers):
        return None
    shape = first.buffer(tensor).shape
    loads = {n for s in b.stores for n in distinct(s) if isinstance(n, Load) and n.buffer == tensor}
    if len(loads) != 1 or any(isinstance(n, Sum) for s in b.stores for n in distinct(s)):
        return None
    (load,) = loads
    ours = _plain(source.indices, dict(a.loops), shape)
    theirs = _plain(load.indices, dict(b.loops), shape)
    if ours is None or theirs is None:
        return None
    written = {s.buffer for s in a.stores}
    if any(
        isinstance(n, Load) and n.buffer in written and n != load
        for s in b.stores for n in distinct(s)
    ):  # fmt: skip
        return None
    uses = sum(1 for s in b.stores for n in walk(s) if n == load)
    size = _size(source.value)
    if size * uses > SIZE_LIMIT or (uses > 1 and size > REPEAT_LIMIT):
        return None
    names = {t: o for t, o in zip(theirs, ours, strict=True) if t is not None}
    rest = [n for n, e in b.loops if n not in names]
    if any(e != 1 for n, e in b.loops if n in rest):
        return None
    values: dict[str, Expr] = dict.fromkeys(rest, Const(0))
    for t, o in names.items():
        values[t] = Const(0) if o is None else Index(o)
    value = source.value
    dtype = first.buffer(tensor).dtype
    if dtype_of(value, buffers) != dtype:
        value = Cast(dtype, value)
    here = substitute(load, values)
    stores: list[Store] = [s for s in a.stores if kept or s is not source]
    for s in b.stores:
        moved = substitute(s, values)
        changed = rewrite(moved, lambda n: value if n == here else None)
        assert isinstance(changed, Store)
        stores.append(changed)
    body = loops(a.loops, stores[0] if len(stores) == 1 else Block(tuple(stores)))
    used = {n.buffer for n in walk(body) if isinstance(n, Load | Store)}
    kept_buffers = tuple(x for x in buffers.values() if x.name in used)
    return replace(second, buffers=kept_buffers, body=body)


def _plain(
    indices: Sequence[Expr], loops: Mapping[str, int], shape: tuple[int, ...]
) -> list[str | None] | None:
    """The loop at each index, None where the extent is 1; None if they are not all loops."""
    found: list[str | None] = []
    for index, extent in zip(indices, shape, strict=True):
        if extent == 1 and not isinstance(index, Index):
            found.append(None)
        elif isinstance(index, Index) and loops.get(index.name) == extent:
            found.append(index.name)
        else:
            return None
    named = [n for n in found if n is not None]
    long = {n for n, e in loops.items() if e > 1}
    if len(set(named)) != len(named) or not long <= set(named):
        return None
    return found


def _size(e: Node) -> int:
    """Nodes of a tree; a sum counts as one, and a function as several."""
    if isinstance(e, Sum | Load):
        return 1
    own = 12 if isinstance(e, Math) else 2 if isinstance(e, Select) else 1
    return own + sum(_size(c) for c in children(e))
