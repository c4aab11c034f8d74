"""Memory of the next row, asked for while this one is computed, as LLVM IR.

A processor fetches by itself what follows within a page. Where a loop goes along a row and the next
trip of an outer loop, or the next item, along the one behind it, every row may be another page, and
its first lines would be waited for. The first loop in lanes that touches a buffer asks for them.
Reductions do not: they wait for memory already, and have nothing to compute meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from .lanes import lane_step
from .llvm_folds import Folds
from .nest import Load, Store, walk
from .storage import unit_strides

LINE = 64
"""Bytes that are fetched together."""
ROWS = range(1024, 8193)
"""Bytes of rows that are asked for: a shorter one shares its page with the next, and of a longer
one the beginning matters less than what it costs to ask."""


class Ahead(Folds):
    """Sums, reductions, roundings, and prefetches."""

    def ask_ahead(self, touched: Iterable[Load | Store], name: str, extent: int, step: int) -> None:
        """Within a trip of ``step`` elements of a loop ``name`` over ``extent``: fetch what lies
        a row further of everything that is touched for the first time."""
        if self.target is None:
            return
        for access in touched:
            buffer = self.buffers[access.buffer]
            unit = buffer.dtype.bits // 8
            row, trip = extent * unit, step * unit
            if row not in ROWS or trip % LINE or not trip or buffer.name in self.asked:
                continue
            if buffer.name in self.checked or not self.follows(access, name, unit, row):
                continue
            self.asked.add(buffer.name)
            self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
            at = self.address(buffer, self.place(buffer, access.indices)[0])
            for further in range(row, row + trip, LINE):
                line = self.emit(f"getelementptr i8, ptr {at}, i64 {further}")
                write = int(isinstance(access, Store))
                self.line(f"call void @llvm.prefetch.p0(ptr {line}, i32 {write}, i32 3, i32 1)")

    def follows(self, access: Load | Store, name: str, unit: int, row: int) -> bool:
        """Whether elements lie side by side along ``name``, and rows along another index."""
        if any(isinstance(n, Load) for i in access.indices for n in walk(i)):
            return False

        def step(index: str) -> int | None:
            total = 0
            strides = unit_strides(self.buffers[access.buffer])
            for at, stride in zip(access.indices, strides, strict=True):
                by = lane_step(at, {index: 1})
                if by is None:
                    return None
                total += by * stride
            return total

        return step(name) == unit and any(step(n) == row for n in self.names if n != name)
