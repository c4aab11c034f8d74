"""The order of a contraction's work: tiles of its output, chunks of its reduction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .schedule import Range
from .tiling import Layer, Tile, blocks_of

STRIPES = 4
"""Of a tile that is neither the first nor the last."""
STRIPE = 64
"""Positions of the shortest stripe, so that its micro-ops are few beside its steps."""
LAST_STRIPE = 16
"""And where the next layer waits for it on chip: there, its store is most of the wait."""


@dataclass(frozen=True)
class Chunk:
    """One stage of a contraction: a tile of the output and a chunk of its reduction.

    ``rows`` are the tile's; those of ``stripe`` belong to this stage: all of them, or a part.
    ``first`` and ``last`` say where in the tile's reduction it stands.
    """

    batch: int
    blocks: Range
    rows: Range
    stripe: Range
    columns: Range
    depth: Range
    taps: Range
    first: bool
    last: bool


def chunks(layer: Layer, tile: Tile, stays: bool = False) -> Iterator[Chunk]:
    """All of a layer, in order; whether its output ``stays`` on chip decides how it ends."""
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
    for number, (blocks, (batch, rows, columns)) in enumerate(outer):
        stripes = [rows]
        starts, ends = number == 0, number == len(outer) - 1
        shortest = LAST_STRIPE if ends and stays else STRIPE
        if len(reductions) == 1 and rows.count * columns.count >= 2 * shortest:
            high = layer.window[0]
            least = blocks_of(shortest, columns.count * high)
            stripes = [
                Range(rows.start + high * stripe.start, high * stripe.count)
                for stripe in _stripes(
                    rows.count // high, least, starts and not (ends and stays), ends
                )
            ]
        for i, (depth, taps) in enumerate(reductions):
            last = i == len(reductions) - 1
            for stripe in stripes:
                yield Chunk(batch, blocks, rows, stripe, columns, depth, taps, i == 0, last)


def _stripes(rows: int, least: int, starts: bool, ends: bool) -> list[Range]:
    """A tile's rows, or rows of windows, in stripes of ``least`` and more, :data:`STRIPES` of them
    if there is a choice.

    So the array can begin, and the next load overwrite, before all of a tile is loaded or done.
    At the start of a layer it waits for what the first stripe reads, at the end for the store of
    the last one: those are the shortest, and the others as long as all on their outer side.
    """
    sizes, left = list[int](), rows
    while left:
        size = max(least, sum(sizes) if starts or ends else blocks_of(rows, STRIPES))
        sizes.append(size if left >= 2 * size else left)
        left -= sizes[-1]
    if ends:
        sizes.reverse()
    return [Range(sum(sizes[:i]), size) for i, size in enumerate(sizes)]
