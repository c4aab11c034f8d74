"""Queues between stream stages."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import fifo, memory, stream, wiring
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
        entries = _Pair(width) if behind == 2 else fifo.SyncFIFO(width=width, depth=behind)
        m.submodules.fifo = entries
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


class _Pair(fifo.FIFOInterface, Elaboratable):
    """A ``SyncFIFO`` of two entries in registers, which no decision of its user has to reach.

    A free entry is written in every cycle, whether what is there is taken or not, and one bit
    chooses what is shown: values wait for nothing that comes late, however wide they are.
    """

    def __init__(self, width: int):
        super().__init__(width=width, depth=2)
        self.level = Signal(range(3))

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = cells = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write, read = cells.write_port(), cells.read_port(domain="comb")
        produce, consume = Signal(), Signal()
        taken, gone = self.w_rdy & self.w_en, self.r_rdy & self.r_en
        m.d.comb += [
            self.w_rdy.eq(~self.level[1]),
            self.r_rdy.eq(self.level.any()),
            self.w_level.eq(self.level),
            self.r_level.eq(self.level),
            write.en.eq(self.w_rdy),
            write.addr.eq(produce),
            write.data.eq(self.w_data),
            read.addr.eq(consume),
            self.r_data.eq(read.data),
        ]
        m.d.sync += [
            self.level.eq(self.level + taken - gone),
            produce.eq(produce ^ taken),
            consume.eq(consume ^ gone),
        ]
        return m


class DeepQueue(wiring.Component):
    """A :class:`Queue` of many entries, for block RAM: its memory is read by the clock.

    The first value is read ahead, in the cycle before it is first. One that was not written then
    is shown by a register beside the memory and read while it is.

    Parameters
    ----------
    shape : shape
        Of a value.
    depth : int
        Entries, at least two.

    Members
    -------
    i, o, level
        Those of a queue.
    """

    def __init__(self, shape, depth: int):
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        value = Value.cast(self.i.payload)
        m.submodules.cells = cells = memory.Memory(shape=len(value), depth=self._depth, init=[])
        write, read = cells.write_port(), cells.read_port(transparent_for=[])
        room, there = Signal(init=1), Signal()
        produce, consume = Signal(range(self._depth)), Signal(range(self._depth))
        fresh, newest = Signal(), Signal(len(value), reset_less=True)
        first = Signal.like(consume)
        taken, gone = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        one = self.level == 1
        m.d.comb += [
            self.i.ready.eq(room),
            self.o.valid.eq(there),
            first.eq(Mux(gone, self._after(consume), consume)),
            write.en.eq(taken),
            write.addr.eq(produce),
            write.data.eq(value),
            read.en.eq(gone | fresh),
            read.addr.eq(first),
            Value.cast(self.o.payload).eq(Mux(fresh, newest, read.data)),
        ]
        m.d.sync += [consume.eq(first), fresh.eq(taken & (~there | (gone & one)))]
        with m.If(taken):
            m.d.sync += [produce.eq(self._after(produce)), newest.eq(value)]
        with m.If(taken & ~gone):
            m.d.sync += [
                self.level.eq(self.level + 1),
                room.eq(self.level != self._depth - 1),
                there.eq(1),
            ]
        with m.Elif(gone & ~taken):
            m.d.sync += [self.level.eq(self.level - 1), room.eq(1), there.eq(~one)]
        return m

    def _after(self, place: Value) -> Value:
        return Mux(place == self._depth - 1, 0, place + 1)


class CutQueue(wiring.Component):
    """A deep queue whose ``o`` is as fast as that of a queue of two.

    Two entries in front are apart from the others, which are a :class:`DeepQueue`, and ``o.ready``
    leads to them alone. While nothing is behind them, values go there at once: a value is at ``o``
    in the cycle after it was taken. One in and one out a cycle; ``i`` waits only while all entries
    behind are full.

    Parameters
    ----------
    shape : shape
        Of a value.
    depth : int
        Entries in all, at least four.

    Members
    -------
    i, o : stream of ``shape``
        The values, in order.

    Attributes
    ----------
    behind : DeepQueue
        The entries that are not in front.
    """

    def __init__(self, shape, depth: int):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})
        self.behind = DeepQueue(shape, depth - FRONT)

    def elaborate(self, platform):
        m = Module()
        shape = self.i.payload.shape()
        m.submodules.behind = behind = self.behind
        m.submodules.front = front = Queue(shape, FRONT)
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
