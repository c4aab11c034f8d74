"""Filters of three by three with fewer products: convolutions in Winograd's form F(2x2, 3x3).

Where windows move by one, two by two neighbouring outputs take 16 products a channel, and not 36. A
convolution becomes four steps, which are nests of the same language:

* the image is copied with its border, as far as whole tiles of outputs reach;
* each tile of four by four pixels, of which neighbours overlap by two, becomes 16 sums of its
  pixels, ``B' d B``;
* 16 products of matrices, one for each of those, tiles by filters, along the channels. The filters
  were made ready once, ``G g G'``;
* the 16 totals of a tile become its four outputs, ``A' m A``, with what surrounds the sum.

Integers come out the same, bit for bit: ``G`` is taken twice in each direction, so that there are
no fractions; sums of pixels and filters must fit ``i16``, and four times any output ``i32``, which
is certain from the filters themselves and the range of pixels. Totals on the way may wrap, which
adding up undoes. Floating point comes out as near to the exact sum as by another order of its
additions; of what is infinite or no number, a whole tile is no number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import numpy as np

from ..isa.interpret import interpret
from ..isa.nest import (
    F32,
    I16,
    I32,
    I64,
    Binary,
    BinaryOp,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    Index,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    dtype_of,
    minimum,
)
from ..isa.storage import LINE, numpy_dtype
from ..isa.traverse import loops, rewrite, substitute, walk
from .affine import indices_of, is_index
from .factors import CROWD, Axis, Factors, replaced
from .ranges import folded, of_types, range_of

# fmt: off
PIXELS: tuple[tuple[int, BinaryOp, int], ...] = (
    (0, "sub", 2), (1, "add", 2), (2, "sub", 1), (1, "sub", 3),
)
"""``B'``: each row is one pixel more or less another one."""
OUTPUTS = ((("", 0), ("add", 1), ("add", 2)), (("", 1), ("sub", 2), ("sub", 3)))
"""``A'``: each row is the first total, more or less others."""
# fmt: on
TAPS, STEP, SIDE = 3, 2, 4
"""Of a filter, of a tile from the one before, of a tile: pixels in each direction."""
LEAST = 32
"""Channels and filters for which it is worth while."""
APART = 320
"""Bytes, beyond a multiple of a page, from one of 16 planes to the next: what lies a whole number
of pages apart competes for the same places of the nearest cache."""
PAGE = 4096
NEAR = 1 << 13
"""Filters times channels that are made ready at a time."""


@dataclass(eq=False)
class Winograd:
    """What becomes of a convolution.

    Attributes
    ----------
    statements : list of Stmt
        The steps; the products are a contraction of ``filters``.
    buffers : list of Buffer
        Those that are not the nest's.
    scratch : list of str
        Those of them that hold nothing before or after.
    filters : str
        The other one.
    array : ndarray
        What it holds.
    """

    statements: list[Stmt]
    buffers: list[Buffer]
    scratch: list[str]
    filters: str
    array: np.ndarray


def winograd(f: Factors, prefix: str) -> Winograd | None:
    """The steps of a convolution; None of what is none, or where another way is better.

    Parameters
    ----------
    f : Factors
        A contraction.
    prefix : str
        What names of buffers begin with.
    """
    window = _Window.of(f)
    if window is None or min(window.channels[1], window.filters[1]) < LEAST:
        return None
    element = F32 if f.dtype == F32 else I16
    taps = window.taps()
    if taps is None:
        return None
    if element == I16:
        span = range_of(f.x.value, of_types(f.buffers))
        if f.dtype != I32 or span is None:
            return None
        greatest = max(map(abs, span))
        taps = taps.astype(np.int32)
        most = int(np.abs(taps).sum((0, 1, 2), np.int64).max()) * greatest
        if 4 * greatest > I16.max or 4 * most > I32.max:
            return None
    array = _filtered(taps)
    if element == F32:
        array *= np.float32(0.25)
    elif np.abs(array).max() > I16.max:
        return None
    array = array.reshape(SIDE**2, *array.shape[2:]).astype(numpy_dtype(element), copy=False)
    bare = replace(window, f=replace(f, constant=lambda _: None))  # what is kept keeps no arrays
    made = _steps(_Structure(f.loops, f.stores, tuple(f.buffers.values()), prefix, element, bare))
    return None if made is None else Winograd(*made, array)


@dataclass(frozen=True)
class _Structure:
    """All of a convolution but its filters' values: equal ones have the same steps."""

    loops: tuple[Axis, ...]
    stores: tuple[Store, ...]
    buffers: tuple[Buffer, ...]
    prefix: str
    element: DType
    window: _Window = field(compare=False)


@lru_cache(maxsize=64)
def _steps(one: _Structure) -> tuple[list[Stmt], list[Buffer], list[str], str] | None:
    """Statements, buffers, scratch and the name of the filters, as in :class:`Winograd`."""
    return _Steps(one.window.f, one.window, one.prefix, one.element).all()


def _filtered(taps: np.ndarray) -> np.ndarray:
    """``2 G g`` along the first axis, and then along the second; some channels at a time, whose
    arrays stay in the cache."""
    channels, filters = taps.shape[2:]
    made = np.empty((SIDE, SIDE, channels, filters), taps.dtype)
    count = max(1, NEAR // filters)
    for first in range(0, channels, count):
        near = taps[:, :, first : first + count].copy(order="K")  # as it lies, and turned there
        g = np.ascontiguousarray(near)
        rows = np.empty((SIDE, *g.shape[1:]), g.dtype)
        part = made[:, :, first : first + count]
        for a, b in ((g, rows), (rows.swapaxes(0, 1), part.swapaxes(0, 1))):
            np.multiply(a[0], 2, out=b[0])
            np.add(a[0], a[2], out=b[1])
            np.subtract(b[1], a[1], out=b[2])
            b[1] += a[1]
            np.multiply(a[2], 2, out=b[3])
    return made


@dataclass(frozen=True, eq=False)
class _Window:
    """A contraction as a convolution: names and extents of what moves along which axis of ``x``.

    ``batch`` has pairs of an axis of ``x`` and the loop that goes along it; ``axes`` are those of
    the image's two directions and of its channels, ``starts`` where the first window begins.
    """

    f: Factors
    batch: tuple[tuple[int, Axis], ...]
    out: tuple[Axis, Axis]
    tap: tuple[str, str]
    channels: Axis
    axes: tuple[int, int, int]
    starts: tuple[int, int]

    @property
    def filters(self) -> Axis:
        """The loop over filters."""
        return self.f.vector

    @classmethod
    def of(cls, f: Factors) -> _Window | None:
        """``f`` in this form; None if it has another one."""
        extents, summed = dict((*f.loops, *f.sum.axes)), {n for n, _ in f.sum.axes}
        if len(summed) != 3 or f.x.names & f.w.names & {n for n, _ in f.loops}:
            return None
        if f.vector[0] in f.x.names or any(
            n not in f.x.names for n, _ in f.loops if n != f.vector[0]
        ):
            return None
        batch: list[tuple[int, Axis]] = []
        moving: list[tuple[int, str, str, int]] = []
        channels: list[tuple[int, Axis]] = []
        for d, place in enumerate(f.x.places):
            names = sorted(place.indices, key=lambda n: n in summed)
            if not names:
                continue
            if any(c != 1 for _, c in place.coefficients):
                return None
            if len(names) == 2 and names[0] not in summed and extents[names[1]] == TAPS:
                moving.append((d, names[0], names[1], place.const))
            elif len(names) == 1 and place.const == 0:
                own = (d, (names[0], extents[names[0]]))
                (channels if names[0] in summed else batch).append(own)
            else:
                return None
        found = [n for _, (n, _) in (*batch, *channels)]
        found += [n for _, out, tap, _ in moving for n in (out, tap)]
        if len(moving) != 2 or len(channels) != 1 or len(set(found)) != len(found):
            return None
        (h, y, i, top), (w, x, j, left) = moving
        out = (y, extents[y]), (x, extents[x])
        d, c = channels[0]
        return cls(f, tuple(batch), out, (i, j), c, (h, w, d), (top, left))

    def taps(self) -> np.ndarray | None:
        """The filters as [row, column, channel, filter]; None where they are no constants."""
        f = self.f
        axes: list[Axis] = [(self.tap[0], TAPS), (self.tap[1], TAPS), self.channels, self.filters]
        names = [n for n, _ in axes]
        loads = {n.buffer for n in walk(f.w.value) if isinstance(n, Load)}
        arrays: dict[str, np.ndarray] = {}
        for name in loads:
            data = f.constant(name)
            if data is None:
                return None
            arrays[name] = data.reshape(f.buffers[name].shape)
        plain = [is_index(i) for i in f.w.load.indices]
        if f.w.plain and sorted(str(n) for n in plain) == sorted(names):
            array = arrays[f.w.load.buffer]
            if array.shape == tuple(dict(axes)[str(n)] for n in plain):
                return array.transpose([plain.index(n) for n in names])
        shape, kind = tuple(e for _, e in axes), dtype_of(f.w.value, f.buffers)
        arrays["taps"] = np.zeros(shape, numpy_dtype(kind))
        body = loops(axes, Store("taps", tuple(Index(n) for n in names), f.w.value))
        buffers = tuple(f.buffers[n] for n in loads)
        nest = Nest("taps", (), (*buffers, Buffer("taps", kind, shape)), body)
        interpret(nest, {}, arrays, checked=False)
        return arrays["taps"]


@dataclass(eq=False)
class _Steps:
    """The steps of one convolution."""

    f: Factors
    window: _Window
    prefix: str
    element: DType
    buffers: list[Buffer] = field(default_factory=list[Buffer])

    def __post_init__(self) -> None:
        window = self.window
        self.tiles: tuple[int, int] = tuple(-(-e // STEP) for _, e in window.out)  # type: ignore[assignment]
        """Of a picture, in each direction."""
        self.pixels = [STEP * t + SIDE - STEP for t in self.tiles]
        """Of a picture with its border."""
        self.batch = [(f"n{d}", e) for d, (_, e) in window.batch]
        self.count = math.prod((*self.tiles, *(e for _, e in self.batch)))
        """Tiles of all pictures."""
        self.depth, self.columns = window.channels[1], window.filters[1]
        unit = self.element.bits // 8
        self.pitch = self.depth + (self.depth * unit % CROWD == 0) * LINE // unit
        """Elements from a tile's sums to those of the next one."""

    def all(self) -> tuple[list[Stmt], list[Buffer], list[str], str] | None:
        """All of them."""
        copied = self.copied()
        if copied is None:
            return None
        sums = self.planes("sums", self.element, self.pitch)
        totals = self.planes("totals", self.f.dtype, self.columns)
        filters = self.buffer("filters", self.element, (SIDE**2, self.depth, self.columns))
        product = Load(sums, (Index("q"), Index("t") * self.pitch + Index("c"))) * Load(
            filters, (Index("q"), Index("c"), Index("o"))
        )
        products = loops(
            [("q", SIDE**2), ("t", self.count), ("o", self.columns)],
            Store(
                totals, (Index("q"), Index("t") * self.columns + Index("o")),
                Sum((("c", self.depth),), product),
            ),
        )  # fmt: skip
        statements = [copied, self.summed(sums), products, self.outputs(totals)]
        scratch = [b.name for b in self.buffers if b.name != filters]
        return statements, self.buffers, scratch, filters

    def buffer(self, name: str, dtype: DType, shape: tuple[int, ...]) -> str:
        """A new buffer's name."""
        made = Buffer(f"{self.prefix} {name}", dtype, shape)
        self.buffers.append(made)
        return made.name

    def planes(self, name: str, dtype: DType, columns: int) -> str:
        """A buffer with 16 values for each tile and column: a plane of tiles for each."""
        unit = dtype.bits // 8
        size = -(-self.count * columns * unit // PAGE) * PAGE + APART
        return self.buffer(name, dtype, (SIDE**2, size // unit))

    def pixel(self, picture: Expr, row: Expr, column: Expr, channel: Expr) -> Expr:
        """Where a pixel lies in the copy."""
        rows, columns = self.pixels
        return ((picture * rows + row) * columns + column) * self.depth + channel

    def picture(self) -> Expr:
        """The number of a picture."""
        number: Expr = Const(0, I64)
        for name, extent in self.batch:
            number = number * extent + Index(name)
        return number

    def tile(self, row: Expr, column: Expr) -> Expr:
        """The number of a tile."""
        rows, columns = self.tiles
        return (self.picture() * rows + row) * columns + column

    def copied(self) -> Stmt | None:
        """The image with its border."""
        f, window = self.f, self.window
        pictures = math.prod(e for _, e in self.batch)
        name = self.buffer("image", self.element, (pictures * math.prod(self.pixels) * self.depth,))
        self.image = name
        h, w, d = window.axes
        at = {f.x.load.indices[h]: Index("y") + Const(window.starts[0], I64)}
        at[f.x.load.indices[w]] = Index("x") + Const(window.starts[1], I64)
        at[f.x.load.indices[d]] = Index("c")
        for axis, _ in window.batch:
            at[f.x.load.indices[axis]] = Index(f"n{axis}")
        value = _simple(replaced(f.x.value, at))
        names = ["y", "x", "c", *(n for n, _ in self.batch)]
        if not indices_of(value) <= set(names) or len(at) != len(names):
            return None
        for name_of, (_, extent), pixels in zip(("y", "x"), window.out, self.pixels, strict=True):
            if extent + TAPS - 1 < pixels:  # there is no such pixel
                zero = Const(0.0 if self.element == F32 else 0, dtype_of(value, f.buffers))
                value = Select(Index(name_of) < extent + TAPS - 1, value, zero)
        place = self.pixel(self.picture(), Index("y"), Index("x"), Index("c"))
        axes = [*self.batch, ("y", self.pixels[0]), ("x", self.pixels[1]), ("c", self.depth)]
        return loops(axes, Store(name, (_simple(place),), value))

    def summed(self, sums: str) -> Stmt:
        """The 16 sums of each tile's pixels."""

        @cache  # what stands in several places as one object is rewritten once
        def pixel(i: int, j: int) -> Expr:
            row, column = (Index(n) * STEP + k for n, k in (("y", i), ("x", j)))
            return Load(self.image, (self.pixel(self.picture(), row, column, Index("c")),))

        rows: list[Stmt] = []
        place = self.tile(Index("y"), Index("x")) * self.pitch + Index("c")
        for i, (a, along, b) in enumerate(PIXELS):
            column = [self.narrow(Binary(along, pixel(a, j), pixel(b, j))) for j in range(SIDE)]
            stores = [
                Store(
                    sums, (Const(SIDE * i + j, I64), place),
                    self.narrow(Binary(op, column[first], column[second])),
                )
                for j, (first, op, second) in enumerate(PIXELS)
            ]  # fmt: skip
            rows.append(Block(tuple(stores)))
        made = rewrite(Block(tuple(rows)), folded)
        assert isinstance(made, Stmt)
        rows_of, columns_of = self.tiles
        return loops([*self.batch, ("y", rows_of), ("x", columns_of), ("c", self.depth)], made)

    def narrow(self, value: Expr) -> Expr:
        """A value that is known to fit."""
        return value if self.element == F32 else Cast(I16, value)

    def outputs(self, totals: str) -> Stmt:
        """The four outputs of each tile.

        Of a tile that reaches beyond the last row or column, two outputs have the same place there,
        and the one that belongs there is stored last.
        """
        f, window = self.f, self.window
        place = self.tile(Index("y"), Index("x")) * self.columns + Index("o")

        @cache
        def total(i: int, j: int) -> Expr:
            return Load(totals, (Const(SIDE * i + j, I64), place))

        @cache
        def at(direction: int, k: int) -> Expr:
            name, extent = "yx"[direction], window.out[direction][1]
            pixel = Index(name) * STEP + k
            return minimum(pixel, Const(extent - 1, I64)) if k and extent % STEP else pixel

        values: Mapping[str, Expr] = {
            **{loop[0]: Index(f"n{d}") for d, loop in window.batch},
            window.filters[0]: Index("o"),
        }
        stores: list[Stmt] = []
        for i in reversed(range(STEP)):
            column = [_added([(op, total(k, j)) for op, k in OUTPUTS[i]]) for j in range(SIDE)]
            for j in reversed(range(STEP)):
                value = _added([(op, column[k]) for op, k in OUTPUTS[j]])
                if self.element != F32:
                    value = value >> 2
                here = {**values, window.out[0][0]: at(0, i), window.out[1][0]: at(1, j)}
                for store in f.stores:
                    moved = substitute(store, here)
                    done = rewrite(moved, lambda n, v=value: v if isinstance(n, Sum) else None)
                    assert isinstance(done, Stmt)
                    stores.append(done)
        body = rewrite(Block(tuple(stores)), folded)
        assert isinstance(body, Stmt)
        rows, columns = self.tiles
        return loops([*self.batch, ("y", rows), ("x", columns), ("o", self.columns)], body)


def _added(terms: list[tuple[str, Expr]]) -> Expr:
    """The first term, more or less the others."""
    value = terms[0][1]
    for op, term in terms[1:]:
        value = value + term if op == "add" else value - term
    return value


def _simple(e: Expr) -> Expr:
    changed = rewrite(e, folded)
    assert isinstance(changed, Expr)
    return changed
