"""Requests that continue one another, made one."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .axi import BURST_BEATS, REQUEST

LONG_BITS = 8
"""A request of 2 to this power beats gains nothing from being longer: it is left alone."""
SCARCE_BEATS = 4
"""Beats that a burst should have where bursts are scarce: latency over bursts under way."""


class Merge(wiring.Component):
    """Extends a request that waits by the requests that go on where it ends.

    A request waits until it is taken, and if it is shorter than a burst, until the bus has had
    time for the beats before it: sooner it could not be answered. It does not wait for that once
    another comes that does not extend it. It grows by one request a cycle, as long as both are
    shorter than ``2**LONG_BITS`` beats. What need not wait passes without a cycle of latency.
    The beats that are asked for are the same, in the same order.

    Members
    -------
    i : :py:`In(stream.Signature(REQUEST))`
        The requests.
    o : :py:`Out(stream.Signature(REQUEST))`
        Fewer of them. Other than a stream's, a payload that is not taken may change: it grows.
    scarce : :py:`In(1)`
        Few more bursts can be under way: a request counts as ``SCARCE_BEATS`` at least.
    """

    def __init__(self, config: AcceleratorConfig):
        self._beat_bits = exact_log2(config.bus_bytes)
        requests = stream.Signature(REQUEST)
        super().__init__({"i": In(requests), "o": Out(requests), "scarce": In(1)})

    def elaborate(self, platform):
        m = Module()
        waits, held = Signal(), Signal(REQUEST)
        end = Signal.like(held.address)  # of what waits
        due = Signal(range(BURST_BEATS + 1))  # cycles that the bus needs for what is before it
        free = Signal(init=1)  # it needs one more at most
        continues, goes, takes = Signal(), Signal(), Signal()
        short = ~self.o.p.beats[exact_log2(BURST_BEATS) :].any()
        m.d.comb += [
            continues.eq(
                waits & (self.i.p.address == end) & ~(held.beats | self.i.p.beats)[LONG_BITS:].any()
            ),
            self.o.payload.eq(Mux(waits, held, self.i.payload)),
            self.o.valid.eq(
                (waits & self.i.valid & ~continues) | ((waits | self.i.valid) & (free | ~short))
            ),
            goes.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(~waits | goes | continues),
            takes.eq(self.i.valid & self.i.ready),
        ]
        beats = Mux(short, self.o.p.beats[: exact_log2(BURST_BEATS)], BURST_BEATS)
        least = Mux(self.scarce, SCARCE_BEATS, 1)
        with m.If(goes):
            m.d.sync += [due.eq(Mux(beats < least, least, beats)), free.eq((beats | least) == 1)]
        with m.Elif(due != 0):
            m.d.sync += [due.eq(due - 1), free.eq(due <= 2)]

        with m.If(takes):
            m.d.sync += end.eq(self.i.p.address + (self.i.p.beats << self._beat_bits))
        with m.If(takes & continues & ~goes):
            m.d.sync += held.beats.eq(held.beats + self.i.p.beats)
        with m.Elif(takes):
            m.d.sync += [held.eq(self.i.payload), waits.eq(waits | ~goes)]
        with m.Elif(goes):
            m.d.sync += waits.eq(0)
        return m
