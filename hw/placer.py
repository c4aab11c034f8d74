"""Where the data and the padding of boxes go in the scratchpads."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import FaultCode
from ..isa.memories import Memory
from .arrival import Arrival, write_signatures
from .axi import read_client_signature
from .interfaces import BOX, Fault
from .queue import Queue
from .walk import Walk


class Placer(wiring.Component):
    """Writes boxes, padding and beats, into scratchpads in row-major order.

    A beat takes a cycle. So does an element of padding, or as many of them as a beat would hold,
    on the same side of a row. Box follows box without a gap. From a beat to its write it is a
    cycle: what is accepted, far away, is decided between registers. With a fault it stops until
    reset: it writes nothing any more, and the box of the fault and all after it are never done.

    Parameters
    ----------
    config : AcceleratorConfig
        Decides the sizes.
    memories : sequence of Memory
        The memory types that boxes name.

    Members
    -------
    i : :py:`In(stream.Signature(BOX))`
        The boxes.
    beat : stream of beats
        Those of each box's rows, in order; the ones between two boxes' belong to the second.
    inp, wgt, ... : :py:`Out(write_signature(...))`
        The scratchpads, by name. What one does not accept waits, and all behind it.
    done : :py:`Out(1)`
        A box is complete; its last element was written in the cycle before.
    fault : :py:`Out(Fault)`
        SRAM_RANGE or BUS_READ, held.
    writing : :py:`Out(1)`
        Elements or a part of one are written in this cycle.
    idle : :py:`Out(1)`
        No box is there.
    """

    def __init__(self, config: AcceleratorConfig, memories: Sequence[Memory]):
        self._config = config
        self._arrivals = [Arrival(config, memory) for memory in memories]
        self._scratchpads = write_signatures(config, memories)
        super().__init__(
            {
                "i": In(stream.Signature(BOX)),
                "beat": read_client_signature(config).members["beat"],
                **{name: Out(port) for name, port in self._scratchpads.items()},
                "done": Out(1),
                "fault": Out(Fault),
                "writing": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depths = [arrival.memory.depth(self._config) for arrival in self._arrivals]
        m.submodules.walk = walk = Walk(depths, self._arrivals)
        wiring.connect(m, wiring.flipped(self.i), walk.i)
        m.submodules.ready = ready = self._with_beats(m, walk)
        move, beat = ready.o.p.move, ready.o.p.beat

        live, fails, offers, step = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            live.eq(ready.o.valid & move.write & ~self.fault.valid),
            fails.eq(move.inside & ~move.out & beat.error),
            offers.eq(live & ~fails & ~move.over),
            step.eq(offers & self._accepted(m, move.memory_type)),
            ready.o.ready.eq(step | (~move.write & ~self.fault.valid)),
            self.writing.eq(step),
            self.idle.eq(walk.idle & ~ready.o.valid & ~self.done),
            self.fault.index.eq(move.index),
        ]
        m.d.sync += self.done.eq(ready.o.valid & ready.o.ready & move.last)
        with m.If(live & (fails | move.over)):
            code = Mux(fails, FaultCode.BUS_READ, FaultCode.SRAM_RANGE)
            m.d.sync += [self.fault.valid.eq(1), self.fault.code.eq(code)]

        for name in self._scratchpads:
            port = getattr(self, name)
            m.d.comb += port.address.eq(move.at)
            with m.Switch(move.memory_type):
                for arrival in self._arrivals:
                    if arrival.memory.scratchpad == name:
                        with m.Case(arrival.memory.type):
                            m.d.comb += [
                                port.valid.eq(offers),
                                port.mask.eq(
                                    arrival.mask(m, move.part, move.at, move.count, move.inside)
                                ),
                                port.data.eq(
                                    arrival.data(
                                        m, beat.data, move.slot, move.at, move.pad_value,
                                        move.inside,
                                    )
                                ),
                            ]  # fmt: skip
        return m

    def _with_beats(self, m: Module, walk: Walk) -> Queue:
        """The moves with their beats. One that is a fault by itself waits for none."""
        moves, beat = walk.o, self.beat
        layout = {"move": moves.p.shape(), "beat": beat.p.shape()}
        queue = Queue(data.StructLayout(layout), 2)
        takes = moves.p.write & moves.p.inside & ~moves.p.out
        here = ~takes | beat.valid
        m.d.comb += [
            queue.i.p.move.eq(moves.p),
            queue.i.p.beat.eq(beat.p),
            queue.i.valid.eq(moves.valid & here),
            moves.ready.eq(queue.i.ready & here),
            beat.ready.eq(queue.i.ready & moves.valid & takes),
        ]
        return queue

    def _accepted(self, m: Module, memory_type: Value) -> Value:
        """Whether the boxes' scratchpad takes what is offered."""
        accepted = Signal()
        with m.Switch(memory_type):
            for arrival in self._arrivals:
                with m.Case(arrival.memory.type):
                    m.d.comb += accepted.eq(getattr(self, arrival.memory.scratchpad).ready)
        return accepted
