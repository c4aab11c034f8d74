"""Loads and stores of boxes, whatever their size, by instructions that have fields for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..isa.config import AcceleratorConfig
from ..isa.formats import LOAD, LOADX
from ..isa.instructions import InstructionSet
from ..isa.memories import MemoryType
from .emit import Action, Span
from .image import Image
from .schedule import Padding, Range, Stage, part
from .stays import Stay, written
from .tiling import Extents, box_rows, row_length
from .work import Ending


@dataclass(frozen=True)
class Target:
    """A tensor that results are stored into.

    ``start``, and how many elements it is from a ``row`` to the next and from a ``plane`` to the
    next; or, in ``inp``, the ``stay`` that has them.
    """

    operation: str
    start: int
    row: int
    plane: int
    stay: Stay | None = None

    def at(self, plane: int, row: int, column: int) -> int:
        """The element of a position."""
        if self.stay is not None:
            return self.stay.at(plane, row, column)
        return self.start + plane * self.plane + row * self.row + column


def targets(
    ending: Ending, start: int, shape: tuple[int, int], stay: Stay | None
) -> Iterator[Target]:
    """Where a tensor of ``shape`` (rows, columns) is stored: in DRAM from element ``start`` on, or
    on chip, or both."""
    if stay is not None:
        assert ending.keep is not None
        yield Target(ending.keep, stay.start, stay.row, stay.plane, stay)
    if stay is None or stay.stored:
        yield Target(ending.operation, start, shape[1], shape[0] * shape[1])


class Mover:
    """Loads and stores that keep to the fields of their instructions."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.instructions = InstructionSet(config)
        self.records = self.instructions.load_of(MemoryType.QNT).name if config.requantize else ""
        self.starts = self.instructions.load_of(MemoryType.ACC).name

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
        stripe: Range | None = None,
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
        stripe : Range or None
            Of the output rows: only what these read, and none of the tile's before them.
        """
        height, width = image.plane
        step = image.rows.stride if need.skips_rows else 1
        stripe = stripe or rows
        done, end = (
            box_rows(image.rows, n, taps.count, need.skips_rows) if n else 0
            for n in (stripe.start - rows.start, stripe.stop - rows.start)
        )
        count = end - done
        first = rows.start * image.rows.stride + taps.start * image.rows.dilation + done * step
        top, size_y, bottom, y = clip(first + image.rows.origin, count, step, height)
        span = row_length(image.columns, columns.count)
        start = columns.start * image.columns.stride + image.columns.origin
        left, size_x, right, x = clip(start, span, 1, width)
        pads = (top, bottom, left, right)
        pitch = need.box_rows * need.box_columns
        stride = step * width
        whole = size_x == width and not any(pads) and stride == width
        together = whole and size_y * width == pitch and len(planes) > 1
        if (
            together
            and consecutive(planes)
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
            target = part(slot, i * pitch + done * span, count * span)
            box = (size_y, size_x)
            actions += self.load(image.load, target, source, box, stride, pads, image.pad)
        return actions

    def tile(
        self,
        there: Target,
        first: tuple[int, int, int],
        size: tuple[int, int, int],
        source: Span,
        record: Span | None,
        record_step: int,
    ) -> list[Action]:
        """A tile of planes, rows and columns, dense in ``source``, into its tensor.

        Parameters
        ----------
        there : Target
            Where the tensor lies.
        first, size : (int, int, int)
            The tile's first plane, row and column, and its extents.
        source : Span
            Accumulators.
        record : Span or None
            Parameters, one of every plane if ``record_step`` is 1.
        """
        planes, rows, columns = size
        positions, corner = rows * columns, there.at(*first)
        if (
            columns == there.row
            and positions <= self.limit(there.operation, "x_size")
            and planes <= self.limit(there.operation, "y_size")
            and (there.plane <= self.limit(there.operation, "x_stride") or planes == 1)
        ):
            box = corner, (planes, positions), there.plane
            return [self.store(there, source, *box, record, record_step)]
        return [
            self.store(
                there,
                part(source, plane * positions, positions),
                corner + plane * there.plane,
                (rows, columns),
                there.row,
                None if record is None else part(record, plane * record_step, 1),
            )
            for plane in range(planes)
        ]

    def store(
        self,
        there: Target,
        source: Span,
        target: int,
        size: tuple[int, int],
        stride: int,
        record: Span | None,
        record_step: int = 0,
    ) -> Action:
        """Rows of accumulators, dense from ``source`` on."""
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
        writes = written(target, rows, columns, stride) if there.stay is not None else ()
        return Action(there.operation, operands, tuple(reads), writes)

    def surround(self, stages: Sequence[Stage], stay: Stay | None, padding: Padding) -> None:
        """Load what a layer's output has around it if it stays on chip, as far as it is not there.

        ``stages`` are all of the layer; its second one is early enough, and delays nothing.
        """
        padding.overwritten(stages)
        if stay is not None:
            stages[min(1, len(stages) - 1)].loads += [
                action
                for gap in stay.gaps()
                if padding.put(gap, stay.pad)
                for action in self.filled(gap, stay.pad)
            ]

    def _filler(self, pad: int) -> str:
        """The load into ``inp`` that can put ``pad`` around what it brings."""
        loads = (o for o in self.instructions.operations.values() if o.format in (LOAD, LOADX))
        return next(
            o.name
            for o in loads
            if o.fixed["memory_type"] == MemoryType.INP and (not pad or o.format is LOADX)
        )

    def filled(self, target: Span, pad: int) -> list[Action]:
        """Elements that all hold ``pad``, in every lane: padding around nothing."""
        operation = self._filler(pad)
        widest = self.limit(operation, "x_size")
        actions: list[Action] = []
        for start in range(target.start, target.stop, widest):
            count = min(widest, target.stop - start)
            operands = {"sram_base": start, "y_size": 0, "x_size": count, "y_pad_0": 1}
            if pad:
                operands["pad_value"] = pad
            actions.append(Action(operation, operands, (), (Span("inp", start, start + count),)))
        return actions


def clip(first: int, count: int, step: int, extent: int) -> tuple[int, int, int, int]:
    """Positions ``first, first + step, ...``: before, inside and after ``[0, extent)``, and the
    first inside."""
    before = min(count, max(0, -(first // step))) if first < 0 else 0
    last_inside = (extent - 1 - first) // step
    after = min(count - before, max(0, count - 1 - last_inside))
    inside = count - before - after
    return before, inside, after, first + before * step if inside else 0


def consecutive(numbers: Sequence[int]) -> bool:
    """Whether each is the one before plus 1."""
    return all(b == a + 1 for a, b in pairwise(numbers))
