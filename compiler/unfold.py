"""Small images in full lanes: an activation whose elements hold a patch of pixels each.

An image of 1 or 3 channels leaves most lanes of its elements empty, and the array with them.
Where the host writes the activation and one convolution reads it, the empty lanes can hold
neighbours: then a step covers several taps. The nest is rewritten accordingly; what was a sum
over taps and channels becomes one over fewer taps and over lanes. A patch may take several
elements: all 27 values of 3x3 pixels of 3 channels fill the lanes of two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, replace

from ..isa.config import AcceleratorConfig
from ..isa.nest import (
    Binary,
    Const,
    Expr,
    Index,
    Load,
    Select,
    Sum,
    expr,
    rewrite,
    substitute,
    walk,
)
from .artifact import Unfold
from .image import Image, Walk, Where, image_of
from .kernel import Kernel, Refusal
from .unify import Pattern, normal, patterns

LANE = "lane"
ROW, COLUMN = "patch_row", "patch_column"
TRIED = 4
"""Patches that are worth a look. The fewest steps are not always best: larger patches overlap
more, and an image of them takes longer to load."""


def unfoldings(
    kernel: Kernel, fills: Mapping[str, int], config: AcceleratorConfig
) -> Iterator[tuple[Kernel, str, Unfold]]:
    """``kernel`` on unfolded forms of its only activation, those with the fewest steps first.

    Yields the rewritten kernel, the tensor's name, and how it must lie in DRAM. ``fills`` are what
    the ragged lanes of tensors hold; positions outside of the image hold the same.
    """
    found = _windowed_sum(kernel, patterns(config))
    if found is None:
        return
    total, image = found
    channels = image.shape[3]
    if image.padded and image.pad != fills[image.tensor]:
        return
    rows, columns = image.rows, image.columns

    def cost(patch: tuple[int, int]) -> tuple[int, int]:
        """Steps for an element of the output, and elements of the image."""
        elements = -(-patch[0] * patch[1] * channels // config.block)
        extents = _unfold(image, patch).extents
        count = _count(rows.taps, patch[0]) * _count(columns.taps, patch[1])
        return count * elements, extents[0] * extents[1] * elements

    sizes = itertools.product(range(1, rows.taps + 1), range(1, columns.taps + 1))
    costs = {patch: cost(patch) for patch in sizes}
    better = [patch for patch in costs if costs[patch][0] < costs[1, 1][0]]
    for patch in sorted(better, key=costs.__getitem__)[:TRIED]:
        unfold = _unfold(image, patch)
        in_dram = unfold
        if kernel.lying:
            if unfold.extents[0] > 1:
                continue  # of more than one row, rows and columns cannot be exchanged
            in_dram = Unfold(*((columns, rows) for rows, columns in astuple(unfold)))
        yield _rewritten(kernel, total, image, unfold), image.tensor, in_dram


def _windowed_sum(kernel: Kernel, known: tuple[Pattern, ...]) -> tuple[Sum, Image] | None:
    """The one sum of products with an element of an activation, and that activation's walk."""
    sums = {node for node in walk(kernel.value) if isinstance(node, Sum)}
    if len(sums) != 1:
        return None
    total = sums.pop()
    pixel = _pixel(total)
    if pixel is None:
        return None
    try:
        return total, image_of(Where(kernel, total.axes), pixel, "inp", known)
    except Refusal:
        return None


def _pixel(total: Sum) -> Expr | None:
    match total.body:
        case Binary("mul", (Load() | Select()) as pixel, Load()):
            return pixel
    return None


def _count(taps: int, patch: int) -> int:
    return -(-taps // patch)


def _unfold(image: Image, patch: tuple[int, int]) -> Unfold:
    axes = [_axis(w, p) for w, p in zip((image.rows, image.columns), patch, strict=True)]
    (sy, oy, ey), (sx, ox, ex) = axes
    return Unfold(
        origin=(oy, ox),
        steps=(sy, sx),
        patch=patch,
        dilations=(image.rows.dilation, image.columns.dilation),
        extents=(ey, ex),
    )


def _axis(w: Walk, patch: int) -> tuple[int, int, int]:
    """Distance, origin and number of the patches along an axis."""
    count = _count(w.taps, patch)
    apart = patch * w.dilation
    step = math.gcd(w.stride, apart) if count > 1 else w.stride
    extent = ((w.positions - 1) * w.stride + (count - 1) * apart) // step + 1
    return step, w.origin, extent


def _rewritten(kernel: Kernel, total: Sum, image: Image, unfold: Unfold) -> Kernel:
    """``kernel`` with ``total`` over the unfolded image."""
    py, px = unfold.patch
    rows, columns, channels = image.rows, image.columns, image.shape[3]
    lane = Index(LANE)
    first_row, first_column = _tap(ROW, rows, py), _tap(COLUMN, columns, px)
    if kernel.lying:  # lanes go down the columns of DRAM's patches, which are rows here
        in_row, in_column = (lane // channels) % py, lane // (py * channels)
    else:
        in_row, in_column = lane // (px * channels), (lane // channels) % px
    taps = ((rows, first_row + in_row), (columns, first_column + in_column))
    channel = lane % channels
    places: dict[str, Expr] = {}
    valid: Expr = expr(1)
    for walk_, tap in taps:
        if walk_.loop is not None:
            places[walk_.loop] = tap
            valid = valid & (tap < walk_.taps)
    summed = dict(total.axes)
    match image.channel:
        case Index(name) if name in summed:
            places[name] = channel
        case picked:
            valid = valid & Binary("eq", channel, picked)
    assert isinstance(total.body, Binary)
    weight = substitute(total.body.b, places)
    assert isinstance(weight, Expr)
    counts = {ROW: _count(rows.taps, py), COLUMN: _count(columns.taps, px)}
    axes = {name: count for name, count in counts.items() if count > 1}
    axes |= {LANE: py * px * channels}
    axes |= {name: extent for name, extent in summed.items() if name not in places}
    position = (
        kernel.element[1 + axis] * (walk_.stride // unfold.steps[axis])
        + (Index(name) * (patch * walk_.dilation // unfold.steps[axis]) if name in axes else 0)
        for axis, (name, walk_, patch) in enumerate(((ROW, rows, py), (COLUMN, columns, px)))
    )
    pixel = Load(image.tensor, (image.batch, *position, lane))
    over_patches = Sum(tuple(axes.items()), pixel * Select(valid, weight, Const(0)))
    value = rewrite(kernel.value, lambda n: over_patches if n == total else None)
    assert isinstance(value, Expr)
    shape = (image.shape[0], *unfold.extents, py * px * channels)
    return replace(kernel, value=normal(value), shapes={**kernel.shapes, image.tensor: shape})


def _tap(name: str, w: Walk, patch: int) -> Expr:
    """The first tap that a patch covers."""
    return Index(name) * patch if _count(w.taps, patch) > 1 else expr(0)
