"""Places along an axis of a box."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .interfaces import BOX


class Span(wiring.Component):
    """Counts along an axis of a box: ``before`` places of padding, ``size`` of data, ``after``.

    After the last place it starts again.

    Members
    -------
    start, before, size, after : In
        With ``start`` the counter goes to the first place of a box with these extents.
    step : :py:`In(1)`
        Goes to the next place.
    inside : :py:`Out(1)`
        The place holds data.
    ends : :py:`Out(1)`
        It is the last one that does.
    last : :py:`Out(1)`
        It is the last of all.
    """

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "before": In(BOX["x_pad_0"].width),
                "size": In(BOX["x_size"].width),
                "after": In(BOX["x_pad_1"].width),
                "step": In(1),
                "inside": Out(1),
                "ends": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        first, end = Signal.like(self.before), Signal(len(self.size) + 1)
        total, at = Signal(len(self.size) + 1), Signal(len(self.size) + 1)
        m.d.comb += [
            self.inside.eq((at >= first) & (at < end)),
            self.ends.eq(at + 1 == end),
            self.last.eq(at + 1 == total),
        ]
        with m.If(self.step):
            m.d.sync += at.eq(Mux(self.last, 0, at + 1))
        with m.If(self.start):
            m.d.sync += [
                at.eq(0),
                first.eq(self.before),
                end.eq(self.before + self.size),
                total.eq(self.before + self.size + self.after),
            ]
        return m
