"""Operators as loop nests: what each node of the tensor graph computes, integer by integer.

The forms are fixed, so that instructions can be matched with them. Notation: ``x`` input, ``w``
weights, ``out`` output under their names in the graph and in TFLite's layouts; all constants that
a lowering makes are arrays ``<node>.bias``, ``.multiplier``, ``.left``, ``.right`` of ``i32``, one
element an output channel. Nothing is simplified: strides of 1 and pads of 0 are written out. A node
that rounds ``even`` has ``requantize`` and ``rescale`` in that form (:mod:`weft.isa.requantize`),
and shifts for it.

Conv2D
    for n, y, x, o: ``out[n,y,x,o] = requantize(bias[o] + Sum[ky,kx,c](pixel * w[o,ky,kx,c]), ...)``
    where ``pixel`` is ``x[n, y*sy + ky*dy - top, x*sx + kx*dx - left, c]``; if the window has any
    pad, ``Select(inside, x[...], zero_point)`` with
    ``inside = (0 <= row) & (row < H) & (0 <= column) & (column < W)``. ``bias[o]`` is the node's
    bias less ``zero_point * sum(w[o])``, modulo 2**32. Of weights with a zero point other than 0,
    that is subtracted first: ``w`` is an array ``<node>.centred`` then.
DepthwiseConv2D
    The same with channel ``o // multiplier`` (``o`` if that is 1) and ``w[0,ky,kx,o]``.
FullyConnected
    for n, o: the same over ``x[n,c] * w[o,c]``, with ``x`` as [rows, depth], ``out`` as [rows, O].
Add
    for every element: ``requantize(rescale(a - zp_a, m_a, 20, r_a) + rescale(b - zp_b, m_b, 20,
    r_b), m, 0, r, zp_out, low, high)``; an operand that is broadcast has index 0 there. A constant
    of one element is a number.
Sub
    The same with the second operand times -1.
Mul
    for every element: ``requantize((a - zp_a) * (b - zp_b), ...)``; with a constant of one element,
    ``k`` less its zero point, ``requantize(a * k - zp_a * k, ...)``.
AveragePool2D, MaxPool2D
    Over the elements inside; the mean is rounded half away from zero, or half up.
Reshape
    for i: ``out[i] = x[i]``, both flat.
Softmax
    See :mod:`.nests.softmax`.

On 32-bit floats all of them have the same loops without what quantization adds
(:mod:`.nests.floats`), and run on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..isa.errors import UnsupportedError
from ..isa.nest import F32, I8, I32
from .catalog import CATALOG, Kernel, Site
from .graph import (
    Add,
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Op,
    Opaque,
    Reshape,
    Softmax,
    Sub,
)
from .nests import elementwise, filters, floats, pools, softmax
from .nests.common import Operator, Use, buffer_of

__all__ = ["Kernel", "Operator", "lowered", "nest_of", "reason_against"]


def nest_of(graph: Graph, node: Node) -> Operator:
    """What ``node`` computes.

    Parameters
    ----------
    graph : Graph
        A verified graph.
    node : Node
        One of its nodes.

    Raises
    ------
    UnsupportedError
        Where :func:`reason_against` gives a reason.
    """
    reason = reason_against(graph, node)
    if reason is not None:
        raise UnsupportedError(f"{graph.name}: node {node.name!r}: {reason}")
    use = Use(graph, node)
    if use.x.dtype == F32 and type(node.op) in floats.LOWERINGS:
        return floats.LOWERINGS[type(node.op)](use)
    return LOWERINGS[type(node.op)](use)


def lowered(graph: Graph, node: Node) -> Operator | Kernel:
    """What runs on the host for ``node``: :func:`nest_of`, or a function on numpy's arrays.

    Raises
    ------
    UnsupportedError
        Where :func:`reason_against` gives a reason.
    """
    if not isinstance(node.op, Call):
        return nest_of(graph, node)
    return _called(Site.of(graph, node))


def _called(site: Site) -> Operator | Kernel:
    made = CATALOG[site.kind].code(site)
    return made if isinstance(made, Kernel) else Operator(made.nest, made.constants, made.scratch)


def reason_against(graph: Graph, node: Node) -> str | None:
    """Why ``node`` has no loop nest; None if it has one."""
    use = Use(graph, node)
    match node.op:
        case Opaque(kind):
            return f"Weft has no operator {kind}"
        case Call(kind):
            return None if kind in CATALOG else f"Weft has no operator {kind}"
        case Reshape():
            return use.other_type((F32, I8, I32))
        case Softmax(beta) if use.x.dtype == F32:
            return None if beta == 1 else f"a softmax of floats with beta {beta}; 1 is expected"
        case _ if use.x.dtype == F32:
            return floats.reason_against(use)
        case _:
            reason = use.other_type((F32, I8))
    if reason is not None:
        return reason
    made = {f"{node.name}.{suffix}" for suffix in (*filters.CONSTANTS, *softmax.SCRATCH)}
    for name in made.intersection((*node.inputs[:2], *node.outputs)):
        return f"its tensor {name!r} is called like an array that Weft makes for it"
    match node.op:
        case Conv2D() | DepthwiseConv2D() | FullyConnected():
            return filters.reason_against(use)
        case Add() | Sub() | Mul():
            return elementwise.reason_against(use)
        case Softmax(beta):
            return softmax.reason_against(
                use.x, use.quant(use.x).scale[0], beta, use.quant(use.out)
            )
        case _:
            pass
    return None


def _softmax(use: Use) -> Operator:
    op = use.node.op
    assert isinstance(op, Softmax)
    if use.x.dtype == F32:
        made = _called(Site(use.node.name, "Softmax", {}, (use.x,), 1, (use.out,)))
        assert isinstance(made, Operator)
        return made
    rows = (math.prod(use.x.shape[:-1]), use.x.shape[-1])
    x, out = buffer_of(use.x, rows), buffer_of(use.out, rows)
    nest, scratch = softmax.nest(use.node.name, x, out, use.quant(use.x).scale[0], op.beta)
    return Operator(nest, {}, scratch)


LOWERINGS: Mapping[type[Op], Callable[[Use], Operator]] = {
    **filters.LOWERINGS,
    Add: elementwise.add,
    Sub: elementwise.subtract,
    Mul: elementwise.multiply,
    AveragePool2D: pools.average_pool,
    MaxPool2D: pools.max_pool,
    Reshape: elementwise.reshape,
    Softmax: _softmax,
}
"""From a node to its loop nest."""
