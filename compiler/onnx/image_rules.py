"""Quantized operators on images: convolutions and pools, in NHWC."""

from __future__ import annotations

import math

import numpy as np

from ..catalog import Site
from ..catalog.windows import window_of
from ..graph import Activation, Conv2D, DepthwiseConv2D, MaxPool2D, Node, Op, Quant, Window
from ..verify import WINDOW_LIMIT
from .pattern import Real, Rewriter, is_call


def conv(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """A convolution of an image."""
    x, weights = rewriter.activation(node.inputs[0]), rewriter.weights(node.inputs[1], 0)
    if x is None or weights is None:
        return None
    bias = None
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = rewriter.bias(node.inputs[2], x.quant, weights.quant, out.tensor.shape[1])
        if bias is None:
            return None
    return convolution(rewriter, node, x, weights, bias, out, activation)


def convolution(
    rewriter: Rewriter, node: Node, x: Real, weights: Real, bias: np.ndarray | None, out: Real,
    activation: Activation,
) -> Node | None:  # fmt: skip
    """A convolution whose integers are all known."""
    site, w = rewriter.site(node), weights.tensor.data
    assert w is not None
    group = site.integer("group", 1)
    channels = x.tensor.shape[1]
    if w.ndim != 4 or group not in (1, channels) or w.shape[0] % group:
        return None
    window = window_for(site, x.tensor.shape[2:], w.shape[2:])
    if window is None:
        return None
    scale, o = weights.quant.scale, w.shape[0]
    if group == 1:
        op: Op = Conv2D(window, activation, rounding="even")
        w, axis = w.transpose(0, 2, 3, 1), 0
    else:
        op = DepthwiseConv2D(window, o // group, activation, rounding="even")
        w, axis = w.transpose(1, 2, 3, 0), 3
    quant = Quant(scale, (0,) * len(scale), axis if len(scale) > 1 else None)
    inputs = [rewriter.image(x), rewriter.constant(f"{node.name}/weights", w, quant)]
    if bias is not None:
        inputs.append(rewriter.constant(f"{node.name}/bias", bias.astype(np.int32)))
    return rewriter.emit_image(node, inputs, op, out)


def average(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """A mean over windows: a depthwise convolution with weights of 1 of ``1 / size``."""
    x = rewriter.activation(node.inputs[0])
    if x is None or len(x.tensor.shape) != 4:
        return None
    site, extents = rewriter.site(node), x.tensor.shape[2:]
    if is_call(node, "GlobalAveragePool"):
        window: Window | None = Window((extents[0], extents[1]))
    else:
        window = window_for(site, extents, site.integers("kernel_shape"))
    if window is None or (any(window.pads) and not site.integer("count_include_pad", 0)):
        return None
    if max(window.size) >= WINDOW_LIMIT or window.dilations != (1, 1):
        return None
    ones = np.ones((1, *window.size, x.tensor.shape[1]), np.int8)
    quant = Quant((1 / math.prod(window.size),), (0,))
    inputs = (rewriter.image(x), rewriter.constant(f"{node.name}/ones", ones, quant))
    op = DepthwiseConv2D(window, 1, activation, rounding="even")
    return rewriter.emit_image(node, inputs, op, out)


def maximum(rewriter: Rewriter, node: Node, out: Real, activation: Activation) -> Node | None:
    """A maximum over windows, of the same quantization."""
    x = rewriter.activation(node.inputs[0])
    if x is None or len(x.tensor.shape) != 4 or x.quant != out.quant or len(node.outputs) > 1:
        return None
    site = rewriter.site(node)
    window = window_for(site, x.tensor.shape[2:], site.integers("kernel_shape"))
    if window is None or window.dilations != (1, 1):
        return None
    return rewriter.emit_image(node, (rewriter.image(x),), MaxPool2D(window, activation), out)


def window_for(site: Site, extents: tuple[int, ...], size: tuple[int, ...]) -> Window | None:
    """The window of a node as the graph's operators take it."""
    ceil = bool(site.integer("ceil_mode", 0))
    w = window_of(site, extents, size, ceil)
    (top, left), (bottom, right) = w.begins, w.ends
    reach = [(n - 1) * d + 1 for n, d in zip(w.size, w.dilations, strict=True)]
    pads = ((top, bottom), (left, right))
    if any(max(p) >= r for p, r in zip(pads, reach, strict=True)):
        return None
    whole = [
        (n + sum(p) - r) // s + 1
        for n, p, r, s in zip(extents, pads, reach, w.strides, strict=True)
    ]
    if tuple(whole) != w.counts or max((*w.size, *w.strides, *w.dilations)) >= WINDOW_LIMIT:
        return None
    return Window(
        (w.size[0], w.size[1]), (w.strides[0], w.strides[1]),
        (w.dilations[0], w.dilations[1]), (top, bottom, left, right),
    )  # fmt: skip
