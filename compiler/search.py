"""The tile of a contraction, chosen by an estimate of cycles from all that are worth considering.

The estimate knows what the engines do in a cycle, the latencies between them, and what overlaps
(:mod:`.timing`). All candidates are estimated together, as arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np

from ..isa.config import AcceleratorConfig
from .effort import Effort
from .image import Walk
from .kernel import Lack, Refusal
from .tiling import Layer, Tile, blocks_of, extents, parts, row_length
from .timing import (
    ACT_CYCLES,
    BRANCH_CYCLES,
    KEEP_LATENCY,
    LOAD_LATENCY,
    START_CYCLES,
    STORE_LATENCY,
    store_cycles,
)

MOST_TRIPS = 1 << 13
"""What a loop of an instruction counts to, exclusive."""
KEPT = 4
"""Of the candidates that were not chosen, those that a choice tells of, and that are rehearsed."""
DELAYED = 4
"""Of the cycles that the parameters of a layer with its input on chip take to load, one in so many
delays what comes behind; where others load their inputs, too, that hides them."""
FAST_SIZES = 5
"""Sizes of an axis that are tried in a hurry, halving."""
MOST_SIZES = 64
"""Sizes of an axis up to which all are tried with the most effort."""


@dataclass(frozen=True)
class Choice:
    """A tile, and what it was preferred to.

    Attributes
    ----------
    tile : Tile
        The one with the least estimate.
    cycles : int
        The estimate.
    considered : int
        How many there were that fit.
    others : tuple of (Tile, int)
        The best of the others with their estimates.
    """

    tile: Tile
    cycles: int
    considered: int
    others: tuple[tuple[Tile, int], ...]


def choose(layer: Layer, config: AcceleratorConfig, effort: Effort = "default") -> Choice:
    """The tile with the least estimate of cycles.

    Raises
    ------
    Refusal
        If even the smallest tile does not fit, with the numbers.
    """
    _check_pads(layer)
    _check_lanes(layer.columns, config)
    found: Choice | None = None
    for columns in _column_sizes(layer.columns, layer.window[1]):
        here = _among(_tiles(layer, columns, effort), layer, columns, config)
        if here is not None and (found is None or here.cycles < found.cycles):
            found = here
        if found is not None and effort != "max":
            break
    if found is None and effort == "fast":
        return choose(layer, config)
    if found is None:
        least = extents(layer, Tile(1, 1, 1, 1, 1, True))
        raise Refusal(
            f"its smallest tile needs inp {least.inp}, wgt {least.wgt}, acc {least.acc}, "
            f"uop {least.uops} elements; this hardware has {config.depths_text}"
        )
    return found


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
        and not (tile.rows % layer.window[0] or tile.columns % layer.window[1])
    ):
        raise Refusal(f"there is no tile {tile} of such a layer")
    found = _among(np.array([astuple(tile)], np.int64), layer, tile.columns, config)
    if found is None:
        raise Refusal(f"{tile} does not fit; this hardware has {config.depths_text}")
    return found.cycles


def _check_pads(layer: Layer) -> None:
    for what, walk in (("rows", layer.rows), ("columns", layer.columns)):
        if max(walk.before, walk.after) > 15:
            raise Refusal(
                f"padding of {max(walk.before, walk.after)} {what}; a load has up to 15",
                Lack.PADDING,
            )


def _check_lanes(columns: Walk, config: AcceleratorConfig) -> None:
    if columns.lanes > 1 and columns.stride >= config.inp_depth:
        raise Refusal(f"a window every {columns.stride} lanes; {config.inp_depth - 1} can be told")


def _column_sizes(columns: Walk, window: int) -> Iterator[int]:
    """From all to one window; only all where a part would begin within an element."""
    size = columns.positions // window
    while True:
        yield size * window
        if size == 1 or columns.lanes > 1:
            return
        size = blocks_of(size, 2)


def sizes(extent: int, effort: Effort) -> list[int]:
    """Sizes of the parts of an axis, the largest first."""
    if effort == "fast":
        return sorted({blocks_of(extent, 1 << n) for n in range(FAST_SIZES)}, reverse=True)
    if effort == "max" and extent <= MOST_SIZES:
        return [*range(extent, 0, -1)]
    return parts(extent)


def _tiles(layer: Layer, columns: int, effort: Effort) -> np.ndarray:
    """Candidates: a row for each, in the order of :class:`.tiling.Tile`'s fields."""
    window = layer.window[0]
    rows = [size * window for size in sizes(layer.rows.positions // window, effort)]
    axes = (
        sizes(layer.outputs, effort),
        [layer.in_turn] if layer.in_turn else rows,
        [columns],
        sizes(layer.depth, effort) if layer.dense else [layer.depth],
        sorted({layer.rows.taps, 1}, reverse=True),
        [True, False],
    )
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _among(
    tiles: np.ndarray, layer: Layer, columns: int, config: AcceleratorConfig
) -> Choice | None:
    """The best of the candidates that fit; None if none does."""
    need = _needs(layer, tiles, columns)
    outputs, rows = tiles[:, 0], tiles[:, 1]
    counted = layer.tail.acts or layer.taken_of > 1
    fits = (
        _in_turn(layer, tiles, columns, need, config)
        & (need.inp <= config.inp_depth - layer.taken)
        & (need.wgt <= config.wgt_depth)
        & (need.acc <= config.acc_depth)
        & (need.uops <= config.uop_depth)
        & (np.maximum(rows, columns) < MOST_TRIPS)
        & (need.out < (MOST_TRIPS if counted else config.acc_depth + 1))
    )
    if layer.tail.acts and layer.records + layer.tail.records > config.qnt_depth:
        return None
    if layer.records > config.qnt_depth:
        fits &= outputs * layer.variants <= config.qnt_depth
    if not fits.any():
        return None
    tiles = tiles[fits]
    cycles = _estimates(layer, tiles, columns, _needs(layer, tiles, columns), config)
    best = np.argsort(cycles, kind="stable")[: KEPT + 1]
    ranked = [(_tile(tiles[i]), int(cycles[i])) for i in best]
    return Choice(*ranked[0], len(tiles), tuple(ranked[1:]))


def _in_turn(
    layer: Layer, tiles: np.ndarray, columns: int, need: _Needs, config: AcceleratorConfig
) -> np.ndarray | bool:
    """Which candidates can take turns with another layer, if they must: those of as many rows, all
    channels of one tile of the image before the next, in half of the scratchpads."""
    if not layer.in_turn:
        return True
    outputs, rows, _, depth, taps, outer = tiles.T
    sizes = np.stack((outputs, depth, taps), axis=1).tolist()
    weights = np.array([layer.weight_tiles(*size) for size in sizes]) * need.wgt
    return (
        (rows == layer.in_turn)
        & (outer == 0)
        & (columns == layer.columns.positions)
        & (2 * need.inp <= config.inp_depth - layer.taken)
        & (2 * weights <= config.wgt_depth)
        & (4 * need.acc <= config.acc_depth)
        & (2 * (layer.records + layer.tail.records) <= config.qnt_depth)
    )


def _tile(row: np.ndarray) -> Tile:
    *sizes, weights_outer = row.tolist()
    return Tile(*sizes, weights_outer=bool(weights_outer))


@dataclass(frozen=True)
class _Needs:
    """:class:`.tiling.Extents` of many tiles, as arrays."""

    box_rows: np.ndarray
    box_columns: int
    blocks: np.ndarray
    inp: np.ndarray
    wgt: np.ndarray
    acc: np.ndarray
    uops: np.ndarray
    out: np.ndarray


def _needs(layer: Layer, tiles: np.ndarray, columns: int) -> _Needs:
    outputs, rows, _, depth, taps, _ = tiles.T
    walk, shape = layer.rows, layer.weights.shape
    skips = (taps == 1) & (walk.stride > 1)
    height = np.where(skips, rows, (rows - 1) * walk.stride + (taps - 1) * walk.dilation + 1)
    length = row_length(layer.columns, columns)
    blocks = depth
    if not layer.dense:
        most = {n: layer.most_inputs(n) for n in np.unique(outputs).tolist()}
        blocks = np.array([most[n] for n in outputs.tolist()])
    wgt = np.minimum(outputs, shape[0]) * np.minimum(depth, shape[1]) * np.minimum(taps, shape[2])
    out = outputs * rows * columns // layer.taken_of
    return _Needs(
        height,
        length,
        blocks,
        (blocks * height * length + layer.overhang) * (not layer.on_chip),
        wgt * shape[3],
        out * layer.tail.regions * layer.taken_of,
        outputs * depth * taps * layer.column_steps * layer.taken_of,
        out,
    )


def _estimates(
    layer: Layer, tiles: np.ndarray, columns: int, need: _Needs, config: AcceleratorConfig
) -> np.ndarray:
    """Cycles, roughly, of tiles that fit."""
    outputs, rows, _, depth, taps, outer = tiles.T
    tail = layer.tail
    weights_outer = outer.astype(bool)
    channel_tiles = -(-layer.outputs // outputs)
    down, across = -(-layer.rows.positions // rows), blocks_of(layer.columns.positions, columns)
    image_tiles = layer.batches * down * across
    chunks = -(-layer.depth // depth) * -(-layer.rows.taps // taps)
    tile_count = channel_tiles * image_tiles
    variety = np.ones_like(channel_tiles) if layer.dense else channel_tiles
    of_input = image_tiles * chunks * variety
    of_weights = channel_tiles * chunks if layer.weights.data.shape[0] > 1 else chunks
    room = config.inp_depth - layer.taken
    inp_slots = room // np.maximum(need.inp, 1)
    wgt_slots = config.wgt_depth // need.wgt
    inp_loads = _loads(of_input, inp_slots, chunks, variety, channel_tiles, weights_outer)
    ones = np.ones_like(channel_tiles)
    wgt_loads = _loads(of_weights, wgt_slots, chunks, ones, image_tiles, ~weights_outer)

    inp_cycles = np.zeros_like(need.inp) if layer.on_chip else _box_cycles(need, config)
    wgt_cycles = START_CYCLES + need.wgt * max(1, layer.weight_bytes // config.bus_bytes)
    out_cycles = store_cycles(config)
    in_flight = np.minimum(tile_count * chunks, 2)
    inp_variants = np.ones_like(inp_slots) if layer.on_chip else np.minimum(inp_slots, 2)
    variants = np.minimum(
        tile_count * chunks,
        np.clip(inp_variants, 1, None) * np.clip(np.minimum(wgt_slots, 2), 1, None),
    )
    reading = (
        inp_loads * inp_cycles
        + wgt_loads * wgt_cycles
        + variants * need.uops * 4 / config.bus_bytes
        + (layer.records + tail.records) * config.qnt_element_bytes / config.bus_bytes
        + layer.starts * config.acc_element_bytes / config.bus_bytes
    )
    runs, beside = (
        sum(parts + count - 1 for count in bands)
        for parts, bands in zip((down, across), layer.bands, strict=True)
    )
    down = down + len({z.rows for z in layer.zones}) - 1
    across += len({z.columns for z in layer.zones}) - 1
    branches = channel_tiles * layer.batches * runs * beside
    computing = layer.steps + (branches * BRANCH_CYCLES + tile_count * START_CYCLES) * (chunks + 1)
    pieces = channel_tiles * layer.batches * down * across
    if layer.taken_of > 1:
        taken = layer.batches * layer.outputs * layer.rows.positions * layer.columns.positions
        computing = computing + (taken - taken // layer.taken_of)
        computing = computing + tile_count * (layer.taken_of - 1) * ACT_CYCLES
        pieces = tile_count
    stored_rows = layer.batches * layer.rows.positions * across if across > 1 else 0
    stores = START_CYCLES * pieces * outputs + BRANCH_CYCLES * stored_rows * layer.outputs
    writing = tile_count * need.out * out_cycles + stores
    if tail.acts:
        results = layer.batches * layer.outputs * layer.rows.positions * layer.columns.positions
        beats = max(1, config.acc8_element_bytes // config.bus_bytes)
        reading = reading + tail.loads * (results * beats + stores)
        computing = computing + tail.cycles * results + tail.acts * pieces * ACT_CYCLES
    first = inp_cycles + wgt_cycles + LOAD_LATENCY
    if layer.on_chip:  # it begins at once, and others' loads wait for its parameters
        records = (layer.records + tail.records) * config.qnt_element_bytes // config.bus_bytes
        first = wgt_cycles + records // DELAYED + KEEP_LATENCY
    last = need.out * out_cycles + STORE_LATENCY
    overlapped = ((of_input == 1) | (inp_slots >= in_flight)) & (
        (of_weights == 1) | (wgt_slots >= in_flight)
    )
    alone = (tile_count > 1) & (config.acc_depth < 2 * need.acc)
    computing = computing + np.where(alone, writing, 0)
    hidden = np.maximum(computing, np.maximum(reading - first + LOAD_LATENCY, writing - last))
    middle = np.where(overlapped, hidden, computing + reading)
    return np.ceil(first + middle + last).astype(np.int64)


def _loads(
    distinct: np.ndarray,
    slots: np.ndarray,
    chunks: np.ndarray,
    variety: np.ndarray,
    repeats: np.ndarray,
    outer: np.ndarray,
) -> np.ndarray:
    """How many times tiles are loaded, given ``repeats`` visits of each.

    ``outer`` says that the visits of one tile are far apart: all the others come between.
    """
    stay = ~outer & (chunks <= np.maximum(1, slots - 1))
    once = (distinct <= slots) | (variety > 1) | stay
    return np.where(once, distinct, distinct * repeats)


def _box_cycles(need: _Needs, config: AcceleratorConfig) -> np.ndarray:
    """Of loading one tile's input."""
    bytes_ = config.inp_element_bytes
    row = max(need.box_columns, need.box_columns * bytes_ / config.bus_bytes) + 1
    return START_CYCLES + need.blocks * need.box_rows * row
