"""Memory of the next row, asked for while this one is computed, as LLVM IR.

A processor fetches by itself what follows within a page. Where a loop goes along a row and the next
trip of an outer loop, or the next item, along the one behind it, every row may be another page, and
its first lines would be waited for. The first loop in lanes that touches a buffer asks for them.
Reductions do not: they wait for memory already, and have nothing to compute meanwhile. A loop that
takes a few neighbours of each of many rows, as packing of columns does, asks some rows ahead.
"""

from __future__ import annotations

from collections.abc import Iterable

from .lanes import lane_step
from .llvm_folds import Folds
from .nest import Index, Load, Nest, Store
from .storage import LINE, unit_strides
from .traverse import walk

ROWS = range(1024, 8193)
"""Bytes of rows that are asked for: a shorter one shares its page with the next, and of a longer
one the beginning matters less than what it costs to ask."""

PAGE = 4096
"""Bytes at least between rows of which a loop takes a few neighbours."""
FAR = 16
"""How many such rows ahead."""


class Ahead(Folds):
    """Sums, reductions, roundings, and prefetches."""

    def __init__(self, nest: Nest, checked: frozenset[str], pairs: bool):
        super().__init__(nest, checked, pairs)
        self.around: list[tuple[str, int]] = []
        """The loops that surround what is emitted and their trips, the outermost first."""
        self.asked: set[str] = set()
        """Buffers of which something is fetched ahead."""

    def ask_ahead(self, touched: Iterable[Load | Store], name: str, extent: int, step: int) -> None:
        """Within a trip of ``step`` elements of a loop ``name`` over ``extent``: fetch what lies
        a row further of everything that is touched for the first time."""
        if self.target is None:
            return
        for access in touched:
            buffer = self.buffers[access.buffer]
            unit = buffer.dtype.bits // 8
            row, trip = extent * unit, step * unit
            if row not in ROWS or trip % LINE or buffer.name in self.asked:
                continue
            if self.step(access, name) != unit:
                continue
            if any(self.step(access, n) == row for n in self.names if n != name):
                self.fetch(access, row, trip)

    def ask_far_ahead(self, touched: Iterable[Load | Store], name: str, count: int) -> None:
        """Before ``count`` lanes of ``name``: fetch what those some rows further will load."""
        if self.target is None:
            return
        for access in touched:
            unit = self.buffers[access.buffer].dtype.bits // 8
            if isinstance(access, Store) or access.buffer in self.asked:
                continue
            if not unit or count * unit % LINE:
                continue
            if self.step(access, name) != unit:
                continue
            size = count * unit
            for outer, trips in reversed(self.around):
                step = self.step(access, outer)
                if step is not None and step >= PAGE:
                    if trips >= 4 * FAR:
                        self.fetch(access, FAR * step, count * unit)
                    break
                size *= trips
                if size >= ROWS.start:
                    break

    def fetch(self, access: Load | Store, distance: int, count: int) -> None:
        """Prefetch ``count`` bytes that lie at a distance from what is touched."""
        buffer = self.buffers[access.buffer]
        self.asked.add(buffer.name)
        at = self.address(buffer, self.place(buffer, access.indices)[0])
        self.fetch_lines(at, distance, count, write=isinstance(access, Store), near=True)

    def fetch_lines(
        self, at: str, distance: int, count: int, *, write: bool = False, near: bool = False
    ) -> None:
        """Prefetch ``count`` bytes at a distance from a pointer, to a near cache or the nearest."""
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        cache = 3 if near else 2
        for further in range(distance, distance + count, LINE):
            line = self.emit(f"getelementptr i8, ptr {at}, i64 {further}")
            self.line(
                f"call void @llvm.prefetch.p0(ptr {line}, i32 {int(write)}, i32 {cache}, i32 1)"
            )

    def step(self, access: Load | Store, name: str) -> int | None:
        """By how many bytes an index moves an access; None if irregularly, with checks, or by what
        has no value yet, as the axes of a sum further in."""
        buffer = self.buffers[access.buffer]
        if buffer.name in self.checked:
            return None
        below = [n for i in access.indices for n in walk(i)]
        if any(isinstance(n, Load) or (isinstance(n, Index) and n.name not in self.names)
               for n in below):  # fmt: skip
            return None
        return self.step_of(access, name)

    def step_of(self, access: Load | Store, name: str) -> int | None:
        """By how many bytes an index moves an access, whether it has a value yet or not; None if
        irregularly."""
        strides = unit_strides(self.buffers[access.buffer])
        steps = [lane_step(index, {name: 1}) for index in access.indices]
        found = [s * k for s, k in zip(strides, steps, strict=True) if k is not None]
        return sum(found) if len(found) == len(steps) else None
