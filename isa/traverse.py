"""Walking through loop nests (:mod:`.nest`), and building others of them: nodes never change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache

from .nest import I64, Const, Expr, For, Index, Node, Stmt


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below ``node``, in the order of evaluation."""
    known: tuple[Node, ...] | None = node.__dict__.get(_BELOW)
    if known is None:
        found: list[Node] = []
        for name in _field_names(type(node)):
            value = getattr(node, name)
            if isinstance(value, _NODES):
                found.append(value)
            elif isinstance(value, tuple):
                found += [item for item in value if isinstance(item, _NODES)]
        known = tuple(found)
        node.__dict__[_BELOW] = known  # nodes never change, and are walked often
    return known


_NODES = (Expr, Stmt)
_BELOW = "_below"
"""Where a node remembers its children; no field, so that it counts for nothing else."""


_PLAIN = frozenset(
    ("str", "int", "bool", "int | float", "DType", "BinaryOp", "tuple[tuple[str, int], ...]")
)
"""Types of fields, as they are written, that are no nodes."""


@lru_cache(maxsize=64)
def _field_names(kind: type) -> tuple[str, ...]:
    # Every node is a dataclass; most of its fields can hold no node.
    return tuple(field.name for field in fields(kind) if field.type not in _PLAIN)


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything below it, parents first."""
    below = [node]
    while below:
        node = below.pop()
        yield node
        further = children(node)
        if further:
            below += further[::-1]


def distinct(node: Node) -> Iterator[Node]:
    """As :func:`walk`, but what stands in several places as one object only once."""
    below, seen = [node], {id(node)}
    while below:
        node = below.pop()
        yield node
        for child in reversed(children(node)):
            if id(child) not in seen:
                seen.add(id(child))
                below.append(child)


def rewrite(node: Node, rule: Callable[[Node], Node | None]) -> Node:
    """``node`` rebuilt from the leaves up; ``rule`` returns a replacement or None to keep.

    What stands in several places as one object is rebuilt once, and is one object again.
    """
    return _rewritten(node, rule, {})


def _rewritten(
    node: Node, rule: Callable[[Node], Node | None], done: dict[int, tuple[Node, Node]]
) -> Node:
    rebuilt = node
    below = node.__dict__.get(_BELOW)
    if below is None:
        below = children(node)
    if below:
        changed = False
        now: list[Node] = []
        for child in below:
            before = done.get(id(child))
            new = _rewritten(child, rule, done) if before is None else before[1]
            now.append(new)
            changed = changed or new is not child
        if changed:
            # What :func:`dataclasses.replace` does, at a tenth of its cost.
            rebuilt = object.__new__(type(node))
            rebuilt.__dict__.update(node.__dict__)
            rebuilt.__dict__[_BELOW] = tuple(now)
            rest = iter(now)
            for name in _field_names(type(node)):
                value = getattr(node, name)
                if isinstance(value, _NODES):
                    rebuilt.__dict__[name] = next(rest)
                elif isinstance(value, tuple):
                    items = (next(rest) if isinstance(i, _NODES) else i for i in value)
                    rebuilt.__dict__[name] = tuple(items)
    result = rule(rebuilt)
    final = rebuilt if result is None else result
    done[id(node)] = node, final
    return final


def loops(axes: Sequence[tuple[str, int]], body: Stmt, parallel: bool = True) -> Stmt:
    """``body`` under loops from 0, the first outermost: (index, extent) each."""
    for name, extent in reversed(axes):
        body = For(name, Const(0, I64), Const(extent, I64), body, parallel)
    return body


def under_loops(stmt: Stmt) -> tuple[tuple[tuple[str, int], ...], Stmt]:
    """The parallel loops from 0 to a literal around a statement, and what they are around.

    :func:`loops` puts it together again.
    """
    axes: list[tuple[str, int]] = []
    while True:
        match stmt:
            case For(index, Const(value=0), Const(value=int(stop)), body, True):
                axes.append((index, stop))
                stmt = body
            case _:
                return tuple(axes), stmt


def substitute(node: Node, values: Mapping[str, Expr]) -> Node:
    """``node`` with every :class:`Index` named in ``values`` replaced."""
    return rewrite(node, lambda n: values.get(n.name) if isinstance(n, Index) else None)
