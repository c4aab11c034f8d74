"""Queues between stream stages."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

FRONT = 2
"""Entries that cut a stream's wires."""


class Queue(wiring.Component):
    """Holds up to ``depth`` values of a stream; one in and one out a cycle.

    A value is at ``o`` in the cycle after it was taken at ``i``. No path leads from ``o.ready`` to
    ``i.ready`` nor from ``i`` to ``o``, so that two entries are enough to cut a stream's wires
    without losing a cycle.

    Parameters
    ----------
    shape : shape
        Of a value.
    depth : int
        Entries.
    registered : bool
        ``o`` comes from a register, for what follows in the same cycle; at least two entries.

    Members
    -------
    i, o : stream of ``shape``
        The values, in order.
    level : :py:`Out(range(depth + 1))`
        Values held.
    """

    def __init__(self, shape, depth: int, registered: bool = False):
        self._depth, self._registered = depth, registered
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = Shape.cast(self.i.payload.shape()).width
        behind = self._depth - self._registered
        m.submodules.fifo = entries = fifo.SyncFIFO(width=width, depth=behind)
        if self._registered:
            self._first(m, entries)
            return m
        m.d.comb += [
            entries.w_data.eq(self.i.payload),
            entries.w_en.eq(self.i.valid),
            self.i.ready.eq(entries.w_rdy),
            Value.cast(self.o.payload).eq(entries.r_data),
            self.o.valid.eq(entries.r_rdy),
            entries.r_en.eq(self.o.ready),
            self.level.eq(entries.level),
        ]
        return m

    def _first(self, m: Module, entries: fifo.SyncFIFO) -> None:
        """The first value is in a register, the others behind it; none is there without it."""
        moves = ~self.o.valid | self.o.ready
        m.d.comb += [
            entries.w_data.eq(self.i.payload),
            entries.w_en.eq(self.i.valid & (entries.r_rdy | ~moves)),
            self.i.ready.eq(entries.w_rdy),
            entries.r_en.eq(moves),
            self.level.eq(entries.level + self.o.valid),
        ]
        with m.If(moves):
            m.d.sync += [
                self.o.valid.eq(entries.r_rdy | self.i.valid),
                Value.cast(self.o.payload).eq(Mux(entries.r_rdy, entries.r_data, self.i.payload)),
            ]


class CutQueue(wiring.Component):
    """A deep queue whose ``o`` is as fast as that of a queue of two, and comes from a register.

    Two entries in front are apart from the others, and ``o.ready`` leads to them alone. While
    nothing is behind them, values go there at once: a value is at ``o`` in the cycle after it was
    taken. One in and one out a cycle; ``i`` waits only while all entries behind are full.

    Parameters
    ----------
    shape : shape
        Of a value.
    depth : int
        Entries in all, at least three.

    Members
    -------
    i, o : stream of ``shape``
        The values, in order.
    """

    def __init__(self, shape, depth: int):
        self._depth = depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        shape = self.i.payload.shape()
        m.submodules.behind = behind = Queue(shape, self._depth - FRONT)
        m.submodules.front = front = Queue(shape, FRONT, registered=True)
        passes = ~behind.o.valid & front.i.ready
        m.d.comb += [
            behind.i.payload.eq(self.i.payload),
            behind.i.valid.eq(self.i.valid & ~passes),
            self.i.ready.eq(passes | behind.i.ready),
            front.i.payload.eq(Mux(behind.o.valid, behind.o.payload, self.i.payload)),
            front.i.valid.eq(behind.o.valid | self.i.valid),
            behind.o.ready.eq(front.i.ready),
        ]
        wiring.connect(m, front.o, wiring.flipped(self.o))
        return m
