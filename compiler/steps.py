"""The steps of a contraction: which micro-ops and loops a chunk takes in each zone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .boxes import consecutive
from .chunks import Chunk
from .emit import Action, Span, Uops
from .schedule import Range, part
from .stays import Stay
from .tiling import Extents, Layer, box_rows, row_length
from .work import Contraction
from .zones import Zone


class Steps:
    """Makes the steps of chunks.

    Parameters
    ----------
    work : Contraction
        The operations.
    layer, need : Layer, Extents
        Its extents, and those of a full tile.
    stay : Stay or None
        Where the input lies, if it is on chip as a whole.
    """

    def __init__(self, work: Contraction, layer: Layer, need: Extents, stay: Stay | None = None):
        self.work, self.layer, self.need, self.stay = work, layer, need, stay
        data = layer.weights.data
        shape = (layer.outputs, layer.depth, layer.rows.taps, layer.column_steps)
        self._idle = np.broadcast_to(~data.any(axis=tuple(range(4, data.ndim))), shape)
        """[output block, input block, row of taps, step]: whether all weights are 0."""
        self._walks: dict[Hashable, np.ndarray] = {}
        self._taken: dict[tuple[Range, Range], tuple[np.ndarray, bytes]] = {}
        self._blocks: dict[tuple[Range, Range], tuple[int, ...]] = {}

    def zones(self, chunk: Chunk, acc: Span) -> list[tuple[Zone, Span]]:
        """The zones of the chunk's stripe, each with its accumulators: dense, in this order.

        Where one of a window's sums is stored, all are among those of the stripe (:meth:`_taps`).
        """
        found: list[tuple[Zone, Span]] = []
        at = 0
        for whole in self.layer.zones:
            zone = whole.within(chunk.stripe, chunk.columns)
            if zone is not None and self.layer.taken_of > 1:
                found.append((zone, acc))
            elif zone is not None:
                count = chunk.blocks.count * zone.rows.count * zone.columns.count
                found.append((zone, part(acc, at, count)))
                at += count
        return found

    def blocks(self, chunk: Chunk) -> tuple[int, ...]:
        """The input blocks of a chunk."""
        key = chunk.blocks, chunk.depth
        if key not in self._blocks:
            reach = slice(chunk.depth.start, chunk.depth.stop)
            inputs = self.layer.weights.inputs[chunk.blocks.start : chunk.blocks.stop]
            self._blocks[key] = tuple(sorted({b for row in inputs for b in row[reach]}))
        return self._blocks[key]

    def weights(self, chunk: Chunk) -> tuple[int, int, int, int]:
        """Extents of the chunk's weights in the scratchpad, dense."""
        shape = self.layer.weights.shape
        counts = (chunk.blocks.count, chunk.depth.count, chunk.taps.count, shape[3])
        kept = [min(c, extent) for c, extent in zip(counts, shape, strict=False)]
        return kept[0], kept[1], kept[2], kept[3]

    def of(self, chunk: Chunk, inp: Span, wgt: Span, acc: Span) -> list[Action]:
        """The steps of a chunk, zone by zone, given what lies where."""
        reads = (*self._inputs(chunk, inp), part(wgt, 0, math.prod(self.weights(chunk))))
        actions = list[Action]()
        for zone, target in self.zones(chunk, acc):
            taps = zone.taps.common(chunk.taps)
            if taps is None:
                continue
            # Whether no chunk of the tile has come before that takes taps of this zone.
            fresh = chunk.depth.start == 0 and chunk.taps.start <= zone.taps.start
            whole = _Bound.of(chunk, replace(zone, taps=taps), inp, wgt, target)
            for bound in self._taps(whole):
                actions += self._bound(bound, fresh, reads)
        return actions

    def greatest(self, chunk: Chunk, acc: Span) -> tuple[list[Action], Zone, Span]:
        """The steps that leave the greatest sum of each window of the chunk's stripe, the positions
        of those, and where they are."""
        pool = self.work.pool
        assert pool is not None
        high, wide = pool.window
        rows = Range(chunk.stripe.start // high, chunk.stripe.count // high)
        columns = Range(chunk.columns.start // wide, chunk.columns.count // wide)
        size = chunk.blocks.count * rows.count * columns.count
        first = part(acc, 0, size)
        loops = {"iter_out": 1, "iter_in": size, "dst_factor_in": 1, "src_factor_in": 1}
        others = [part(acc, tap * size, size) for tap in range(1, high * wide)]
        steps = [
            Action(pool.operation, loops, (other, first), (first,),
                   Uops([(first.start, other.start, 0)]), (0, 1))
            for other in others
        ]  # fmt: skip
        return steps, Zone(rows, columns, Range(0, 0), Range(0, 0)), first

    def _taps(self, at: _Bound) -> Iterator[_Bound]:
        """A zone for each tap of the pool's window, if there is one: its accumulators lie behind
        those of the taps before it, one for each window of the stripe."""
        if self.work.pool is None:
            yield at
            return
        chunk, zone = at.chunk, at.zone
        every = high, wide = self.work.pool.window
        row = chunk.columns.count // wide
        plane = chunk.stripe.count // high * row
        for tap, (ty, tx) in enumerate(np.ndindex(*every)):
            rows, columns = zone.rows.each(ty, high), zone.columns.each(tx, wide)
            if rows is not None and columns is not None:
                down = (rows.start - chunk.stripe.start) // high
                right = (columns.start - chunk.columns.start) // wide
                first = at.first + tap * chunk.blocks.count * plane + down * row + right
                own = replace(zone, rows=rows, columns=columns)
                yield at._replace(zone=own, first=first, row=row, plane=plane, every=every)

    def _bound(self, at: _Bound, fresh: bool, reads: tuple[Span, ...]) -> list[Action]:
        """The steps of what is bound; ``fresh`` if accumulators hold nothing before."""
        walk, acc = self._nested(at) or self._walk(at), at.acc
        reads = (*reads, acc)

        def step(operation: str, run: _Run) -> Action:
            if operation == "gemm.reset":
                loops = {n: v for n, v in run.loops.items() if n[:3] not in ("src", "wgt")}
                return Action(operation, loops, (), (acc,), walk.uops, run.part)
            return Action(operation, run.loops, reads, (acc,), walk.uops, run.part)

        if not fresh or self.layer.starts:
            return [step(self.work.add, walk.whole)]
        actions = [step(operation, walk.head) for operation in self.work.first]
        return actions if walk.rest is None else [*actions, step(self.work.add, walk.rest)]

    def _inputs(self, chunk: Chunk, inp: Span) -> tuple[Span, ...]:
        """What a chunk reads of each plane in the scratchpad."""
        layer, ground = self.layer, self._ground(chunk, inp)
        length = row_length(layer.columns, chunk.columns.count)
        first = ground.corner + (chunk.stripe.start - chunk.rows.start) * ground.down
        skips = self.need.skips_rows and self.stay is None
        rows = box_rows(layer.rows, chunk.stripe.count, chunk.taps.count, skips)
        size = (rows - 1) * ground.length + length + layer.overhang
        starts = (first + plane * ground.plane for plane in self._numbers(self.blocks(chunk)))
        return tuple(Span("inp", start, start + size) for start in starts)

    def _numbers(self, blocks: Sequence[int]) -> list[int]:
        """Which of the planes in the scratchpad input blocks are, in order, from their first."""
        if self.stay is None:
            return [*range(len(blocks))]
        return [block - blocks[0] for block in blocks]

    def _ground(self, chunk: Chunk, inp: Span) -> _Ground:
        """Where a chunk's input lies, which a tile's load brought or an earlier layer left."""
        layer, need, stay = self.layer, self.need, self.stay
        if stay is None:
            length = row_length(layer.columns, chunk.columns.count)
            stride, dilation = layer.rows.stride, layer.rows.dilation
            if need.skips_rows:
                stride = dilation = 1
            plane = need.box_rows * need.box_columns
            return _Ground(inp.start, length, stride * length, dilation * length, plane)
        rows, columns = layer.rows, layer.columns
        corner = stay.at(
            chunk.batch * (stay.planes // layer.batches) + self.blocks(chunk)[0],
            chunk.rows.start * rows.stride + rows.origin + chunk.taps.start * rows.dilation,
            chunk.columns.start * columns.stride + columns.origin,
        )
        row = stay.row
        return _Ground(corner, row, rows.stride * row, rows.dilation * row, stay.plane)

    def _walk(self, at: _Bound) -> _Walk:
        """One micro-op for each tap, input block and output block; loops over the positions.

        Behind the first of each output block, all of one output block stand together: as long as
        steps stay with an accumulator, loads may write its neighbours.
        """
        chunk, zone, layer = at.chunk, at.zone, self.layer
        rows, columns = zone.rows.count, zone.columns.count
        ground = self._ground(chunk, at.inp)
        down, corner = ground.down, self._corner(at, ground)
        outputs = chunk.blocks.count
        uops = self._relative(chunk, zone.taps, zone.steps, at.plane, ground)
        uops = uops + np.array((at.first, corner, at.wgt.start), np.int32)
        loops = {
            "iter_out": rows,
            "iter_in": columns,
            "dst_factor_out": at.row if rows > 1 else 0,
            "dst_factor_in": 1 if columns > 1 else 0,
            "src_factor_out": at.every[0] * down if rows > 1 else 0,
            "src_factor_in": at.every[1] * layer.columns.stride if columns > 1 else 0,
        }
        count = len(uops)
        return _Walk(
            Uops(uops),
            _Run(loops, (0, outputs)),
            _Run(loops, (outputs, count)) if count > outputs else None,
            _Run(loops, (0, count)),
        )

    def _corner(self, at: _Bound, ground: _Ground) -> int:
        """Where the first tap of a zone's first position lies."""
        chunk, zone = at.chunk, at.zone
        return (
            ground.corner
            + (zone.rows.start - chunk.rows.start) * ground.down
            + (zone.columns.start - chunk.columns.start) * self.layer.columns.stride
        )

    def _relative(
        self, chunk: Chunk, taps: Range, steps: Range, positions: int, ground: _Ground
    ) -> np.ndarray:
        """The micro-ops of a walk from where its operands begin."""
        (planes, same), extent = self._planes(chunk.blocks, chunk.depth), self.weights(chunk)
        first = taps.start - chunk.taps.start
        extent = (*extent[:3], extent[3] // self.layer.weights.run)  # in steps
        idle = self._idle[
            chunk.blocks.start : chunk.blocks.stop,
            chunk.depth.start : chunk.depth.stop,
            taps.start : taps.stop,
            steps.start : steps.stop,
        ]
        some = idle.tobytes() if idle.any() else b""
        key = (same, first, taps.count, steps, positions, ground.row, extent, some)
        if key not in self._walks:
            layer = self.layer
            apart = layer.tap_lanes * layer.columns.dilation // layer.columns.lanes
            outputs, depth = planes.shape
            d, ky, kx, o = np.ix_(
                np.arange(depth),
                np.arange(first, first + taps.count),
                np.arange(steps.start, steps.stop),
                np.arange(outputs),
            )
            src = planes.T[:, None, None] * ground.plane
            src = src + ky * ground.row + kx * apart
            wgt = 0
            for i, n in zip((o, d, ky, kx), extent, strict=True):
                wgt = wgt * n + (i if n > 1 else 0)
            wgt = wgt * layer.weights.run
            columns = (np.broadcast_to(c, src.shape) for c in (o * positions, src, wgt))
            # The first of each output block, then all others of one, of the next, ... but not
            # those that would add nothing.
            by_step = np.stack([*columns], axis=-1).reshape(-1, outputs, 3)
            adds = ~idle.reshape(outputs, -1)[:, 1:]
            rest = by_step[1:].transpose(1, 0, 2)[adds]
            self._walks[key] = np.concatenate([by_step[0], rest]).astype(np.int32)
        return self._walks[key]

    def _planes(self, outputs: Range, depth: Range) -> tuple[np.ndarray, bytes]:
        """[output blocks, depth]: which of the planes in the scratchpad each takes; and a key."""
        if (outputs, depth) not in self._taken:
            reach = slice(depth.start, depth.stop)
            inputs = [row[reach] for row in self.layer.weights.inputs[outputs.start : outputs.stop]]
            blocks = sorted({b for row in inputs for b in row})
            order = dict(zip(blocks, self._numbers(blocks), strict=True))
            planes = np.array([[order[b] for b in row] for row in inputs])
            self._taken[outputs, depth] = planes, repr(planes.shape).encode() + planes.tobytes()
        return self._taken[outputs, depth]

    def _nested(self, at: _Bound) -> _Walk | None:
        """Loops over output blocks and input blocks instead of micro-ops; None unless there is one
        position and one tap."""
        chunk, zone, layer = at.chunk, at.zone, self.layer
        several = (zone.rows, zone.columns, chunk.taps, zone.steps)
        if max(r.count for r in several) > 1 or layer.column_steps > 1 or not layer.dense:
            return None
        if layer.weights.run > 1:
            return None
        if not consecutive(self.blocks(chunk)) or len(self.blocks(chunk)) < chunk.depth.count:
            return None
        outputs, depth, _, _ = self.weights(chunk)
        ground = self._ground(chunk, at.inp)
        pitch, weight = ground.plane, int(depth > 1)

        def run(first: int, trips: int) -> _Run:
            loops = {
                "iter_out": chunk.blocks.count,
                "iter_in": trips,
                "dst_factor_out": at.plane if chunk.blocks.count > 1 else 0,
                "src_factor_in": pitch if trips > 1 else 0,
                "wgt_factor_out": depth if outputs > 1 else 0,
                "wgt_factor_in": weight if trips > 1 else 0,
            }
            return _Run(loops, (first, first + 1))

        dst, src, wgt = at.first, self._corner(at, ground), at.wgt.start
        count = chunk.depth.count
        uops = ((dst, src, wgt), (dst, src + pitch, wgt + weight))
        rest = run(1, count - 1) if count > 1 else None
        return _Walk(Uops(uops[: min(count, 2)]), run(0, 1), rest, run(0, count))


class _Bound(NamedTuple):
    """A chunk in a zone, with what lies where; the zone's taps are those of the chunk.

    ``first`` of the accumulators ``acc`` is that of the first position; from there on it is ``row``
    to the next row and ``plane`` to the next output block. The zone's rows and columns are counted
    from their first on, and are ``every`` so many positions of the image.
    """

    chunk: Chunk
    zone: Zone
    inp: Span
    wgt: Span
    acc: Span
    first: int
    row: int
    plane: int
    every: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, chunk: Chunk, zone: Zone, inp: Span, wgt: Span, acc: Span) -> _Bound:
        """With dense accumulators."""
        row, rows = zone.columns.count, zone.rows.count
        return cls(chunk, zone, inp, wgt, acc, acc.start, row, rows * row)


class _Ground(NamedTuple):
    """How the input of a chunk lies: where the first tap of its tile's first position does, how
    many elements a row has, how far it is to the next row of positions, of taps, to the next plane.
    """

    corner: int
    length: int
    down: int
    row: int
    plane: int


class _Run(NamedTuple):
    """Loops, and the micro-ops in them."""

    loops: dict[str, int]
    part: tuple[int, int]


class _Walk(NamedTuple):
    """A sequence of micro-ops, and how to run the first of each accumulator, the others, all."""

    uops: Uops
    head: _Run
    rest: _Run | None
    whole: _Run
