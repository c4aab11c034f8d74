"""How a layer is cut into tiles that fit the scratchpads; :mod:`.search` chooses one.

A contraction runs over tiles of its output (channel blocks, rows, columns) and, where not all
weights or inputs of a tile fit at once, over chunks of its reduction (input blocks, rows of
taps). Whatever of inputs and weights is still in its scratchpad from an earlier tile is not
loaded again; see :mod:`.schedule`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from .constants import Weights
from .image import Image, Walk
from .zones import Zone


@dataclass(frozen=True)
class Tail:
    """What a contraction does with its sums before they are stored, for each of its results.

    ``regions`` of accumulators, ``acts`` on them, whose steps take ``cycles``, ``loads`` into them;
    ``records`` are elements of parameters besides those of the sums, for all of the layer.
    """

    regions: int = 1
    acts: int = 0
    cycles: int = 0
    loads: int = 0
    records: int = 0


@dataclass(frozen=True, eq=False)
class Layer:
    """A contraction's extents, in elements; positions are those of its products.

    ``batches`` of images; ``outputs`` channel blocks of output; ``inputs`` as in
    :class:`.constants.Weights`.
    """

    image: Image
    weights: Weights
    batches: int
    outputs: int
    records: int
    """Elements of parameters: for each zone that has its own one an output block, or 1 for all."""
    zones: tuple[Zone, ...]
    """Of the image, with the taps that are taken in each."""
    tap_lanes: int = 1
    """Taps of a row that one step covers."""
    starts: int = 0
    """Accumulators that are loaded before the first step: one an output block, or none."""
    on_chip: bool = False
    """Whether the input is in its scratchpad as a whole, so that no tile loads any of it."""
    taken: int = 0
    """Elements of ``inp`` that others have meanwhile."""
    in_turn: int = 0
    """Rows of a tile, if it takes turns with another layer, tile by tile; both share the
    scratchpads, and keep their weights there."""
    tail: Tail = Tail()
    """What is done with the sums."""
    window: tuple[int, int] = (1, 1)
    """Rows and columns of positions of which only the greatest sum is stored."""

    @property
    def taken_of(self) -> int:
        """Sums of which one is stored."""
        return self.window[0] * self.window[1]

    @cached_property
    def bands(self) -> tuple[list[int], list[int]]:
        """Along rows and along columns: how many zones each tap of such a window lies in."""
        rows, columns = {z.rows for z in self.zones}, {z.columns for z in self.zones}
        high, wide = self.window
        return (
            [sum(z.each(tap, high) is not None for z in rows) for tap in range(high)],
            [sum(z.each(tap, wide) is not None for z in columns) for tap in range(wide)],
        )

    @property
    def rows(self) -> Walk:
        """Along the image's height."""
        return self.image.rows

    @property
    def columns(self) -> Walk:
        """Along its width."""
        return self.image.columns

    @property
    def depth(self) -> int:
        """Input blocks that an output block reads."""
        return len(self.weights.inputs[0])

    def most_inputs(self, outputs: int) -> int:
        """The most input blocks that a tile of so many output blocks reads in all."""
        inputs = self.weights.inputs
        tiles = (inputs[first : first + outputs] for first in range(0, self.outputs, outputs))
        return max(len({block for row in tile for block in row}) for tile in tiles)

    @cached_property
    def dense(self) -> bool:
        """Whether every output block reads the same input blocks."""
        return len(set(self.weights.inputs)) == 1

    def weight_tiles(self, outputs: int, depth: int, taps: int) -> int:
        """Different tiles of weights, given a tile's sizes."""
        strides = self.weights.strides
        axes = (self.outputs, outputs), (self.depth, depth), (self.rows.taps, taps)
        return math.prod(
            blocks_of(extent, size) if stride else 1
            for (extent, size), stride in zip(axes, strides[:3], strict=True)
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of an element of weights in DRAM."""
        return self.weights.element_bytes

    @property
    def steps(self) -> int:
        """Steps of the array for the whole layer."""
        each = sum(
            z.rows.count * z.columns.count * z.taps.count * z.steps.count for z in self.zones
        )
        return self.batches * self.outputs * self.depth * each

    @property
    def variants(self) -> int:
        """Elements of parameters for one output block."""
        return max(zone.record for zone in self.zones) + 1

    @property
    def column_steps(self) -> int:
        """Steps for the taps of a row."""
        return blocks_of(self.columns.taps, self.tap_lanes)

    @property
    def overhang(self) -> int:
        """Elements that the last step of a row's taps reads beyond them; their weights are 0."""
        return (self.column_steps * self.tap_lanes - self.columns.taps) * self.columns.dilation


@dataclass(frozen=True)
class Tile:
    """Sizes of a tile: output blocks, rows, columns; input blocks and rows of taps of a chunk.

    ``weights_outer`` says that all tiles of the image are done with one tile of output channels
    before the next; otherwise all channels are done with one tile of the image. Rows and columns
    are those of whole windows.
    """

    outputs: int
    rows: int
    columns: int
    depth: int
    taps: int
    weights_outer: bool


@dataclass(frozen=True)
class Extents:
    """What a tile needs in the scratchpads, in elements."""

    box_rows: int
    box_columns: int
    skips_rows: bool
    blocks: int
    inp: int
    wgt: int
    acc: int
    uops: int
    out: int = 0
    """Results."""


def extents(layer: Layer, tile: Tile) -> Extents:
    """Of a full tile."""
    rows, columns = layer.rows, layer.columns
    skips = tile.taps == 1 and rows.stride > 1
    height = box_rows(rows, tile.rows, tile.taps, skips)
    box_columns = row_length(columns, tile.columns)
    blocks = tile.depth if layer.dense else layer.most_inputs(tile.outputs)
    shape = layer.weights.shape
    wgt = (
        min(tile.outputs, shape[0])
        * min(tile.depth, shape[1])
        * min(tile.taps, shape[2])
        * shape[3]
    )
    out = tile.outputs * tile.rows * tile.columns // layer.taken_of
    return Extents(
        height,
        box_columns,
        skips,
        blocks,
        0 if layer.on_chip else blocks * height * box_columns + layer.overhang,
        wgt,
        out * layer.tail.regions * layer.taken_of,
        tile.outputs * tile.depth * tile.taps * layer.column_steps * layer.taken_of,
        out,
    )


def box_rows(rows: Walk, count: int, taps: int, skips: bool) -> int:
    """Rows of input under ``count`` rows of output; ``skips`` leaves out what one tap skips."""
    return count if skips else (count - 1) * rows.stride + (taps - 1) * rows.dilation + 1


def row_length(columns: Walk, count: int) -> int:
    """Elements of a row of input under ``count`` columns of output.

    For all columns, without padding, it is the whole row: rows follow one another in DRAM.
    """
    if count == columns.positions and not columns.before and not columns.after:
        return columns.extent // columns.lanes
    return blocks_of((count - 1) * columns.stride + columns.reach, columns.lanes)


def parts(extent: int) -> list[int]:
    """Sizes of equal parts of ``extent``, the largest first."""
    sizes = {blocks_of(extent, count) for count in range(1, min(extent, 16) + 1)}
    count = 32
    while count < 2 * extent:
        sizes.add(blocks_of(extent, min(count, extent)))
        count *= 2
    return sorted(sizes, reverse=True)


def blocks_of(extent: int, count: int) -> int:
    """The size of ``count`` equal parts, rounded up."""
    return -(-extent // count)
