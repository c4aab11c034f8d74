"""What generates addresses of scratchpads: loops, micro-ops, rows of stores; proven for all inputs.

The models say where a step or a row is by its counters, with products; the units only add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data

from tests.formal import NO_SOLVER, Opened, Refuted, keeps, passes, planted, prove, solver
from weft.hw.alu import reads_qnt
from weft.hw.interfaces import format_struct, uop_struct
from weft.hw.packer import Packer
from weft.hw.step_queue import StepQueue
from weft.hw.steps import OPERANDS, _Indices, _Loops
from weft.hw.store_rows import StoreRows
from weft.isa import PRESETS
from weft.isa.formats import STORE, STOREX
from weft.isa.memories import MemoryType

if solver() is None:
    pytest.skip(NO_SOLVER, allow_module_level=True)
TINY = PRESETS["tiny"]
SMALL = replace(TINY, uop_bytes=64, inp_bytes=64, wgt_bytes=64, acc_bytes=64, qnt_bytes=128)
"""Products of a few bits, which a solver can still compare with sums."""


def loops(component: type[_Loops], *operands: str) -> None:
    """The trip of each loop and the micro-op, as counters, and the offsets of ``operands``."""
    m, dut = Module(), component(SMALL)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    nest, place = dut.i.p, dut.o.p
    now = Signal(nest.shape())
    busy, outer, inner = Signal(), Signal.like(nest.last_out), Signal.like(nest.last_in)
    uop = Signal.like(nest.uop_last)
    last = now.empty | ((uop == now.uop_last) & (inner == now.last_in) & (outer == now.last_out))
    with m.If(passes(dut.o)):
        m.d.sync += busy.eq(~last)
        with m.If(uop != now.uop_last):
            m.d.sync += uop.eq(uop + 1)
        with m.Else():
            m.d.sync += uop.eq(now.uop_bgn)
            with m.If(inner != now.last_in):
                m.d.sync += inner.eq(inner + 1)
            with m.Else():
                m.d.sync += [inner.eq(0), outer.eq(outer + 1)]
    with m.If(passes(dut.i)):
        m.d.sync += [busy.eq(1), now.eq(nest), uop.eq(nest.uop_bgn), inner.eq(0), outer.eq(0)]
    dut_now, _, left_out, left_in, _, *flags = opened.registers()
    flags, sums = flags[:5], flags[5:]
    low = {name: slice(len(place[name])) for name in OPERANDS}
    by_outer = {n: outer[low[n]] * now[f"{n}_factor_out"] for n in OPERANDS}
    by_both = {n: by_outer[n] + inner[low[n]] * now[f"{n}_factor_in"] for n in OPERANDS}
    operation, its = Value.cast(place.operation), Value.cast(now.operation)
    outer_of = dict(zip(OPERANDS, sums[::2], strict=True))
    moves = busy & ~now.empty
    prove(
        m,
        [dut],
        {
            "there are places until the loops end": dut.o.valid == busy,
            "the last is marked": ~busy | (place.last == last),
            "an instruction without steps has one place": ~busy | (place.step == ~now.empty),
            "the micro-op is the innermost loop's": ~moves | (place.uop == uop),
            **{
                f"{name} is offset by trips times factors": ~moves
                | (place[name] == by_both[name][low[name]])
                for name in operands
            },
            "a place is its instruction's": ~busy
            | ((place.index == now.index) & (operation == its)),
            "an instruction is taken when the one before ends": dut.i.ready
            == (~busy | (dut.o.ready & last)),
            "a place stays": keeps(m, dut.o.valid, dut.o.ready, dut.o.payload),
            "loops": ~moves
            | ((left_out == now.last_out - outer) & (left_in == now.last_in - inner)
            & (outer <= now.last_out) & (inner <= now.last_in)
            & (uop >= now.uop_bgn) & (uop <= now.uop_last)),
            "flags": ~moves | (Cat(flags) == Cat(
                uop == now.uop_last, inner == now.last_in, outer == now.last_out,
                now.uop_bgn == now.uop_last, now.last_in == 0,
            )),
            "sums": ~moves | _all(outer_of[name] == by_outer[name][low[name]] for name in operands),
            "instruction": ~busy | (Value.cast(dut_now) == Value.cast(now)),
        },
        given=[~dut.i.valid | nest.empty | (nest.uop_bgn <= nest.uop_last)],
    )  # fmt: skip


def indices(component: type[_Indices]) -> None:
    """Any one place is followed, with its micro-op, to the step that must come of it.

    That takes no description of the stages in between, and only the first cycles are shown.
    """
    m, dut, config = Module(), component(SMALL), SMALL
    m.submodules.dut = dut
    enters, leaves, step = passes(dut.i), passes(dut.o), dut.o.p
    held = Signal(8)
    m.d.sync += held.eq(held + enters - leaves)
    choose, followed, fresh = (Signal(name=name) for name in ("choose", "followed", "fresh"))
    place, word, ahead = Signal(dut.i.p.shape()), Signal.like(dut.uop.data), Signal.like(held)
    with m.If(followed & leaves):
        m.d.sync += [ahead.eq(ahead - 1), followed.eq(ahead != 0)]
    with m.Elif(enters & choose & ~followed):
        m.d.sync += [place.eq(dut.i.p), ahead.eq(held - leaves), followed.eq(1)]
    m.d.sync += fresh.eq(enters & choose & ~followed)
    with m.If(fresh):
        m.d.sync += word.eq(dut.uop.data)

    # A source may have bits behind its index: the lane of an element where it begins.
    lanes = len(place.src) - len(step.src) - 1
    uop, does = data.View(uop_struct(config), word), place.operation
    sums = {name: (uop[name] << lanes * (name == "src")) + place[name] for name in OPERANDS}
    index = sums | {"src": sums["src"] >> lanes}
    lane = sums["src"][:lanes]
    reads = Mux(does.depthwise, config.taps, 1) + lane.any()
    second = Mux(reads_qnt(config, does.alu_opcode), config.qnt_depth, config.acc_depth)
    fault = place.step & (
        (place.uop >= config.uop_depth)
        | (index["dst"] >= config.acc_depth)
        | (does.multiply & (index["wgt"] >= config.wgt_depth))
        | (does.multiply & (index["src"] + reads > config.inp_depth))
        | (does.alu & ~does.use_imm & (index["src"] >= second))
    )
    due, stopped, named = followed & leaves & (ahead == 0), Signal(), Signal()
    m.d.sync += named.eq(due & fault)
    with m.If(leaves & step.fault):
        m.d.sync += stopped.eq(1)
    read, before = Signal(), Signal.like(dut.uop.data)
    m.d.sync += [read.eq(dut.uop.enable), before.eq(dut.uop.data)]
    same = [Value.cast(step[name]) == Value.cast(place[name]) for name in COPIED]
    low = {name: slice(len(step[name])) for name in OPERANDS}
    prove(
        m,
        [dut, choose],
        {
            **{
                f"{name} is the micro-op's field and the offset": ~due
                | (step[name] == index[name][low[name]])
                for name in OPERANDS
            },
            "what is beyond a depth is a fault, if it is accessed": ~due | (step.fault == fault),
            "the fault's instruction is named": ~named | (dut.fault_index == place.index),
            "the rest is the place's": ~due | _all(same),
            "its micro-op is read": ~enters
            | (dut.uop.enable & (dut.uop.address == dut.i.p.uop[: len(dut.uop.address)])),
            "nothing follows a fault": ~stopped | ~dut.o.valid,
            "there are no steps without places": held < 8,
            "a step stays": keeps(m, dut.o.valid, dut.o.ready, dut.o.payload),
        },
        given=[
            read | (dut.uop.data == before),
            # What begins at a lane reads one element more, but taps begin at the first.
            ~dut.i.p.operation.depthwise | ~dut.i.p.src[:lanes].any(),
        ],
        cycles=7,
    )


def step_queue(component: type[StepQueue], stages: int) -> None:
    """The steps that are held, and those that have left, stage by stage."""
    m, dut = Module(), component(SMALL, stages)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    first, enters, leaves = dut.o.p, passes(dut.i), passes(dut.o)
    held, steps = Signal(range(4)), [Signal(dut.i.p.shape(), name=f"held{n}") for n in range(2)]
    behind = held - leaves
    m.d.sync += held.eq(behind + enters)
    with m.If(leaves):
        m.d.sync += steps[0].eq(steps[1])
    with m.If(enters):
        m.d.sync += Array(steps)[behind].eq(dut.i.p)
    gone = [(leaves & first.step, first.dst)]
    for stage in dut.under_way:
        step, dst = Signal(), Signal.like(stage.dst)
        m.d.sync += [step.eq(gone[-1][0]), dst.eq(gone[-1][1])]
        m.d.comb += [stage.step.eq(step), stage.dst.eq(dst)]
        gone.append((step, dst))
    by_register = ~first.operation.use_imm & ~first.reads_qnt
    meets = Cat(
        step & ((dst == first.dst) | (by_register & (dst == first.src))) for step, dst in gone[1:]
    )
    _, _, second, waits, hits = opened.registers()
    prove(
        m,
        [dut],
        {
            "a step is offered when one is there": dut.o.valid == (held != 0),
            "it is the oldest": ~dut.o.valid | (Value.cast(first) == Value.cast(steps[0])),
            "there is room for two": dut.i.ready == (held != 2),
            "it meets those under way that write what it reads": ~dut.o.valid
            | (dut.meets == meets.any()),
            "hits": ~dut.o.valid | (hits == meets),
            "no more than two are held": held <= 2,
            "second": (waits == (held == 2)) & (~waits | (second == Value.cast(steps[1]))),
        },
        given=[],
    )


def store_rows(component: type[StoreRows]) -> None:
    """The rows that are left, and which accumulators each moves; where to, ``Rows`` proves."""
    m, dut = Module(), component(TINY)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    word, entry, size = dut.i.p.word, dut.o.p, TINY.out_element_bytes
    store, storex = (format_struct(TINY, f.opcode)(word) for f in (STORE, STOREX))
    extended = storex.opcode == STOREX.opcode
    names = ("sram_base", "dram_base", "y_size", "x_size", "x_stride", "memory_type")
    box = {name: Mux(extended, storex[name], store[name]) for name in names}
    left, empty, stopped = Signal(16), Signal(), Signal()
    acc, count, index = Signal(24), Signal(16), Signal(32)
    qnt, step, requantize = Signal(24), Signal(), Signal()
    place, stride, kept = Signal(40), Signal(16), Signal()
    there = (empty | (left != 0)) & ~stopped
    beyond = ~empty & (
        (acc + count > TINY.acc_depth)
        | (requantize & (qnt >= TINY.qnt_depth))
        | (kept & (place + count > TINY.inp_depth))
    )
    with m.If(passes(dut.o)):
        m.d.sync += [empty.eq(0), left.eq(Mux(empty, 0, left - 1)), stopped.eq(beyond)]
        m.d.sync += [acc.eq(acc + count), qnt.eq(qnt + step), place.eq(place + stride)]
    with m.If(passes(dut.i)):
        nothing = (box["x_size"] == 0) | (box["y_size"] == 0)
        m.d.sync += [
            empty.eq(nothing), left.eq(Mux(nothing, 0, box["y_size"])), index.eq(dut.i.p.index),
            acc.eq(box["sram_base"]), count.eq(box["x_size"]),
            qnt.eq(storex.qnt_base), step.eq(storex.qnt_step),
            requantize.eq(extended), kept.eq(box["memory_type"] == MemoryType.INP),
            place.eq(box["dram_base"]), stride.eq(box["x_stride"]),
        ]  # fmt: skip
    rows = there & ~empty
    *_, dut_bytes, _, dut_left = opened.registers("rows")
    *_, dut_acc, dut_stopped, dut_qnt, dut_step, dut_place, dut_stride, far = opened.registers()
    prove(
        m,
        [dut],
        {
            "an instruction has its rows, or one entry that is empty": dut.o.valid == there,
            "an entry is empty only without rows": ~there | (entry.empty == empty),
            "its accumulators follow those of the one before": ~rows
            | ((entry.acc == acc[: len(entry.acc)]) & (entry.count == count)),
            "its place in the first beat is its address's": ~rows
            | (entry.slot == (entry.row.address // size)[: len(entry.slot)]),
            "its parameters are a step from the ones before": ~rows | ~requantize
            | (entry.qnt == qnt[: len(entry.qnt)]),
            "it is requantized by STOREX": ~rows | (entry.requantize == requantize),
            "it is kept if it goes to inp": ~rows | (entry.kept == kept),
            "it is kept a stride from the one before": ~rows | ~kept | beyond
            | ((entry.place == place[: len(entry.place)])
               & (entry.slot == place[: len(entry.slot)])),
            "the last row is marked": ~rows | (entry.row.last == (left == 1)),
            "a row is beyond when an element or its parameters are": ~there
            | (entry.beyond == beyond),
            "an entry is its instruction's": ~there | (entry.index == index),
            "nothing follows a row beyond": ~stopped | ~(dut.o.valid | dut.i.ready),
            "no instruction is taken before the one before has ended": ~passes(dut.i)
            | ~there | (dut.o.ready & (left == ~empty)),
            "an entry stays": keeps(
                m, dut.o.valid, dut.o.ready, entry.acc, entry.count, entry.qnt, entry.kept,
                entry.place, entry.empty, entry.beyond, entry.index,
            ),
            "registers": (dut_stopped == stopped)
            & (stopped | ((entry.empty == empty) & (entry.index == index) | ~there))
            & (~rows | ((dut_acc == acc) & (dut_step == step) & (entry.requantize == requantize)))
            & (~rows | (dut_left == left)),
            "registers of what is kept": ~rows | (
                (dut_stride == stride) & (dut_bytes == stride * size) & (entry.kept == kept)
                & ((entry.row.address // size)[: len(entry.slot)] == place[: len(entry.slot)])
                & (~kept | ((dut_place == place[: len(dut_place)])
                            & (far == place[len(dut_place) :].any())))
            ),
            "nothing is left of an empty one": ~empty | (left == 0),
            "as long as no row is beyond": ~rows
            | ((acc < 1 << 16) & (~requantize | ((dut_qnt == qnt) & (qnt <= TINY.qnt_depth)))),
        },
        given=[
            (store.opcode == STORE.opcode) | extended,
            (box["memory_type"] == MemoryType.OUT)
            | (extended & (box["memory_type"] == MemoryType.INP)),
        ],
    )  # fmt: skip


def packer(component: type[Packer], bus_bytes: int) -> None:
    """How many elements of the row have gone."""
    config = replace(TINY, bus_bytes=bus_bytes)
    m, dut = Module(), component(config)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    row, size = dut.rows.p, config.out_element_bytes
    slots = bus_bytes // size
    sent = Signal.like(row.count)
    first = Mux(sent == 0, row.slot, 0)
    left = (row.count - sent)[: len(row.count)]
    count = Mux(left < slots - first, left, slots - first)
    moves = passes(dut.o) | passes(dut.kept)
    lines = Signal.like(row.place)
    with m.If(moves):
        m.d.sync += sent.eq(Mux(left == count, 0, sent + count))
        m.d.sync += lines.eq(Mux(left == count, 0, lines + 1))
    dut_left, dut_inside, following = opened.registers()
    there, bits = dut.rows.valid & dut.i.valid, len(row.slot)
    line = (row.place[bits:] + lines)[: len(following)]
    properties: dict[str, Value] = {
        "a beat comes of a row and its elements": dut.o.valid == (there & ~row.kept),
        "a write comes of a row that is kept": dut.kept.valid == (there & row.kept),
        "writes follow one another": ~dut.kept.valid
        | (dut.kept.p.address == Cat(C(0, bits), line)),
        "the last write is marked": ~dut.kept.valid | (dut.kept.p.last == (left == count)),
        "the next line": ~(dut.rows.valid & dut_inside) | (following == line),
        "no line before the first": dut.rows.valid & (sent != 0) | (lines == 0),
        "elements go with their beat": passes(dut.i) == moves,
        "a row goes with its last beat": passes(dut.rows) == (moves & (left == count)),
        "registers": ~dut.rows.valid
        | ((dut_inside == (sent != 0)) & ((sent == 0) | ((dut_left == left) & (sent < row.count)))),
        "between rows": dut.rows.valid | ((sent == 0) & ~dut_inside),
    }
    for place in range(slots):
        here = (place >= first) & (place < first + count)
        element = (row.turn + place) % slots
        element_bits = dut.o.p.data.word_select(place, 8 * size)
        wanted = dut.i.payload.word_select(element[: len(row.turn)], 8 * size)
        kept_bits = dut.kept.p.data.word_select(place, 8 * size)
        strobe = dut.o.p.strobe.word_select(place, size)
        properties |= {
            f"place {place} is written if the row has an element there": ~dut.o.valid
            | (strobe == Mux(here, (1 << size) - 1, 0)),
            f"place {place} is kept if it would be written": ~there
            | (dut.kept.p.mask[place] == here),
            f"place {place} has the element of its accumulator": ~there
            | ((element_bits == wanted) & (kept_bits == wanted)),
        }
    stays = keeps(m, dut.rows.valid, dut.rows.ready, dut.rows.payload)
    prove(m, [dut], properties, given=[stays, ~dut.rows.valid | (row.count != 0)])


def _all(bits) -> Value:
    total = Value.cast(1)
    for bit in bits:
        total &= bit
    return total


COPIED = ("step", "last", "operation")
"""What a step has from its place."""


PROOFS: dict[str, tuple[Callable[..., None], type, list[tuple[int | str, ...]]]] = {
    "loops are counted and offsets are products": (loops, _Loops, [("wgt",), OPERANDS]),
    "indices are sums, and checked": (indices, _Indices, [()]),
    "steps keep their order and meet those before": (step_queue, StepQueue, [(1,), (3,)]),
    "stores are cut into rows": (store_rows, StoreRows, [()]),
    "elements come to their places in a beat": (packer, Packer, [(8,), (16,)]),
}
"""A proof, what it is of, and the sizes for which it is made."""

MISTAKES = [
    (loops, _Loops, ("wgt",), "offset.eq(next_outer)", "offset.eq(outer)"),
    (loops, _Loops, ("wgt",), "Mux(last_in, now.last_in, left_in - 1)", "left_in - 1"),
    (loops, _Loops, ("wgt",), "last_uop & last_in & last_out", "last_uop & last_out"),
    (loops, _Loops, ("wgt",), "Mux(last_in, one_in, left_in == 1)", "left_in == 1"),
    (loops, _Loops, ("wgt",), "[outer.eq(0), offset.eq(0)]", "offset.eq(0)"),
    (indices, _Indices, (), "config.inp_depth - config.taps", "config.inp_depth - config.taps + 1"),
    (indices, _Indices, (), "stopped.eq(1)", "stopped.eq(0)"),
    (indices, _Indices, (), 'outside("dst", "acc")', "0"),
    (step_queue, StepQueue, (3,), "leaves & first.step", "first.step"),
    (step_queue, StepQueue, (3,), "Cat(C(0, 1), hits)", "hits"),
    (step_queue, StepQueue, (3,), "by_register & (dst", "(dst"),
    (step_queue, StepQueue, (3,), "with m.If(~waits)", "with m.If(~waits & moves)"),
    (store_rows, StoreRows, (), "end > config.acc_depth", "end >= config.acc_depth"),
    (store_rows, StoreRows, (), "qnt >= config.qnt_depth", "qnt > config.qnt_depth"),
    (store_rows, StoreRows, (), "acc.eq(end)", "acc.eq(acc + 1)"),
    (store_rows, StoreRows, (), "(self.o.ready | ~entry.empty) & ~stopped", "~stopped"),
    (store_rows, StoreRows, (), "> config.inp_depth", ">= config.inp_depth"),
    (store_rows, StoreRows, (), "place.eq(place + stride)", "place.eq(place + entry.count)"),
    (store_rows, StoreRows, (), "far.eq(box.dram_base[len(place) :].any())", "far.eq(0)"),
    (packer, Packer, (8,), "inside.eq(~last)", "inside.eq(1)"),
    (packer, Packer, (16,), "following.eq(line + 1)", "following.eq(line)"),
    (packer, Packer, (16,), "row.turn + number", "row.turn - number"),
    (packer, Packer, (8,), "here &= slot <= number", "here &= row.slot <= number"),
    (packer, Packer, (8,), "ready & self.rows.valid),", "ready),"),
]  # fmt: skip
"""A proof, its unit, its size, and text of the unit's source with what to write for it."""


BRIEF = {(_Loops, ("wgt",)), (_Indices, ()), (Packer, (8,)), (StepQueue, (3,))}
"""What is proven in a second or two; the rest is for ``make prove``, as are mistakes but the first
of each unit."""


def _proof(name: str, sizes: tuple):
    deep = (PROOFS[name][1], sizes) not in BRIEF
    marks = [pytest.mark.deep] * deep
    return pytest.param(name, sizes, marks=marks, id=f"{name}, {sizes}")


def _mistake(number: int):
    mistake = MISTAKES[number]
    first = all(other[1] is not mistake[1] for other in MISTAKES[:number])
    marks = [] if first else [pytest.mark.deep]
    return pytest.param(*mistake, marks=marks, id=f"{mistake[1].__name__}, {mistake[4]}")


@pytest.mark.parametrize(
    ("name", "sizes"), [_proof(name, sizes) for name in PROOFS for sizes in PROOFS[name][2]]
)
def test_it_is_proven_that(name, sizes):
    proof, component, _ = PROOFS[name]
    proof(component, *sizes)


@pytest.mark.parametrize(
    ("proof", "component", "sizes", "right", "wrong"),
    [_mistake(number) for number in range(len(MISTAKES))],
)
def test_a_proof_fails_on_a_mistake(proof, component, sizes, right, wrong):
    with pytest.raises(Refuted):
        proof(planted(component, right, wrong), *sizes)
