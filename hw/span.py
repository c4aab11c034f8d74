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
        _, size, after = extents = [
            Signal.like(getattr(self, name), name=name) for name in ("before", "size", "after")
        ]
        left = Signal.like(self.size)  # places of this kind
        ahead, behind = Signal(), Signal()  # there is no data, no padding after it
        is_before, is_after = Signal(), Signal()
        if self._greatest == 1:
            # What is left is compared a step ahead.
            ends = Signal()
            becomes = lambda value: [left.eq(value), ends.eq(value == 1)]  # noqa: E731
            goes_on = [left.eq(left - 1), ends.eq(left == 2)]
            m.d.comb += self.count.eq(1)
        else:
            bits = len(self.count)
            many = Signal()  # more than any step takes, looked at a step ahead
            ends = ~many & (left[:bits] <= self.most)
            becomes = lambda value: [left.eq(value), many.eq(value[bits:].any())]  # noqa: E731
            goes_on = becomes((left - self.count)[: len(left)])
            m.d.comb += self.count.eq(Mux(ends, left, self.most))
        m.d.comb += [
            self.inside.eq(~is_before & ~is_after),
            self.last.eq(ends & (is_after | (behind & (ahead | ~is_before)))),
        ]
        with m.If(self.step):
            with m.If(self.last):
                self._begin(m, becomes, is_before, is_after, *extents)
            with m.Elif(ends):
                with m.If(is_before & ~ahead):
                    m.d.sync += becomes(size)
                with m.Else():
                    m.d.sync += becomes(after)
                m.d.sync += [is_before.eq(0), is_after.eq(~is_before | ahead)]
            with m.Else():
                m.d.sync += goes_on
        with m.If(self.start):
            given = (self.before, self.size, self.after)
            m.d.sync += [extent.eq(value) for extent, value in zip(extents, given, strict=True)]
            m.d.sync += [ahead.eq(self.size == 0), behind.eq(self.after == 0)]
            self._begin(m, becomes, is_before, is_after, *given)
        return m

    def _begin(self, m, becomes, is_before, is_after, before, size, after):
        """To the first place of the first kind that has any."""
        with m.If(before.any()):
            m.d.sync += becomes(before)
        with m.Elif(size.any()):
            m.d.sync += becomes(size)
        with m.Else():
            m.d.sync += becomes(after)
        m.d.sync += [
            is_before.eq(before.any()),
            is_after.eq(~before.any() & ~size.any()),
        ]
