"""When a parallel loop may become lanes of vectors, and how an index moves from lane to lane."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .nest import (
    I16,
    I64,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Select,
    Stmt,
    Store,
    Sum,
    dtype_of,
)
from .storage import unit_strides
from .traverse import children, walk

if TYPE_CHECKING:
    from .llvm_ir import Value


@dataclass(frozen=True)
class Lanes:
    """Lanes that are being evaluated.

    Attributes
    ----------
    count : int
        How many.
    index : str
        The loop's index, which they are values of.
    steps : mapping
        By how much each name that depends on the lane grows from lane to lane; None where it
        does so irregularly, and then ``values`` has it.
    even : bool
        Whether the first lane's index is certainly even.
    """

    count: int
    index: str
    steps: Mapping[str, int | None]
    values: Mapping[str, Value]
    even: bool

    def step(self, e: Expr) -> int | None:
        """By how much an expression grows from lane to lane; None if not by a constant."""
        return lane_step(e, self.steps)

    def bound(self, name: str, step: int | None, value: Value) -> Lanes:
        """These, with a name that depends on them."""
        values = {**self.values, name: value}
        return replace(self, steps={**self.steps, name: step}, values=values)

    def without(self, name: str) -> Lanes:
        """These, where ``name`` no longer depends on them."""
        return replace(self, steps={k: v for k, v in self.steps.items() if k != name})


def lane_step(e: Expr, steps: Mapping[str, int | None]) -> int | None:
    """The constant difference of ``e`` between lanes, or None; ``e`` is computed in ``i64``."""
    match e:
        case Index(name):
            return steps.get(name, 0)
        case Const():
            return 0
        case Cast(dtype, a) if dtype == I64:
            return lane_step(a, steps)
        case Binary("add" | "sub" as op, a, b):
            x, y = lane_step(a, steps), lane_step(b, steps)
            if x is None or y is None:
                return None
            return x + y if op == "add" else x - y
        case Binary("mul", a, Const(value)):
            x = lane_step(a, steps)
            return None if x is None else x * int(value)
        case Binary("mul", Const(value), b):
            x = lane_step(b, steps)
            return None if x is None else x * int(value)
    return None if mentions(e, steps) else 0


def mentions(e: Expr, names: Container[str]) -> bool:
    """Whether ``e`` depends on any of ``names``."""
    if isinstance(e, Index):
        return e.name in names
    return any(isinstance(c, Expr) and mentions(c, names) for c in children(e))


def fits_lanes(body: Stmt, index: str) -> bool:
    """Whether ``body`` may be evaluated for all values of a parallel loop's index at once.

    It may if control flow does not differ between lanes: no parallel loops within (which become
    lanes themselves), bounds and conditions that are the same for all, and where a ``Select``
    differs, no load in its branches that would not be
    made anyway. Lanes that do not lie side by side in memory are gathered one by one, which is
    still faster than to do everything else once a lane.
    """
    return _stmt_fits(body, {index: 1})


def _stmt_fits(stmt: Stmt, steps: Mapping[str, int | None]) -> bool:
    match stmt:
        case Block(stmts):
            return all(_stmt_fits(s, steps) for s in stmts)
        case For(index, start, stop, body, False):
            bounds = mentions(start, steps) or mentions(stop, steps)
            return not bounds and _stmt_fits(body, {k: v for k, v in steps.items() if k != index})
        case If(cond, body):
            return not mentions(cond, steps) and _stmt_fits(body, steps)
        case Let(name, value, body):
            if not _expr_fits(value, steps):
                return False
            inner = {k: v for k, v in steps.items() if k != name}
            if mentions(value, steps):
                inner[name] = lane_step(value, steps)
            return _stmt_fits(body, inner)
        case Store(_, indices, value):
            return (
                any(mentions(i, steps) for i in indices)
                and all(_expr_fits(i, steps) for i in indices)
                and _expr_fits(value, steps)
            )
    return False


def _expr_fits(e: Expr, steps: Mapping[str, int | None]) -> bool:
    if not mentions(e, steps):
        return True
    nodes = list(_nodes(e))
    if any(name in steps for s in nodes if isinstance(s, Sum) for name, _ in s.axes):
        return False
    if not any(isinstance(node, Select) for node in nodes):
        return True
    return _selects_fit(e, steps, set(_certain(e)))


def _nodes(e: Expr) -> Iterator[Expr]:
    yield e
    for child in children(e):
        if isinstance(child, Expr):
            yield from _nodes(child)


def _certain(e: Expr) -> Iterator[Expr]:
    """The loads and sums of ``e`` that are evaluated whatever the conditions say."""
    if isinstance(e, Load | Sum):
        yield e
    if isinstance(e, Sum):
        return
    for child in (e.cond,) if isinstance(e, Select) else children(e):
        if isinstance(child, Expr):
            yield from _certain(child)


def _outermost(e: Expr) -> Iterator[Expr]:
    """The loads and sums of ``e`` that are not within a sum."""
    if isinstance(e, Load | Sum):
        yield e
    if not isinstance(e, Sum):
        for child in children(e):
            if isinstance(child, Expr):
                yield from _outermost(child)


def _selects_fit(e: Expr, steps: Mapping[str, int | None], certain: set[Expr]) -> bool:
    """Whether lanes that evaluate both branches load nothing but what is in ``certain``."""
    if isinstance(e, Select):
        if not _selects_fit(e.cond, steps, certain):
            return False
        if mentions(e.cond, steps):
            return all(n in certain for b in (e.a, e.b) for n in _outermost(b))
        return all(_selects_fit(b, steps, certain | set(_certain(b))) for b in (e.a, e.b))
    if isinstance(e, Sum):
        return _selects_fit(e.body, steps, set(_certain(e.body)))
    return all(_selects_fit(c, steps, certain) for c in children(e) if isinstance(c, Expr))


def _in_lanes(e: Sum, steps: Mapping[str, int | None], buffers: Mapping[str, Buffer]) -> bool:
    """Whether the lanes of everything that a sum loads itself lie side by side."""
    loads = (n for n in _own_nodes(e.body) if isinstance(n, Load))
    return all(is_together(load, steps, buffers) for load in loads)


def _own_nodes(e: Expr) -> Iterator[Expr]:
    """The nodes of ``e`` without those of sums within it."""
    if not isinstance(e, Sum):
        yield e
        for child in children(e):
            if isinstance(child, Expr):
                yield from _own_nodes(child)


def leaves(e: Sum, steps: Mapping[str, int | None]) -> list[Sum] | None:
    """The innermost sums of a sum of sums, or of selections between sums; None if it is neither.

    Then totals can be carried through all of them: every lane takes the same branches. A sum
    without further ones within is its own only leaf.
    """

    def below(e: Expr) -> list[Sum] | None:
        match e:
            case Sum(_, body) if any(isinstance(n, Sum) for n in _nodes(body)):
                return below(body)
            case Sum():
                return [e]
            case Select(cond, a, b) if not mentions(cond, steps):
                found = below(a), below(b)
                return None if found[0] is None or found[1] is None else found[0] + found[1]
        return None

    return below(e)


ROW = 8
"""Terms that a row needs to have."""


def in_rows(e: Sum, steps: Mapping[str, int | None], buffers: Mapping[str, Buffer]) -> bool:
    """Whether the terms of a sum lie side by side on its last axis, but the lanes do not."""
    if not e.axes or e.axes[-1][1] < ROW or _in_lanes(e, steps, buffers):
        return False
    name = e.axes[-1][0]
    if any(isinstance(n, Sum) for n in _nodes(e.body)) or speculates(e.body, {name: 1}):
        return False
    loads = [n for n in _nodes(e.body) if isinstance(n, Load)]
    return all(is_together(load, {name: 1}, buffers) for load in loads)


def is_together(load: Load, steps: Mapping[str, int | None], buffers: Mapping[str, Buffer]) -> bool:
    """Whether a load's lanes lie side by side, or are one element."""
    buffer = buffers[load.buffer]
    if not any(mentions(i, steps) for i in load.indices):
        return True
    total = 0
    for index, stride in zip(load.indices, unit_strides(buffer), strict=True):
        step = lane_step(index, steps)
        if step is None:
            return False
        total += step * stride
    unit = buffer.dtype.bits // 8 if buffer.dtype.bits >= 8 else buffer.dtype.bits
    return total in (0, unit)


def speculates(e: Expr, steps: Mapping[str, int | None]) -> bool:
    """Whether lanes would make a load that one of them does not ask for."""
    return not _selects_fit(e, steps, set(_certain(e)))


def has_rows(body: Stmt, index: str, buffers: Mapping[str, Buffer]) -> bool:
    """Whether a loop's body sums over rows of memory, a row for each lane."""
    sums = (node for node in walk(body) if isinstance(node, Sum))
    return any(in_rows(e, {index: 1}, buffers) for e in sums)


def is_narrow(e: Expr, buffers: Mapping[str, Buffer]) -> bool:
    """Whether every value of ``e`` fits ``i16``."""
    match e:
        case Const(value, dtype):
            return dtype.kind != "f" and I16.min <= value <= I16.max
        case Select(_, a, b) | Binary("min" | "max", a, b):
            return is_narrow(a, buffers) and is_narrow(b, buffers)
    return _holds_narrow(dtype_of(e, buffers))


def _holds_narrow(dtype: DType) -> bool:
    return dtype.kind != "f" and dtype.bits + (dtype.kind == "u") <= I16.bits
