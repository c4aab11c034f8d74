"""What queues promise for all inputs, as proofs and mistakes for ``test_formal.py``.

The models count what passes a queue's ports, or follow one value, and know nothing of its
registers. These appear only in the properties at the end of a proof, which say which of their
states can be reached.
"""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Module, Mux, Signal, Value

from tests.formal import Opened, passes, prove, stays
from weft.hw.queue import FRONT, CutQueue, DeepQueue, Queue
from weft.hw.tokens import TokenQueue


def token_queue(component: type[TokenQueue], depth: int) -> None:
    """Places and tokens as totals of what has passed, which wrap around."""
    m, dut = Module(), component(depth)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    registers = opened.registers()
    placed, pushed, popped = totals = [Signal(range(4 * depth), name=f"n{i}") for i in range(3)]
    for total, event in zip(totals, (passes(dut.place), dut.push, passes(dut.pop)), strict=True):
        m.d.sync += total.eq(Mux(dut.clear, 0, total + event))
    taken, tokens = Signal.like(placed), Signal.like(placed)
    m.d.comb += [taken.eq(placed - popped), tokens.eq(pushed - popped)]
    prove(
        m,
        [dut],
        {
            "no more places are taken than there are": taken <= depth,
            "every token has a place": tokens <= taken,
            "a place can be taken while one is free": dut.place.ready == (taken != depth),
            "a token goes out when one has come in and not gone": dut.pop.valid == (tokens != 0),
            "places": (registers[0] == taken) & (registers[1] == (taken != depth)),
            "tokens": (registers[2] == tokens) & (registers[3] == (tokens != 0)),
        },
        given=[~dut.push | (tokens != taken)],
    )


def _one_followed(m: Module, dut, depth: int) -> tuple[Signal, ...]:
    """What a queue holds; and of one value, which the solver may ``choose``: whether it is
    followed, how many are before it, and what it was."""
    enters, leaves = passes(dut.i), passes(dut.o)
    held = Signal(range(2 * depth))
    m.d.sync += held.eq(held + enters - leaves)
    choose, followed = Signal(name="choose"), Signal(name="followed")
    ahead, value = Signal(range(depth + 1), name="ahead"), Signal(4, name="value")
    with m.If(followed & leaves):
        m.d.sync += [ahead.eq(ahead - 1), followed.eq(ahead != 0)]
    with m.Elif(enters & choose & ~followed):
        m.d.sync += [ahead.eq(held - leaves), value.eq(dut.i.payload), followed.eq(1)]
    return held, choose, followed, ahead, value


def queue(component: type[Queue], depth: int, registered: bool = False) -> None:
    """Any one value is followed: what it was, and how many are before it."""
    m, dut = Module(), component(4, depth, registered)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    held, choose, followed, ahead, value = _one_followed(m, dut, depth)

    *_, produce, consume = opened.registers("fifo")
    place, entries, size = Signal(range(2 * depth)), Signal.like(held), depth - registered
    after = consume + ahead - registered
    m.d.comb += [
        place.eq(after - Mux(after >= size, size, 0)),
        entries.eq(held - (dut.o.valid if registered else 0)),
    ]
    prove(
        m,
        [dut, choose],
        {
            "it holds no more than it can": held <= depth,
            "its level is what it holds": dut.level == held,
            "it takes while it has room": dut.i.ready == (held != depth),
            "it gives while it holds something": dut.o.valid == (held != 0),
            "an offer stays": stays(m, dut.o),
            "what has come in has not gone before its turn": ~followed | (ahead < held),
            "what comes out is what came in": ~(followed & (ahead == 0))
            | (dut.o.payload == value),
            "positions": (consume < size) & (produce < size)
            & ((consume + entries == produce) | (consume + entries == produce + size)),
            "contents": ~followed | (registered & (ahead == 0))
            | (opened.entry("fifo", "storage", address=place) == value),
        },
    )  # fmt: skip


def deep_queue(component: type[DeepQueue], depth: int) -> None:
    """The promises of a queue; the value that is first has been read from the memory."""
    m, dut = Module(), component(4, depth)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    held, choose, followed, ahead, value = _one_followed(m, dut, depth)

    level, room, there, produce, consume, *_ = opened.registers()
    place, at = Signal(range(2 * depth)), consume + ahead
    m.d.comb += place.eq(at - Mux(at >= depth, depth, 0))
    prove(
        m,
        [dut, choose],
        {
            "it holds no more than it can": held <= depth,
            "its level is what it holds": level == held,
            "it takes while it has room": dut.i.ready == (held != depth),
            "it gives while it holds something": dut.o.valid == (held != 0),
            "an offer stays": stays(m, dut.o),
            "what has come in has not gone before its turn": ~followed | (ahead < held),
            "what comes out is what came in": ~(followed & (ahead == 0)) | (dut.o.payload == value),
            "flags": (room == (level != depth)) & (there == (level != 0)),
            "positions": (consume < depth) & (produce < depth)
            & ((consume + level == produce) | (consume + level == produce + depth)),
            "contents": ~followed | (opened.entry("cells", address=place) == value),
            "the first is read ahead": _read_ahead(opened, dut, consume),
        },
    )  # fmt: skip


def _read_ahead(opened: Opened, queue: DeepQueue, consume: Value, *path: str) -> Value:
    """Whether a deep queue's memory holds, as the oldest, what the queue shows."""
    oldest = opened.entry(*path, "cells", address=consume)
    return ~queue.o.valid | (queue.o.payload == oldest)


def cut_queue(component: type[CutQueue], depth: int) -> None:
    """Any one value is followed, as in a queue; it is among those in front or behind them."""
    m, dut = Module(), component(4, depth)
    opened = Opened(dut)
    m.submodules.dut = opened.fragment
    held, choose, followed, ahead, value = _one_followed(m, dut, depth)

    front, produced, oldest = opened.registers("front", "fifo")
    behind, room, waits, produce, consume, *_ = opened.registers("behind")
    size = depth - FRONT
    place, at = Signal(range(2 * depth)), consume + ahead - front
    m.d.comb += place.eq(at - Mux(at >= size, size, 0))
    in_front = opened.entry("front", "fifo", "storage", address=(oldest + ahead)[0])
    in_memory = opened.entry("behind", "cells", address=place)
    found = Mux(ahead < front, in_front, in_memory)
    prove(
        m,
        [dut, choose],
        {
            "it holds what has come and not gone": front + behind == held,
            "it gives while it holds something": dut.o.valid == (held != 0),
            "it waits only while all places behind are taken": dut.i.ready
            | (behind == depth - FRONT),
            "an offer stays": stays(m, dut.o),
            "what has come in has not gone before its turn": ~followed | (ahead < held),
            "what comes out is what came in": ~(followed & (ahead == 0)) | (dut.o.payload == value),
            "positions": (behind <= size) & (consume < size) & (produce < size)
            & ((consume + behind == produce) | (consume + behind == produce + size)),
            "positions in front": (front <= FRONT) & (produced == (oldest + front)[0]),
            "the front is filled first": (front != 0) | (behind == 0),
            "flags": (room == (behind != size)) & (waits == (behind != 0)),
            "contents": ~followed | (found == value),
            "the first behind is read ahead": _read_ahead(opened, dut.behind, consume, "behind"),
        },
    )  # fmt: skip


PROOFS: dict[str, tuple[Callable[..., None], type, list[tuple[int, ...]]]] = {
    "tokens are neither lost nor invented": (token_queue, TokenQueue, [(1,), (3,), (255,)]),
    "a queue keeps values and their order": (
        queue,
        Queue,
        [(2,), (3,), (16,), (3, True), (16, True)],
    ),
    "a queue in block RAM, too": (deep_queue, DeepQueue, [(2,), (3,), (16,)]),
    "a queue with a front, too": (cut_queue, CutQueue, [(4,), (16,)]),
}
"""A proof, what it is of, and the sizes for which it is made."""

MISTAKES = [
    (token_queue, TokenQueue, (2,), "taken != self._depth - 1", "taken != self._depth"),
    (token_queue, TokenQueue, (2,), "has_tokens, self.push", "has_tokens, places"),
    (token_queue, TokenQueue, (2,), "m.Elif(up & ~pops)", "m.Elif(up)"),
    (token_queue, TokenQueue, (2,), "m.Elif(pops & ~up)", "m.Elif(pops & ~up & (taken != 2))"),
    (queue, Queue, (2,), "w_en.eq(self.i.valid)", "w_en.eq(self.i.valid & ~self.o.ready)"),
    (queue, Queue, (2,), "r_en.eq(self.o.ready)", "r_en.eq(self.o.ready | ~self.i.ready)"),
    (queue, Queue, (3, True), "(entries.r_rdy | ~moves)", "~moves"),
    (queue, Queue, (3, True), "entries.r_rdy | self.i.valid", "entries.r_rdy"),
    (queue, Queue, (3,), ".eq(entries.r_data)", ".eq(entries.r_data | (self.level == 3))"),
    (deep_queue, DeepQueue, (2,), "room.eq(self.level != self._depth - 1)", "room.eq(1)"),
    (deep_queue, DeepQueue, (3,), "there.eq(~one)", "there.eq(1)"),
    (deep_queue, DeepQueue, (3,), "gone | fresh", "gone"),
    (deep_queue, DeepQueue, (3,), "~there | (gone & one)", "~there"),
    (deep_queue, DeepQueue, (3,), "read.addr.eq(first)", "read.addr.eq(consume)"),
    (cut_queue, CutQueue, (4,), "~behind.o.valid & front.i.ready", "front.i.ready"),
    (cut_queue, CutQueue, (4,), "self.i.valid & ~passes", "self.i.valid"),
]
"""A proof, its unit, its size, and text of the unit's source with what to write for it."""
