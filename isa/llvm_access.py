"""Loads and stores of a nest as LLVM IR: addresses, checks of indices, lanes, packed elements.

What is too large to be found in a cache again is written past the caches, where a vector is a whole
line: the processor would read a line before it changes a part of it, and read and write take turns
on the way to memory.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

from .lanes import Lanes, mentions
from .llvm_ir import Value, type_suffix, type_text
from .llvm_places import Offset, Places
from .nest import (
    BOOL,
    I8,
    I32,
    I64,
    Binary,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    Index,
    Let,
    Load,
    Nest,
    Stmt,
    Store,
    dtype_of,
)
from .storage import LINE, unit_strides
from .traverse import walk

BYTE = DType("u", 8)
STREAMED = 8 << 20
"""Bytes of a buffer from which on what was written is not found in a cache when it is read: a
core's own cache holds 2 MB at most, and its part of a shared one is not much more."""


class Accesses(Places):
    """A function's arguments, the names that are bound, and its memory.

    ``%b<k>`` is the address of buffer ``k`` and ``%e<k>`` its first extent.
    """

    def __init__(self, nest: Nest, checked: frozenset[str]):
        super().__init__()
        self.nest, self.checked = nest, checked
        self.buffers: Mapping[str, Buffer] = {b.name: b for b in nest.buffers}
        self.numbers = {b.name: i for i, b in enumerate(nest.buffers)}
        self.names = {name: Value(f"%p{i}", I64) for i, name in enumerate(nest.params)}
        self.lanes: Lanes | None = None
        self.guarded: frozenset[tuple[str, Expr]] = frozenset()
        self.streaming: frozenset[str] = frozenset()
        """Buffers that vectors are written to past the caches, whole lines each."""
        self.stores = 0
        self.known: dict[Expr, tuple[Lanes | None, Value]] = {}
        self.shared: dict[tuple[int, bool], tuple[Expr, Lanes | None, Value]] | None = None
        """Values of expressions by their identity, and whether for all lanes, while nothing is
        stored."""

    @abstractmethod
    def expr(self, e: Expr) -> Value:
        """The value of an expression, in every lane if it depends on the lane."""

    def dtype(self, e: Expr) -> DType:
        """The type of an expression."""
        return dtype_of(e, self.buffers)

    def first_lane(self, e: Expr) -> Value:
        """A scalar: an expression for the first lane."""
        lanes, self.lanes = self.lanes, None
        value = self.expr(e)
        self.lanes = lanes
        return value

    @contextmanager
    def binding(self, name: str, value: Value) -> Iterator[None]:
        """``name`` stands for ``value`` for a while."""
        outer = self.names.get(name)
        with self.region():
            self.names[name] = value
            self.shared = None if self.shared is None else {}
            self.guarded = frozenset(g for g in self.guarded if not mentions(g[1], (name,)))
            self.known = {e: v for e, v in self.known.items() if not mentions(e, (name,))}
            yield
        if outer is not None:
            self.names[name] = outer

    @contextmanager
    def region(self) -> Iterator[None]:
        """What is found out within is forgotten afterwards: control may not have come by."""
        guarded, known, stores = self.guarded, dict(self.known), self.stores
        shared = None if self.shared is None else dict(self.shared)
        sums, pointers = dict(self.known_sums), dict(self.known_pointers)
        yield
        self.known_sums, self.known_pointers = sums, pointers
        self.guarded = guarded
        self.known = known if self.stores == stores else {}
        self.shared = shared

    def remembered(self, e: Expr, compute: Callable[[], Value]) -> Value:
        """The value of an expression, computed only once where nothing has changed it."""
        found = self.known.get(e)
        if found is not None and found[0] is self.lanes:
            return found[1]
        lanes = self.lanes
        value = compute()
        self.known[e] = lanes, value
        return value

    # --- indices

    def place(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Offset, int | None]:
        """The offset of the first lane's element and its step from lane to lane.

        Both in the units of :func:`weft.isa.storage.unit_strides`. The step is None where the
        lanes lie irregularly; then the offset is a vector.
        """
        strides = unit_strides(buffer)
        self.check(buffer, indices)
        step: int | None = 0
        if self.lanes is not None:
            steps = [self.lanes.step(i) for i in indices]
            known = [s * k for s, k in zip(strides, steps, strict=True) if k is not None]
            step = sum(known) if len(known) == len(steps) else None
        if step is not None:
            return self.offset(indices, strides), step
        offset = self.constant(0, I64)
        for index, stride in zip(indices, strides, strict=True):
            at = self.cast(self.expr(index), I64)
            scaled = self.binary("mul", at, self.constant(stride, I64), " nsw")
            offset = self.binary("add", offset, scaled, " nsw")
        return Offset(offset), None

    def check(self, buffer: Buffer, indices: tuple[Expr, ...]) -> None:
        """Return with the buffer's number unless the first index is within the first extent."""
        if buffer.name not in self.checked or not indices:
            return
        number, first = self.numbers[buffer.name], indices[0]
        extent = Value(f"%e{number}", I64)
        if buffer.shape[0]:
            extent = self.constant(buffer.shape[0], I64)
        step = self.lanes.step(first) if self.lanes is not None else 0
        if step == 0 and not any(isinstance(node, Load) for node in walk(first)):
            if (buffer.name, first) in self.guarded:
                return
            self.guarded |= {(buffer.name, first)}
        if step is None:
            self.guard(self.outside(self.cast(self.expr(first), I64), extent), number)
            return
        index = self.cast(self.first_lane(first), I64)
        self.guard(self.outside(index, extent), number)
        if step and self.lanes is not None:
            last = self.binary("add", index, self.constant(step * (self.lanes.count - 1), I64))
            self.guard(self.outside(last, extent), number)

    def outside(self, index: Value, extent: Value) -> Value:
        """Whether an index, or one of several lanes', is beyond ``[0, extent)``."""
        unsigned = DType("u", 64)
        outside = self.binary("le", self.cast(extent, unsigned), self.cast(index, unsigned))
        if outside.lanes:
            kind = type_suffix(BOOL, outside.lanes)
            return self.call(f"llvm.vector.reduce.or.{kind}", (BOOL, 0), outside)
        return outside

    def guard(self, outside: Value, number: int) -> None:
        """Leave the function where an index is outside of buffer ``number``."""
        leave, go_on = self.label("leave"), self.label("within")
        self.branch(outside, leave, go_on)
        self.start(leave)
        self.line(f"ret i64 {number + 1}")
        self.start(go_on)

    def address(self, buffer: Buffer, offset: Offset) -> str:
        """A pointer to the byte that holds the element at an offset."""
        return self.pointer_at(buffer, f"%b{self.numbers[buffer.name]}", offset)

    def side_by_side(self, buffer: Buffer, indices: tuple[Expr, ...], step: int | None) -> bool:
        """Whether the lanes' elements are neighbours that one access can take."""
        dtype, lanes = buffer.dtype, self.lanes
        if dtype.bits >= 8:
            return step == dtype.bits // 8
        if lanes is None or dtype.bits != 4 or step != 4 or lanes.count % 2:
            return False
        return all(
            stride % 8 == 0 or (index == Index(lanes.index) and lanes.even)
            for stride, index in zip(unit_strides(buffer), indices, strict=True)
        )

    def each_lane(self, offset: Offset, step: int | None, count: int) -> Iterator[Offset]:
        """The lanes' offsets, one after another."""
        for i in range(count):
            if step is None:
                kind = type_text(I64, count)
                one = self.op(f"extractelement {kind} {offset.start.text}, i64 {i}", I64)
                yield Offset(one)
            else:
                yield offset.beyond(i * step)

    # --- loads

    def load(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Value:
        """One element, or one for each lane."""
        offset, step = self.place(buffer, indices)
        if self.lanes is None or step == 0:
            return self.load_one(buffer, offset)
        count, dtype = self.lanes.count, buffer.dtype
        kind = type_text(dtype, count)
        if self.side_by_side(buffer, indices, step):
            at = self.address(buffer, offset)
            if dtype.bits < 8:
                return self.load_nibbles(at, dtype, count)
            return self.op(f"load {kind}, ptr {at}, align {dtype.bits // 8}", dtype, count)
        text, scalar = "poison", type_text(dtype)
        for i, one in enumerate(self.each_lane(offset, step, count)):
            element = self.load_one(buffer, one)
            text = self.emit(f"insertelement {kind} {text}, {scalar} {element.text}, i64 {i}")
        return Value(text, dtype, count)

    def load_one(self, buffer: Buffer, offset: Offset) -> Value:
        """One element at an offset."""
        at, dtype = self.address(buffer, offset), buffer.dtype
        if dtype.bits >= 8:
            return self.op(f"load {type_text(dtype)}, ptr {at}, align {dtype.bits // 8}", dtype)
        byte = self.op(f"load i8, ptr {at}, align 1", BYTE)
        return self.cast(self.shift(byte, "shr", self.bit(offset)), dtype)

    def bit(self, offset: Offset) -> Value:
        """At which bit of its byte an element below 8 bits starts."""
        return self.cast(self.binary("and", self.whole(offset), self.constant(7, I64)), BYTE)

    def load_nibbles(self, at: str, dtype: DType, count: int) -> Value:
        """Neighbours of 4 bits, from a byte's beginning."""
        byte = DType(dtype.kind, 8)
        kind = type_text(byte, count // 2)
        both = self.op(f"load {kind}, ptr {at}, align 1", byte, count // 2)
        four = self.constant(4, byte)
        low = self.shift(self.shift(both, "shl", four), "shr", four)
        high = self.shift(both, "shr", four)
        order = [i // 2 + (count // 2) * (i % 2) for i in range(count)]
        return self.cast(self.shuffle(low, high, order), dtype)

    # --- stores

    def store(self, stmt: Store) -> None:
        """One element, or one for each lane."""
        self.put(stmt, self.stored(stmt))

    def stored(self, stmt: Store) -> Value:
        """What a store puts into memory."""
        buffer = self.buffers[stmt.buffer]
        source, dtype = self.dtype(stmt.value), buffer.dtype
        if (source.kind == "f") != (dtype.kind == "f"):
            raise TypeError(f"{buffer.name} holds {dtype}; a value of {source} needs a Cast")
        return self.converted(stmt.value, dtype)

    def converted(self, e: Expr, dtype: DType) -> Value:
        """An expression in another type; extrema of narrow integers are taken as such."""
        if (
            isinstance(e, Binary)
            and I8.bits <= dtype.bits < I32.bits
            and self.is_extremum(e, dtype)
        ):
            a, b = self.converted(e.a, dtype), self.converted(e.b, dtype)
            if lanes := max(a.lanes, b.lanes):
                a, b = self.splat(a, lanes), self.splat(b, lanes)
            return self.extreme(e.op, a, b)
        return self.cast(self.expr(e), dtype)

    def is_extremum(self, e: Expr, dtype: DType) -> bool:
        """Whether ``e`` is the least or the greatest of values of an integer type."""

        def holds(x: Expr) -> bool:
            if isinstance(x, Const):
                return isinstance(x.value, int) and dtype.min <= x.value <= dtype.max
            own = self.dtype(x)
            return self.is_extremum(x, dtype) or (
                own.kind != "f" and dtype.min <= own.min and own.max <= dtype.max
            )

        return (
            isinstance(e, Binary) and e.op in ("min", "max") and dtype.kind != "f"
            and holds(e.a) and holds(e.b)
        )  # fmt: skip

    def put(self, stmt: Store, value: Value) -> None:
        """A store of a value that is there."""
        buffer = self.buffers[stmt.buffer]
        dtype = buffer.dtype
        self.stores += 1
        offset, step = self.place(buffer, stmt.indices)
        self.known = {}
        if self.lanes is None:
            self.store_one(buffer, offset, value)
            return
        count = self.lanes.count
        kind, value = type_text(dtype, count), self.splat(value, count)
        if self.side_by_side(buffer, stmt.indices, step):
            at = self.address(buffer, offset)
            if dtype.bits < 8:
                self.store_nibbles(at, value)
            elif buffer.name in self.streaming:
                hint = f"align {LINE}, !nontemporal !{{i32 1}}"
                self.line(f"store {kind} {value.text}, ptr {at}, {hint}")
            else:
                self.line(f"store {kind} {value.text}, ptr {at}, align {dtype.bits // 8}")
            return
        for i, one in enumerate(self.each_lane(offset, step, count)):
            element = self.op(f"extractelement {kind} {value.text}, i64 {i}", dtype)
            self.store_one(buffer, one, element)

    def put_between(self, stmt: Store, values: Sequence[Value]) -> None:
        """Stores of the first lanes' elements on, of all of ``values``: the first of each, then
        the second of each."""
        buffer, lanes = self.buffers[stmt.buffer], values[0].lanes
        self.stores += 1
        offset, _ = self.place(buffer, stmt.indices)
        at = self.address(buffer, offset)
        self.known = {}
        unit = buffer.dtype.bits // 8
        pairs = [
            (a, values[min(k + 1, len(values) - 1)]) for k, a in enumerate(values) if k % 2 == 0
        ]
        halves = [self.shuffle(a, b, list(range(2 * lanes))) for a, b in pairs]
        order = [
            k // 2 * 2 * lanes + k % 2 * lanes + i for i in range(lanes) for k in range(len(values))
        ]
        one = self.shuffle(halves[0], halves[-1], order)
        self.line(f"store {type_text(one.dtype, one.lanes)} {one.text}, ptr {at}, align {unit}")

    def store_one(self, buffer: Buffer, offset: Offset, value: Value) -> None:
        """One element at an offset; what shares its byte stays."""
        at, dtype = self.address(buffer, offset), buffer.dtype
        if dtype.bits >= 8:
            self.line(f"store {type_text(dtype)} {value.text}, ptr {at}, align {dtype.bits // 8}")
            return
        bit = self.bit(offset)
        mask = self.shift(self.constant(dtype.max - dtype.min, BYTE), "shl", bit)
        old = self.emit(f"load i8, ptr {at}, align 1")
        kept = self.emit(f"and i8 {old}, {self.emit(f'xor i8 {mask.text}, -1')}")
        placed = self.shift(self.cast(self.bits_of(value), BYTE), "shl", bit)
        self.line(f"store i8 {self.emit(f'or i8 {kept}, {placed.text}')}, ptr {at}, align 1")

    def store_nibbles(self, at: str, value: Value) -> None:
        """Neighbours of 4 bits, from a byte's beginning."""
        wide = self.cast(self.bits_of(value), BYTE)
        low = self.shuffle(wide, wide, list(range(0, value.lanes, 2)))
        high = self.shuffle(wide, wide, list(range(1, value.lanes, 2)))
        high = self.shift(high, "shl", self.constant(4, BYTE))
        kind = type_text(BYTE, value.lanes // 2)
        self.line(
            f"store {kind} {self.emit(f'or {kind} {low.text}, {high.text}')}, ptr {at}, align 1"
        )

    @cached_property
    def streams(self) -> frozenset[str]:
        """The buffers that may be written past the caches: no cache would hold them, one statement
        writes them, and none reads them."""
        if not self.avx512 or self.checked:
            return frozenset()
        nodes = list(walk(self.nest.body))
        stores = [n.buffer for n in nodes if isinstance(n, Store)]
        read = {n.buffer for n in nodes if isinstance(n, Load)}
        return frozenset(
            b.name
            for b in self.nest.buffers
            if stores.count(b.name) == 1
            and b.name not in read
            and math.prod(b.shape) * b.dtype.bits >= 8 * STREAMED
        )

    def streamed(self, body: Stmt, lanes: Lanes) -> tuple[frozenset[str], Value]:
        """Of a loop that begins with these lanes and goes on by as many: which buffers its body
        writes line by line, if they begin where lines do; and whether one does not."""
        names: set[str] = set()
        ends = self.constant(0, I64)
        nodes = list(walk(body))
        inner = {n.index for n in nodes if isinstance(n, For)}
        inner |= {n.name for n in nodes if isinstance(n, Let)}
        outer = self.names.keys() - inner
        for store in (n for n in nodes if isinstance(n, Store)):
            buffer = self.buffers[store.buffer]
            unit = buffer.dtype.bits // 8
            if buffer.name not in self.streams or lanes.count * unit % LINE:
                continue
            below = [n for i in store.indices for n in walk(i)]
            known = all(n.name in outer for n in below if isinstance(n, Index))
            if not known or any(isinstance(n, Load) for n in below):
                continue
            self.lanes = lanes
            offset, step = self.place(buffer, store.indices)
            self.lanes = None
            if step == unit:
                names.add(buffer.name)
                at = self.emit(f"ptrtoint ptr {self.address(buffer, offset)} to i64")
                ends = self.binary("or", ends, Value(at, I64))
        over = self.binary("and", ends, self.constant(LINE - 1, I64))
        return frozenset(names), self.holds(over)

    def bits_of(self, value: Value) -> Value:
        """An integer's bits, to be extended with zeros."""
        return self.cast(value, DType("u", value.dtype.bits))
