"""Elements to beats."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .axi import write_client_signature
from .interfaces import BOX


def packed_row(config: AcceleratorConfig) -> data.StructLayout:
    """A row: how many elements, and how many would stand before it in its first beat."""
    slots = max(1, config.bus_bytes // config.out_element_bytes)
    return data.StructLayout({"count": BOX["x_size"].width, "slot": exact_log2(slots)})


class Packer(wiring.Component):
    """Packs the elements of rows into beats; an element or a beat a cycle, whichever are more.

    Elements narrower than the bus are collected; a beat leaves with the last that it holds, or
    with the last of its row, its strobe naming the bytes that are there. Wider elements are cut.
    Nothing is registered but what is collected: a beat leaves in the cycle in which its last
    element comes.

    Members
    -------
    rows : :py:`In(stream.Signature(packed_row(config)))`
        The rows; each is taken with its last element. Not used where elements are not narrower.
    i : stream
        The elements, ``out_element_bytes`` each.
    o : stream of ``data``, ``strobe``
        The beats.

    Attributes
    ----------
    element : int
        Bytes of an element.
    """

    def __init__(self, config: AcceleratorConfig):
        self.element, self._bus = config.out_element_bytes, config.bus_bytes
        super().__init__(
            {
                "rows": In(stream.Signature(packed_row(config))),
                "i": In(stream.Signature(8 * self.element)),
                "o": write_client_signature(config).members["data"],
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self.element < self._bus:
            self._collect(m)
        else:
            self._cut(m)
        return m

    def _cut(self, m: Module) -> None:
        beats = self.element // self._bus
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

    def _collect(self, m: Module) -> None:
        slots = self._bus // self.element
        at = Signal.like(self.rows.p.count)  # elements of the row that have come
        slot = (at + self.rows.p.slot)[: exact_log2(slots)]
        row_ends = at + 1 == self.rows.p.count
        beat_ends = (slot == slots - 1) | row_ends
        comes = self.i.valid & self.rows.valid
        taken = comes & self.i.ready
        m.d.comb += [
            self.o.valid.eq(comes & beat_ends),
            self.i.ready.eq(self.rows.valid & (self.o.ready | ~beat_ends)),
            self.rows.ready.eq(self.i.valid & self.i.ready & row_ends),
        ]
        with m.If(taken):
            m.d.sync += at.eq(Mux(row_ends, 0, at + 1))
        for number in range(slots):
            held, full, here = Signal.like(self.i.payload), Signal(), slot == number
            data = self.o.p.data.word_select(number, len(held))
            strobe = self.o.p.strobe.word_select(number, self.element)
            m.d.comb += [
                data.eq(Mux(here, self.i.payload, held)),
                strobe.eq((here | full).replicate(self.element)),
            ]
            with m.If(taken):
                m.d.sync += full.eq((here | full) & ~beat_ends)
                with m.If(here):
                    m.d.sync += held.eq(self.i.payload)
