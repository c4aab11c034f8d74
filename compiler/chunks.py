"""The order of a contraction's work: tiles of its output, chunks of its reduction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .schedule import Range
from .tiling import Layer, Tile


@dataclass(frozen=True)
class Chunk:
    """One stage of a contraction: a tile of the output and a chunk of its reduction.

    ``first`` and ``last`` say where in the tile's reduction it stands.
    """

    batch: int
    blocks: Range
    rows: Range
    columns: Range
    depth: Range
    taps: Range
    first: bool
    last: bool


def chunks(layer: Layer, tile: Tile) -> Iterator[Chunk]:
    """All of a layer, in order."""
    channels = Range.cut(layer.outputs, tile.outputs)
    images = [
        (batch, rows, columns)
        for batch in range(layer.batches)
        for rows in Range.cut(layer.rows.positions, tile.rows)
        for columns in Range.cut(layer.columns.positions, tile.columns)
    ]
    outer = (
        [(c, i) for c in channels for i in images]
        if tile.weights_outer
        else [(c, i) for i in images for c in channels]
    )
    reductions = [
        (depth, taps)
        for depth in Range.cut(layer.depth, tile.depth)
        for taps in Range.cut(layer.rows.taps, tile.taps)
    ]
    for blocks, (batch, rows, columns) in outer:
        for i, (depth, taps) in enumerate(reductions):
            last = i == len(reductions) - 1
            yield Chunk(batch, blocks, rows, columns, depth, taps, i == 0, last)
