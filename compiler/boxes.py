"""Loads and stores of boxes, whatever their size, by instructions that have fields for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import MemoryType
from .emit import Action, Span
from .image import Image
from .schedule import Range, part
from .tiling import Extents, box_rows, row_length


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
