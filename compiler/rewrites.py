"""Forms of a kernel that equal it, for when no instruction fits it as it stands.

A sum without weights is one with weights 1; a channel that is picked is a sum over all channels
with one-hot weights; a function of a bounded value is the requantization that equals it for every
possible value (:mod:`.fit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..isa.nest import Binary, Const, Expr, Index, Load, Node, Select, Sum
from ..isa.traverse import rewrite, walk
from .affine import indices_of
from .fit import fitted
from .kernel import Kernel, Refusal


def forms(kernel: Kernel) -> Iterator[Kernel | Refusal]:
    """``kernel``, and what equals it, or why nothing does."""
    yield kernel
    ended = None
    try:
        ended = fitted(kernel)
    except Refusal as refusal:
        yield refusal
        return
    if ended is not None:
        yield ended
    for form in (kernel, ended):
        if form is not None:
            for rewritten in (_with_ones, _with_one_hot):
                equal = rewritten(form)
                if equal is not None:
                    yield equal


def _with_ones(kernel: Kernel) -> Kernel | None:
    """With sums of elements as sums of elements times 1."""

    def rule(node: Node) -> Node | None:
        match node:
            case Sum(axes, Load() | Select() as body):
                return Sum(axes, body * Const(1))
        return None

    value = rewrite(kernel.value, rule)
    assert isinstance(value, Expr)
    return None if value == kernel.value else replace(kernel, value=value)


def _with_one_hot(kernel: Kernel) -> Kernel | None:
    """With sums of picked channels as sums over all channels of one-hot weights."""
    depth = "depth"

    def rule(node: Node) -> Node | None:
        if not isinstance(node, Sum):
            return None
        pixel, weight = _factors(node.body, kernel)
        loads = [n for n in walk(pixel) if isinstance(n, Load) and n.buffer in kernel.shapes]
        if not loads or indices_of(loads[0].indices[3]) & dict(node.axes).keys():
            return None
        load = loads[0]
        spread = rewrite(
            pixel,
            lambda n: (
                Load(n.buffer, (*n.indices[:3], Index(depth)))
                if isinstance(n, Load) and n == load
                else None
            ),
        )
        assert isinstance(spread, Expr)
        hot = Select(Binary("eq", Index(depth), load.indices[3]), weight, Const(0))
        channels = kernel.shapes[load.buffer][3]
        return Sum((*node.axes, (depth, channels)), spread * hot)

    value = rewrite(kernel.value, rule)
    assert isinstance(value, Expr)
    return None if value == kernel.value else replace(kernel, value=value)


def _factors(body: Expr, kernel: Kernel) -> tuple[Expr, Expr]:
    match body:
        case Binary("mul", a, b) if kernel.is_constant(b):
            return a, b
        case Binary("mul", a, b) if kernel.is_constant(a):
            return b, a
    return body, Const(1)
