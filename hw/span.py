"""Places along an axis of a box."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .interfaces import BOX


class Span(wiring.Component):
    """Goes along an axis of a box: ``before`` places of padding, ``size`` of data, ``after``.

    After the last place it starts again. A step goes on by one place or by several of one kind.

    Parameters
    ----------
    greatest : int
        Places that a step may go on.

    Members
    -------
    start, before, size, after : In
        With ``start`` it goes to the first place of a box with these extents.
    most : :py:`In(range(greatest + 1))`
        How many places a step goes on if so many of the kind are left; not 0. Not there if
        ``greatest`` is 1.
    step : :py:`In(1)`
        Goes on.
    count : :py:`Out(range(greatest + 1))`
        So many places.
    inside : :py:`Out(1)`
        The places hold data.
    last : :py:`Out(1)`
        They are the last of all.
    """

    def __init__(self, greatest: int = 1):
        self._greatest = greatest
        places = range(greatest + 1)
        super().__init__(
            {
                "start": In(1),
                "before": In(BOX["x_pad_0"].width),
                "size": In(BOX["x_size"].width),
                "after": In(BOX["x_pad_1"].width),
                **({"most": In(places)} if greatest > 1 else {}),
                "step": In(1),
                "count": Out(places, init=1),
                "inside": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        first, end = Signal.like(self.before), Signal(len(self.size) + 1)
        total, at = Signal(len(self.size) + 1), Signal(len(self.size) + 1)
        to = Signal.like(at)
        m.d.comb += [
            self.inside.eq((at >= first) & (at < end)),
            to.eq(at + self.count),
            self.last.eq(to == total),
        ]
        if self._greatest > 1:
            kind_ends, left = Signal.like(at), Signal.like(at)
            m.d.comb += [
                kind_ends.eq(Mux(at < first, first, Mux(at < end, end, total))),
                left.eq(kind_ends - at),
                self.count.eq(Mux(left < self.most, left, self.most)),
            ]
        else:
            m.d.comb += self.count.eq(1)
        with m.If(self.step):
            m.d.sync += at.eq(Mux(self.last, 0, to))
        with m.If(self.start):
            m.d.sync += [
                at.eq(0),
                first.eq(self.before),
                end.eq(self.before + self.size),
                total.eq(self.before + self.size + self.after),
            ]
        return m
