"""Elements to beats."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .arrival import bank_count
from .axi import write_client_signature
from .interfaces import BOX


def packed_row(config: AcceleratorConfig) -> data.StructLayout:
    """A row: how many elements, how many would stand before it in its first beat, its turn.

    ``turn`` is the bank of the accumulator that stands first in a beat, or would.
    """
    bits = exact_log2(bank_count(config, "acc"))
    return data.StructLayout({"count": BOX["x_size"].width, "slot": bits, "turn": bits})


class Packer(wiring.Component):
    """Makes beats of the elements of rows; a beat a cycle. Nothing is registered.

    Elements narrower than the bus come beat by beat, in the order of their accumulators' banks:
    they are turned to the places where they stand in the beat, and its strobe names the bytes
    that the row has there. Wider elements are cut.

    Members
    -------
    rows : :py:`In(stream.Signature(packed_row(config)))`
        The rows; each is taken with its last beat. Not used where elements are not narrower.
    i : stream
        The elements of a beat, or one, ``out_element_bytes`` each.
    o : stream of ``data``, ``strobe``
        The beats.
    """

    def __init__(self, config: AcceleratorConfig):
        self._element, self._bus = config.out_element_bytes, config.bus_bytes
        super().__init__(
            {
                "rows": In(stream.Signature(packed_row(config))),
                "i": In(stream.Signature(8 * max(self._element, self._bus))),
                "o": write_client_signature(config).members["data"],
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self._element < self._bus:
            self._turn(m)
        else:
            self._cut(m)
        return m

    def _cut(self, m: Module) -> None:
        beats = self._element // self._bus
        part = Signal(range(beats))
        last = part == beats - 1
        m.d.comb += [
            self.rows.ready.eq(1),
            self.o.valid.eq(self.i.valid),
            self.o.p.data.eq(self.i.payload.word_select(part, 8 * self._bus)),
            self.o.p.strobe.eq(~0),
            self.i.ready.eq(self.o.ready & last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += part.eq(Mux(last, 0, part + 1))

    def _turn(self, m: Module) -> None:
        slots, row = self._bus // self._element, self.rows.p
        left, inside = Signal.like(row.count), Signal()  # of a row whose first beat has gone
        slot, count = Signal.like(row.slot), Signal.like(row.count)
        room = slots - slot
        last = count <= room
        end = Mux(last, slot + count[: len(slot) + 1], slots)
        moves = self.o.valid & self.o.ready
        m.d.comb += [
            slot.eq(Mux(inside, 0, row.slot)),
            count.eq(Mux(inside, left, row.count)),
            self.o.valid.eq(self.i.valid & self.rows.valid),
            self.i.ready.eq(self.o.ready & self.rows.valid),
            self.rows.ready.eq(moves & last),
        ]
        with m.If(moves):
            m.d.sync += [left.eq(count - room), inside.eq(~last)]
        for number in range(slots):
            bank = (row.turn + number)[: len(row.turn)]
            here = number < end
            if number < slots - 1:
                here &= slot <= number
            m.d.comb += [
                self.o.p.data.word_select(number, 8 * self._element).eq(
                    self.i.payload.word_select(bank, 8 * self._element)
                ),
                self.o.p.strobe.word_select(number, self._element).eq(
                    here.replicate(self._element)
                ),
            ]
