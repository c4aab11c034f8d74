"""How a layer is cut into tiles that fit the scratchpads, chosen by an estimate of cycles.

A contraction runs over tiles of its output (channel blocks, rows, columns) and, where not all
weights or inputs of a tile fit at once, over chunks of its reduction (input blocks, rows of
taps). Whatever of inputs and weights is still in its scratchpad from an earlier tile is not
loaded again; see :mod:`.schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..isa.config import AcceleratorConfig
from .constants import Weights
from .image import Image, Walk
from .kernel import Refusal
from .timing import BRANCH_CYCLES, LOAD_LATENCY, START_CYCLES, STORE_LATENCY
from .zones import Zone


@dataclass(frozen=True, eq=False)
class Layer:
    """A contraction's extents, in elements.

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

    @property
    def weight_bytes(self) -> int:
        """Bytes of an element of weights in DRAM."""
        return math.prod(self.weights.data.shape[4:])

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
    before the next; otherwise all channels are done with one tile of the image.
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


def extents(layer: Layer, tile: Tile) -> Extents:
    """Of a full tile."""
    rows, columns = layer.rows, layer.columns
    skips = tile.taps == 1 and rows.stride > 1
    height = box_rows(rows, tile.rows, tile.taps, skips)
    box_columns = row_length(columns, tile.columns)
    blocks = tile.depth if layer.dense else layer.most_inputs(tile.outputs)
    shape = layer.weights.data.shape
    wgt = (
        min(tile.outputs, shape[0])
        * min(tile.depth, shape[1])
        * min(tile.taps, shape[2])
        * shape[3]
    )
    return Extents(
        height,
        box_columns,
        skips,
        blocks,
        blocks * height * box_columns + layer.overhang,
        wgt,
        tile.outputs * tile.rows * tile.columns,
        tile.outputs * tile.depth * tile.taps * layer.column_steps,
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


def choose(layer: Layer, config: AcceleratorConfig) -> tuple[Tile, int]:
    """The tile with the least estimate of cycles, and that estimate.

    Raises
    ------
    Refusal
        If even the smallest tile does not fit, with the numbers.
    """
    _check_pads(layer)
    _check_lanes(layer.columns, config)
    for columns in _column_sizes(layer.columns):
        found = [
            (cycles, tile)
            for tile in _tiles(layer, columns)
            if (cycles := _estimate(layer, tile, config)) is not None
        ]
        if found:
            cycles, tile = min(found, key=lambda f: f[0])
            return tile, cycles
    least = extents(layer, Tile(1, 1, 1, 1, 1, True))
    raise Refusal(
        f"its smallest tile needs inp {least.inp}, wgt {least.wgt}, acc {least.acc}, "
        f"uop {least.uops} elements; this hardware has {config.depths_text}"
    )


def estimate(layer: Layer, tile: Tile, config: AcceleratorConfig) -> int:
    """Of the cycles with a tile that somebody else has chosen.

    Raises
    ------
    Refusal
        If it does not fit.
    """
    _check_pads(layer)
    _check_lanes(layer.columns, config)
    whole = layer.columns.lanes == 1 or tile.columns == layer.columns.positions
    limits = (layer.outputs, layer.rows.positions, layer.columns.positions, layer.depth)
    sizes = (tile.outputs, tile.rows, tile.columns, tile.depth)
    if not (
        whole
        and all(1 <= size <= limit for size, limit in zip(sizes, limits, strict=True))
        and (layer.dense or tile.depth == layer.depth)
        and tile.taps in (1, layer.rows.taps)
    ):
        raise Refusal(f"there is no tile {tile} of such a layer")
    cycles = _estimate(layer, tile, config)
    if cycles is None:
        raise Refusal(f"{tile} does not fit; this hardware has {config.depths_text}")
    return cycles


def _check_pads(layer: Layer) -> None:
    for what, walk in (("rows", layer.rows), ("columns", layer.columns)):
        if max(walk.before, walk.after) > 15:
            raise Refusal(f"padding of {max(walk.before, walk.after)} {what}; a load has up to 15")


def _check_lanes(columns: Walk, config: AcceleratorConfig) -> None:
    if columns.lanes > 1 and columns.stride >= config.inp_depth:
        raise Refusal(f"a window every {columns.stride} lanes; {config.inp_depth - 1} can be told")


def _column_sizes(columns: Walk) -> Iterator[int]:
    """From all to one; only all where a part would begin within an element."""
    size = columns.positions
    while True:
        yield size
        if size == 1 or columns.lanes > 1:
            return
        size = blocks_of(size, 2)


def _tiles(layer: Layer, columns: int) -> Iterator[Tile]:
    depths = parts(layer.depth) if layer.dense else [layer.depth]
    for outputs in parts(layer.outputs):
        for rows in parts(layer.rows.positions):
            for depth in depths:
                for taps in sorted({layer.rows.taps, 1}, reverse=True):
                    for weights_outer in (True, False):
                        yield Tile(outputs, rows, columns, depth, taps, weights_outer)


def _estimate(layer: Layer, tile: Tile, config: AcceleratorConfig) -> int | None:
    """Cycles, roughly; None if the tile does not fit."""
    need = extents(layer, tile)
    trips = 1 << 13
    if (
        need.inp > config.inp_depth
        or need.wgt > config.wgt_depth
        or need.acc > config.acc_depth
        or need.uops > config.uop_depth
        or (layer.records > config.qnt_depth < tile.outputs * layer.variants)
        or max(tile.rows, tile.columns) >= trips
    ):
        return None
    channel_tiles = blocks_of(layer.outputs, tile.outputs)
    image_tiles = (
        layer.batches
        * blocks_of(layer.rows.positions, tile.rows)
        * blocks_of(layer.columns.positions, tile.columns)
    )
    chunks = blocks_of(layer.depth, tile.depth) * blocks_of(layer.rows.taps, tile.taps)
    tiles = channel_tiles * image_tiles
    of_input = image_tiles * chunks * (1 if layer.dense else channel_tiles)
    of_weights = channel_tiles * chunks if layer.weights.data.shape[0] > 1 else chunks
    inp_slots, wgt_slots = config.inp_depth // need.inp, config.wgt_depth // need.wgt
    inp_loads = _loads(of_input, inp_slots, chunks, 1 if layer.dense else channel_tiles,
                       channel_tiles, tile.weights_outer)  # fmt: skip
    wgt_loads = _loads(of_weights, wgt_slots, chunks, 1, image_tiles, not tile.weights_outer)

    inp_cycles = _box_cycles(need, config)
    wgt_cycles = START_CYCLES + need.wgt * max(1, layer.weight_bytes // config.bus_bytes)
    out_cycles = max(1.0, config.out_element_bytes / config.bus_bytes)
    in_flight = min(tiles * chunks, 2)
    variants = min(tiles * chunks, max(1, min(inp_slots, 2)) * max(1, min(wgt_slots, 2)))
    reading = (
        inp_loads * inp_cycles
        + wgt_loads * wgt_cycles
        + variants * need.uops * 4 / config.bus_bytes
        + layer.records * config.qnt_element_bytes / config.bus_bytes
        + layer.starts * config.acc_element_bytes / config.bus_bytes
    )
    down = blocks_of(layer.rows.positions, tile.rows) + len({z.rows for z in layer.zones}) - 1
    across = blocks_of(layer.columns.positions, tile.columns)
    across += len({z.columns for z in layer.zones}) - 1
    parts = channel_tiles * layer.batches * down * across
    computing = layer.steps + (parts * BRANCH_CYCLES + tiles * START_CYCLES) * (chunks + 1)
    rows = layer.batches * layer.rows.positions * across if across > 1 else 0
    stores = START_CYCLES * parts * tile.outputs + BRANCH_CYCLES * rows * layer.outputs
    writing = tiles * need.acc * out_cycles + stores
    first = inp_cycles + wgt_cycles + LOAD_LATENCY
    last = need.acc * out_cycles + STORE_LATENCY
    overlapped = all(
        distinct == 1 or slots >= in_flight
        for distinct, slots in ((of_input, inp_slots), (of_weights, wgt_slots))
    )
    if tiles > 1 and config.acc_depth < 2 * need.acc:
        computing += writing
    if overlapped:
        middle = max(computing, reading - first + LOAD_LATENCY, writing - last)
    else:
        middle = computing + reading
    return math.ceil(first + middle + last)


def _loads(distinct: int, slots: int, chunks: int, variety: int, repeats: int, outer: bool) -> int:
    """How many times a tile is loaded, given ``repeats`` visits of each.

    ``outer`` says that the visits of one tile are far apart: all the others come between.
    """
    if distinct <= slots:
        return distinct
    if variety > 1:
        return distinct
    if not outer and chunks <= max(1, slots - 1):
        return distinct
    return distinct * repeats


def _box_cycles(need: Extents, config: AcceleratorConfig) -> float:
    """Of loading one tile's input."""
    bytes_ = config.inp_element_bytes
    row = max(need.box_columns, need.box_columns * bytes_ / config.bus_bytes) + 1
    return START_CYCLES + need.blocks * need.box_rows * row
