"""Loops over images with a border, in parts where it is certain whether an index is inside.

A condition keeps a loop from becoming lanes if it differs from one trip to the next. Where it
compares the loop's index with a literal, it differs at one trip only: the loop becomes two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..isa.lanes import fits_lanes, lane_step
from ..isa.nest import I64, Binary, Buffer, Const, Expr, Index, Node, Select, Stmt, Store
from ..isa.traverse import distinct, loops, rewrite, substitute, under_loops
from .affine import affine
from .ranges import folded

Loop = tuple[str, int]

FEW, MANY = 8, 16
"""Trips of a loop that are too few for vectors, and enough."""


def parted(stmt: Stmt, buffers: Mapping[str, Buffer]) -> list[Stmt]:
    """``stmt``, in parts if only so it can become lanes.

    Parameters
    ----------
    stmt : Stmt
        Parallel loops around a store to a buffer of one axis, or anything else, which stays.
    buffers : mapping
        Those that it uses, by name.
    """
    around, store = under_loops(stmt)
    if not isinstance(store, Store) or len(store.indices) != 1 or not around:
        return [stmt]
    steps = {name: lane_step(store.indices[0], {name: 1}) for name, _ in around}
    long = [loop for loop in around if loop[1] >= MANY and steps[loop[0]]]
    if buffers[store.buffer].dtype.bits < 8 or any(fits_lanes(store, name) for name, _ in long):
        return [stmt]
    moving = [loop for loop in around if steps[loop[0]]]
    moving.sort(key=lambda loop: abs(steps[loop[0]] or 0))
    if not moving or moving[0][1] >= FEW:
        return [stmt]
    for name, extent in (loop for loop in moving if loop in long):
        stops = [0, *sorted(_changes(store, name, extent)), extent]
        first, stop = max(pairwise(stops), key=lambda part: part[1] - part[0])
        if stop - first >= MANY and fits_lanes(_part(store, name, first, stop), name):
            return [
                loops(_with(around, name, b - a), _part(store, name, a, b))
                for a, b in pairwise(stops)
            ]
    return [stmt]


def _with(around: Sequence[Loop], name: str, extent: int) -> list[Loop]:
    return [(n, extent if n == name else e) for n, e in around]


def _comparison(node: Node, name: str) -> tuple[int, int] | None:
    """``(c, k)`` of a comparison that says ``c * index + k < 0`` of whole numbers; None of anything
    else."""
    if not isinstance(node, Binary) or node.op not in ("lt", "le"):
        return None
    a, b = affine(node.a), affine(node.b)
    if a is None or b is None:
        return None
    form = a.plus(b, -1)
    if form.indices != {name} or abs(form.coefficient(name)) != 1:
        return None
    return form.coefficient(name), form.const - (node.op == "le")


def _changes(store: Store, name: str, extent: int) -> set[int]:
    """The trips at which a condition first comes out otherwise."""
    found = {_comparison(node, name) for node in distinct(store)} - {None}
    trips = {-k if c > 0 else k + 1 for c, k in (form for form in found if form)}
    return {trip for trip in trips if 0 < trip < extent}


def _part(store: Store, name: str, first: int, stop: int) -> Store:
    """The trips from ``first`` up to ``stop``, as from 0 on; nothing changes between them."""

    def certain(node: Node) -> Node | None:
        form = _comparison(node, name)
        if form is not None and _holds(form, first) == _holds(form, stop - 1):
            return Const(int(_holds(form, first)))
        match node:
            case Binary("and", Const(value=x), other) | Binary("and", other, Const(value=x)):
                return other if x else Const(0)
            case Select(Const(value=x), a, b):
                return a if x else b
        return None

    known = rewrite(store, certain)
    index: Expr = Index(name) + Const(first, I64) if first else Index(name)
    moved = rewrite(substitute(known, {name: index}), folded)
    assert isinstance(moved, Store)
    return moved


def _holds(form: tuple[int, int], trip: int) -> bool:
    return form[0] * trip + form[1] < 0
