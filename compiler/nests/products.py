"""Sums of products of an input's elements and weights, whatever numbers these are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ...isa.nest import Buffer, Const, Expr, Index, Load, Select, Sum, expr
from ..graph import Conv2D, DepthwiseConv2D, FullyConnected, Op, Window
from .common import Operator, Use, buffer_of, inside, position, taps_of

LOOPS = ("n", "y", "x", "o")
"""The indices of an output."""


class _Weight(Protocol):
    def __call__(self, use: Use, *indices: Expr) -> Expr: ...


@dataclass(frozen=True)
class Numbers:
    """What is different between kinds of numbers.

    Attributes
    ----------
    outside : callable
        The value of an element outside the image.
    weight : callable
        A weight, given its indices, as it is multiplied.
    finished : callable
        The operator, given the loops, whose last one is the channel, the buffers of input and
        output, and the sum.
    """

    outside: Callable[[Use], Const]
    weight: _Weight
    finished: Callable[[Use, tuple[str, ...], Buffer, Buffer, Expr], Operator]


def pixel(use: Use, window: Window, channel: Expr, outside: Const) -> Expr:
    """The input's element under tap (ky, kx) of the window at (y, x); ``outside`` of the image."""
    row, column = position(window)
    value = Load(use.x.name, (Index("n"), row, column, channel))
    if not any(window.pads):
        return value
    return Select(inside(use.x, row, column), value, outside)


def lowerings(numbers: Numbers) -> Mapping[type[Op], Callable[[Use], Operator]]:
    """The operators of this form, for one kind of numbers."""
    return {
        Conv2D: partial(_conv2d, numbers),
        DepthwiseConv2D: partial(_depthwise, numbers),
        FullyConnected: partial(_fully_connected, numbers),
    }


def _conv2d(numbers: Numbers, use: Use) -> Operator:
    """A convolution over taps and input channels."""
    op = use.node.op
    assert isinstance(op, Conv2D)
    c, taps = Index("c"), (Index("ky"), Index("kx"))
    x = pixel(use, op.window, c, numbers.outside(use))
    product = x * numbers.weight(use, Index("o"), *taps, c)
    total = Sum((*taps_of(op.window), ("c", use.x.shape[3])), product)
    return numbers.finished(use, LOOPS, buffer_of(use.x), buffer_of(use.out), total)


def _depthwise(numbers: Numbers, use: Use) -> Operator:
    """A convolution of each channel by itself."""
    op = use.node.op
    assert isinstance(op, DepthwiseConv2D)
    o, taps = Index("o"), (Index("ky"), Index("kx"))
    channel = o if op.multiplier == 1 else o // op.multiplier
    x = pixel(use, op.window, channel, numbers.outside(use))
    total = Sum(taps_of(op.window), x * numbers.weight(use, expr(0), *taps, o))
    return numbers.finished(use, LOOPS, buffer_of(use.x), buffer_of(use.out), total)


def _fully_connected(numbers: Numbers, use: Use) -> Operator:
    """A product of matrices."""
    channels, depth = use.w.shape
    rows = math.prod(use.out.shape) // channels
    x, out = buffer_of(use.x, (rows, depth)), buffer_of(use.out, (rows, channels))
    c = Index("c")
    product = Load(x.name, (Index("n"), c)) * numbers.weight(use, Index("o"), c)
    return numbers.finished(use, ("n", "o"), x, out, Sum((("c", depth),), product))
