"""Requests that continue one another, made one."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .axi import REQUEST

LONG_BITS = 8
"""A request of 2 to this power beats gains nothing from being longer: it is left alone."""


class Merge(wiring.Component):
    """Extends a request that waits by the requests that go on where it ends.

    Requests pass without a cycle of latency, and only what waits grows: one a cycle, as long as
    it and what it grows by are shorter than ``2**LONG_BITS`` beats. The beats that are asked for
    are the same, in the same order.

    Members
    -------
    i : :py:`In(stream.Signature(REQUEST))`
        The requests.
    o : :py:`Out(stream.Signature(REQUEST))`
        Fewer of them. Other than a stream's, a payload that is not taken may change: it grows.
    """

    def __init__(self, config: AcceleratorConfig):
        self._beat_bits = exact_log2(config.bus_bytes)
        requests = stream.Signature(REQUEST)
        super().__init__({"i": In(requests), "o": Out(requests)})

    def elaborate(self, platform):
        m = Module()
        waits, held = Signal(), Signal(REQUEST)
        end = Signal.like(held.address)  # of what waits
        extends = Signal()
        m.d.comb += [
            self.o.valid.eq(waits | self.i.valid),
            self.o.payload.eq(Mux(waits, held, self.i.payload)),
            extends.eq(
                waits
                & ~self.o.ready
                & (self.i.p.address == end)
                & ~(held.beats | self.i.p.beats)[LONG_BITS:].any()
            ),
            self.i.ready.eq(~waits | self.o.ready | extends),
        ]
        after = self.i.p.address + (self.i.p.beats << self._beat_bits)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += end.eq(after)
            with m.If(extends):
                m.d.sync += held.beats.eq(held.beats + self.i.p.beats)
            with m.Else():
                m.d.sync += [held.eq(self.i.payload), waits.eq(waits | ~self.o.ready)]
        with m.Elif(self.o.ready):
            m.d.sync += waits.eq(0)
        return m
