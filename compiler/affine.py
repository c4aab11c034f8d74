"""Index expressions: sums of loop indices times constants, and what is known of their range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..isa.nest import Binary, Const, Expr, Index, walk


@dataclass(frozen=True)
class Affine:
    """``const`` plus, for each index, its coefficient times it; no coefficient is 0."""

    const: int
    coefficients: tuple[tuple[str, int], ...] = ()

    def coefficient(self, index: str) -> int:
        """Of that index; 0 if it does not occur."""
        return dict(self.coefficients).get(index, 0)

    @property
    def indices(self) -> frozenset[str]:
        """The indices that occur."""
        return frozenset(name for name, _ in self.coefficients)

    def bounds(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """The least and the greatest value while each index runs from 0 below its extent."""
        spans = [c * (extents[name] - 1) for name, c in self.coefficients]
        return (
            self.const + sum(min(0, span) for span in spans),
            self.const + sum(max(0, span) for span in spans),
        )

    def plus(self, other: Affine, times: int = 1) -> Affine:
        """``self + times * other``."""
        total = dict(self.coefficients)
        for name, c in other.coefficients:
            total[name] = total.get(name, 0) + times * c
        kept = tuple(sorted((name, c) for name, c in total.items() if c))
        return Affine(self.const + times * other.const, kept)


def affine(e: Expr) -> Affine | None:
    """``e`` as a sum of indices times constants; None if it is something else."""
    match e:
        case Const(value=int(value)):
            return Affine(value)
        case Index(name):
            return Affine(0, ((name, 1),))
        case Binary("add" | "sub" | "mul" as op, a, b):
            left, right = affine(a), affine(b)
            if left is None or right is None:
                return None
            if op != "mul":
                return left.plus(right, 1 if op == "add" else -1)
            if right.coefficients:
                left, right = right, left
            return None if right.coefficients else Affine(0).plus(left, right.const)
    return None


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
