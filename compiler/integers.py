"""What is known of an index expression: its range, its divisibility, what it equals.

Expressions are those of :mod:`weft.isa.nest` over constants and indices with ``add``, ``sub``,
``mul``, ``div`` and ``mod`` (towards minus infinity; by 0 they give 0), ``min``, ``max`` and
comparisons. Indices lie in a *box*, a range each, both ends included; one that is not in the box
may be anything. Values are integers without limits: whoever asks about machine arithmetic sees to
it that nothing wraps.

**Whatever is said here is true at every point of the box.** What cannot be shown is left open:
ranges are as narrow as this module can show, not as narrow as they are, and :func:`equal` answers
False where it does not know.

The normal form is a sum of atoms times constants; an atom is an index or what is no sum. A
remainder is no atom: ``x % d`` is ``x - d * (x // d)``. So whatever flattens and takes apart again
cancels by itself, ``x // 4 % 3`` is ``x % 12 // 4``, and only quotients are left to be shown equal.

``pytest --deep tests/compiler/test_integers.py`` compares all that is said of 100,000 random
expressions with their values at every point, and asks z3 about 100,000 more in boxes too large for
that.

Sums of plain indices have :mod:`.affine`, by the same walk. :mod:`.ranges` is about values in
machine arithmetic: their types, and nests written shorter without a change of type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, inf

from ..isa.nest import Binary, Const, Expr, Index, expr
from .affine import Linear, linear

Bound = int | float
"""An integer, or an infinity."""
Box = Mapping[str, tuple[int, int]]
"""The least and the greatest value of each index."""


@dataclass(frozen=True)
class Facts:
    """``low <= value <= high``, and ``value`` is ``remainder`` modulo ``modulus``.

    A modulus of 0 says that the value is ``remainder``; 1 says nothing.
    """

    low: Bound
    high: Bound
    modulus: int = 1
    remainder: int = 0


def facts(e: Expr, box: Box) -> Facts:
    """The range and the divisibility of ``e``.

    Raises
    ------
    TypeError
        If ``e`` is no index expression.
    """
    return _facts(_form(e, box), box)


def simplified(e: Expr, box: Box) -> Expr:
    """An expression that equals ``e`` in the box, the same one for many that do."""
    return _expr(_form(e, box))


def equal(a: Expr, b: Expr, box: Box) -> bool:
    """Whether ``a`` and ``b`` are equal at every point, as far as can be shown."""
    difference = _facts(_form(a, box).plus(_form(b, box), -1), box)
    return difference.low == difference.high == 0


def at_most(a: Expr, b: Expr, box: Box) -> bool:
    """Whether ``a <= b`` at every point, as far as can be shown."""
    return _facts(_form(a, box).plus(_form(b, box), -1), box).high <= 0


# --- the normal form -----------------------------------------------------------------------------


_Sum = Linear[Expr]
"""A sum of atoms."""


def _atom(op: str, a: Expr, b: Expr) -> _Sum:
    return Linear(0, ((Binary(op, a, b), 1),))  # type: ignore[arg-type]  # one of BinaryOp


def _form(e: Expr, box: Box) -> _Sum:
    form = linear(e, lambda leaf: _leaf(leaf, box), _times)
    assert form is not None
    return form


def _times(a: _Sum, b: _Sum) -> _Sum:
    return _atom("mul", *sorted((_expr(a), _expr(b)), key=repr))


def _leaf(e: Expr, box: Box) -> _Sum:
    match e:
        case Index(name):
            low, high = box.get(name, (0, 1))
            return Linear(low) if low == high else Linear(0, ((e, 1),))
        case Binary(op, a, b):
            return _binary(op, _form(a, box), _form(b, box), box)
    raise TypeError(f"not an index expression: {e!r}")


def _binary(op: str, a: _Sum, b: _Sum, box: Box) -> _Sum:
    match op:
        case "div":
            return _quotient(a, b, box)
        case "mod":
            if b == Linear(0):
                return Linear(0)
            if not b.coefficients:
                return a.plus(_quotient(a, b, box), -b.const)
            return _atom("mod", _expr(a), _expr(b))
        case "min" | "max":
            gap = _facts(a.plus(b, -1), box)
            if gap.low >= 0 or gap.high <= 0:
                return a if (gap.low >= 0) == (op == "max") else b
            return _atom(op, *sorted((_expr(a), _expr(b)), key=repr))
        case "lt" | "le" | "eq" | "ne":
            return _compared(op, a, b, box)
    raise TypeError(f"not an operation on indices: {op}")


def _compared(op: str, a: _Sum, b: _Sum, box: Box) -> _Sum:
    gap = _facts(a.plus(b, -1), box)
    apart = gap.low > 0 or gap.high < 0 or (gap.modulus != 1 and not _has(gap, 0))
    same = gap.low == gap.high == 0
    known = {
        "lt": (gap.high < 0, gap.low >= 0),
        "le": (gap.high <= 0, gap.low > 0),
        "eq": (same, apart),
        "ne": (apart, same),
    }[op]
    if any(known):
        return Linear(int(known[0]))
    return _atom(op, _expr(a), _expr(b))


def _has(known: Facts, value: int) -> bool:
    if known.modulus == 0:
        return value == known.remainder
    return (value - known.remainder) % known.modulus == 0


def _quotient(a: _Sum, b: _Sum, box: Box) -> _Sum:
    """``a // b``."""
    if b.coefficients:
        return _atom("div", _expr(a), _expr(b))
    d = b.const
    if d == 0:
        return Linear(0)
    if d < 0:
        return _quotient(a.times(-1), Linear(-d), box)
    # What is a multiple of d comes out; coefficients and constant of the rest lie in [0, d).
    whole = Linear(a.const // d, tuple((atom, c // d) for atom, c in a.coefficients if c // d))
    rest = Linear(a.const % d, tuple((atom, c % d) for atom, c in a.coefficients if c % d))
    known = _facts(rest, box)
    if known.low > -inf and known.high < inf and known.low // d == known.high // d:
        return Linear(whole.const + int(known.low // d), whole.coefficients)
    for g in sorted({gcd(d, c) for _, c in rest.coefficients} - {1}, reverse=True):
        # (g * x + r) // (g * n) is (x + r // g) // n.
        multiple = tuple((atom, c // g) for atom, c in rest.coefficients if c % g == 0)
        left = Linear(rest.const, tuple((atom, c) for atom, c in rest.coefficients if c % g))
        known = _facts(left, box)
        if known.low > -inf and known.high < inf and known.low // g == known.high // g:
            return whole.plus(_quotient(Linear(int(known.low // g), multiple), Linear(d // g), box))
    match rest:
        case Linear(const, ((Binary("div", inner, Const(value=int(n))), 1),)) if n > 0:
            # (x // n + c) // d
            moved = _form(inner, box).plus(Linear(const * n))
            return whole.plus(_quotient(moved, Linear(n * d), box))
    return whole.plus(_atom("div", _expr(rest), Const(d)))


def _expr(form: _Sum) -> Expr:
    """A form as an expression; quotients that make remainders are shown as such."""
    shown: list[tuple[Expr, int]] = []
    left = form
    while (found := _remainder_in(left)) is not None:
        inner, d, k = found
        shown.append((Binary("mod", _expr(inner), expr(d)), k))
        left = left.plus(inner, -k).plus(_atom("div", _expr(inner), Const(d)), k * d)
    result: Expr | None = None
    for atom, c in (*left.coefficients, *shown):
        scaled = atom if abs(c) == 1 else atom * abs(c)
        if result is None:
            result = scaled if c > 0 else expr(0) - scaled
        else:
            result = result + scaled if c > 0 else result - scaled
    if result is None:
        return expr(left.const)
    if left.const:
        result = result + left.const if left.const > 0 else result - -left.const
    return result


def _remainder_in(form: _Sum) -> tuple[_Sum, int, int] | None:
    """``(x, d, k)`` if the form has ``k * x - k * d * (x // d)``, so that this is ``k * (x % d)``.

    Whole terms of ``x`` must be there, and it must be simpler without them.
    """
    terms = dict(form.coefficients)
    for atom, c in form.coefficients:
        match atom:
            case Binary("div", inner, Const(value=int(d))) if c % d == 0:
                k, x = -c // d, _raw(inner)
                if (
                    x is not None
                    and x.coefficients
                    and all(terms.get(a) == k * n for a, n in x.coefficients)
                ):
                    return x, d, k
    return None


def _raw(e: Expr) -> _Sum | None:
    """The form of an expression that :func:`_expr` made, without simplifying anything."""
    match e:
        case Const(value=int(value)):
            return Linear(value)
        case Binary("add" | "sub" as op, a, b):
            left, right = _raw(a), _raw(b)
            if left is None or right is None:
                return None
            return left.plus(right, 1 if op == "add" else -1)
        case Binary("mul", a, Const(value=int(k))):
            left = _raw(a)
            return None if left is None else left.times(k)
        case Binary("mod", a, Const(value=int(d))):
            left = _raw(a)
            return None if left is None else left.plus(_atom("div", a, Const(d)), -d)
    return Linear(0, ((e, 1),))


# --- what is known of a form ---------------------------------------------------------------------


def _facts(form: _Sum, box: Box) -> Facts:
    low, high = _bounds(form, box, DEPTH)
    modulus, remainder = 0, form.const
    for atom, c in form.coefficients:
        known = _of_atom(atom, box)
        modulus = gcd(modulus, c * known.modulus)
        remainder += c * known.remainder
    if modulus:
        remainder %= modulus
        if low > -inf:
            low += (remainder - int(low)) % modulus
        if high < inf:
            high -= (int(high) - remainder) % modulus
    if low == high:
        return Facts(low, high, 0, int(low))
    return Facts(low, high, modulus, remainder)


DEPTH = 3
"""Remainders within remainders that a range looks into."""


def _bounds(form: _Sum, box: Box, depth: int) -> tuple[Bound, Bound]:
    """The range of a sum, the narrowest of several that hold."""
    low: Bound = form.const
    high: Bound = form.const
    for atom, c in form.coefficients:
        known = _of_atom(atom, box)
        ends = (c * known.low, c * known.high)
        low, high = low + min(ends), high + max(ends)
    if not depth:
        return low, high
    for atom, c in form.coefficients:
        match atom:
            case Binary("div", inner, Const(value=int(d))):
                x = _raw(inner)
                if x is None:
                    continue
                # c * (x // d) is c / d * (x - x % d): with k, k * x - k * (x % d).
                for k in {-c // d, -(c // d)}:
                    rest = form.plus(x, -k).plus(Linear(0, ((atom, 1),)), k * d)
                    if len(rest.coefficients) >= len(form.coefficients) and atom in dict(
                        rest.coefficients
                    ):
                        continue
                    below, above = _bounds(rest, box, depth - 1)
                    low = max(low, below + min(0, k * (d - 1)))
                    high = min(high, above + max(0, k * (d - 1)))
    return low, high


def _of_atom(atom: Expr, box: Box) -> Facts:
    match atom:
        case Index(name):
            low, high = box.get(name, (-inf, inf))
            return Facts(low, high)
        case Binary("div", a, Const(value=int(d))):
            x = _facts(_form(a, box), box)
            low = x.low // d if x.low > -inf else x.low
            high = x.high // d if x.high < inf else x.high
            if x.modulus and x.modulus % d == 0:
                return Facts(low, high, x.modulus // d, x.remainder // d % (x.modulus // d))
            return Facts(low, high)
        case Binary("mul", a, b):
            return _product(_facts(_form(a, box), box), _facts(_form(b, box), box))
        case Binary("div", a, _):
            x = _facts(_form(a, box), box)
            most = max(abs(x.low), abs(x.high))
            return Facts(-most, most)
        case Binary("mod", _, b):
            y = _facts(_form(b, box), box)
            return Facts(min(0, y.low + 1), max(0, y.high - 1))
        case Binary("min" | "max" as op, a, b):
            x, y = _facts(_form(a, box), box), _facts(_form(b, box), box)
            pick = min if op == "min" else max
            modulus = gcd(x.modulus, y.modulus, x.remainder - y.remainder)
            remainder = x.remainder % modulus if modulus else x.remainder
            return Facts(pick(x.low, y.low), pick(x.high, y.high), modulus, remainder)
        case Binary("lt" | "le" | "eq" | "ne"):
            return Facts(0, 1)
    return Facts(-inf, inf)


def _product(x: Facts, y: Facts) -> Facts:
    corners = [a * b if a and b else 0 for a in (x.low, x.high) for b in (y.low, y.high)]
    modulus = gcd(x.modulus * y.modulus, x.modulus * y.remainder, y.modulus * x.remainder)
    remainder = x.remainder * y.remainder
    return Facts(min(corners), max(corners), modulus, remainder % modulus if modulus else remainder)
