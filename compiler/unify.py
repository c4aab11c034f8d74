"""Unification: finding an instruction's meaning in an expression.

:func:`unify` finds what stands in the holes of a pattern (:mod:`.patterns`), so that the meaning
equals a given expression. Whether the found parts can be brought there is for the caller to see
(:mod:`.tensorize`).

Besides equality of structure it knows: the operands of ``add``, ``mul``, ``min``, ``max``, ``and``
may be swapped; subtracting a constant is adding its negative; a parameter that is added may be 0;
masking with ``2**k - 1`` does nothing to a value that is known to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..isa.nest import Binary, Cast, Const, Expr, Load, Select, Sum
from .patterns import Pattern

COMMUTATIVE = frozenset({"add", "mul", "min", "max", "and", "or", "xor", "eq", "ne"})
Range = Callable[[Expr], tuple[int, int] | None]
"""The least and greatest value of an expression, if known."""
Admits = Callable[[Expr, Expr], bool]
"""Whether a hole may stand for an expression at all."""


@dataclass(frozen=True)
class Match:
    """What stands in a pattern's holes, and the sums that correspond."""

    holes: Mapping[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    sums: tuple[tuple[Sum, Sum], ...] = ()

    def bind(self, hole: Expr, value: Expr) -> Match | None:
        """With ``hole`` standing for ``value``; None if it stands for another already."""
        known = self.holes.get(hole)
        if known is not None:
            return self if known == value else None
        return replace(self, holes={**self.holes, hole: value})


def unify(pattern: Pattern, subject: Expr, range_of: Range, admits: Admits) -> Iterator[Match]:
    """Every way to fill the holes of ``pattern`` so that it equals ``subject``.

    Parameters
    ----------
    pattern : Pattern
        An operation.
    subject : Expr
        A :func:`normal` expression.
    range_of, admits : callable
        What is known of the range of a part of ``subject``, and what a hole may stand for.
    """
    return _unify(pattern, pattern.value, subject, Match(), range_of, admits)


def _unify(
    pattern: Pattern, shape: Expr, subject: Expr, match: Match, range_of: Range, admits: Admits
) -> Iterator[Match]:
    def go(a: Expr, b: Expr, found: Match) -> Iterator[Match]:
        return _unify(pattern, a, b, found, range_of, admits)

    def both(pairs: tuple[tuple[Expr, Expr], ...], found: Match) -> Iterator[Match]:
        if not pairs:
            yield found
            return
        for first in go(*pairs[0], found):
            yield from both(pairs[1:], first)

    if pattern.is_hole(shape):
        bound = match.bind(shape, subject) if admits(shape, subject) else None
        if bound is not None:
            yield bound
        return
    match shape, subject:
        case Const(value=a), Const(value=b):
            if a == b:
                yield match
        case Cast(dtype, a), Const() if pattern.is_hole(a):
            if (known := range_of(subject)) and dtype.min <= known[0] and known[1] <= dtype.max:
                yield from go(a, subject, match)
        case Cast(d, a), Cast(e, b):
            if d == e:
                yield from go(a, b, match)
        case Select(c, a, b), Select(d, e, f):
            yield from both(((c, d), (a, e), (b, f)), match)
        case Sum(_, a), Sum(_, b):
            for found in go(a, b, match):
                yield replace(found, sums=(*found.sums, (shape, subject)))
        case Binary(op, a, b), Binary(other, c, d) if op == other:
            yield from both(((a, c), (b, d)), match)
            if op in COMMUTATIVE:
                yield from both(((a, d), (b, c)), match)
    match shape:
        case Binary("add", a, b):
            for rest, hole in ((a, b), (b, a)):
                is_parameter = isinstance(hole, Load) and hole.buffer.startswith("qnt.")
                if is_parameter or (isinstance(hole, Load) and not isinstance(rest, Load)):
                    yield from both(((hole, Const(0)), (rest, subject)), match)
        case Binary("and", a, Const(value=int(mask))) if not mask & (mask + 1):
            known = range_of(subject)
            if known is not None and known[0] >= 0 and known[1] <= mask:
                yield from go(a, subject, match)
