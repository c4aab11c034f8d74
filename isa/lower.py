"""Loop nests to LLVM IR text: one function a nest.

A function ``i64 name(ptr params, ptr buffers)`` takes the parameters as an array of ``i64`` and
the buffers as an array of (address, first extent) pairs of ``i64``, in the order of the nest. It
returns 0, or ``1 + k`` as soon as the next access would leave buffer ``k`` on its first axis, where
that buffer's accesses are to be checked; nothing is touched beyond it.

Loops become loops. An innermost parallel loop whose extent is constant becomes lanes: its body
is evaluated once on LLVM vectors (:mod:`weft.isa.lanes` says when), so that everything that does
not depend on the lane, the checks of indices among it, is done once for all of them. Everything
else is left to LLVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .lanes import Lanes, fits_lanes, has_rows, mentions
from .llvm_folds import sum_of_stored
from .llvm_ir import Value, type_text
from .llvm_loops import Totals
from .llvm_tiles import Tiles
from .nest import (
    I8,
    I32,
    I64,
    Binary,
    Block,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Math,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    promote,
)
from .storage import LINE
from .tiles import Contraction, Target, contraction
from .traverse import walk

LANES = 16
"""Lanes of a piece of a long loop."""
WHOLE_LANES = 64
"""A loop of up to so many trips, a power of two, is one piece, unless it sums over rows."""
BETWEEN = 4
"""Vectors at most that are put between one another."""
STREAM_AHEAD = 2048
"""Bytes from what is read to what is fetched, where results go past the caches."""
MANY_LOADS = 8
"""Loads with which a piece this long would not fit the registers."""


def lower(
    nest: Nest, checked: frozenset[str], pairs: bool, target: Target | None = None
) -> tuple[str, set[str]]:
    """The function of ``nest`` and the declarations that it needs.

    Parameters
    ----------
    nest : Nest
        What to compile.
    checked : set of str
        The buffers whose first index is compared with the first extent.
    pairs : bool
        Whether the target has x86's multiplication of pairs of ``i16``.
    target : Target or None
        What registers it has, if contractions are to become tiles.
    """
    body = _Function(nest, checked, target, pairs)
    body.stmt(nest.body)
    if body.streams:  # other threads shall see what went past the caches
        body.declarations.add("declare void @llvm.x86.sse.sfence()")
        body.line("call void @llvm.x86.sse.sfence()")
    body.line("ret i64 0")
    params = [f"i64 %p{i}" for i in range(len(nest.params))]
    for i in range(len(nest.buffers)):
        params += [f"ptr noalias %b{i}", f"i64 %e{i}"]
    inner = quoted(f"{nest.name}/body")
    head = f"define internal i64 {inner}({', '.join(params)}) noinline nounwind {{\nentry:\n"
    text = head + "\n".join(body.lines) + "\n}\n" + _entry(nest, inner)
    return text, body.declarations


def quoted(name: str) -> str:
    """A global's name as LLVM writes it."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/"
    codes = (chr(c) if chr(c) in plain else f"\\{c:02X}" for c in name.encode())
    return f'@"{"".join(codes)}"'


def _entry(nest: Nest, inner: str) -> str:
    """The function with the uniform signature, which loads the arguments of the real one."""
    lines, arguments = list[str](), list[str]()

    def argument(kind: str, array: str, offset: int) -> None:
        name = f"%a{len(arguments)}"
        lines.append(f"  {name}.at = getelementptr i8, ptr {array}, i64 {offset}\n")
        lines.append(f"  {name} = load {kind}, ptr {name}.at\n")
        arguments.append(f"{kind} {name}")

    for i in range(len(nest.params)):
        argument("i64", "%params", 8 * i)
    for i in range(len(nest.buffers)):
        argument("ptr", "%buffers", 16 * i)
        argument("i64", "%buffers", 16 * i + 8)
    return (
        f"define i64 {quoted(nest.name)}(ptr %params, ptr %buffers) nounwind {{\n{''.join(lines)}"
        f"  %status = call i64 {inner}({', '.join(arguments)})\n  ret i64 %status\n}}\n"
    )


def _halving(first: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where pieces begin, and their lanes, of fewer than :data:`LANES` trips."""
    size = LANES // 2
    while first < stop:
        if stop - first >= size:
            yield first, size
            first += size
        size //= 2


class _Function(Tiles):
    """Expressions and statements."""

    # --- expressions

    def expr(self, e: Expr) -> Value:
        if self.shared is None or not isinstance(e, Load | Cast | Binary):
            return self.value(e)
        key = id(e), self.lanes is None
        found = self.shared.get(key)
        if found is None or found[0] is not e or found[1] is not self.lanes:
            found = self.shared[key] = e, self.lanes, self.value(e)
        return found[2]

    def value(self, e: Expr) -> Value:
        """The value of an expression that is evaluated for the first time."""
        match e:
            case Const(value, dtype):
                return self.constant(value, dtype)
            case Index(name):
                return self.index(name)
            case Load(buffer, indices):
                return self.load(self.buffers[buffer], indices)
            case Cast(dtype, Binary("add" | "sub" as op, a, b)) if self.is_narrow_sum(dtype, a, b):
                x, y = (self.cast(self.expr(term), dtype) for term in (a, b))
                lanes = max(x.lanes, y.lanes)
                x, y = (self.splat(v, lanes) if lanes else v for v in (x, y))
                kind = type_text(dtype, lanes)
                return self.op(f"{op} {kind} {x.text}, {y.text}", dtype, lanes)
            case Cast(dtype, a):
                found = self.rounding(e)
                return found if found is not None else self.converted(a, dtype)
            case Select():
                return self.remembered(e, lambda: self.select(e))
            case Sum():
                return self.remembered(e, lambda: self.sum(e))
            case Math(function, arguments):
                return self.math(function, [self.expr(a) for a in arguments])
            case Binary(op, a, b):
                return self.binary(op, self.expr(a), self.expr(b))
        raise TypeError(f"not an expression: {e!r}")

    def is_narrow_sum(self, dtype: DType, *terms: Expr) -> bool:
        """Whether what is left of a sum in a narrow type can be computed in it: sums wrap."""
        return I8.bits <= dtype.bits < I32.bits and all(
            t.kind != "f" and 1 < t.bits <= dtype.bits for t in map(self.dtype, terms)
        )

    def index(self, name: str) -> Value:
        lanes = self.lanes
        if lanes is None or name not in lanes.steps:
            return self.names[name]
        step = lanes.steps[name]
        if step is None:
            return lanes.values[name]
        offsets = ", ".join(f"i64 {step * i}" for i in range(lanes.count))
        base, kind = self.splat(self.names[name], lanes.count), type_text(I64, lanes.count)
        return self.op(f"add {kind} {base.text}, <{offsets}>", I64, lanes.count)

    def select(self, e: Select) -> Value:
        dtype = promote(self.dtype(e.a), self.dtype(e.b))
        lanes = self.lanes
        cond = self.holds(self.expr(e.cond))
        if cond.lanes:
            a, b = self.expr(e.a), self.expr(e.b)
            return self.choose(cond, self.cast(a, dtype), self.cast(b, dtype))
        differs = lanes is not None and mentions(e, lanes.steps)
        count = lanes.count if lanes is not None and differs else 0
        return self.either(
            cond, lambda: self.branch_value(e.a, dtype, count),
            lambda: self.branch_value(e.b, dtype, count),
        )  # fmt: skip

    def branch_value(self, e: Expr, dtype: DType, count: int) -> Value:
        with self.region():
            value = self.cast(self.expr(e), dtype)
        return self.splat(value, count) if count else value

    # --- statements

    def stmt(self, stmt: Stmt) -> None:
        match stmt:
            case Block(stmts) if (together := self.independent(stmts)) is not None:
                # Values before stores: what several of them load is loaded once.
                self.shared = {}
                values = [self.stored(s) for s in together]
                self.shared = None
                for store, value in zip(together, values, strict=True):
                    self.put(store, value)
            case Block(stmts):
                for s, following in zip(stmts, (*stmts[1:], None), strict=True):
                    if following is None or not self.with_sum(s, following):
                        self.stmt(s)
            case Store():
                self.store(stmt)
            case Let(name, value, body):
                self.let(name, value, body)
            case If(cond, body):
                yes, end = self.label("if"), self.label("fi")
                self.branch(self.holds(self.expr(cond)), yes, end)
                self.start(yes)
                with self.region():
                    self.stmt(body)
                self.jump(end)
                self.start(end)
            case For() if (found := self.tileable(stmt)) is not None:
                self.tiles(found)
            case For() if (found := self.between(stmt)) is not None:
                self.in_between(stmt, found)
            case For(index, Const(start), Const(stop), body, True) if (
                self.lanes is None and stop - start >= 2 and fits_lanes(body, index)
            ):
                self.lane_loop(index, int(start), int(stop), body)
            case For() if self.target is not None and self.extremum(stmt):
                pass
            case For(index, start, stop, body):
                if any(isinstance(n, Store) for n in walk(body)):
                    self.known = {}  # another trip may find something else
                first, last = self.cast(self.expr(start), I64), self.cast(self.expr(stop), I64)
                trips = 0
                if isinstance(start, Const) and isinstance(stop, Const):
                    trips = int(stop.value) - int(start.value)
                self.around.append((index, trips))
                self.loop(index, first, last, 1, lambda: self.stmt(body))
                self.around.pop()
            case _:
                raise TypeError(f"not a statement: {stmt!r}")

    def independent(self, stmts: tuple[Stmt, ...]) -> list[Store] | None:
        """Stores in lanes of which none loads from where one of them stores; None of others."""
        stores = [s for s in stmts if isinstance(s, Store)]
        written = {s.buffer for s in stores}
        if len(stores) != len(stmts) or self.lanes is None or self.checked or len(stores) < 2:
            return None
        if any(isinstance(n, Load) and n.buffer in written for s in stores for n in walk(s)):
            return None
        return stores

    def tileable(self, stmt: For) -> Contraction | None:
        """A loop as a contraction, where such become tiles."""
        if self.target is None or self.lanes is not None:
            return None
        found = contraction(stmt, self.buffers)
        return found if found is not None and self.fits(found) else None

    def let(self, name: str, value: Expr, body: Stmt) -> None:
        lanes = self.lanes
        if lanes is None or not mentions(value, lanes.steps):
            if lanes is not None:
                self.lanes = lanes.without(name)
            with self.binding(name, self.cast(self.expr(value), I64)):
                self.stmt(body)
        else:
            bound = lanes.bound(name, lanes.step(value), self.cast(self.expr(value), I64))
            with self.binding(name, self.cast(self.first_lane(value), I64)):
                self.lanes = bound
                self.stmt(body)
        self.lanes = lanes

    def loop(
        self, name: str, first: Value, last: Value, step: int, body: Callable[[], None]
    ) -> None:
        """``body`` with ``name`` bound, from ``first`` by ``step`` while less than ``last``."""
        head, end = self.label("for"), self.label("od")
        self.branch(self.binary("lt", first, last), head, end)
        before = self.block
        self.start(head)
        index, at = self.label("%i"), len(self.lines)
        with self.binding(name, Value(index, I64)):
            body()
        following = Value(self.emit(f"add nsw i64 {index}, {step}"), I64)
        edges = f"[ {first.text}, %{before} ], [ {following.text}, %{self.block} ]"
        self.lines.insert(at, f"  {index} = phi i64 {edges}")
        self.branch(self.binary("lt", following, last), head, end)
        self.start(end)

    # --- lanes

    def lane_loop(self, name: str, start: int, stop: int, body: Stmt) -> None:
        """A parallel loop in pieces of lanes, what is left over in halving pieces."""
        count = stop - start
        loads = sum(isinstance(n, Load) for n in walk(body))
        many = loads > MANY_LOADS or has_rows(body, name, self.buffers)
        whole_lanes = LANES if many else WHOLE_LANES
        if count <= whole_lanes and count & (count - 1) == 0:
            touched = (n for n in walk(body) if isinstance(n, Load | Store))
            with self.binding(name, self.constant(start, I64)):
                self.ask_far_ahead(touched, name, count)
            self.piece(name, self.constant(start, I64), count, body, start % 2 == 0)
            return
        whole, even = count - count % LANES, start % 2 == 0
        if whole:
            first, last = self.constant(start, I64), self.constant(start + whole, I64)

            def piece() -> None:
                self.ask(name, count, body)
                self.piece(name, self.names[name], LANES, body, even)

            self.past_caches(
                Lanes(LANES, name, {name: 1}, {}, even), first, body,
                lambda: self.loop(name, first, last, LANES, piece),
            )  # fmt: skip
        self.last_pieces(name, start + whole, stop, body)

    def between(self, stmt: For) -> For | None:
        """Of a loop of few trips the long one within, if what each of its trips stores lies between
        what the others do, without a gap, as channels of pictures; None of anything else."""
        match stmt:
            case For(few, Const(0), Const(count), For(name, Const(0), Const(), store, True), True):
                pass
            case _:
                return None
        if self.target is None or self.lanes is not None or not isinstance(store, Store):
            return None
        buffer = self.buffers[store.buffer]
        unit, inner = buffer.dtype.bits // 8, stmt.body
        if not 2 <= count <= BETWEEN or not unit or buffer.name in self.checked:
            return None
        steps = [self.step_of(store, n) for n in (few, name)]
        if steps != [unit, unit * count] or not fits_lanes(store, name):
            return None
        assert isinstance(inner, For)
        return inner

    def in_between(self, around: For, inner: For) -> None:
        """A loop of few trips around a long one, whose results lie between one another: together,
        a vector of each put into the order of memory."""
        store, name = inner.body, inner.index
        assert isinstance(store, Store)
        assert isinstance(around.stop, Const)
        assert isinstance(inner.stop, Const)
        count, stop = int(around.stop.value), int(inner.stop.value)

        def piece(lanes: int) -> None:
            values: list[Value] = []
            for k in range(count):
                with self.binding(around.index, self.constant(k, I64)):
                    self.lanes = Lanes(lanes, name, {name: 1}, {}, even=False)
                    values.append(self.splat(self.stored(store), lanes))
                    self.lanes = None
            with self.binding(around.index, self.constant(0, I64)):
                self.put_between(store, values)

        whole = stop - stop % LANES
        if whole:
            first, last = self.constant(0, I64), self.constant(whole, I64)
            self.loop(name, first, last, LANES, lambda: piece(LANES))
        for at, size in _halving(whole, stop):
            with self.binding(name, self.constant(at, I64)):
                piece(size)

    def last_pieces(self, name: str, at: int, stop: int, body: Stmt) -> None:
        """What pieces have left over, in halving ones."""
        for first, size in _halving(at, stop):
            self.piece(name, self.constant(first, I64), size, body, first % 2 == 0)

    def ask(self, name: str, count: int, body: Stmt) -> None:
        """Fetch ahead what one of the pieces of ``count`` trips of ``body`` will touch."""
        touched = [n for n in walk(body) if isinstance(n, Load | Store)]
        self.ask_ahead((a for a in touched if a.buffer not in self.streaming), name, count, LANES)
        if self.streaming:
            for access in touched:
                unit = self.buffers[access.buffer].dtype.bits // 8
                new = access.buffer not in self.asked and access.buffer not in self.streaming
                if new and unit and LANES * unit % LINE == 0 and self.step(access, name) == unit:
                    self.fetch(access, STREAM_AHEAD, LANES * unit)

    def with_sum(self, loop: Stmt, following: Stmt) -> bool:
        """A loop in lanes and, in the same pass, the sum of what it stores, which ``following``
        asks for and then finds; False, and nothing is emitted, of anything else."""
        if self.target is None or self.lanes is not None or self.checked:
            return False
        found = sum_of_stored(loop, following, self.buffers)
        if found is None or not isinstance(loop, For) or not isinstance(loop.body, Store):
            return False
        name, store, count = loop.index, loop.body, found.axes[0][1]
        if count <= WHOLE_LANES or not fits_lanes(store, name):
            return False
        whole = count - count % LANES

        def piece(totals: Totals) -> Totals:
            self.ask(name, count, store)
            self.lanes = Lanes(LANES, name, {name: 1}, {}, True)
            value = self.splat(self.stored(store), LANES)
            self.put(store, value)
            self.lanes = None
            return (self.plus(totals[0], value),)

        zero = Value("zeroinitializer", self.buffers[store.buffer].dtype, LANES)
        total = self.together(self.looped(name, whole, LANES, (zero,), piece), self.plus)
        if whole < count:
            self.last_pieces(name, whole, count, store)
            rest = Sum(((found.axes[0][0], count - whole),), found.body)
            total = self.plus(total, self.tail_of_sum(rest, whole))
        self.known[found] = None, total
        return True

    def past_caches(self, lanes: Lanes, first: Value, body: Stmt, loop: Callable[[], None]) -> None:
        """``loop``, which has ``body`` done for lanes from ``first`` on; twice where it may write
        past the caches: so, and as ever, for where lines are not met."""
        if not self.streams:
            loop()
            return
        with self.binding(lanes.index, first):
            names, over = self.streamed(body, lanes)
        if not names:
            loop()
            return
        lines, other, end = self.label("lines"), self.label("other"), self.label("end")
        self.branch(over, other, lines)
        asked = set(self.asked)
        for label, streaming in ((lines, names), (other, frozenset[str]())):
            self.start(label)
            self.streaming, self.asked = streaming, set(asked)
            with self.region():
                loop()
            self.jump(end)
        self.start(end)

    def piece(self, name: str, first: Value, count: int, body: Stmt, even: bool) -> None:
        """``count`` trips from ``first`` on, together."""
        with self.binding(name, first):
            if count > 1:
                self.lanes = Lanes(count, name, {name: 1}, {}, even)
            self.stmt(body)
            self.lanes = None
