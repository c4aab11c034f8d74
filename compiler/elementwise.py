"""The schedule of operators on accumulators: additions, maxima under a window.

Every tile loads its images into regions of accumulators, runs the instructions region by region,
and stores the last one. An operator without a window sees its tensors as one long row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine
from ..isa.nest import Expr
from .boxes import Mover, Target, targets
from .constants import varies
from .effort import Effort
from .emit import Action, Span, Uops
from .image import Image, Walk
from .kernel import Lack, Refusal
from .schedule import Bases, Range, Rings, Slots, Stage, part
from .search import sizes
from .tiling import Extents, blocks_of, row_length
from .timing import (
    ACT_CYCLES,
    LOAD_LATENCY,
    START_CYCLES,
    STORE_LATENCY,
    step_cycles,
    store_cycles,
)
from .work import Act, Elementwise

TRIPS = (1 << 14) - 1
"""Of a loop of ALU, and columns of a store."""


SLOTS = 3
"""One is loaded, one is worked on, one is stored."""


@dataclass(frozen=True)
class Plan:
    """How an elementwise operator is cut.

    Attributes
    ----------
    work : Elementwise
        The operator.
    images : mapping
        What is loaded, by region; one long row each where there is no window.
    planes : int
        Channel blocks of all batches, one image each.
    positions : (int, int)
        Rows and columns of the output.
    tile : (int, int, int)
        Planes, rows and columns of a tile.
    """

    work: Elementwise
    images: Mapping[int, Image]
    planes: int
    positions: tuple[int, int]
    tile: tuple[int, int, int]

    @property
    def long(self) -> bool:
        """Whether all positions stand in one row, whatever the tensor's shape."""
        return any(image.shape[3] == 0 for image in self.images.values())

    @property
    def box(self) -> tuple[int, int]:
        """Rows and columns of the input under a full tile."""
        image = next(iter(self.images.values()))
        rows = (self.tile[1] - 1) * image.rows.stride + image.rows.reach
        return rows, row_length(image.columns, self.tile[2])

    def size(self, region: int) -> int:
        """Elements of a region."""
        if region in self.images:
            return self.tile[0] * self.box[0] * self.box[1]
        return self.tile[0] * self.tile[1] * self.tile[2]

    @property
    def regions(self) -> dict[int, int]:
        """Where each region begins in a slot."""
        starts: dict[int, int] = {}
        at = 0
        for number in self.work.regions:
            starts[number] = at
            at += self.size(number)
        return starts

    @property
    def uops(self) -> int:
        """The most micro-ops of an instruction."""
        acts = self.work.acts
        return max([len(acts), *(self.tile[0] * _taps(self, act) for act in acts if act.taps)])

    @property
    def total(self) -> int:
        """Elements of a slot."""
        return sum(self.size(region) for region in self.regions)


def records_of(work: Elementwise, channel: str | None) -> list[Mapping[str, Expr]]:
    """The distinct parameters that it uses, the storing instruction's among them."""
    found: list[Mapping[str, Expr]] = []
    for record in (*(act.record for act in work.acts), work.ending.record):
        if record and record not in found:
            if channel is not None and varies(record, channel):
                raise Refusal("parameters that vary with the channel", Lack.COMMON_SCALE)
            found.append(record)
    return found


def plan(
    work: Elementwise,
    config: AcceleratorConfig,
    tile: tuple[int, int, int] | None = None,
    effort: Effort = "default",
) -> list[tuple[Plan, int]]:
    """The ways to cut it, each with an estimate of cycles, the best one first; with ``tile`` that
    is decided.

    Raises
    ------
    Refusal
        If even the smallest tile does not fit.
    """
    count = len(records_of(work, None))
    if count > config.qnt_depth:
        raise Refusal(f"it needs {count} elements of qnt; this hardware has {config.qnt_depth}")
    n, height, width, channels = work.kernel.shapes[work.kernel.output]
    planes = blocks_of(n, config.batch) * blocks_of(channels, config.block)
    images = work.images
    for image in images.values():
        if max(image.rows.before, image.rows.after, image.columns.before, image.columns.after) > 15:
            raise Refusal(
                "padding of more than 15 rows or columns; a load has up to 15", Lack.PADDING
            )
    if all(is_plain(image) for image in images.values()):
        long = planes * height * width
        images = {region: _flat(image, long) for region, image in images.items()}
        planes, height, width = 1, 1, long
    options = [
        Plan(work, images, planes, (height, width), (count, rows, columns))
        for columns in sizes(width, effort)
        for rows in (sizes(height, effort) if columns == width else [1])
        for count in (sizes(planes, effort) if columns == width else [1])
    ]
    if tile is not None:
        options = [p for p in options if p.tile == tile]
        if not options:
            raise Refusal(f"there is no tile {list(tile)} of such a layer")
    fitting = [
        p
        for p in options
        if p.total <= config.acc_depth and p.uops <= config.uop_depth and math.prod(p.tile) <= TRIPS
    ]
    if not fitting:
        least = min(p.total for p in options)
        if least <= config.acc_depth:
            uops = min(p.uops for p in options)
            raise Refusal(f"it needs {uops} micro-ops; this hardware has {config.uop_depth}")
        raise Refusal(
            f"its smallest tile needs {least} accumulators; this hardware has {config.acc_depth}"
        )
    return sorted(((p, _estimate(p, config)) for p in fitting), key=lambda f: f[1])


def is_plain(image: Image) -> bool:
    """Whether every position of the output meets the same one of the image."""
    walks = (image.rows, image.columns)
    return not image.padded and all(w.stride == w.taps == 1 and w.origin == 0 for w in walks)


def _flat(image: Image, long: int) -> Image:
    one = Walk(1, 1, 1, 0, 1, 1, None)
    row = replace(one, extent=long, positions=long)
    return replace(image, shape=(1, 1, long, 0), rows=one, columns=row)


def among_others(p: Plan, config: AcceleratorConfig) -> int:
    """By how many cycles other layers end later if this one stands among them: those of its busiest
    engine, because what is at its ends happens beside their steps."""
    out = p.tile[0] * p.tile[1] * p.tile[2]
    beats = max(1, config.acc8_element_bytes // config.bus_bytes)
    loading = sum(p.size(region) * beats + START_CYCLES for region in p.images)
    steps = out * _cycles(p, config) + len(p.work.acts) * ACT_CYCLES
    return _tiles(p) * max(loading, steps, int(out * store_cycles(config)) + START_CYCLES)


def _cycles(p: Plan, config: AcceleratorConfig) -> int:
    """Of all steps, for each result."""
    operations = InstructionSet(config).operations
    return sum(
        _taps(p, act) * step_cycles(operations[act.operation], config) for act in p.work.acts
    )


def _tiles(p: Plan) -> int:
    return (
        blocks_of(p.planes, p.tile[0])
        * blocks_of(p.positions[0], p.tile[1])
        * blocks_of(p.positions[1], p.tile[2])
    )


def _estimate(p: Plan, config: AcceleratorConfig) -> int:
    tiles = _tiles(p)
    out = p.tile[0] * p.tile[1] * p.tile[2]
    beats = max(1, config.acc8_element_bytes // config.bus_bytes)
    loading = sum(p.size(region) * beats + START_CYCLES for region in p.images)
    steps = out * _cycles(p, config) + (len(p.work.acts) + 1) * START_CYCLES
    storing = int(out * store_cycles(config)) + START_CYCLES
    if min(SLOTS, tiles) * p.total > config.acc_depth:
        return tiles * (loading + steps + storing + LOAD_LATENCY + STORE_LATENCY)
    operations = InstructionSet(config).operations
    beside = all(operations[i.load].engine is Engine.LOAD for i in p.images.values())
    longest = max(loading, steps, storing) if beside else max(loading + steps, storing)
    return tiles * longest + loading + storing + LOAD_LATENCY + STORE_LATENCY


def _taps(p: Plan, act: Act) -> int:
    if not act.taps or act.src is None:
        return 1
    image = p.images[act.src]
    return image.rows.taps * image.columns.taps


class ElementwiseSchedule:
    """An elementwise operator as actions; parameters as in :class:`ContractionSchedule`."""

    def __init__(
        self,
        p: Plan,
        records: Sequence[Mapping[str, Expr]],
        bases: Bases,
        config: AcceleratorConfig,
        rings: Rings,
    ):
        self.plan, self.records, self.bases, self.config = p, list(records), bases, config
        self.mover = Mover(config)
        self.slots = Slots("acc", p.total, SLOTS, rings)
        self._first_record = rings.take("qnt", len(self.records))
        self.stages = [
            self._stage(planes, rows, columns)
            for planes in Range.cut(p.planes, p.tile[0])
            for rows in Range.cut(p.positions[0], p.tile[1])
            for columns in Range.cut(p.positions[1], p.tile[2])
        ]
        if self.records:
            count = len(self.records)
            span = Span("qnt", self._first_record, self._first_record + count)
            load = self.mover.load(self.mover.records, span, bases.records, (1, count), 0)
            self.stages[0].loads[:0] = load
        stay = bases.stays.get(p.work.kernel.output)
        self.mover.surround(self.stages, stay, rings.padding)

    def _stage(self, planes: Range, rows: Range, columns: Range) -> Stage:
        p, work = self.plan, self.plan.work
        stage = Stage()
        slot, _ = self.slots.take((planes, rows, columns))
        regions = {region: part(slot, start, p.size(region)) for region, start in p.regions.items()}
        for region, image in p.images.items():
            need = Extents(*p.box, False, planes.count, 0, 0, 0, 0)
            numbers = range(planes.start, planes.start + planes.count)
            taps = Range(0, image.rows.taps)
            stage.loads += self.mover.image(
                image, self.bases.tensors[image.tensor], numbers, rows, columns, taps, need,
                regions[region],
            )  # fmt: skip
        for acts in _grouped(work.acts):
            stage.steps.append(self._act(acts, regions, planes.count, rows, columns))
        record = self._record(work.ending.record)
        kernel = work.kernel
        first = planes.start, rows.start, columns.start
        size = planes.count, rows.count, columns.count
        base, stay = self.bases.tensors[kernel.output], self.bases.stays.get(kernel.output)
        for there in targets(work.ending, base, p.positions, stay):
            source = regions[work.result]
            if there.stay is not None and p.long:
                stage.stores += self._kept(there, columns, source, record)
            else:
                stage.stores += self.mover.tile(there, first, size, source, record, 0)
        return stage

    def _kept(
        self, there: Target, positions: Range, source: Span, record: Span | None
    ) -> list[Action]:
        """A part of one long row, where its elements lie on chip."""
        assert there.stay is not None
        stores: list[Action] = []
        done = 0
        for at, rows, columns, stride in there.stay.boxes(positions.start, positions.count):
            piece, size = part(source, done, rows * columns), (rows, columns)
            stores.append(self.mover.store(there, piece, at, size, stride, record))
            done += rows * columns
        return stores

    def _record(self, record: Mapping[str, Expr] | None) -> Span | None:
        if not record:
            return None
        at = self._first_record + self.records.index(record)
        return Span("qnt", at, at + 1)

    def _act(
        self,
        acts: Sequence[Act],
        regions: Mapping[int, Span],
        planes: int,
        rows: Range,
        columns: Range,
    ) -> Action:
        """Acts of one kind on different regions, in one instruction."""
        first = acts[0]
        positions = planes * rows.count * columns.count
        reads: list[Span] = []
        writes = [part(regions[act.dst], 0, positions) for act in acts]
        operands = {"iter_out": 1, "iter_in": positions, "dst_factor_in": 1}
        uops: list[tuple[int, int, int]] = []
        if first.taps:
            assert first.src is not None
            uops, more = self._tap_uops(first, regions, planes, rows, columns)
            operands |= more
            reads.append(regions[first.src])
        else:
            for act in acts:
                src = 0
                if act.src is not None:
                    src = regions[act.src].start
                    reads.append(part(regions[act.src], 0, positions))
                    operands["src_factor_in"] = 1
                record = self._record(act.record)
                if record is not None:
                    src = record.start
                    reads.append(record)
                uops.append((regions[act.dst].start, src, 0))
        if first.imm is not None:
            operands["imm"] = first.imm
        bound = (0, len(uops))
        return Action(
            first.operation, operands, (*reads, *writes), tuple(writes), Uops(uops), bound
        )

    def _tap_uops(
        self,
        act: Act,
        regions: Mapping[int, Span],
        planes: int,
        rows: Range,
        columns: Range,
    ) -> tuple[list[tuple[int, int, int]], dict[str, int]]:
        assert act.src is not None
        image = self.plan.images[act.src]
        plane_size = self.plan.box[0] * self.plan.box[1]
        width = row_length(image.columns, columns.count)
        uops = [
            (
                regions[act.dst].start + plane * rows.count * columns.count,
                regions[act.src].start
                + plane * plane_size
                + ky * image.rows.dilation * width
                + kx * image.columns.dilation,
                0,
            )
            for ky in range(image.rows.taps)
            for kx in range(image.columns.taps)
            for plane in range(planes)
        ]
        loops = {
            "iter_out": rows.count,
            "iter_in": columns.count,
            "dst_factor_out": columns.count if rows.count > 1 else 0,
            "src_factor_out": image.rows.stride * width if rows.count > 1 else 0,
            "src_factor_in": image.columns.stride if columns.count > 1 else 0,
        }
        return uops, loops


def _grouped(acts: Sequence[Act]) -> list[list[Act]]:
    """Neighbours that one instruction can do: same operation, separate regions."""
    groups: list[list[Act]] = []
    for act in acts:
        last = groups[-1] if groups else []
        if last and not act.taps and not last[0].taps:
            touched = {a.dst for a in last} | {a.src for a in last}
            kind = (act.operation, act.imm, act.src is None)
            same = (last[0].operation, last[0].imm, last[0].src is None)
            if kind == same and act.dst not in touched and act.src is None:
                last.append(act)
                continue
        groups.append([act])
    return groups
