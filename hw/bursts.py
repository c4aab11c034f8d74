"""From requests of any length to bursts that AXI4 allows."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import PAGE_BYTES, AcceleratorConfig
from .axi import BURST_BEATS, BURST_BITS, REQUEST
from .interfaces import ADDRESS_BITS

BURST = data.StructLayout(
    {"address": ADDRESS_BITS, "beats": range(BURST_BEATS + 1), "len": BURST_BITS, "last": 1}
)
"""A burst: byte address, beats, ``beats - 1`` as AXI4 says it, and whether its request ends."""


class Bursts(wiring.Component):
    """Cuts requests into bursts; one burst a cycle, one cycle of latency.

    A burst never crosses a multiple of ``BURST_BEATS`` beats, hence no page either.

    Members
    -------
    i : :py:`In(stream.Signature(REQUEST))`
        The requests. While the last burst of one is taken the next can come.
    o : :py:`Out(stream.Signature(BURST))`
        Their bursts, in order.
    """

    def __init__(self, config: AcceleratorConfig):
        self._beat_bits = exact_log2(config.bus_bytes)
        assert PAGE_BYTES % (BURST_BEATS * config.bus_bytes) == 0
        super().__init__({"i": In(stream.Signature(REQUEST)), "o": Out(stream.Signature(BURST))})

    def elaborate(self, platform):
        m = Module()
        beat = Signal(ADDRESS_BITS - self._beat_bits)
        left = Signal(len(self.i.p.beats))
        room = Signal(range(BURST_BEATS + 1))
        first = self.i.p.address[self._beat_bits :][: exact_log2(BURST_BEATS)]
        m.d.comb += [
            room.eq(BURST_BEATS - beat[: exact_log2(BURST_BEATS)]),
            self.o.p.beats.eq(Mux(self.o.p.last, left, room)),
            self.o.p.len.eq(self.o.p.beats - 1),
            self.o.p.address.eq(beat << self._beat_bits),
            self.i.ready.eq(~self.o.valid | (self.o.ready & self.o.p.last)),
        ]
        with m.If(self.o.ready):
            m.d.sync += [
                beat.eq(beat + room),
                left.eq(left - room),
                self.o.p.last.eq(left <= room + BURST_BEATS),  # compared a burst ahead
            ]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                beat.eq(self.i.p.address >> self._beat_bits),
                left.eq(self.i.p.beats),
                self.o.p.last.eq(self.i.p.beats + first <= BURST_BEATS),
            ]
        return m
