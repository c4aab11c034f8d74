"""What instructions do with marks, as one loop nest over a table of instructions."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from ..isa.nest import (
    I64,
    U32,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    binary,
    expr,
    minimum,
)
from .marks import CONSTANT, FACTORS, GRANULE, SEED, SHIFTS, STEP, STORED, SUMMAND

U64 = DType("u", 64)


class Kind(IntEnum):
    """What a row of the table stands for."""

    NOTHING = 0
    ELEMENTS = 1
    """A load of activations or of constants into ``inp``, ``acc`` or ``qnt``."""
    WEIGHTS = 2
    UOPS = 3
    STORE = 4
    CLEAR = 5
    PRODUCTS = 6
    ALU = 7
    KEEP = 8
    """A store of activations into ``inp``."""


BOX = ("sram", "dram", "y", "x", "stride", "top", "left", "rows", "columns", "size")
LOOPS = ("bgn", "end", "outer", "inner", "dst_out", "dst_in", "src_out", "src_in", "wgt_out",
         "wgt_in")  # fmt: skip
MORE = {
    Kind.ELEMENTS: ("target", "activation", "outside"),
    Kind.WEIGHTS: ("used_rows",),
    Kind.STORE: ("qnt_base", "qnt_step", "parameters"),
    Kind.KEEP: ("qnt_base", "qnt_step", "target"),
    Kind.PRODUCTS: ("lanes", "taps", "adds"),
    Kind.ALU: ("seed", "way", "uses_imm", "second", "of_what"),
}
"""The columns behind those of all boxes, or of all loops."""
COLUMNS = ("kind", "first", *BOX, *(f"more{i}" for i in range(5)))
"""Of the table, as a box has them."""

PARAMS = (
    "count", "block", "element", "row_bytes", "first_row", "row_count", "first_word", "word_count",
    "known", "inp", "inp_last", "acc", "qnt", "dst_lsb", "dst_mask", "src_lsb", "src_mask",
    "wgt_lsb", "wgt_mask",
)  # fmt: skip
N = Index


def nest() -> Nest:
    """The nest ``machine``."""
    buffers = (
        Buffer("table", I64, (0, len(COLUMNS))),
        Buffer("marks", U64, (0,)),
        Buffer("rows", U64, (0,)),
        Buffer("whole", U64, (0,)),
        Buffer("uops", U32, (0,)),
        Buffer("memory", U64, (0,)),
        Buffer("row_table", U64, (0,)),
        Buffer("words", U32, (0,)),
        Buffer("step_marks", U64, (0,)),
        Buffer("addresses", I64, (0,)),
        Buffer("values", U64, (0,)),
    )
    ways = {
        Kind.ELEMENTS: _boxed(Kind.ELEMENTS, _elements()),
        Kind.WEIGHTS: _boxed(Kind.WEIGHTS, _weights()),
        Kind.UOPS: _boxed(Kind.UOPS, _uops()),
        Kind.STORE: _boxed(Kind.STORE, _store()),
        Kind.CLEAR: _stepped(Kind.CLEAR, Store("marks", (N("dst"),), expr(0))),
        Kind.PRODUCTS: _stepped(Kind.PRODUCTS, _products()),
        Kind.ALU: _stepped(Kind.ALU, _alu()),
        Kind.KEEP: _boxed(Kind.KEEP, _keep()),
    }
    either = Block(tuple(If(binary("eq", N("kind"), kind), body) for kind, body in ways.items()))
    body = For("n", expr(0), N("count"), Let("kind", _column(0), either))
    return Nest("machine", PARAMS, buffers, body)


def _column(number: int) -> Expr:
    return Load("table", (N("n"), expr(number)))


def _columns(kind: Kind, names: Sequence[str], body: Stmt) -> Stmt:
    """``body`` with a name for every column."""
    for number, name in reversed(list(enumerate((*names, *MORE.get(kind, ())), 1))):
        body = Let(name, _column(number), body)
    return body


def mixed(name: str, parts: Sequence[Expr], body: Stmt, state: Expr | None = None) -> Stmt:
    """``body`` with ``name`` bound to the mark of ``parts``, which go into ``state``."""
    state = Const(SEED, U64) if state is None else state
    for number, piece in reversed(list(enumerate(parts))):
        last = number == len(parts) - 1
        before = Cast(U64, N(f"{name}{number - 1}")) if number else state
        a, b = f"{name}{number}a", f"{name}{number}b"
        first = binary("xor", before, Cast(U64, piece)) * Const(FACTORS[0], U64)
        second = _shifted(a, SHIFTS[0]) * Const(FACTORS[1], U64)
        body = Let(name if last else f"{name}{number}", _shifted(b, SHIFTS[1]), body)
        body = Let(a, first + Const(SUMMAND, U64), Let(b, second, body))
    return body


def _shifted(name: str, count: int) -> Expr:
    value = Cast(U64, N(name))
    return binary("xor", value, binary("shr", value, count))


# --- moves


def _boxed(kind: Kind, body: Stmt) -> Stmt:
    """``body`` for each element of a box: it lies at ``at`` in DRAM, in bytes, if it is
    ``inside``, and is number ``to`` of the scratchpad."""
    y, x = N("i") - N("top"), N("j") - N("left")
    inside = (expr(0) <= y) & (y < N("y")) & (expr(0) <= x) & (x < N("x"))
    body = Let("to", N("sram") + N("i") * N("columns") + N("j"), body)
    body = Let("at", (N("dram") + y * N("stride") + x) * N("size"), Let("inside", inside, body))
    body = For("i", expr(0), N("rows"), For("j", expr(0), N("columns"), body))
    return _columns(kind, ("first", *BOX), body)


def _elements() -> Stmt:
    index = N("at") // N("element")
    known = N("activation") & (index < N("known"))
    at = N("at")
    constant = Select(N("activation"), expr(GRANULE), expr(CONSTANT))

    def put(value: Expr) -> Stmt:
        return Store("marks", (N("target") + N("to"),), value)

    fresh = mixed("made", (constant, at), put(N("made")))
    inside = Block((If(known, put(Load("memory", (index,)))), If(binary("eq", known, 0), fresh)))
    return Block((If(N("inside"), inside), If(binary("eq", N("inside"), 0), put(N("outside")))))


def _weights() -> Stmt:
    row, number = N("to") * N("block") + N("r"), N("at") // N("row_bytes") + N("r")
    index = number - N("first_row")

    def put(value: Expr) -> Stmt:
        whole = Load("whole", (N("to"),)) + value * Load("step_marks", (N("r"),))
        return Block((Store("rows", (row,), value), Store("whole", (N("to"),), whole)))

    known = (expr(0) <= index) & (index < N("row_count"))
    used = N("inside") & (N("r") < N("used_rows"))
    fresh = mixed("made", (expr(CONSTANT), number * N("row_bytes")), put(Cast(U64, N("made"))))
    inside = Block((
        If(known, put(Load("row_table", (index,)))), If(binary("eq", known, 0), fresh)
    ))  # fmt: skip
    body = Block((Store("rows", (row,), expr(0)), If(used, inside)))
    return Block((
        Store("whole", (N("to"),), expr(0)), For("r", expr(0), N("block"), body)
    ))  # fmt: skip


def _uops() -> Stmt:
    index = N("at") // N("size") - N("first_word")
    known = N("inside") & (expr(0) <= index) & (index < N("word_count"))
    return Store("uops", (N("to"),), Select(known, Load("words", (index,)), expr(0)))


def _store() -> Stmt:
    number = N("i") * N("columns") + N("j")
    index = N("at") // N("element")
    record = Select(N("parameters"), _record(), Const(0, U64))
    done = Block((
        Store("addresses", (N("first") + number,), N("at")),
        Store("values", (N("first") + number,), N("made")),
        If(index < N("known"), Store("memory", (index,), N("made"))),
    ))  # fmt: skip
    return mixed("made", (expr(STORED), _stored_value(), record), done)


def _keep() -> Stmt:
    """An element of a scratchpad becomes what a load would bring of it after a store."""
    place = N("target") + N("at") // N("size")
    done = Store("marks", (place,), N("made"))
    return mixed("made", (expr(STORED), _stored_value(), _record()), done)


def _record() -> Expr:
    return Load("marks", (N("qnt") + N("qnt_base") + N("i") * N("qnt_step"),))


def _stored_value() -> Expr:
    return Load("marks", (N("acc") + N("sram") + N("i") * N("columns") + N("j"),))


# --- steps


def _stepped(kind: Kind, body: Stmt) -> Stmt:
    """``body`` for each micro-op and trip, with ``dst``, ``src`` and ``wgt`` bound; ``dst`` counts
    in all scratchpads of marks."""
    for operand in ("dst", "src", "wgt"):
        slot = binary("shr", Load("uops", (N("u"),)), N(f"{operand}_lsb")) & N(f"{operand}_mask")
        if operand == "src" and kind is Kind.PRODUCTS:
            slot = slot * N("lanes")
        at = slot + N("i") * N(f"{operand}_out") + N("j") * N(f"{operand}_in")
        body = Let(operand, at + N("acc") if operand == "dst" else at, body)
    body = For("u", N("bgn"), N("end"), body)
    body = For("i", expr(0), N("outer"), For("j", expr(0), N("inner"), body))
    return _columns(kind, ("first", *LOOPS), body)


def _products() -> Stmt:
    dst, row = (N("dst"),), N("wgt") * N("block") + N("k")

    def add(value: Expr) -> Stmt:
        return Store("marks", dst, Load("marks", dst) + value)

    product = Load("marks", (N("inp") + N("src") + N("k"),)) * Load("rows", (row,))
    taps = For("k", expr(0), N("taps"), add(product))
    element = Load("marks", (N("inp") + N("at"),))
    after = Load("marks", (minimum(N("inp") + N("at") + 1, N("inp_last")),))
    whole = Load("whole", (N("wgt"),))
    within = N("src") % N("lanes")
    apart = mixed(
        "made", (expr(STEP), within, element, after), add(Cast(U64, N("made")) * whole)
    )  # fmt: skip
    aligned = binary("eq", within, 0)
    run = Block((If(aligned, add(element * whole)), If(binary("eq", aligned, 0), apart)))
    run = Let("at", N("src") // N("lanes"), run)
    clear = If(binary("eq", N("adds"), 0), Store("marks", dst, expr(0)))
    return Block((clear, taps, If(binary("eq", N("taps"), 0), run)))


def _alu() -> Stmt:
    dst, acc = (N("dst"),), Load("marks", (N("dst"),))
    source = Load("marks", (N("of_what") + N("src"),))
    second = Select(N("uses_imm"), Cast(U64, N("second")), source)
    seed, value = Cast(U64, N("seed")), Cast(U64, N("value"))

    def way(number: int, body: Stmt) -> Stmt:
        return If(binary("eq", N("way"), number), body)

    body = Block((
        way(0, Store("marks", dst, acc + value)),
        way(1, mixed("made", (value,), Store("marks", dst, acc + Cast(U64, N("made"))), seed)),
        way(2, mixed("made", (acc, value), Store("marks", dst, N("made")), seed)),
    ))  # fmt: skip
    return Let("value", second, body)
