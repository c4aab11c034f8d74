"""Small images in full lanes: an activation whose elements hold a patch of pixels each.

An image of 1 or 3 channels leaves most lanes of its elements empty, and the array with them.
Where the host writes the activation and one convolution reads it, the empty lanes can hold
neighbours: then a step covers several taps. The nest is rewritten accordingly; what was a sum
over taps and channels becomes one over fewer taps and over lanes. A patch may take several
elements: all 27 values of 3x3 pixels of 3 channels fill the lanes of two.

Neighbouring patches overlap, and every one of them has to be loaded. Where steps may begin at any
lane, patches of one column follow one another without a gap: the window of an output is a run of
their lanes, and the next one's begins a patch later. Nothing of a row is loaded twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace

from ..isa.config import AcceleratorConfig
from ..isa.nest import Binary, Const, Expr, Index, Load, Select, Sum, expr
from ..isa.traverse import distinct, rewrite, substitute
from .artifact import DramTensor, Unfold
from .image import Image, Walk, Where, image_of
from .kernel import Kernel, Refusal
from .layout import blocks, packed_shape, run_length
from .patterns import Pattern, normal, patterns

LANE, CHANNEL = "lane", "flat_channel"
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
    if image.padded and image.pad != fills[image.tensor]:
        return
    channels, batches = image.shape[3], image.shape[0]

    def cost(unfold: Unfold) -> tuple[int, int]:
        """Steps for an element of the output, and elements of the image."""
        shape = packed_shape(
            DramTensor(image.tensor, 0, (batches, 1, 1, channels), 0, unfold), config
        )
        return _steps(image, unfold, config), math.prod(shape[1:4])

    rows, columns = image.rows, image.columns
    sizes = itertools.product(range(1, rows.taps + 1), range(1, columns.taps + 1))
    forms = [_unfold(image, patch) for patch in sizes]
    if config.sliding and not kernel.lying and columns.taps > 1 and columns.dilation == 1:
        forms += [_flat(image, count) for count in range(1, rows.taps + 1)]
    costs = {form: cost(form) for form in forms}
    least = rows.taps * columns.taps * -(-channels // config.block)
    better = [form for form in forms if costs[form][0] < least]
    for unfold in sorted(better, key=costs.__getitem__)[:TRIED]:
        in_dram = unfold
        if kernel.lying:
            if unfold.extents[0] > 1:
                continue  # of more than one row, rows and columns cannot be exchanged
            pairs = (getattr(unfold, f.name)[::-1] for f in fields(Unfold) if f.name != "flat")
            in_dram = Unfold(*pairs)
        yield _rewritten(kernel, total, image, unfold, config), image.tensor, in_dram


def _windowed_sum(kernel: Kernel, known: tuple[Pattern, ...]) -> tuple[Sum, Image] | None:
    """The one sum of products with an element of an activation, and that activation's walk."""
    sums = {node for node in distinct(kernel.value) if isinstance(node, Sum)}
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


def _flat(image: Image, count: int) -> Unfold:
    """Patches of one column of ``count`` pixels, without gaps."""
    step, origin, extent = _axis(image.rows, count)
    columns = image.columns
    return Unfold(
        origin=(origin, columns.origin),
        steps=(step, 1),
        patch=(count, 1),
        dilations=(image.rows.dilation, 1),
        extents=(extent, (columns.positions - 1) * columns.stride + columns.taps),
        flat=True,
    )


def _run(image: Image, unfold: Unfold, config: AcceleratorConfig) -> int:
    """Lanes that the steps of one output position read of a row of patches, if it is flat."""
    lanes = unfold.patch[0] * image.shape[3] * image.columns.taps
    return blocks(lanes, config.block) * config.block


def _steps(image: Image, unfold: Unfold, config: AcceleratorConfig) -> int:
    """For an element of the output."""
    (py, px), count = unfold.patch, _count(image.rows.taps, unfold.patch[0])
    if unfold.flat:
        return count * _run(image, unfold, config) // config.block
    elements = blocks(py * px * image.shape[3], config.block)
    return count * _count(image.columns.taps, px) * elements


def _rewritten(
    kernel: Kernel, total: Sum, image: Image, unfold: Unfold, config: AcceleratorConfig
) -> Kernel:
    """``kernel`` with ``total`` over the unfolded image."""
    py, px = unfold.patch
    rows, columns, channels = image.rows, image.columns, image.shape[3]
    lane, size = Index(LANE), py * px * channels
    first_row, first_column = _tap(ROW, rows, py), _tap(COLUMN, columns, px)
    if unfold.flat:
        first_column = expr(0)
    if kernel.lying or unfold.flat:  # lanes go down the columns of patches
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
    if unfold.flat:
        counts[COLUMN] = 1
    axes = {name: count for name, count in counts.items() if count > 1}
    axes |= {LANE: _run(image, unfold, config) if unfold.flat else size}
    axes |= {name: extent for name, extent in summed.items() if name not in places}
    position = [
        kernel.element[1 + axis] * (walk_.stride // unfold.steps[axis])
        + (Index(name) * (patch * walk_.dilation // unfold.steps[axis]) if name in axes else 0)
        for axis, (name, walk_, patch) in enumerate(((ROW, rows, py), (COLUMN, columns, px)))
    ]
    last: Expr = lane
    width, depth, flat = unfold.extents[1], size, dict(kernel.flat)
    if unfold.flat:
        axes |= {CHANNEL: 1}
        position[1], last = kernel.element[2] * (columns.stride * size) + lane, Index(CHANNEL)
        width, depth = run_length(width * size, config.block) * config.block, 1
        flat[image.tensor] = config.block
    pixel = Load(image.tensor, (image.batch, *position, last))
    over_patches = Sum(tuple(axes.items()), pixel * Select(valid, weight, Const(0)))
    value = rewrite(kernel.value, lambda n: over_patches if n == total else None)
    assert isinstance(value, Expr)
    shape = (image.shape[0], unfold.extents[0], width, depth)
    shapes = {**kernel.shapes, image.tensor: shape}
    return replace(kernel, value=normal(value), shapes=shapes, flat=flat)


def _tap(name: str, w: Walk, patch: int) -> Expr:
    """The first tap that a patch covers."""
    return Index(name) * patch if _count(w.taps, patch) > 1 else expr(0)
