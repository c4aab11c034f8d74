"""Functions of a bounded value as requantizations, proven by trying every value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..isa.interpret import interpret
from ..isa.nest import (
    I8,
    I32,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    Index,
    Load,
    Nest,
    Node,
    Select,
    Store,
    Sum,
    expr,
)
from ..isa.requantize import requantize
from ..isa.traverse import distinct, rewrite
from .kernel import RUNNING, Kernel, Lack, Refusal
from .patterns import normal

VALUES_LIMIT = 1 << 22
"""A value with a greater range is not tried out."""


def fitted(kernel: Kernel) -> Kernel | None:
    """``kernel`` ending in a requantization of its sum or running value; None if none equals it.

    The kernel's value must depend on nothing but one sum of 8-bit elements (each at most once) or
    its running value.

    Raises
    ------
    Refusal
        If the kernel ends in such a value, but in no requantization of it.
    """
    core, count = _core(kernel)
    if core is None:
        return None
    if count * I8.max > VALUES_LIMIT:
        raise Refusal(
            f"a sum of {count} elements; too many values to prove its scaling for", Lack.VALUES
        )
    value = rewrite(kernel.value, lambda n: Index("core") if n == core else None)
    assert isinstance(value, Expr)
    if any(isinstance(n, Load) for n in distinct(value)):
        return None
    if any(isinstance(n, Index) and n.name != "core" for n in distinct(value)):
        raise Refusal("a mean over fewer elements at the edges: its divisor varies", Lack.DIVISOR)
    low, high = I8.min * count, I8.max * count
    expected = _tabulated(value, low, high)
    for candidate in _candidates(1 / count, high - low, expected):
        if np.array_equal(_tabulated(candidate(Index("core")), low, high), expected):
            return replace(kernel, value=normal(candidate(core)))
    raise Refusal("no requantization equals its last step for every possible value")


def changes_nothing(kernel: Kernel) -> bool:
    """Whether every element of the output is that of the input, whichever of the 256 it is."""
    elements = [Load(name, kernel.element) for name in kernel.shapes if name != kernel.output]
    if len(elements) != 1 or kernel.reduction is not None:
        return False
    value = rewrite(kernel.value, lambda n: Index("core") if n == elements[0] else None)
    assert isinstance(value, Expr)
    if any(isinstance(n, Load | Sum) or (isinstance(n, Index) and n.name != "core")
           for n in distinct(value)):  # fmt: skip
        return False
    return np.array_equal(_tabulated(value, I8.min, I8.max), np.arange(I8.min, I8.max + 1))


def _core(kernel: Kernel) -> tuple[Expr | None, int]:
    """The sum, or the running value, and how many elements it adds."""
    if kernel.reduction is not None:
        return RUNNING, 1
    sums = {node for node in distinct(kernel.value) if isinstance(node, Sum)}
    if len(sums) != 1:
        return None, 0
    total = sums.pop()
    match total.body:
        case Load(buffer) | Select(_, Load(buffer), Const(value=0)) if buffer in kernel.shapes:
            return total, math.prod(extent for _, extent in total.axes)
    return None, 0


class _Candidate:
    def __init__(self, multiplier: int, left: int, right: int, low: int, high: int):
        self.parameters = (multiplier, left, right, 0, low, high)

    def __call__(self, x: Expr) -> Expr:
        return requantize(x, *self.parameters)


def _candidates(slope: float, span: int, expected: np.ndarray) -> Iterator[_Candidate]:
    """Requantizations that multiply by ``slope``, the most exact intermediate value first."""
    fraction, exponent = math.frexp(slope)
    nearest = round(fraction * (1 << 31))
    bounds = int(expected.min()), int(expected.max())
    room = 30 - span.bit_length()
    for left in range(max(0, room), -1, -1):
        right = left - exponent
        if not 0 <= right < 32:
            continue
        for multiplier in (nearest, nearest - 1, nearest + 1):
            if 0 < multiplier < 1 << 31:
                yield _Candidate(multiplier, left, right, *bounds)
    once = round(slope * (1 << 31))  # with the first rounding alone, whose ties go up
    if 0 < once < 1 << 31:
        yield _Candidate(once, 0, 0, *bounds)


def _tabulated(value: Expr, low: int, high: int) -> np.ndarray:
    """``value`` for every ``core`` from ``low`` to ``high``, as ``i32``."""
    out = np.zeros(high - low + 1, np.int32)
    i = Index("i")

    def shifted(node: Node) -> Node | None:
        return Cast(I32, i + Const(low)) if node == Index("core") else None

    moved = rewrite(value, shifted)
    assert isinstance(moved, Expr)
    store = Store("out", (i,), moved)
    body = For("i", expr(0), expr(len(out)), store, parallel=True)
    interpret(Nest("table", (), (Buffer("out", I32, out.shape),), body), {}, {"out": out})
    return out
