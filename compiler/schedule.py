"""The order of loads, steps and stores: a tensorized operator as actions on the scratchpads.

Work proceeds in stages. A stage's loads stand before the steps of the stage before it, so that
they run at the same time; the tokens that this needs are put in later (:mod:`.emit`). Scratchpads
are divided into slots of a tile each: with two, one is filled while the other is used; with as
many as there are tiles, nothing is ever loaded twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from .emit import Action, Span, Uops
from .image import Image
from .tensorize import Contraction
from .tiling import Extents, Layer, Tile, blocks_of, extents, row_length


@dataclass(frozen=True)
class Bases:
    """Where a step's operands begin in DRAM, in elements of their memory.

    ``tensors`` has every activation; ``weights`` and ``records`` the constants.
    """

    tensors: Mapping[str, int]
    records: int
    weights: int = 0


@dataclass
class Stage:
    """What belongs to one tile, or one chunk of its reduction."""

    loads: list[Action] = field(default_factory=list[Action])
    steps: list[Action] = field(default_factory=list[Action])
    stores: list[Action] = field(default_factory=list[Action])


def in_order(stages: Sequence[Stage]) -> list[Action]:
    """The actions of all stages; loads one stage early where they overwrite nothing needed."""
    actions: list[Action] = list(stages[0].loads)
    for stage, following in zip(stages, [*stages[1:], Stage()], strict=True):
        used = [span for action in (*stage.steps, *stage.stores) for span in action.reads]
        used += [span for action in stage.steps for span in action.writes]
        early = not any(
            span.overlaps(other)
            for action in following.loads
            for span in action.writes
            for other in used
        )
        if early:
            actions += following.loads
        actions += stage.steps
        actions += stage.stores
        if not early:
            actions += following.loads
    return actions


class Slots:
    """A scratchpad in equal parts, each holding what was put there last."""

    def __init__(self, memory: str, depth: int, size: int, wanted: int):
        self.memory, self.size = memory, size
        self.count = max(1, min(depth // size, wanted))
        self._held: dict[Hashable, int] = {}

    def take(self, key: Hashable) -> tuple[Span, bool]:
        """The slot for ``key``, and whether it holds it already; else the oldest is given up."""
        known = key in self._held
        if known:
            slot = self._held.pop(key)
        elif len(self._held) < self.count:
            slot = len(self._held)
        else:
            slot = self._held.pop(next(iter(self._held)))
        self._held[key] = slot
        return Span(self.memory, slot * self.size, (slot + 1) * self.size), known


def part(span: Span, first: int, count: int) -> Span:
    """``count`` elements of ``span`` from its element ``first`` on."""
    assert span.start + first + count <= span.stop
    return Span(span.memory, span.start + first, span.start + first + count)


@dataclass(frozen=True)
class Range:
    """Positions ``[start, start + count)``."""

    start: int
    count: int

    @staticmethod
    def cut(extent: int, size: int) -> list[Range]:
        """``extent`` in ranges of ``size``, the last one shorter."""
        return [Range(at, min(size, extent - at)) for at in range(0, extent, size)]


# --- moving boxes --------------------------------------------------------------------------------


class Mover:
    """Loads and stores that keep to the fields of their instructions."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.instructions = InstructionSet(config)

    def limit(self, operation: str, name: str) -> int:
        """The greatest value of a field."""
        format = self.instructions.operations[operation].format
        return self.instructions.layouts[format.opcode].by_name[name].greatest

    def load(
        self,
        operation: str,
        target: Span,
        source: int,
        size: tuple[int, int],
        stride: int,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        pad: int = 0,
    ) -> list[Action]:
        """A box of ``size`` (rows, columns) at DRAM element ``source``, padded all around.

        ``pads`` are top, bottom, left, right. A run too long for one instruction takes several.
        """
        rows, columns = size
        if not any(pads) and rows > 1 and stride == columns:
            rows, columns = 1, rows * columns
        widest = self.limit(operation, "x_size")
        if not any(pads) and rows == 1 and columns > widest:
            head = self.load(operation, part(target, 0, widest), source, (1, widest), 0)
            rest = part(target, widest, columns - widest)
            return head + self.load(operation, rest, source + widest, (1, columns - widest), 0)
        operands = {
            "sram_base": target.start,
            "dram_base": source,
            "y_size": rows,
            "x_size": columns,
            "x_stride": stride if rows > 1 else 0,
        }
        operands |= dict(zip(("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"), pads, strict=True))
        if pad:
            operands["pad_value"] = pad
        filled = (pads[0] + rows + pads[1]) * (pads[2] + columns + pads[3])
        return [Action(operation, operands, (), (part(target, 0, filled),))]

    def image(
        self,
        image: Image,
        plane: int,
        planes: Sequence[int],
        rows: Range,
        columns: Range,
        taps: Range,
        need: Extents,
        slot: Span,
    ) -> list[Action]:
        """The input of a tile: for each channel block the box that its windows cover.

        Parameters
        ----------
        image : Image
            The activation.
        plane : int
            DRAM element at which its first channel block (of this batch) begins.
        planes : sequence of int
            The channel blocks to load, into equal parts of ``slot``.
        rows, columns, taps : Range
            Output rows and columns, and the rows of taps.
        need : Extents
            Of a full tile.
        slot : Span
            Where to.
        """
        _, height, width, _ = image.shape
        step = image.rows.stride if need.skips_rows else 1
        count = (
            rows.count
            if need.skips_rows
            else ((rows.count - 1) * image.rows.stride + (taps.count - 1) * image.rows.dilation + 1)
        )
        first = rows.start * image.rows.stride + taps.start * image.rows.dilation
        top, size_y, bottom, y = _clip(first + image.rows.origin, count, step, height)
        span = row_length(image.columns, columns.count)
        start = columns.start * image.columns.stride + image.columns.origin
        left, size_x, right, x = _clip(start, span, 1, width)
        pads = (top, bottom, left, right)
        pitch = need.box_rows * need.box_columns
        stride = step * width
        whole = size_x == width and not any(pads) and stride == width
        together = whole and size_y * width == pitch and len(planes) > 1
        if (
            together
            and _consecutive(planes)
            and height * width <= self.limit(image.load, "x_stride")
        ):
            source = plane + planes[0] * height * width + y * width
            size = (len(planes), pitch)
            filled = part(slot, 0, len(planes) * pitch)
            if pitch <= self.limit(image.load, "x_size"):
                return self.load(image.load, filled, source, size, height * width)
        actions: list[Action] = []
        for i, block in enumerate(planes):
            source = plane + block * height * width + y * width + x
            target = part(slot, i * pitch, pitch)
            box = (size_y, size_x)
            actions += self.load(image.load, target, source, box, stride, pads, image.pad)
        return actions

    def store(
        self,
        operation: str,
        source: Span,
        target: int,
        size: tuple[int, int],
        stride: int,
        record: Span | None,
        record_step: int = 0,
    ) -> Action:
        """Rows of accumulators, dense from ``source`` on, to DRAM."""
        rows, columns = size
        operands = {
            "sram_base": source.start,
            "dram_base": target,
            "y_size": rows,
            "x_size": columns,
            "x_stride": stride if rows > 1 else 0,
        }
        reads = [part(source, 0, rows * columns)]
        if record is not None:
            operands |= {"qnt_base": record.start, "qnt_step": record_step}
            reads.append(part(record, 0, 1 + (rows - 1) * record_step))
        return Action(operation, operands, tuple(reads))

    def tile(
        self,
        operation: str,
        source: Span,
        plane: int,
        shape: tuple[int, int],
        blocks: Range,
        rows: Range,
        columns: Range,
        record: Span | None,
        record_step: int,
    ) -> list[Action]:
        """A tile of channel blocks, rows and columns, dense in ``source``, into its tensor."""
        height, width = shape
        positions = rows.count * columns.count
        corner = plane + blocks.start * height * width + rows.start * width + columns.start
        if (
            columns.count == width
            and positions <= self.limit(operation, "x_size")
            and blocks.count <= self.limit(operation, "y_size")
            and (height * width <= self.limit(operation, "x_stride") or blocks.count == 1)
        ):
            size = (blocks.count, positions)
            return [
                self.store(operation, source, corner, size, height * width, record, record_step)
            ]
        return [
            self.store(
                operation,
                part(source, block * positions, positions),
                corner + block * height * width,
                (rows.count, columns.count),
                width,
                None if record is None else part(record, block * record_step, 1),
            )
            for block in range(blocks.count)
        ]


def _clip(first: int, count: int, step: int, extent: int) -> tuple[int, int, int, int]:
    """Positions ``first, first + step, ...``: before, inside and after ``[0, extent)``, and the
    first inside."""
    before = min(count, max(0, -(first // step))) if first < 0 else 0
    last_inside = (extent - 1 - first) // step
    after = min(count - before, max(0, count - 1 - last_inside))
    inside = count - before - after
    return before, inside, after, first + before * step if inside else 0


def _consecutive(numbers: Sequence[int]) -> bool:
    return all(b == a + 1 for a, b in pairwise(numbers))


# --- contractions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    """One stage of a contraction: a tile of the output and a chunk of its reduction."""

    batch: int
    blocks: Range
    rows: Range
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
    for blocks, (batch, rows, columns) in outer:
        for i, (depth, taps) in enumerate(reductions):
            last = i == len(reductions) - 1
            yield _Chunk(batch, blocks, rows, columns, depth, taps, i == 0, last)


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
    """

    def __init__(
        self,
        work: Contraction,
        layer: Layer,
        tile: Tile,
        records: int,
        bases: Bases,
        config: AcceleratorConfig,
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
                         self._wanted("inp", {self._inp_key(c) for c in chunks})),
            "wgt": Slots("wgt", config.wgt_depth, self.need.wgt,
                         self._wanted("wgt", {self._wgt_key(c) for c in chunks})),
            "acc": Slots("acc", config.acc_depth, self.need.acc, 2),
        }  # fmt: skip
        self.resident = records if records <= config.qnt_depth else 0
        if records and not self.resident:
            self.slots["qnt"] = Slots("qnt", config.qnt_depth, tile.outputs, 2)
        self._acc: Span | None = None
        self.stages = [self._stage(chunk) for chunk in chunks]
        if self.resident:
            span = Span("qnt", 0, records)
            self.stages[0].loads[:0] = self._record_load(span, 0, records)

    def actions(self) -> list[Action]:
        """Everything, in order."""
        return in_order(self.stages)

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
        return self.mover.load("load.qnt", part(span, 0, count), source, (1, count), 0)

    def _stage(self, chunk: _Chunk) -> Stage:
        stage = Stage()
        inp, known = self.slots["inp"].take(self._inp_key(chunk))
        image = self.layer.image
        _, height, width, channels = image.shape
        if not known:
            planes = blocks_of(channels, self.config.block)
            plane = self.bases.tensors[image.tensor] + chunk.batch * planes * height * width
            stage.loads += self.mover.image(
                image, plane, self._blocks(chunk), chunk.rows, chunk.columns, chunk.taps,
                self.need, inp,
            )  # fmt: skip
        wgt, known = self.slots["wgt"].take(self._wgt_key(chunk))
        if not known:
            stage.loads += self._weight_loads(chunk, wgt)
        if chunk.first:
            key = chunk.batch, chunk.blocks, chunk.rows, chunk.columns
            self._acc, _ = self.slots["acc"].take(key)
        assert self._acc is not None
        stage.steps += self._steps(chunk, inp, wgt, self._acc)
        if chunk.last:
            self._end(chunk, stage, self._acc)
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
                span = part(slot, 0, outputs * run)
                return load(operation, span, start, (1, outputs * run), 0)
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
        """One micro-op for each tap, input block and output block; the first of each first."""
        layer, need = self.layer, self.need
        planes = self._blocks(chunk)
        extent = self._extents(chunk)
        positions = chunk.rows.count * chunk.columns.count
        length = row_length(layer.columns, chunk.columns.count)
        row = length * (1 if need.skips_rows else layer.rows.dilation)
        uops: list[tuple[int, int, int]] = []
        for d in range(chunk.depth.count):
            for ky in range(chunk.taps.count):
                for kx in range(layer.columns.taps):
                    for o in range(chunk.blocks.count):
                        block = layer.weights.inputs[chunk.blocks.start + o][chunk.depth.start + d]
                        plane = planes.index(block) * need.box_rows * need.box_columns
                        tap = ky * row + kx * layer.columns.dilation
                        at = 0
                        for i, n in zip((o, d, ky, kx), extent, strict=True):
                            at = at * n + (i if n > 1 else 0)
                        uops.append((acc.start + o * positions, inp.start + plane + tap,
                                     wgt.start + at))  # fmt: skip
        return tuple(uops)

    def _steps(self, chunk: _Chunk, inp: Span, wgt: Span, acc: Span) -> list[Action]:
        uops = self._uops(chunk, inp, wgt, acc)
        rows, columns = chunk.rows.count, chunk.columns.count
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
        weights = part(wgt, 0, _product(self._extents(chunk)))
        inputs = part(inp, 0, len(self._blocks(chunk)) * self.need.box_rows * self.need.box_columns)

        def step(operation: str, bgn: int, end: int) -> Action:
            reads = () if operation == "gemm.reset" else (inputs, weights, target)
            operands = loops | dst if operation == "gemm.reset" else loops | dst | src
            return Action(operation, operands, reads, (target,), uops, (bgn, end))

        if not chunk.first:
            return [step(self.work.add, 0, len(uops))]
        actions = [step(operation, 0, outputs) for operation in self.work.first]
        if len(uops) > outputs:
            actions.append(step(self.work.add, outputs, len(uops)))
        return actions

    def _end(self, chunk: _Chunk, stage: Stage, acc: Span) -> None:
        """Stores the tile."""
        record, record_step = None, 0
        if self.resident:
            record_step = 1 if self.records > 1 else 0
            first = chunk.blocks.start if record_step else 0
            record = Span("qnt", first, first + (chunk.blocks.count if record_step else 1))
        elif self.records:
            record, known = self.slots["qnt"].take(chunk.blocks)
            record_step = 1
            if not known:
                count = chunk.blocks.count
                stage.steps += self._record_load(record, chunk.blocks.start, count)
        kernel = self.work.kernel
        shape = kernel.shapes[kernel.output]
        planes = blocks_of(shape[3], self.config.block)
        plane = self.bases.tensors[kernel.output] + chunk.batch * planes * shape[1] * shape[2]
        stage.stores += self.mover.tile(
            self.work.ending.operation, acc, plane, shape[1:3], chunk.blocks, chunk.rows,
            chunk.columns, record, record_step,
        )  # fmt: skip


def _product(numbers: Sequence[int]) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total
