"""The schedule of a contraction: what its chunks load and store, and where that lies."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from ..isa.config import AcceleratorConfig
from ..isa.nest import Expr
from .boxes import Mover, targets
from .chunks import Chunk, chunks
from .emit import Action, Span
from .image import Image
from .schedule import Bases, Range, Rings, Slots, Stage, part
from .steps import Steps
from .tail import TailSteps
from .tiling import Extents, Layer, Tile, blocks_of, extents
from .work import Contraction

ON_CHIP = Span("inp", 0, 0)
"""The slot of a tile whose input is on chip as a whole: none."""
WEIGHTS_AT_ONCE = 8
"""Elements of one load, so that others need not wait long for it."""


class ContractionSchedule:
    """A contraction as actions.

    Parameters
    ----------
    work : Contraction
        What to do.
    layer, tile : Layer, Tile
        Its extents and how it is cut.
    records : int
        Elements of parameters, zone by zone, one for each if all channels share them; behind them
        those of ``parameters``.
    parameters : sequence
        What instructions on accumulators besides the first one have.
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
        parameters: Sequence[Mapping[str, Expr]],
        bases: Bases,
        config: AcceleratorConfig,
        rings: Rings,
    ):
        self.work, self.layer, self.tile, self.bases = work, layer, tile, bases
        self.records, self.config = records, config
        self.per_block = (records - len(parameters)) // layer.variants
        self.mover = Mover(config)
        self.need = extents(layer, tile)
        self.stay = bases.stays.get(work.image.tensor)
        self.steps = Steps(work, layer, self.need, self.stay)
        order = list(chunks(layer, tile, work.kernel.output in bases.stays))
        self._channel_tiles = len({c.blocks for c in order})
        self._image_tiles = len({(c.batch, c.rows, c.columns) for c in order})
        self.slots = {
            "wgt": Slots("wgt", self.need.wgt,
                         self._wanted("wgt", {self._wgt_key(c) for c in order}, rings), rings),
            "acc": Slots("acc", self.need.acc, 2, rings),
        }  # fmt: skip
        if self.stay is None:
            wanted = self._wanted("inp", {self._inp_key(c) for c in order}, rings)
            self.slots["inp"] = Slots("inp", self.need.inp, wanted, rings)
        self.resident = records if records <= config.qnt_depth else 0
        if records and not self.resident:
            size = tile.outputs * layer.variants
            self.slots["qnt"] = Slots("qnt", size, 2, rings)
        self._first_record = rings.take("qnt", records) if self.resident else 0
        self.tail: TailSteps | None = None
        if work.tail is not None:
            assert self.resident  # no tile fits otherwise
            first = self._first_record + records - len(parameters)
            self.tail = TailSteps(work, parameters, first, self.need.out)
        self._acc: Span | None = None
        self._loads_input = True
        self.stages = [self._stage(chunk) for chunk in order]
        turns = list(dict.fromkeys((c.batch, c.rows) for c in order))
        for stage, chunk in zip(self.stages, order, strict=True):
            stage.turn = turns.index((chunk.batch, chunk.rows))
        stay = bases.stays.get(work.kernel.output)
        self.mover.surround(self.stages, stay, rings.padding)
        if self.resident:
            span = Span("qnt", self._first_record, self._first_record + records)
            self.stages[0].loads[:0] = self.mover.load(
                self.mover.records, span, bases.records, (1, records), 0
            )

    def _wanted(self, memory: str, keys: set[Hashable], rings: Rings) -> int:
        """All that there are if they fit, else two: what is visited again stays or is reloaded."""
        size = getattr(self.need, memory)
        depth = rings.depth(memory)
        others = self._channel_tiles if memory == "inp" else self._image_tiles
        far_apart = self.tile.weights_outer == (memory == "inp")
        visited_again = others > 1 and far_apart
        if len(keys) * size <= depth and visited_again:
            return len(keys)
        reductions = blocks_of(self.layer.depth, self.tile.depth) * blocks_of(
            self.layer.rows.taps, self.tile.taps
        )
        return max(2, min(len(keys), reductions + 1))

    def _inp_key(self, chunk: Chunk) -> Hashable:
        return chunk.batch, chunk.rows, chunk.columns, chunk.taps, self.steps.blocks(chunk)

    def _wgt_key(self, chunk: Chunk) -> Hashable:
        strides = self.layer.weights.strides
        ranges = (chunk.blocks, chunk.depth, chunk.taps)
        return tuple(r if s else None for r, s in zip(ranges, strides[:3], strict=True))

    def _stage(self, chunk: Chunk) -> Stage:
        stage = Stage()
        inp = ON_CHIP if self.stay is not None else self._input(chunk, stage)
        wgt, known = self.slots["wgt"].take(self._wgt_key(chunk))
        if not known:
            stage.loads += self._weight_loads(chunk, wgt)
        if chunk.first:
            key = chunk.batch, chunk.blocks, chunk.rows, chunk.columns
            self._acc, _ = self.slots["acc"].take(key)
            if self.tail is not None:
                self._acc = part(self._acc, self.tail.sums, self.need.out)
            if self.layer.starts:
                at, count = self.bases.starts + chunk.blocks.start, chunk.blocks.count
                target = part(self._acc, 0, count)
                stage.loads += self.mover.load(self.mover.starts, target, at, (1, count), 0)
        assert self._acc is not None
        row = chunk.blocks.count * chunk.columns.count
        first = chunk.stripe.start - chunk.rows.start
        acc = part(self._acc, first * row, chunk.stripe.count * row)
        stage.steps += self.steps.of(chunk, inp, wgt, acc)
        if chunk.last:
            self._end(chunk, stage, acc)
        return stage

    def _input(self, chunk: Chunk, stage: Stage) -> Span:
        """The slot of a chunk's input, which is loaded unless it is there."""
        inp, known = self.slots["inp"].take(self._inp_key(chunk))
        image = self.layer.image
        (height, width), channels = image.plane, image.shape[3]
        if chunk.stripe.start == chunk.rows.start:
            self._loads_input = not known
        if self._loads_input:
            planes = blocks_of(channels, self.config.block)
            plane = self.bases.tensors[image.tensor] + chunk.batch * planes * height * width
            stage.loads += self.mover.image(
                image, plane, self.steps.blocks(chunk), chunk.rows, chunk.columns, chunk.taps,
                self.need, inp, chunk.stripe,
            )  # fmt: skip
        return inp

    # --- weights -------------------------------------------------------------------------------

    def _weight_loads(self, chunk: Chunk, slot: Span) -> list[Action]:
        outputs, depth, taps, columns = self.steps.weights(chunk)
        strides, shape = self.layer.weights.strides, self.layer.weights.shape
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

    def _end(self, chunk: Chunk, stage: Stage, acc: Span) -> None:
        """Stores the tile, zone by zone."""
        records, each = self._records(chunk, stage)
        step = 1 if self.per_block > 1 else 0
        kernel = self.work.kernel
        _, height, width, channels = kernel.shapes[kernel.output]
        planes = blocks_of(channels, self.config.block)
        base, stay = self.bases.tensors[kernel.output], self.bases.stays.get(kernel.output)
        zones = self.steps.zones(chunk, acc)
        if self.work.pool is not None:
            steps, windows, there = self.steps.greatest(chunk, acc)
            stage.steps += steps
            zones = [(windows, there)]
        for zone, sums in zones:
            record = records
            if records is not None:
                record = part(records, zone.record * each, 1 + (chunk.blocks.count - 1) * step)
            plane = chunk.batch * planes + chunk.blocks.start
            first = plane, zone.rows.start, zone.columns.start
            size = chunk.blocks.count, zone.rows.count, zone.columns.count
            source, stored = sums, step
            if self.tail is not None:
                assert record is not None
                for region, image in self.tail.images.items():
                    target = self.tail.of(sums, region)
                    stage.loads += self._loaded(image, first, size, target)
                stage.steps += self.tail.steps(sums, size, record, step)
                source, record, stored = *self.tail.result(sums), 0
            for there in targets(self.work.storing, base, (height, width), stay):
                stage.stores += self.mover.tile(there, first, size, source, record, stored)

    def _loaded(
        self, image: Image, first: tuple[int, int, int], size: tuple[int, int, int], target: Span
    ) -> list[Action]:
        """What results meet of another activation, into accumulators."""
        (plane, row, column), (planes, rows, columns) = first, size
        return self.mover.image(
            image, self.bases.tensors[image.tensor], range(plane, plane + planes),
            Range(row, rows), Range(column, columns), Range(0, 1),
            Extents(rows, columns, False, planes, 0, 0, 0, 0), target,
        )  # fmt: skip

    def _records(self, chunk: Chunk, stage: Stage) -> tuple[Span | None, int]:
        """Where the parameters of the chunk's first output block lie, and how far it is from those
        of one zone to those of the next."""
        if not self.records:
            return None, 0
        first = chunk.blocks.start if self.per_block > 1 else 0
        if self.resident:
            at = self._first_record + first
            return Span("qnt", at, self._first_record + self.records), self.per_block
        count = chunk.blocks.count
        span, known = self.slots["qnt"].take(chunk.blocks)
        if not known:
            size = (self.layer.variants, count)
            stage.loads += self.mover.load(
                self.mover.records, span, self.bases.records + first, size, self.per_block
            )
        return span, count
