"""From boxes to the writes that fill them."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arrival import Arrival
from .interfaces import BOX, INDEX_BITS
from .queue import Queue
from .span import Span


def move_layout(arrivals: Sequence[Arrival]) -> data.StructLayout:
    """A write of a box, or the mere end of an empty one, whose ``write`` is 0.

    ``count`` elements from ``at`` on, or the ``part`` of one that a beat fills; data where
    ``inside``, else padding. ``slot`` is where the first stands in its beat. ``out`` says that
    ``at``, ``over`` that any of them is beyond the memory. ``last`` ends its box.
    """
    banks, beats, slots = (
        max(getattr(arrival, name) for arrival in arrivals) for name in ("banks", "beats", "slots")
    )
    return data.StructLayout(
        {
            "write": 1,
            "memory_type": BOX["memory_type"].shape,
            "pad_value": BOX["pad_value"].shape,
            "at": BOX["sram_base"].width + 1,
            "count": range(banks + 1),
            "inside": 1,
            "part": range(beats),
            "slot": range(slots),
            "out": 1,
            "over": 1,
            "last": 1,
            "index": INDEX_BITS,
        }
    )


class Walk(wiring.Component):
    """Goes through boxes in row-major order: a write a cycle, no gap between boxes.

    From ``i`` to ``o`` it is three cycles. An element of padding is a write, or as many of them as
    a beat would hold, on the same side of a row. Nothing depends on ``o.ready`` but a queue.

    Parameters
    ----------
    depths : sequence of int
        The memories' elements.
    arrivals : sequence of Arrival
        How their elements come; in the same order.

    Members
    -------
    i : :py:`In(stream.Signature(BOX))`
        The boxes.
    o : :py:`Out(stream.Signature(move_layout(arrivals)))`
        Their writes.
    idle : :py:`Out(1)`
        No box is there.
    """

    def __init__(self, depths: Sequence[int], arrivals: Sequence[Arrival]):
        self._depths, self._arrivals = depths, arrivals
        moves = stream.Signature(move_layout(arrivals))
        super().__init__({"i": In(stream.Signature(BOX)), "o": Out(moves), "idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        box = self.i.p
        greatest = max(arrival.banks for arrival in self._arrivals)
        m.submodules.columns = columns = Span(greatest)
        m.submodules.rows = rows = Span()
        m.submodules.moves = moves = Queue(self.o.payload.shape(), 2, registered=True)
        wiring.connect(m, moves.o, wiring.flipped(self.o))

        # An element's beats, and a beat's elements. ``slot`` is where the element at ``at``
        # stands in its beat, ``row_slot`` where the row's first does.
        now = Signal(self.o.payload.shape())
        busy, step, group_ends = Signal(), Signal(), Signal()
        last_part, slots, banks = self._per_memory(m)
        slot_bits = len(slots) - 1
        slot, row_slot, stride = Signal(slot_bits), Signal(slot_bits), Signal(slot_bits)
        inside = rows.inside & columns.inside
        m.d.comb += [
            group_ends.eq(step & (~inside | (now.part == last_part))),
            columns.step.eq(group_ends),
            rows.step.eq(group_ends & columns.last),
            self.i.ready.eq(~busy | (step & (~now.write | (rows.step & rows.last)))),
        ]
        if greatest > 1:
            in_beat = slots - (slot & (slots - 1)[:slot_bits])
            m.d.comb += columns.most.eq(Mux(inside, in_beat, banks))
        with m.If(step & inside):
            m.d.sync += now.part.eq(Mux(group_ends, 0, now.part + 1))
        with m.If(group_ends):
            m.d.sync += now.at.eq(now.at + columns.count)
            with m.If(inside):
                m.d.sync += slot.eq(0)
            with m.If(rows.step & rows.inside):
                m.d.sync += [slot.eq(row_slot + stride), row_slot.eq(row_slot + stride)]

        for span, axis in ((columns, "x"), (rows, "y")):
            m.d.comb += [
                span.start.eq(self.i.ready),
                span.before.eq(box[f"{axis}_pad_0"]),
                span.size.eq(box[f"{axis}_size"]),
                span.after.eq(box[f"{axis}_pad_1"]),
            ]
        with m.If(self.i.ready):
            rows_there = Cat(box.y_pad_0, box.y_size, box.y_pad_1).any()
            m.d.sync += [
                busy.eq(self.i.valid),
                now.write.eq(box.x_size.any() & rows_there),
                *(now[name].eq(box[name]) for name in ("memory_type", "pad_value", "index")),
                now.at.eq(box.sram_base),
                now.part.eq(0),
                slot.eq(box.dram_base),
                row_slot.eq(box.dram_base),
                stride.eq(box.x_stride),
            ]

        # A stage in which the elements are looked at.
        valid, move = Signal(), Signal.like(now)
        m.d.comb += step.eq(busy & (~valid | moves.i.ready))
        with m.If(~valid | moves.i.ready):
            m.d.sync += [
                valid.eq(busy),
                move.eq(now),
                move.inside.eq(inside),
                move.count.eq(columns.count),
                move.slot.eq(slot),
                move.last.eq(~now.write | (group_ends & columns.last & rows.last)),
            ]
        m.d.comb += [
            moves.i.valid.eq(valid),
            moves.i.payload.eq(move),
            self.idle.eq(~busy & ~valid & ~moves.o.valid),
        ]
        self._look(m, move, moves.i.p)
        return m

    def _per_memory(self, m: Module) -> list[Signal]:
        """Of the boxes' memory: an element's last part, a beat's elements, and a write's."""
        rows = [(a.beats - 1, a.slots, a.banks) for a in self._arrivals]
        names = ("last_part", "slots", "banks")
        values = [
            Signal(range(max(column) + 1), name=name)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        ]
        with m.If(self.i.ready), m.Switch(self.i.p.memory_type):
            for arrival, row in zip(self._arrivals, rows, strict=True):
                with m.Case(arrival.memory.type):
                    m.d.sync += [value.eq(each) for value, each in zip(values, row, strict=True)]
        return values

    def _look(self, m: Module, move, looked) -> None:
        """Whether the first, or any of a move's elements, is beyond its memory."""
        to = move.at + move.count
        with m.Switch(move.memory_type):
            for arrival, depth in zip(self._arrivals, self._depths, strict=True):
                with m.Case(arrival.memory.type):
                    m.d.comb += [looked.out.eq(move.at >= depth), looked.over.eq(to > depth)]
