"""What the units at the buses promise, proven for all that the other side may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.utils import exact_log2

from tests.formal import (
    NO_SOLVER,
    Opened,
    Refuted,
    keeps,
    passes,
    planted,
    prove,
    solver,
)
from weft.hw.acc_reader import AccReader
from weft.hw.axi import BURST_BEATS, BURST_INCR, REQUEST, Response
from weft.hw.bursts import BURST
from weft.hw.fetch import REQUEST_BEATS_BITS, Fetch
from weft.hw.queue import FRONT
from weft.hw.read_port import BUFFER_BEATS, OUTSTANDING, ReadPort
from weft.hw.registers import RegisterBlock
from weft.hw.write_port import OUTSTANDING as WRITES_OUTSTANDING
from weft.hw.write_port import WritePort
from weft.isa import PRESETS
from weft.isa.config import PAGE_BYTES
from weft.isa.formats import INSTRUCTION_BYTES
from weft.isa.registers import register

if solver() is None:
    pytest.skip(NO_SOLVER, allow_module_level=True)
TINY = PRESETS["tiny"]


def read_port(component: type[ReadPort], clients: int) -> None:
    """What is asked for and has not come; the other side may send any of it at any time."""
    m, dut, bus = Module(), component(TINY, clients), TINY.bus_bytes
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    axi = dut.axi
    asked, comes = axi.arvalid & axi.arready, axi.rvalid & axi.rready
    # Between ``outstanding`` and the pins are bursts whose address waits in a queue of two.
    outstanding, *counts = opened.registers()
    promises = list(zip(counts[::2], counts[1::2], strict=True))
    waiting, *_ = opened.registers("addresses", "fifo")
    kept, entries = _entries(opened, "addresses")
    asking = [(there, entry[:32], entry[32:40], entry[40:]) for there, entry in entries]
    bursts = Signal(range(4 * OUTSTANDING))
    m.d.sync += bursts.eq(bursts + asked - (comes & axi.rlast))
    given = [~(axi.rvalid & axi.rlast) | (bursts != 0), ~axi.rvalid | (axi.rid < clients)]
    address = (axi.araddr, axi.arlen, axi.arid, axi.arsize, axi.arburst, axi.arcache, axi.arprot)
    properties: dict[str, Value] = {
        "an address stays": keeps(m, axi.arvalid, axi.arready, *address),
        "a burst has whole beats, one after the other": (axi.arburst == BURST_INCR)
        & ((1 << axi.arsize) == bus),
        "no more bursts are under way than there may be": bursts <= OUTSTANDING,
        "a beat is always taken": axi.rready,
        "bursts": (outstanding == bursts + waiting) & (outstanding <= OUTSTANDING),
        "places": kept,
    }
    for place, (there, start, length, client) in enumerate(asking):
        properties |= {
            f"a burst is not too long, {place}": ~there | (length < BURST_BEATS),
            f"a burst begins at a beat, {place}": ~there | (start % bus == 0),
            f"a burst stays in its page, {place}": ~there
            | (start % PAGE_BYTES + (length + 1) * bus <= PAGE_BYTES),
            f"an id is a client's, {place}": ~there | (client < clients),
        }
    for number, (promised, left) in enumerate(promises):
        behind, room, waits, *_ = opened.registers(f"queue_{number}", "behind")
        front, _, _ = opened.registers(f"queue_{number}", "front", "fifo")
        valid, to_cut, known = _bursts(opened, f"bursts_{number}")
        owed, request = Signal(range(4 * BUFFER_BEATS)), dut.client[number].request
        beats = Mux(asked & (axi.arid == number), axi.arlen + 1, 0)
        m.d.sync += owed.eq(owed + beats - (comes & (axi.rid == number)))
        given.append(~(axi.rvalid & (axi.rid == number)) | (owed != 0))
        given.append(~request.valid | ((request.p.beats != 0) & (request.p.address % bus == 0)))
        to_be_asked = sum(
            Mux(there & (client == number), length + 1, 0) for there, _, length, client in asking
        )
        properties |= {
            f"every beat has a place, {number}": owed + behind + front <= BUFFER_BEATS,
            f"promises, {number}": (promised == owed + behind + front + left + to_be_asked)
            & (promised <= BUFFER_BEATS),
            f"what waits fills the front first, {number}": (front <= FRONT)
            & ((behind == 0) | (front != 0)),
            f"flags of what waits, {number}": (room == (behind != BUFFER_BEATS - FRONT))
            & (waits == (behind != 0)),
            f"a request has beats, {number}": ~valid | (to_cut != 0),
            f"its last burst is known, {number}": known,
        }
        waits, held, _, due, free = opened.registers(f"merge_{number}")
        held = data.View(REQUEST, held)
        properties |= {
            f"what waits to be extended has beats, {number}": ~waits
            | ((held.beats != 0) & (held.address % bus == 0)),
            f"when it may go, {number}": free == (due <= 1),
        }
        kept, requests = _entries(opened, f"merged_{number}")
        properties[f"places of requests, {number}"] = kept
        for place, (there, entry) in enumerate(requests):
            properties[f"a merged request has beats, {number} {place}"] = ~there | (
                (entry[32:] != 0) & (entry[:32] % bus == 0)
            )
        kept, cut = _entries(opened, f"bursts_{number}_cut")
        properties[f"places of bursts, {number}"] = kept
        for place, (there, entry) in enumerate(cut):
            burst = data.View(BURST, entry)
            properties[f"a burst is as one has to be, {number} {place}"] = ~there | (
                (burst.beats != 0)
                & (burst.beats <= BURST_BEATS)
                & (burst.len + 1 == burst.beats)
                & (burst.address % bus == 0)
                & (burst.address % PAGE_BYTES + burst.beats * bus <= PAGE_BYTES)
            )
    prove(m, [dut], properties, given)


def _bursts(opened: Opened, name: str) -> tuple[Value, Value, Value]:
    """Of what cuts requests: whether it has one, what is left of it, and that it knows its end."""
    payload, valid, beat, left = opened.registers(name)
    room = BURST_BEATS - beat[: exact_log2(BURST_BEATS)]
    return valid, left, ~valid | (data.View(BURST, payload).last == (left <= room))


def _entries(opened: Opened, name: str) -> tuple[Value, list[tuple[Value, Value]]]:
    """Of a queue of two: that its places fit together, and whether each entry is there."""
    waiting, next_place, oldest = opened.registers(name, "fifo")
    kept = (waiting <= 2) & ((oldest + waiting)[0] == next_place)
    places = [
        (waiting > n, opened.entry(name, "fifo", "storage", address=Value.cast(oldest + n)))
        for n in (0, 1)
    ]
    return kept, places


def write_port(component: type[WritePort]) -> None:
    """What is asked for and not answered; beats and their last ones in the queue to the pins."""
    m, dut = Module(), component(TINY)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    axi, client = dut.axi, dut.client
    asked, answered = axi.awvalid & axi.awready, axi.bvalid & axi.bready
    bursts = Signal(range(4 * WRITES_OUTSTANDING))
    m.d.sync += bursts.eq(bursts + asked - answered)
    held = Signal(range(8))
    m.d.sync += held.eq(held + passes(client.data) - (axi.wvalid & axi.wready))
    levels: dict[str, Value] = {}
    properties: dict[str, Value] = {}
    depths = {"addresses": 2, "responses": 2, "beats": 2, "cut": 2}
    for name in (*depths, "under_way", "lengths"):
        depth = depths.get(name, WRITES_OUTSTANDING)
        level, produce, consume = opened.registers(name, "fifo")
        end = (consume + level)[: len(produce)]
        properties[f"places, {name}"] = (level <= depth) & (end == produce)
        levels[name] = level
    valid, left, known = _bursts(opened, "bursts")
    properties |= {
        "no more bursts are under way than there may be": bursts <= WRITES_OUTSTANDING,
        "an address stays": keeps(
            m, axi.awvalid, axi.awready, axi.awaddr, axi.awlen, axi.awsize, axi.awburst
        ),
        "a beat stays": keeps(m, axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast),
        "an answer stays": keeps(
            m, client.response.valid, client.response.ready, client.response.payload
        ),
        "data go out only for what has been asked for": ~axi.wvalid | (levels["lengths"] != 0),
        "each of them goes out once": levels["beats"] == held,
        "bursts": levels["under_way"] == bursts + levels["addresses"] + levels["responses"],
        "a request has beats": ~valid | (left != 0),
        "its last burst is known": known,
    }
    request = client.request
    given = [
        ~axi.bvalid | (bursts != 0),
        ~request.valid | ((request.p.beats != 0) & (request.p.address % TINY.bus_bytes == 0)),
    ]
    prove(m, [dut], properties, given)


def fetch(component: type[Fetch]) -> None:
    """The program's beats that are not requested, and its instructions that have not come."""
    m, dut, bus = Module(), component(TINY), TINY.bus_bytes
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    program, request, beat = dut.start.p, dut.bus.request, dut.bus.beat
    address, beats, left = Signal(32), Signal(34), Signal(32)
    index, second, failed = Signal(32), Signal(), Signal()
    first = Signal(8 * bus)
    with m.If(passes(request)):
        m.d.sync += [address.eq(address + request.p.beats * bus), beats.eq(beats - request.p.beats)]
    with m.If(passes(beat)):
        m.d.sync += [second.eq(~second), first.eq(beat.p.data)]
        m.d.sync += failed.eq(~second & beat.p.error)
    with m.If(passes(dut.o)):
        m.d.sync += [left.eq(left - 1), index.eq(index + 1)]
    with m.If(passes(dut.start)):
        m.d.sync += [
            address.eq(program.address),
            beats.eq(program.count * (INSTRUCTION_BYTES // bus)),
            left.eq(program.count),
            index.eq(0),
        ]
    *_, dut_left, dut_beats, more, dut_second, dut_first, dut_failed = opened.registers()
    there = dut.o.valid
    prove(
        m,
        [dut],
        {
            "beats are requested until all are": request.valid == (beats != 0),
            "requests follow one another": ~request.valid | (request.p.address == address),
            "no more is requested than is needed": ~request.valid
            | ((request.p.beats != 0) & (request.p.beats <= beats)),
            "a request stays": keeps(m, request.valid, request.ready, request.payload),
            "an instruction is two beats": ~there
            | (second & beat.valid & (dut.o.p.word == (first | (beat.p.data << (8 * bus))))),
            "its index counts": ~there | (dut.o.p.index == index),
            "none comes with an error, nor after it": ~there
            | ~(failed | beat.p.error | dut.fault.valid),
            "it is idle when all have been delivered": dut.idle == (left == 0),
            "a fault stays": keeps(m, dut.fault.valid, Const(0), dut.fault.code, dut.fault.index),
            "a program waits for the one before": ~passes(dut.start) | (left == 0),
            "requests": ~request.valid
            | ((dut_beats == beats) & (more == dut_beats[REQUEST_BEATS_BITS:].any())),
            "registers": (dut_left == left) & (dut_second == second)
            & (dut_failed == failed) & (dut_first[8 * bus :] == first)
            & ((beats == 0) | (request.p.address == address)) & (dut.o.p.index == index)
            & (second | ~failed),
        },
        given=[
            program.address % INSTRUCTION_BYTES == 0,
            ~beat.valid | (left != 0),
            ~passes(dut.start) | ~second,
            ~dut.start.valid | (beats == 0),
        ],
    )  # fmt: skip


def acc_reader(component: type[AccReader], bus_bytes: int, turns: int = 1) -> None:
    """What is left of a row, where its next beat begins, and whether a group waits."""
    m, dut = Module(), component(replace(TINY, bus_bytes=bus_bytes, rescale_cycles=turns))
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    row, acc = dut.i.p, dut.acc
    slots = 1 << len(row.slot)
    left, address, slot = Signal.like(row.count), Signal.like(row.acc), Signal.like(row.slot)
    parameters, wanted, first = Signal.like(row.qnt), Signal(), Signal()
    of_parameters = Signal.like(row.qnt)
    offered, of_group = Signal(), Signal()
    count = Mux(left < slots - slot, left, slots - slot)
    m.d.sync += offered.eq(acc.enable | (offered & ~dut.o.ready))
    with m.If(acc.enable):
        m.d.sync += [left.eq(left - count), address.eq(address + count), slot.eq(0)]
        m.d.sync += [first.eq(0), of_group.eq(wanted), of_parameters.eq(parameters)]
    with m.If(passes(dut.i)):
        m.d.sync += [left.eq(row.count), address.eq(row.acc), slot.eq(row.slot), first.eq(1)]
        m.d.sync += [parameters.eq(row.qnt), wanted.eq(row.requantize)]
    *_, dut_left, dut_slot, dut_first, dut_wanted, dut_index = opened.registers()
    if turns == 1:
        may = dut.qnt.ready | ~(first & wanted)
        of_rows = {
            "parameters are read with a row's first group, if it has some": dut.qnt.enable
            == (acc.enable & first & wanted),
            "they are the row's": ~dut.qnt.enable | (dut.qnt.address == parameters),
        }
    else:
        may = Const(1)
        of_rows = {
            "a group's parameters are its row's": ~offered | (dut.o.p.qnt == of_parameters),
            "so long as it is offered": keeps(m, dut.o.valid, dut.o.ready, dut.o.p.qnt),
        }
    prove(
        m,
        [dut],
        {
            "what is left of a row is read as soon as it can be": acc.enable
            == ((left != 0) & (~offered | dut.o.ready) & acc.ready & may),
            "a beat's elements are read, and then the next's": ~acc.enable
            | (acc.address == address),
            **of_rows,
            "no row is taken before the one before is read": ~passes(dut.i)
            | (left == Mux(acc.enable, count, 0)),
            "a row is taken with the last read of the one before": ~acc.enable
            | (left != count) | dut.i.ready,
            "what was read is offered until it is taken": dut.o.valid == offered,
            "it is requantized as its row says": ~offered | (dut.o.p.requantize == of_group),
            "nothing is read before what was read is taken": ~acc.enable | ~offered | dut.o.ready,
            "an offer stays": keeps(m, dut.o.valid, dut.o.ready, dut.o.p.requantize),
            "registers": (dut_left == left)
            & ((left == 0) | ((acc.address == address) & (dut_slot == slot)
            & (dut_first == first) & (dut_wanted == wanted) & (dut_index == parameters))),
        },
        given=[~dut.i.valid | (row.count != 0)],
    )  # fmt: skip


def registers(component: type[RegisterBlock]) -> None:
    """Which halves of a write have come, whether an answer is owed; a register is followed."""
    m, dut = Module(), component()
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    bus, followed = dut.axil, register("ADDRESS")
    address, data, strobe = (Signal.like(s) for s in (bus.awaddr, bus.wdata, bus.wstrb))
    addressed, sent, written, owed = (Signal(name=n) for n in ("aw", "w", "b", "r"))
    value, old = Signal(32), Signal(32)
    given_answer = bus.bvalid & bus.bready
    writes = addressed & sent & ~written
    m.d.sync += [
        addressed.eq((addressed & ~writes) | (bus.awvalid & bus.awready)),
        sent.eq((sent & ~writes) | (bus.wvalid & bus.wready)),
        written.eq(writes | (written & ~given_answer)),
        owed.eq((owed & ~(bus.rvalid & bus.rready)) | (bus.arvalid & bus.arready)),
        old.eq(value),
    ]
    with m.If(bus.awvalid & bus.awready):
        m.d.sync += address.eq(bus.awaddr)
    with m.If(bus.wvalid & bus.wready):
        m.d.sync += [data.eq(bus.wdata), strobe.eq(bus.wstrb)]
    for byte in range(4):
        part = slice(8 * byte, 8 * byte + 8)
        with m.If(writes & (address[2:] == followed.offset >> 2) & strobe[byte]):
            m.d.sync += value[part].eq(data[part])
    dut_address, dut_data, dut_strobe, dut_addressed, dut_sent = opened.registers()[-5:]
    prove(
        m,
        [dut],
        {
            "a read is answered once": bus.rvalid == owed,
            "no read is taken before the answer": ~owed | ~(bus.arvalid & bus.arready),
            "a write is answered once, after both its halves": bus.bvalid == written,
            "no half is taken twice": ~(addressed & bus.awready) & ~(sent & bus.wready),
            "an answer to a read stays": keeps(m, bus.rvalid, bus.rready, bus.rdata, bus.rresp),
            "an answer to a write stays": keeps(m, bus.bvalid, bus.bready, bus.bresp),
            "nothing fails": (bus.rresp == Response.OKAY) & (bus.bresp == Response.OKAY),
            "a register holds what was written, byte by byte": dut.address == value,
            "a command lasts a cycle": dut.control
            == Mux(
                writes & (address[2:] == register("CONTROL").offset >> 2),
                data & _bytes(strobe),
                0,
            ),
            "halves": (dut_addressed == addressed) & (dut_sent == sent)
            & (~addressed | (dut_address == address)),
            "contents": ~sent | ((dut_data == data) & (dut_strobe == strobe)),
        },
    )  # fmt: skip


def _bytes(strobe: Value) -> Value:
    return Value.cast(sum(Mux(bit, 0xFF << 8 * n, 0) for n, bit in enumerate(strobe)))


Proof = Callable[..., None]
PROOFS: dict[str, tuple[Proof, type, tuple[int, ...]]] = {
    "fetch requests its program and delivers it": (fetch, Fetch, ()),
    "rows of accumulators are read in order, beat by beat": (acc_reader, AccReader, (8,)),
    "so are they where a beat holds eight": (acc_reader, AccReader, (32,)),
    "so are they with indices of parameters": (acc_reader, AccReader, (8, 2)),
    "registers answer every access once": (registers, RegisterBlock, ()),
    "a write port asks for no more than may be under way": (write_port, WritePort, ()),
    "a read port asks for what it has places for": (read_port, ReadPort, (1,)),
}
"""A proof, what it is of, and the size for which it is made."""

MISTAKES: list[tuple[Proof, type, tuple[int, ...], str, str]] = [
    (fetch, Fetch, (), "(most << beat_bits)", "most"),
    (fetch, Fetch, (), "valid & ~error & ~self.fault.valid", "valid & ~self.fault.valid"),
    (fetch, Fetch, (), "failed | beat.p.error\n", "beat.p.error\n"),
    (fetch, Fetch, (), "held[len(beat.p.data) :]", "held[: len(beat.p.data)]"),
    (acc_reader, AccReader, (8,), "(ends & self.acc.enable)", "ends"),
    (acc_reader, AccReader, (8,), "self.acc.enable | self.o.ready", "self.acc.enable"),
    (acc_reader, AccReader, (8,), "(~self.o.valid | self.o.ready)", "C(1)"),
    (acc_reader, AccReader, (8,), "first.eq(0), ", ""),
    (acc_reader, AccReader, (8,), "left <= room", "left < room"),
    (acc_reader, AccReader, (8, 2), "self.o.p.qnt.eq(index)", "self.o.p.qnt.eq(self.i.p.qnt)"),
    (acc_reader, AccReader, (32,), "slot.eq(0)", "slot.eq(count)"),
    (registers, RegisterBlock, (), "has_data & ~bus.bvalid", "has_data"),
    (registers, RegisterBlock, (), "bus.arready.eq(~bus.rvalid)", "bus.arready.eq(1)"),
    (registers, RegisterBlock, (), "(data & mask) | (value & ~mask)", "data"),
    (registers, RegisterBlock, (), "bus.awready.eq(~has_address)", "bus.awready.eq(~bus.bvalid)"),
    (write_port, WritePort, (), "axi.wready & lengths.o.valid", "axi.wready"),
    (write_port, WritePort, (), "lengths.i, under_way.i)", "lengths.i)"),
    (read_port, ReadPort, (1,), "client.beat.valid & client.beat.ready", "client.beat.ready"),
    (read_port, ReadPort, (1,), "- (axi.rvalid & axi.rlast)", "- axi.rvalid"),
]
"""A proof, its unit, its size, and text of the unit's source with what to write for it."""


LATER = {("C(1)",), ("self.acc.enable",), ("",)}
"""Mistakes in AccReader of the kind of which make test plants another."""


def _marked(proof: Proof, *rest, id: str):
    deep = (
        proof in (read_port, write_port)
        or (proof is fetch and len(rest) == 2)
        or (proof is acc_reader and (rest[1] == (32,) or rest[3:] in LATER))
    )
    return pytest.param(proof, *rest, id=id, marks=[pytest.mark.deep] * deep)


@pytest.mark.parametrize(
    ("proof", "component", "sizes"), [_marked(*PROOFS[name], id=name) for name in PROOFS]
)
def test_it_is_proven_that(proof, component, sizes):
    proof(component, *sizes)


@pytest.mark.parametrize(
    ("proof", "component", "sizes", "right", "wrong"),
    [_marked(*mistake, id=f"{mistake[1].__name__}, {mistake[4]}") for mistake in MISTAKES],
)
def test_a_proof_fails_on_a_mistake(proof, component, sizes, right, wrong):
    with pytest.raises(Refuted):
        proof(planted(component, right, wrong), *sizes)
