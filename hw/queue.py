"""Queues between stream stages."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out


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
