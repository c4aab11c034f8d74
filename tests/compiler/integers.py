"""Random index expressions, and two oracles for what is said of them: all points, and z3."""

from __future__ import annotations

import random

import numpy as np

from weft.compiler.integers import Box, Facts, at_most, equal, facts, simplified
from weft.isa.nest import Binary, Const, Expr, Index, binary

NAMES = ("i", "j", "k")
OPERATORS = (
    "add", "add", "add", "sub", "mul", "mul", "div", "div", "mod", "mod", "min", "max",
    "lt", "le", "eq", "ne",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 4, 6, 8, 12, 16, -1, -2, -3, 5, 7)


def random_box(rng: random.Random, widest: int) -> dict[str, tuple[int, int]]:
    """A range for each name."""
    box: dict[str, tuple[int, int]] = {}
    for name in NAMES:
        low = rng.choice((0, 0, 0, rng.randint(-widest, widest)))
        box[name] = (low, low + rng.randrange(widest))
    return box


def random_expression(rng: random.Random, size: int) -> Expr:
    """So many operations; most divisors and factors are numbers, as in an index."""
    if size == 0:
        if rng.random() < 0.75:
            return Index(rng.choice(NAMES))
        return Const(rng.choice(NUMBERS))
    op = rng.choice(OPERATORS)
    left = rng.randrange(size)
    a = random_expression(rng, left)
    if op in ("mul", "div", "mod") and rng.random() < 0.9:
        return binary(op, random_expression(rng, size - 1), rng.choice(NUMBERS))
    return Binary(op, a, random_expression(rng, size - 1 - left))


def rearranged(e: Expr, rng: random.Random) -> Expr:
    """Another expression that has the same values."""
    match e:
        case Binary(op, a, b):
            a, b = rearranged(a, rng), rearranged(b, rng)
            if op in ("add", "mul", "min", "max") and rng.random() < 0.5:
                a, b = b, a
            if op == "mod" and isinstance(b, Const) and rng.random() < 0.5:
                return a - b * (a // b)
            if op == "div" and isinstance(b, Const) and b.value and rng.random() < 0.3:
                return (a + b * 3) // b - 3
            return Binary(op, a, b)
    return e


def values(e: Expr, box: Box) -> np.ndarray:
    """Of every point of the box; ``int64``."""
    axes = np.meshgrid(*(np.arange(low, high + 1) for low, high in box.values()), indexing="ij")
    points = dict(zip(box, axes, strict=True))

    def value(e: Expr) -> np.ndarray:
        match e:
            case Const(value=number):
                return np.full(axes[0].shape, int(number), np.int64)
            case Index(name):
                return points[name]
            case Binary(op, a, b):
                return operation(op, value(a), value(b))
        raise TypeError(e)

    return value(e)


def operation(op: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As the nest language has it."""
    if op in ("div", "mod"):
        safe = np.where(y == 0, 1, y)
        return np.where(y == 0, 0, x // safe if op == "div" else x % safe)
    functions = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum,
        "max": np.maximum, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    }  # fmt: skip
    return functions[op](x, y).astype(np.int64)


def check(e: Expr, other: Expr, box: Box) -> tuple[bool, bool]:
    """Assert that everything said of ``e`` and of ``other`` is true at every point.

    Returns whether the range is the narrowest, and whether an equality that holds was shown.
    """
    known, short = facts(e, box), simplified(e, box)
    found = values(e, box)
    least, most = int(found.min()), int(found.max())
    said = f"{e} in {box}: {known}"
    assert known.low <= least, said
    assert most <= known.high, said
    if known.modulus == 0:
        assert (found == known.remainder).all(), said
    else:
        assert (found % known.modulus == known.remainder).all(), said
    assert (values(short, box) == found).all(), f"{said}; {short}"
    theirs = values(other, box)
    same = bool((theirs == found).all())
    shown = equal(e, other, box)
    assert same or not shown, f"{said} is not {other}"
    assert not at_most(e, other, box) or (found <= theirs).all(), f"{said} exceeds {other}"
    return (known.low, known.high) == (least, most), shown or not same


def disproved(e: Expr, box: Box, milliseconds: int = 2000) -> bool | None:
    """Whether z3 finds a point where what is said of ``e`` is false; None if it does not know."""
    import z3

    names = {name: z3.Int(name) for name in box}

    def term(e: Expr):
        match e:
            case Const(value=number):
                return z3.IntVal(int(number))
            case Index(name):
                return names[name]
            case Binary(op, a, b):
                return operator(op, term(a), term(b))
        raise TypeError(e)

    def quotient(x, y):
        floor = z3.If(y > 0, x / y, (-x) / (-y))  # with a positive divisor z3 rounds down
        return z3.If(y == 0, z3.IntVal(0), floor)

    def operator(op: str, x, y):
        match op:
            case "add":
                return x + y
            case "sub":
                return x - y
            case "mul":
                return x * y
            case "div":
                return quotient(x, y)
            case "mod":
                return z3.If(y == 0, z3.IntVal(0), x - y * quotient(x, y))
            case "min":
                return z3.If(x <= y, x, y)
            case "max":
                return z3.If(x >= y, x, y)
        compared = {"lt": x < y, "le": x <= y, "eq": x == y, "ne": x != y}[op]
        return z3.If(compared, z3.IntVal(1), z3.IntVal(0))

    known, subject = facts(e, box), term(e)
    wrong = [subject != term(simplified(e, box)), *outside(known, subject)]
    solver = z3.Solver()
    solver.set("timeout", milliseconds)
    for name, (low, high) in box.items():
        solver.add(names[name] >= low, names[name] <= high)
    solver.add(z3.Or(wrong))
    answer = solver.check()
    return None if answer == z3.unknown else answer == z3.sat


def outside(known: Facts, subject):
    """Conditions of which none may hold."""
    yield subject < known.low
    yield subject > known.high
    if known.modulus == 0:
        yield subject != known.remainder
    elif known.modulus > 1:
        yield subject % known.modulus != known.remainder
