"""What slides over images of any rank: its window, and the image with its border, as nests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...isa.nest import Buffer, Const, DType, Expr, Load, Stmt, Store, expr
from ..graph import Tensor
from .site import Shape, Site
from .terms import ZERO, added, axes_of, choose, indices_of, load, loops

EXTENT_LIMIT = 1 << 24
"""Sizes, strides, dilations and pads of a window are below it."""
BORDER_LIMIT = 64
"""An image with its border is at most so many times the image, beyond a small one."""
SMALL_IMAGE = 1 << 16
"""Elements of a channel."""


@dataclass(frozen=True)
class Sliding:
    """A window over the spatial axes, and how many places it takes on each."""

    size: Shape
    strides: Shape
    dilations: Shape
    begins: Shape
    ends: Shape
    counts: Shape
    spans: Shape
    """What the border and the image must reach over for the last place to lie within."""

    @property
    def plain(self) -> bool:
        """Whether there is no border."""
        return not any((*self.begins, *self.ends))

    def place(self, at: Sequence[Expr], tap: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where a tap of the window at some place lies, from the border's beginning."""
        return tuple(
            a * expr(s) + t * expr(d)
            for a, t, s, d in zip(at, tap, self.strides, self.dilations, strict=True)
        )


def window_of(site: Site, extents: Shape, size: Shape, ceil: bool = False) -> Sliding:
    """The window that a node's attributes describe, over an image of ``extents``."""
    rank = len(extents)
    if not rank:
        site.fail("an image without extents")
    strides = site.integers("strides", (1,) * rank)
    dilations = site.integers("dilations", (1,) * rank)
    pads = site.integers("pads", (0,) * (2 * rank))
    if (len(size), len(strides), len(dilations), len(pads)) != (rank, rank, rank, 2 * rank):
        site.fail(f"a window {list(size)} over an image of rank {rank}")
    if not all(0 < n < EXTENT_LIMIT for n in (*size, *strides, *dilations)):
        site.fail("sizes, strides and dilations of the window must be positive")
    if not all(0 <= n < EXTENT_LIMIT for n in pads):
        site.unsupported(f"pads {list(pads)}")
    reach = tuple((n - 1) * d + 1 for n, d in zip(size, dilations, strict=True))
    begins, ends = list(pads[:rank]), list(pads[rank:])
    counts: list[int] = []
    auto = site.text("auto_pad", "NOTSET")
    for k in range(rank):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-extents[k] // strides[k])
            missing = max(0, (count - 1) * strides[k] + reach[k] - extents[k])
            less = missing // 2
            pair = (less, missing - less) if auto == "SAME_UPPER" else (missing - less, less)
            begins[k], ends[k] = pair
        elif auto == "VALID":
            begins[k] = ends[k] = 0
        space = extents[k] + begins[k] + ends[k] - reach[k]
        if space < 0:
            site.fail(f"a window that reaches over {reach[k]} of {extents[k]} and its pads")
        count = space // strides[k] + 1
        if ceil and space % strides[k] and count * strides[k] < extents[k] + begins[k]:
            count += 1
        counts.append(count)
    spans = tuple(
        max(extents[k] + begins[k] + ends[k], (counts[k] - 1) * strides[k] + reach[k])
        for k in range(rank)
    )
    if math.prod(spans) > max(BORDER_LIMIT * math.prod(extents), SMALL_IMAGE):
        site.unsupported(f"pads {[*begins, *ends]} around an image of {list(extents)}")
    return Sliding(size, strides, dilations, tuple(begins), tuple(ends), tuple(counts), spans)


def bordered(
    site: Site,
    x: Tensor,
    dtype: DType,
    fill: Expr,
    begins: Shape,
    spans: Shape,
    less: Expr | None = None,
) -> tuple[Buffer, Stmt]:
    """A copy of an image [N, C, ...] with a border of ``fill``; ``less`` is subtracted from it."""
    lead = x.shape[:2]
    wide = Buffer(added(site, "image"), dtype, (*lead, *spans))
    axes = axes_of(wide.shape, "b")
    indices = indices_of(axes)
    inner = tuple(i - expr(b) for i, b in zip(indices[2:], begins, strict=True))
    value = load(x, (*indices[:2], *inner))
    if less is not None:
        value = value - less
    inside: Expr | None = None
    for i, extent, begin, span in zip(inner, x.shape[2:], begins, spans, strict=True):
        if begin == 0 and span == extent:
            continue
        within = (expr(0) <= i) & (i < Const(extent))
        inside = within if inside is None else inside & within
    if inside is not None:
        value = choose(inside, value, fill)
    return wide, loops(axes, Store(wide.name, indices, value))


def element(wide: Buffer, *indices: Expr) -> Expr:
    """An element of such a copy."""
    return Load(wide.name, indices or (ZERO,))
