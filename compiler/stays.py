"""Tensors that stay on chip: where in ``inp`` a layer's results wait for the layers that read them.

Such a tensor lies there whole, block of channels after block, with the border that its readers'
windows need. The columns behind a row are those before the next one: a border to the left and one
to the right take the room of the wider one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .emit import Span
from .image import Image


@dataclass(frozen=True)
class Stay:
    """Where a tensor lies.

    Attributes
    ----------
    start : int
        Its first element of ``inp``, border included.
    planes : int
        Blocks of channels, of all batches.
    shape : (int, int)
        Rows and columns of the tensor.
    border : (int, int, int, int)
        Rows above and below, columns to the left and to the right.
    beyond : int
        Elements behind the last plane that steps read and do not use.
    pad : int
        What the border holds.
    stored : bool
        Whether the tensor goes to DRAM, too.
    window : int
        Rows that lie there at once, in turn; 0 for all.
    """

    start: int
    planes: int
    shape: tuple[int, int]
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    beyond: int = 0
    pad: int = 0
    stored: bool = False
    window: int = 0

    @property
    def text(self) -> str:
        """For people."""
        where = f"inp {self.start} to {self.stop - 1}"
        rows = f", {self.window} rows at once" if self.window else ""
        return f"on chip, {where}{rows}" + (", and in DRAM" if self.stored else "")

    @property
    def held(self) -> int:
        """Rows of the tensor that lie there at once."""
        return self.window or self.shape[0]

    @property
    def row(self) -> int:
        """Elements from a row to the next."""
        return self.shape[1] + max(self.border[2:])

    @property
    def plane(self) -> int:
        """Elements from a plane to the next."""
        top, bottom, left, right = self.border
        return (top + self.held + bottom) * self.row + min(left, right)

    @property
    def size(self) -> int:
        """All elements."""
        return self.planes * self.plane + self.beyond

    @property
    def stop(self) -> int:
        """The first element after it."""
        return self.start + self.size

    @property
    def dense(self) -> bool:
        """Whether its elements follow one another without a border."""
        return not (any(self.border) or self.window)

    def at(self, plane: int, row: int, column: int) -> int:
        """The element of ``inp`` that holds a position; one of the border may be meant."""
        top, _, left, _ = self.border
        if self.window:
            row %= self.window
        return self.start + plane * self.plane + (row + top) * self.row + column + left

    def gaps(self) -> Iterator[Span]:
        """The elements of the border, run by run."""
        if not any(self.border):
            return
        (height, width), at = self.shape, self.start
        for plane in range(self.planes):
            for row in range(height):
                start = self.at(plane, row, 0)
                if start > at:
                    yield Span("inp", at, start)
                at = start + width
        end = self.start + self.planes * self.plane
        if end > at:
            yield Span("inp", at, end)

    def boxes(self, first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
        """``count`` of the tensor's elements in the order of DRAM, from number ``first`` on: boxes
        of rows, each with where it begins in ``inp``, its rows, columns, and what is between two
        of its rows."""
        height, width = self.shape
        if self.dense:
            yield self.start + first, 1, count, 0
            return
        at, stop = first, first + count
        while at < stop:
            plane, inside = divmod(at, height * width)
            row, column = divmod(inside, width)
            if column or stop - at < width:
                rows, columns = 1, min(width - column, stop - at)
            else:
                rows, columns = min(height - row, (stop - at) // width), width
            yield self.at(plane, row, column), rows, columns, self.row
            at += rows * columns


def border_of(image: Image) -> tuple[int, int, int, int]:
    """The positions outside of it that an image's windows meet."""
    rows, columns = image.rows, image.columns
    return rows.before, rows.after, columns.before, columns.after


def written(target: int, rows: int, columns: int, stride: int) -> tuple[Span, ...]:
    """Elements of ``inp`` that a box covers."""
    if rows == 1 or stride == columns:
        return (Span("inp", target, target + rows * columns),)
    return tuple(
        Span("inp", target + y * stride, target + y * stride + columns) for y in range(rows)
    )
