"""What the small units promise, proven for all inputs; and every proof finds mistakes.

The models count what passes the unit's ports and know nothing of its registers. These appear only
in the properties at the end of a proof, which say which of their states can be reached.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.utils import exact_log2

from tests.formal import NO_SOLVER, Opened, Refuted, keeps, passes, planted, prove, solver, stays
from tests.hw import queue_proofs
from weft.hw.axi import BURST_BEATS, REQUEST
from weft.hw.boxes import Rows
from weft.hw.bursts import Bursts
from weft.hw.input_writes import InputWrites
from weft.hw.merge import LONG_BITS, Merge
from weft.hw.parted import Parted
from weft.hw.read_port import Turns
from weft.hw.scratchpad import held_layout
from weft.hw.span import Span
from weft.isa import PRESETS, Engine
from weft.isa.config import PAGE_BYTES
from weft.isa.memories import MEMORIES

if solver() is None:
    pytest.skip(NO_SOLVER, allow_module_level=True)
CONFIG = PRESETS["tiny"]
LOADED = [memory for memory in MEMORIES.values() if memory.engine is Engine.LOAD]


def offers(m: Module, stream) -> Value:
    """What is offered is offered until it is taken, but may change."""
    offered = Signal()
    m.d.sync += offered.eq(stream.valid & ~stream.ready)
    return ~offered | stream.valid


def bursts(component: type[Bursts]) -> None:
    """What is left of the request, in beats, and where it goes on."""
    m, dut = Module(), component(CONFIG)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    request, burst, bus = dut.i.p, dut.o.p, CONFIG.bus_bytes
    address, left = Signal.like(request.address), Signal.like(request.beats)
    with m.If(passes(dut.o)):
        m.d.sync += [address.eq(address + burst.beats * bus), left.eq(left - burst.beats)]
    with m.If(passes(dut.i)):
        m.d.sync += [address.eq(request.address), left.eq(request.beats)]
    there = dut.o.valid
    *_, dut_beat, dut_left = opened.registers()
    prove(
        m,
        [dut],
        {
            "there are bursts until all beats are covered": there == (left != 0),
            "a burst begins where the one before ended": ~there | (burst.address == address),
            "a burst has a beat": ~there | (burst.beats != 0),
            "a burst is not too long": ~there | (burst.beats <= BURST_BEATS),
            "a burst goes no further than its request": ~there | (burst.beats <= left),
            "a burst stays in its page": ~there
            | (burst.address % PAGE_BYTES + burst.beats * bus <= PAGE_BYTES),
            "the length is given as AXI4 does": ~there | (burst.len + 1 == burst.beats),
            "the last burst is marked": ~there | (burst.last == (burst.beats == left)),
            "no request is taken before the one before has ended": ~passes(dut.i)
            | (left == Mux(passes(dut.o), burst.beats, 0)),
            "an offer stays": stays(m, dut.o),
            "position": ~there | ((dut_beat * bus == address) & (dut_left == left)),
        },
        given=[~dut.i.valid | (request.beats != 0), request.address % bus == 0],
    )


def merge(component: type[Merge]) -> None:
    """Any one beat is followed: its address, and how many beats are before it."""
    m, dut = Module(), component(CONFIG)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    comes, goes, bus = passes(dut.i), passes(dut.o), CONFIG.bus_bytes
    held = Signal.like(dut.i.p.beats)
    m.d.sync += held.eq(held + Mux(comes, dut.i.p.beats, 0) - Mux(goes, dut.o.p.beats, 0))

    choose, number = Signal(name="choose"), Signal.like(held, name="number")
    followed, ahead = Signal(name="followed"), Signal.like(held, name="ahead")
    address = Signal.like(dut.i.p.address)
    before = Signal.like(held)
    m.d.comb += before.eq(Mux(goes, held - Mux(held == 0, 0, dut.o.p.beats), held))
    with m.If(followed & goes):
        m.d.sync += followed.eq(0)
    with m.Elif(comes & choose & ~followed & ~(goes & (held == 0))):
        m.d.sync += [
            followed.eq(number < dut.i.p.beats),
            ahead.eq(before + number),
            address.eq(dut.i.p.address + number * bus),
        ]
    waits, dut_held, end, due, free = opened.registers()
    dut_held = data.View(REQUEST, dut_held)
    prove(
        m,
        [dut, choose, number],
        {
            "beats of several requests are not in one that is long": ~comes
            | goes
            | (held == 0)
            | (held + dut.i.p.beats < 2 << LONG_BITS),
            "what is held comes out next": ~dut.o.valid | (held == 0) | (dut.o.p.beats == held),
            "what passes is what comes": ~(goes & (held == 0))
            | (Value.cast(dut.o.payload) == Value.cast(dut.i.payload)),
            "a beat that is held goes with the next that go": ~followed | (ahead < held),
            "a beat is asked for where it was asked for": ~(followed & goes)
            | ((dut.o.p.address + ahead * bus)[:32] == address),
            "an offer is not withdrawn": offers(m, dut.o),
            "it takes what does not have to wait for what is held": (held != 0) | dut.i.ready,
            "free": free == (due <= 1),
            "held": (waits == (held != 0)) & (~waits | (dut_held.beats == held)),
            "end": ~waits | (end == (dut_held.address + held * bus)[:32]),
            "place": ~followed | ((dut_held.address + ahead * bus)[:32] == address),
        },
        given=[~dut.i.valid | (dut.i.p.beats != 0), stays(m, dut.i)],
    )


def rows(component: type[Rows]) -> None:
    """The box's geometry in bytes, with as many bits as it takes."""
    m, dut = Module(), component(CONFIG, LOADED)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    box, row, bus = dut.i.p, dut.o.p, CONFIG.bus_bytes
    sizes = [0] * (1 << len(box.memory_type))
    for memory in LOADED:
        sizes[memory.type] = memory.element_bytes(CONFIG)
    element = Array(sizes)[box.memory_type]
    address, left = Signal.like(row.address), Signal.like(box.y_size)
    stride, size = Signal(32), Signal(32)
    with m.If(passes(dut.o)):
        m.d.sync += [address.eq(address + stride), left.eq(left - 1)]
    with m.If(passes(dut.i)):
        m.d.sync += [
            left.eq(Mux(box.x_size == 0, 0, box.y_size)),
            address.eq(box.dram_base * element),
            stride.eq(box.x_stride * element),
            size.eq(box.x_size * element),
        ]
    there = dut.o.valid
    *_, dut_stride, dut_size, dut_left = opened.registers()
    touched = (address + size - 1) // bus - address // bus + 1
    prove(
        m,
        [dut],
        {
            "there are rows until the box ends, none of an empty one": there == (left != 0),
            "a row is a stride from the one before": ~there | (row.address == address),
            "a row's beats are those that its bytes touch": ~there | (row.beats == touched),
            "the last row is marked": ~there | (row.last == (left == 1)),
            "no box is taken before the one before has ended": ~passes(dut.i)
            | (left == passes(dut.o)),
            "an offer stays": stays(m, dut.o),
            "position": ~there | (dut_left == left),
            "geometry": ~there | ((dut_stride == stride) & (dut_size == size)),
            "a row has bytes": ~there | (size != 0),
            "sizes fit": (size < 1 << 28) & (stride < 1 << 28),
        },
        given=[~dut.i.valid | (element != 0)],
    )


def span(component: type[Span], greatest: int) -> None:
    """The places that are left in each of the three parts."""
    m, dut = Module(), component(greatest)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    parts = [dut.before, dut.size, dut.after]
    extents = [Signal.like(part) for part in parts]
    lefts = before, size, after = [Signal.like(part) for part in parts]
    most = dut.most if greatest > 1 else Const(1)
    kind = Mux(before != 0, before, Mux(size != 0, size, after))
    count = Signal(range(greatest + 1))
    m.d.comb += count.eq(Mux(kind < most, kind, most))
    with m.If(dut.step):
        with m.If(before + size + after == count):
            m.d.sync += [left.eq(extent) for left, extent in zip(lefts, extents, strict=True)]
        with m.Elif(before != 0):
            m.d.sync += before.eq(before - count)
        with m.Elif(size != 0):
            m.d.sync += size.eq(size - count)
        with m.Else():
            m.d.sync += after.eq(after - count)
    with m.If(dut.start):
        for left, extent, part in zip(lefts, extents, parts, strict=True):
            m.d.sync += [left.eq(part), extent.eq(part)]
    there = before + size + after != 0
    inside = (before == 0) & (size != 0)
    *dut_extents, dut_left, ahead, behind, is_before, is_after = opened.registers()[:8]
    [ends] = opened.registers()[8:] if greatest == 1 else [dut_left == 1]
    prove(
        m,
        [dut],
        {
            "data are between the padding": ~there | (dut.inside == inside),
            "a step is as long as it may be": ~there | (dut.count == count),
            "the last step is marked": ~there | (dut.last == (before + size + after == count)),
            "extents": Cat(dut_extents) == Cat(extents),
            "what comes": ~there
            | ((ahead == (extents[1] == 0)) & (behind == (extents[2] == 0))),
            "position": ~there
            | ((is_before == (before != 0)) & (is_after == ((before == 0) & (size == 0)))
               & (dut_left == kind) & (ends == (dut_left == 1))),
            "parts in order": ~there
            | (((before == 0) | (size == extents[1]))
               & (((before == 0) & (size == 0)) | (after == extents[2]))),
        },
        given=[~dut.step | there, most != 0],
    )  # fmt: skip


def turns(component: type[Turns], count: int) -> None:
    """How many others have been served since someone began to ask."""
    m, dut = Module(), component(count)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    [last] = opened.registers()
    waited = [Signal(range(2 * count), name=f"waited{n}") for n in range(count)]
    fair, reachable = Signal(), Signal()
    m.d.comb += [fair.eq(1), reachable.eq(last < count)]
    for number, others in enumerate(waited):
        with m.If(~dut.asks[number] | (dut.take & dut.grant[number])):
            m.d.sync += others.eq(0)
        with m.Elif(dut.take & dut.grant.any()):
            m.d.sync += others.eq(others + 1)
        with m.If(others >= count):
            m.d.comb += fair.eq(0)
        for served in range(count):
            before = (number - served - 1) % count
            with m.If((last == served) & (others + before >= count)):
                m.d.comb += reachable.eq(0)
    prove(
        m,
        [dut],
        {
            "one at most is served": (dut.grant & (dut.grant - 1)) == 0,
            "only who asks is served": (dut.grant & ~dut.asks) == 0,
            "someone is served if anyone asks": dut.grant.any() == dut.asks.any(),
            "who asks waits for each of the others once": fair,
            "order": reachable,
        },
    )


def input_writes(component: type[InputWrites]) -> None:
    """Who has waited for a cycle, from the ports alone."""
    m, dut = Module(), component(CONFIG)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    sides, waited = {"load": dut.load, "store": dut.store}, {}
    for name, port in sides.items():
        waited[name] = Signal(name=f"{name}_waited")
        m.d.sync += waited[name].eq(port.valid & ~port.ready)
    content = {name: Cat(p.address, p.mask, p.data) for name, p in {**sides, "o": dut.o}.items()}
    load, store = passes(dut.load), passes(dut.store)
    (register,) = opened.registers()
    prove(
        m,
        [dut],
        {
            "one writes at a time": ~(load & store),
            "something is written when one writes": dut.o.valid == (load | store),
            "it is what the one writes": (~load | (content["o"] == content["load"]))
            & (~store | (content["o"] == content["store"])),
            "who writes alone need not wait": (dut.load.ready | dut.store.valid)
            & (dut.store.ready | dut.load.valid),
            "who has waited writes": Cat(~waited[n] | passes(p) for n, p in sides.items()).all(),
            "registers": register == waited["load"],
        },
        given=[keeps(m, p.valid, p.ready, content[n]) for n, p in sides.items()],
    )


def parted(component: type[Parted], masks: int, parts: int) -> None:
    """A share of an element, which the solver chooses: what was last written, and whether that has
    come to the memory."""
    depth, width = 4, 8
    share_bits = width // masks
    m, dut = Module(), component(depth, width, masks, parts)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    write, element, share = dut.write, Signal(range(depth)), Signal(range(masks))
    choose, chosen = Signal(name="choose"), Signal(name="chosen")
    pending, value = Signal(), Signal(share_bits)
    elements, shares = (
        Signal.like(element, name="any_element"),
        Signal.like(share, name="any_share"),
    )
    with m.If(choose & ~chosen):
        m.d.sync += [element.eq(elements), share.eq(shares), chosen.eq(1)]
    held, todo = opened.registers()
    held = data.View(held_layout(dut.write), held)

    def covers(address: Value, mask: Value) -> Value:
        return chosen & (address == element) & mask.bit_select(share, 1)

    written = share >> exact_log2(masks // parts)  # the part that it is in
    whole = Cat(
        opened.entry("cells", "cells", address=Cat(element, Const(part, exact_log2(parts))))
        for part in range(parts)
    )
    known, followed = Signal(), Signal()
    m.d.comb += known.eq(followed & ~pending)
    due = todo.bit_select(written, 1)
    with m.If(passes(write) & covers(write.address, write.mask)):
        m.d.sync += [
            followed.eq(1),
            pending.eq(1),
            value.eq(write.data.word_select(share, share_bits)),
        ]
    with m.Elif(due & ~(todo & (todo - 1)).bit_select(written, 1)):
        m.d.sync += pending.eq(0)
    prove(
        m,
        [dut, choose, elements, shares],
        {
            "what was written is there when its part has been": ~known
            | (whole.word_select(share, share_bits) == value),
            "until then it is held": ~pending
            | (due & covers(held.address, held.mask)
               & (held.data.word_select(share, share_bits) == value)),
            "nothing else is written there": ~(followed & due & covers(held.address, held.mask))
            | pending,
            "a write goes when its last part does": write.ready == ((todo & (todo - 1)) == 0),
            "who is followed is chosen": chosen | ~followed,
            "what waits is followed": followed | ~pending,
        },
    )  # fmt: skip


PROOFS: dict[str, tuple[Callable[..., None], type, list[tuple[int, ...]]]] = {
    **queue_proofs.PROOFS,
    "bursts cover their request and stay in their pages": (bursts, Bursts, [()]),
    "merged requests ask for the same beats": (merge, Merge, [()]),
    "rows follow from their box": (rows, Rows, [()]),
    "a span divides an axis": (span, Span, [(1,), (4,)]),
    "turns are fair": (turns, Turns, [(1,), (3,), (4,)]),
    "two write in turn": (input_writes, InputWrites, [()]),
    "an element is written part by part": (parted, Parted, [(1, 1), (4, 2), (4, 4)]),
}
"""A proof, what it is of, and the sizes for which it is made."""

MISTAKES = [
    *queue_proofs.MISTAKES,
    (bursts, Bursts, (), "BURST_BEATS - beat[: exact_log2(BURST_BEATS)]", "BURST_BEATS"),
    (bursts, Bursts, (), "left <= room", "left < room"),
    (bursts, Bursts, (), "(self.o.ready & self.o.p.last)", "self.o.ready"),
    (merge, Merge, (), "self.i.p.address == end", "self.i.p.address >= end"),
    (merge, Merge, (), "(takes & continues & ~goes)", "(takes & continues)"),
    (merge, Merge, (), "waits | ~goes", "~goes"),
    (rows, Rows, (), "+ (self._bus_bytes - 1)", "+ self._bus_bytes"),
    (rows, Rows, (), "box.x_size.any() & box.y_size.any()", "box.y_size.any()"),
    (rows, Rows, (), "stride, size = Signal(16 + most)", "stride, size = Signal(16)"),
    (span, Span, (1,), "left == 2", "left == 1"),
    (span, Span, (1,), "is_after.eq(~is_before | ahead)", "is_after.eq(~is_before)"),
    (span, Span, (4,), "left[:bits] <= self.most", "left[:bits] < self.most"),
    (span, Span, (4,), "behind & (ahead | ~is_before)", "behind & ahead"),
    (turns, Turns, (3,), "(served + 1 + i)", "(served + i)"),
    (turns, Turns, (3,), "self.asks[number] & ~before", "self.asks[number]"),
    (turns, Turns, (3,), "m.If(self.take & self.grant[number])", "m.If(self.grant[number])"),
    (input_writes, InputWrites, (), "load.valid & first", "0"),
    (input_writes, InputWrites, (), "store.ready.eq(~waited)", "store.ready.eq(1)"),
    (input_writes, InputWrites, (), "Mux(first, store.mask", "Mux(store.valid, store.mask"),
    (parted, Parted, (4, 2), "todo.eq(more)", "todo.eq(0)"),
    (parted, Parted, (4, 2), "self.write.ready.eq(~more.any())", "self.write.ready.eq(1)"),
    (
        parted,
        Parted,
        (4, 2),
        "registered(m, self.write, self.write.ready)",
        "registered(m, self.write)",
    ),
    (parted, Parted, (4, 4), "now = todo & ~more", "now = todo"),
]
"""A proof, its unit, its size, and text of the unit's source with what to write for it."""


@pytest.mark.parametrize(
    ("name", "sizes"), [(name, sizes) for name in PROOFS for sizes in PROOFS[name][2]], ids=str
)
def test_it_is_proven_that(name, sizes):
    proof, component, _ = PROOFS[name]
    proof(component, *sizes)


@pytest.mark.parametrize(
    ("proof", "component", "sizes", "right", "wrong"),
    MISTAKES,
    ids=[f"{mistake[1].__name__}, {mistake[4]}" for mistake in MISTAKES],
)
def test_a_proof_fails_on_a_mistake(proof, component, sizes, right, wrong):
    with pytest.raises(Refuted):
        proof(planted(component, right, wrong), *sizes)
