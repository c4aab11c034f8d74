"""Conditions taken out of inner sums, for code that runs on the host.

A padded convolution selects between pixel and zero point for every term of its sum, though the
choice depends on the tap alone. Here such a sum becomes a sum over the taps of a choice between
two sums over the channels, which vectorize. Integer addition wraps, so any order of terms gives
the same bits.
"""

from __future__ import annotations

from dataclasses import replace

from ..isa.nest import Binary, Expr, Index, Nest, Node, Select, Stmt, Sum, dtype_of
from ..isa.traverse import rewrite, walk


def hoist(nest: Nest) -> Nest:
    """``nest`` with every product's selection outside of the axes that it does not depend on."""
    buffers = {buffer.name: buffer for buffer in nest.buffers}

    def rule(node: Node) -> Node | None:
        match node:
            case Sum(axes, Binary("mul", Select(cond, a, b), factor)) if (
                dtype_of(node, buffers).kind == "i"
            ):
                names = {n.name for n in walk(cond) if isinstance(n, Index)}
                count = next(
                    (i for i in range(len(axes)) if names.isdisjoint(n for n, _ in axes[i:])),
                    len(axes),
                )
                if 0 < count < len(axes):
                    return Sum(
                        axes[:count],
                        Select(
                            cond, _inner(axes[count:], a, factor), _inner(axes[count:], b, factor)
                        ),
                    )
        return None

    body = rewrite(nest.body, rule)
    assert isinstance(body, Stmt)
    return replace(nest, body=body)


def _inner(axes: tuple[tuple[str, int], ...], value: Expr, factor: Expr) -> Sum:
    return Sum(axes, Binary("mul", value, factor))
