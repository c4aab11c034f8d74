"""The schedule of a contraction: tiles of its output, chunks of its reduction."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from ..isa.config import AcceleratorConfig
from .boxes import Mover
from .emit import Action, Span, Uops
from .schedule import Bases, Range, Rings, Slots, Stage, part
from .tiling import Layer, Tile, blocks_of, box_rows, extents, row_length
from .work import Contraction

WEIGHTS_AT_ONCE = 8
"""Elements of one load, so that others need not wait long for it."""
STRIPES = 4
"""Of a tile that is neither the first nor the last."""
STRIPE = 64
"""Positions of the shortest stripe, so that its micro-ops are few beside its steps."""


@dataclass(frozen=True)
class _Chunk:
    """One stage of a contraction: a tile of the output, or some rows of it, and a chunk of its
    reduction. ``rows`` are the tile's, ``stripe`` those of this stage, counted from the tile's.
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


def _chunks(layer: Layer, tile: Tile) -> Iterator[_Chunk]:
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
        for i, (depth, taps) in enumerate(reductions):
            stripes = [Range(0, rows.count)]
            if len(reductions) == 1 and rows.count * columns.count >= 2 * STRIPE:
                least = blocks_of(STRIPE, columns.count)
                stripes = _stripes(rows.count, least, number == 0, number == len(outer) - 1)
            last = i == len(reductions) - 1
            for stripe in stripes:
                yield _Chunk(batch, blocks, rows, stripe, columns, depth, taps, i == 0, last)


def _stripes(rows: int, least: int, starts: bool, ends: bool) -> list[Range]:
    """A tile's rows in stripes of ``least`` and more, :data:`STRIPES` of them if there is a choice.

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


class ContractionSchedule:
    """A contraction as actions.

    Parameters
    ----------
    work : Contraction
        What to do.
    layer, tile : Layer, Tile
        Its extents and how it is cut.
    records : int
        Elements of parameters; 1 if all channels share them.
    bases : Bases
        Where everything lies.
    config : AcceleratorConfig
        The hardware.
    rings : Rings
        Where in the scratchpads there is room.

    Attributes
    ----------
    stages : list of Stage
        The actions.
    """

    def __init__(
        self,
        work: Contraction,
        layer: Layer,
        tile: Tile,
        records: int,
        bases: Bases,
        config: AcceleratorConfig,
        rings: Rings,
    ):
        self.work, self.layer, self.tile, self.bases = work, layer, tile, bases
        self.records, self.config = records, config
        self.mover = Mover(config)
        self.need = extents(layer, tile)
        chunks = list(_chunks(layer, tile))
        self._channel_tiles = len({c.blocks for c in chunks})
        self._image_tiles = len({(c.batch, c.rows, c.columns) for c in chunks})
        self.slots = {
            "inp": Slots("inp", config.inp_depth, self.need.inp,
                         self._wanted("inp", {self._inp_key(c) for c in chunks}), rings),
            "wgt": Slots("wgt", config.wgt_depth, self.need.wgt,
                         self._wanted("wgt", {self._wgt_key(c) for c in chunks}), rings),
            "acc": Slots("acc", config.acc_depth, self.need.acc, 2, rings),
        }  # fmt: skip
        self.resident = records if records <= config.qnt_depth else 0
        if records and not self.resident:
            self.slots["qnt"] = Slots("qnt", config.qnt_depth, tile.outputs, 2, rings)
        self._first_record = rings.take("qnt", records) if self.resident else 0
        self._acc: Span | None = None
        self._loads_input = True
        self.stages = [self._stage(chunk) for chunk in chunks]
        if self.resident:
            span = Span("qnt", self._first_record, self._first_record + records)
            self.stages[0].loads[:0] = self._record_load(span, 0, records)

    def _wanted(self, memory: str, keys: set[Hashable]) -> int:
        """All that there are if they fit, else two: what is visited again stays or is reloaded."""
        size = getattr(self.need, memory)
        depth = getattr(self.config, f"{memory}_depth")
        others = self._channel_tiles if memory == "inp" else self._image_tiles
        far_apart = self.tile.weights_outer == (memory == "inp")
        visited_again = others > 1 and far_apart
        if len(keys) * size <= depth and visited_again:
            return len(keys)
        reductions = blocks_of(self.layer.depth, self.tile.depth) * blocks_of(
            self.layer.rows.taps, self.tile.taps
        )
        return max(2, min(len(keys), reductions + 1))

    def _blocks(self, chunk: _Chunk) -> tuple[int, ...]:
        """The input blocks of a chunk."""
        reach = slice(chunk.depth.start, chunk.depth.start + chunk.depth.count)
        inputs = self.layer.weights.inputs
        outputs = range(chunk.blocks.start, chunk.blocks.start + chunk.blocks.count)
        return tuple(sorted({b for o in outputs for b in inputs[o][reach]}))

    def _inp_key(self, chunk: _Chunk) -> Hashable:
        return chunk.batch, chunk.rows, chunk.columns, chunk.taps, self._blocks(chunk)

    def _wgt_key(self, chunk: _Chunk) -> Hashable:
        strides = self.layer.weights.strides
        ranges = (chunk.blocks, chunk.depth, chunk.taps)
        return tuple(r if s else None for r, s in zip(ranges, strides[:3], strict=True))

    def _record_load(self, span: Span, first: int, count: int) -> list[Action]:
        source = self.bases.records + first
        return self.mover.load(self.mover.records, part(span, 0, count), source, (1, count), 0)

    def _stage(self, chunk: _Chunk) -> Stage:
        stage = Stage()
        inp, known = self.slots["inp"].take(self._inp_key(chunk))
        image = self.layer.image
        _, height, width, channels = image.shape
        if chunk.stripe.start == 0:
            self._loads_input = not known
        if self._loads_input:
            planes = blocks_of(channels, self.config.block)
            plane = self.bases.tensors[image.tensor] + chunk.batch * planes * height * width
            stage.loads += self.mover.image(
                image, plane, self._blocks(chunk), chunk.rows, chunk.columns, chunk.taps,
                self.need, inp, chunk.stripe,
            )  # fmt: skip
        wgt, known = self.slots["wgt"].take(self._wgt_key(chunk))
        if not known:
            stage.loads += self._weight_loads(chunk, wgt)
        if chunk.first:
            key = chunk.batch, chunk.blocks, chunk.rows, chunk.columns
            self._acc, _ = self.slots["acc"].take(key)
        assert self._acc is not None
        row = chunk.blocks.count * chunk.columns.count
        acc = part(self._acc, chunk.stripe.start * row, chunk.stripe.count * row)
        stage.steps += self._steps(chunk, inp, wgt, acc)
        if chunk.last:
            self._end(chunk, stage, acc)
        return stage

    # --- weights -------------------------------------------------------------------------------

    def _extents(self, chunk: _Chunk) -> tuple[int, int, int, int]:
        """Of the chunk's weights in the scratchpad, dense."""
        shape = self.layer.weights.data.shape
        counts = (chunk.blocks.count, chunk.depth.count, chunk.taps.count, shape[3])
        kept = [min(c, extent) for c, extent in zip(counts, shape, strict=False)]
        return kept[0], kept[1], kept[2], kept[3]

    def _weight_loads(self, chunk: _Chunk, slot: Span) -> list[Action]:
        outputs, depth, taps, columns = self._extents(chunk)
        strides, shape = self.layer.weights.strides, self.layer.weights.data.shape
        start = self.bases.weights + (
            chunk.blocks.start * strides[0]
            + chunk.depth.start * strides[1]
            + chunk.taps.start * strides[2]
        )
        load, operation = self.mover.load, self.work.load_weights
        run = taps * columns
        if taps == shape[2]:
            run *= depth
            if depth == shape[1]:
                return [
                    action
                    for piece in Range.cut(outputs * run, WEIGHTS_AT_ONCE)
                    for action in load(
                        operation, part(slot, piece.start, piece.count), start + piece.start,
                        (1, piece.count), 0,
                    )
                ]  # fmt: skip
            span = part(slot, 0, outputs * run)
            return self._rows(span, start, outputs, run, strides[0])
        actions: list[Action] = []
        for output in range(outputs):
            span = part(slot, output * depth * run, depth * run)
            actions += self._rows(span, start + output * strides[0], depth, run, strides[1])
        return actions

    def _rows(self, span: Span, start: int, rows: int, run: int, stride: int) -> list[Action]:
        """``rows`` runs of weights; one by one where the distance is too far for one load."""
        operation = self.work.load_weights
        if stride <= self.mover.limit(operation, "x_stride"):
            return self.mover.load(operation, span, start, (rows, run), stride)
        return [
            action
            for i in range(rows)
            for action in self.mover.load(
                operation, part(span, i * run, run), start + i * stride, (1, run), 0
            )
        ]

    # --- steps ---------------------------------------------------------------------------------

    def _uops(self, chunk: _Chunk, inp: Span, wgt: Span, acc: Span) -> Uops:
        """One micro-op for each tap, input block and output block; the first of each first.

        Behind those, all of one output block stand together: as long as steps stay with an
        accumulator, loads may write its neighbours.
        """
        layer, need = self.layer, self.need
        planes = self._blocks(chunk)
        extent = self._extents(chunk)
        positions = chunk.stripe.count * chunk.columns.count
        apart = layer.tap_lanes * layer.columns.dilation
        length = row_length(layer.columns, chunk.columns.count)
        row = length * (1 if need.skips_rows else layer.rows.dilation)
        first = chunk.stripe.start * length * (1 if need.skips_rows else layer.rows.stride)
        uops: list[tuple[int, int, int]] = []
        for d in range(chunk.depth.count):
            for ky in range(chunk.taps.count):
                for kx in range(layer.column_steps):
                    for o in range(chunk.blocks.count):
                        block = layer.weights.inputs[chunk.blocks.start + o][chunk.depth.start + d]
                        plane = planes.index(block) * need.box_rows * need.box_columns
                        tap = first + ky * row + kx * apart
                        at = 0
                        for i, n in zip((o, d, ky, kx), extent, strict=True):
                            at = at * n + (i if n > 1 else 0)
                        uops.append((acc.start + o * positions, inp.start + plane + tap,
                                     wgt.start + at))  # fmt: skip
        outputs = chunk.blocks.count
        rest = [uop for o in range(outputs) for uop in uops[outputs + o :: outputs]]
        return (*uops[:outputs], *rest)

    def _steps(self, chunk: _Chunk, inp: Span, wgt: Span, acc: Span) -> list[Action]:
        uops = self._uops(chunk, inp, wgt, acc)
        rows, columns = chunk.stripe.count, chunk.columns.count
        stride = 1 if self.need.skips_rows else self.layer.rows.stride
        loops = {"iter_out": rows, "iter_in": columns}
        dst = {"dst_factor_out": columns if rows > 1 else 0,
               "dst_factor_in": 1 if columns > 1 else 0}  # fmt: skip
        src = {
            "src_factor_out": stride * row_length(self.layer.columns, columns) if rows > 1 else 0,
            "src_factor_in": self.layer.columns.stride if columns > 1 else 0,
        }
        outputs = chunk.blocks.count
        target = part(acc, 0, outputs * rows * columns)
        weights = part(wgt, 0, math.prod(self._extents(chunk)))
        inputs = self._inputs(chunk, inp)

        def step(operation: str, bgn: int, end: int) -> Action:
            reads = () if operation == "gemm.reset" else (*inputs, weights, target)
            operands = loops | dst if operation == "gemm.reset" else loops | dst | src
            return Action(operation, operands, reads, (target,), uops, (bgn, end))

        if not chunk.first:
            return [step(self.work.add, 0, len(uops))]
        actions = [step(operation, 0, outputs) for operation in self.work.first]
        if len(uops) > outputs:
            actions.append(step(self.work.add, outputs, len(uops)))
        return actions

    def _inputs(self, chunk: _Chunk, inp: Span) -> tuple[Span, ...]:
        """What the steps read of each plane in the scratchpad."""
        need = self.need
        stride = 1 if need.skips_rows else self.layer.rows.stride
        length = row_length(self.layer.columns, chunk.columns.count)
        first = chunk.stripe.start * stride * length
        rows = box_rows(self.layer.rows, chunk.stripe.count, chunk.taps.count, need.skips_rows)
        size = rows * length + self.layer.overhang
        pitch = need.box_rows * need.box_columns
        return tuple(part(inp, i * pitch + first, size) for i in range(len(self._blocks(chunk))))

    def _end(self, chunk: _Chunk, stage: Stage, acc: Span) -> None:
        """Stores the tile."""
        record, record_step = None, 0
        if self.resident:
            record_step = 1 if self.records > 1 else 0
            first = self._first_record + (chunk.blocks.start if record_step else 0)
            record = Span("qnt", first, first + (chunk.blocks.count if record_step else 1))
        elif self.records:
            record, known = self.slots["qnt"].take(chunk.blocks)
            record_step = 1
            if not known:
                count = chunk.blocks.count
                stage.loads += self._record_load(record, chunk.blocks.start, count)
        kernel = self.work.kernel
        shape = kernel.shapes[kernel.output]
        planes = blocks_of(shape[3], self.config.block)
        plane = self.bases.tensors[kernel.output] + chunk.batch * planes * shape[1] * shape[2]
        rows = Range(chunk.rows.start + chunk.stripe.start, chunk.stripe.count)
        stage.stores += self.mover.tile(
            self.work.ending.operation, acc, plane, shape[1:3], chunk.blocks, rows,
            chunk.columns, record, record_step,
        )  # fmt: skip
