"""Index expressions as sums: a constant and other things, each times a constant.

Two kinds of sums are made of expressions here and in :mod:`.integers`, by the same walk. An
:data:`Affine` counts loop indices and nothing else; whoever asks for one has no use for any other
form. The normal form of :mod:`.integers` counts whatever is no sum itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..isa.nest import Binary, Const, Expr, Index
from ..isa.traverse import walk

Of = TypeVar("Of", str, Expr)


@dataclass(frozen=True)
class Linear(Generic[Of]):
    """``const`` plus, for each term, its coefficient times it; no coefficient is 0, and the terms
    stand in the order of their texts."""

    const: int
    coefficients: tuple[tuple[Of, int], ...] = ()

    def coefficient(self, term: Of) -> int:
        """Of that term; 0 if it does not occur."""
        return dict(self.coefficients).get(term, 0)

    @property
    def indices(self) -> frozenset[Of]:
        """The terms that occur."""
        return frozenset(term for term, _ in self.coefficients)

    def bounds(self, extents: Mapping[Of, int]) -> tuple[int, int]:
        """The least and the greatest value while each term runs from 0 below its extent."""
        spans = [c * (extents[term] - 1) for term, c in self.coefficients]
        return (
            self.const + sum(min(0, span) for span in spans),
            self.const + sum(max(0, span) for span in spans),
        )

    def plus(self, other: Linear[Of], times: int = 1) -> Linear[Of]:
        """``self + times * other``."""
        if not other.coefficients:
            return Linear(self.const + times * other.const, self.coefficients)
        total = dict(self.coefficients)
        for term, c in other.coefficients:
            total[term] = total.get(term, 0) + times * c
        kept = sorted(((t, c) for t, c in total.items() if c), key=lambda kept: repr(kept[0]))
        return Linear(self.const + times * other.const, tuple(kept))

    def times(self, k: int) -> Linear[Of]:
        """``k * self``."""
        return Linear(self.const * k, tuple((t, c * k) for t, c in self.coefficients if k))


Affine = Linear[str]
"""A sum of loop indices, by name."""


def linear(
    e: Expr,
    leaf: Callable[[Expr], Linear[Of] | None],
    product: Callable[[Linear[Of], Linear[Of]], Linear[Of] | None],
) -> Linear[Of] | None:
    """``e`` as a sum; None if any part of it is none.

    Parameters
    ----------
    e : Expr
        Anything.
    leaf : callable
        What becomes of an expression that is no constant, sum, difference or product.
    product : callable
        What becomes of a product of two sums neither of which is constant.
    """
    match e:
        case Const(value=int(value)):
            return Linear(value)
        case Binary("add" | "sub" | "mul" as op, a, b):
            left, right = linear(a, leaf, product), linear(b, leaf, product)
            if left is None or right is None:
                return None
            if op != "mul":
                return left.plus(right, 1 if op == "add" else -1)
            if not left.coefficients:
                return right.times(left.const)
            return product(left, right) if right.coefficients else left.times(right.const)
    return leaf(e)


def affine(e: Expr) -> Affine | None:
    """``e`` as a sum of indices times constants; None if it is something else."""
    return linear(e, _of_index, lambda left, right: None)


def _of_index(e: Expr) -> Affine | None:
    return Linear(0, ((e.name, 1),)) if isinstance(e, Index) else None


def is_index(e: Expr) -> str | None:
    """The name if ``e`` is one plain index."""
    form = affine(e)
    if form is None or form.const or len(form.coefficients) != 1:
        return None
    ((name, c),) = form.coefficients
    return name if c == 1 else None


def indices_of(e: Expr) -> frozenset[str]:
    """The names of all indices in ``e``."""
    return frozenset(node.name for node in walk(e) if isinstance(node, Index))
