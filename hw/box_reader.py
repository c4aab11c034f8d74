"""Boxes from DRAM into scratchpads."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from ..isa.memories import Memory
from .arrival import write_signatures
from .axi import REQUEST, read_client_signature
from .boxes import Rows
from .fork import fork
from .interfaces import BOX, Fault
from .placer import Placer
from .queue import CutQueue, Queue

BOXES = 64
"""Boxes whose data may be under way: as many as hide the latency at two cycles each."""


class BoxReader(wiring.Component):
    """Reads boxes from DRAM into scratchpads, in order, with padding around.

    Rows are requested one a cycle and each by itself, those of the next boxes while data of the
    earlier ones come. Writing takes a cycle for a beat, or for as much padding as a beat would
    hold, at least an element; between boxes there is no gap. An empty box, too, takes a cycle.
    From ``i`` to ``bus.request`` it is three cycles, from ``bus.beat`` to a write one.

    An index beyond the scratchpad or an error of the bus is a fault, in the order of the boxes;
    until reset nothing goes on after it.

    Parameters
    ----------
    config : AcceleratorConfig
        Decides the sizes.
    memories : sequence of Memory
        The memory types that boxes may name, from :data:`weft.isa.memories.MEMORIES`.

    Members
    -------
    i : :py:`In(stream.Signature(BOX))`
        The boxes.
    bus : :py:`Out(read_client_signature(config))`
        DRAM.
    inp, wgt, uop, acc, qnt : :py:`Out(write_signature(...))`
        The scratchpads that ``memories`` fill. Elements as they are kept: sub-byte lanes packed,
        ACC8's bytes as accumulators.
    done : :py:`Out(1)`
        A box is complete, in order; its last element was written in the cycle before.
    fault : :py:`Out(Fault)`
        SRAM_RANGE or BUS_READ, held.
    writing, waiting : :py:`Out(1)`
        Something is written in this cycle; a box is there but nothing is written.
    idle : :py:`Out(1)`
        No box is there.
    """

    def __init__(self, config: AcceleratorConfig, memories: Sequence[Memory]):
        self._config, self._memories = config, tuple(memories)
        self._scratchpads = write_signatures(config, memories)
        super().__init__(
            {
                "i": In(stream.Signature(BOX)),
                "bus": Out(read_client_signature(config)),
                **{name: Out(port) for name, port in self._scratchpads.items()},
                "done": Out(1),
                "fault": Out(Fault),
                "writing": Out(1),
                "waiting": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.taken = taken = Queue(BOX, 2)
        m.submodules.rows = rows = Rows(self._config, self._memories)
        m.submodules.boxes = boxes = CutQueue(BOX, BOXES)
        m.submodules.requests = requests = Queue(REQUEST, 2, registered=True)
        m.submodules.placer = placer = Placer(self._config, self._memories)

        m.d.comb += [
            taken.o.ready.eq(fork(m, taken.o.valid & ~self.fault.valid, rows.i, boxes.i)),
            rows.i.payload.eq(taken.o.payload),
            boxes.i.payload.eq(taken.o.payload),
        ]
        beat_bits = exact_log2(self._config.bus_bytes)
        request = requests.i
        m.d.comb += [
            request.valid.eq(rows.o.valid),
            request.p.address.eq(rows.o.p.address & -(1 << beat_bits)),
            request.p.beats.eq(rows.o.p.beats),
            rows.o.ready.eq(request.ready),
        ]
        wiring.connect(m, wiring.flipped(self.i), taken.i)
        wiring.connect(m, requests.o, wiring.flipped(self.bus.request))
        wiring.connect(m, boxes.o, placer.i)
        wiring.connect(m, wiring.flipped(self.bus.beat), placer.beat)
        wiring.connect(m, wiring.flipped(self.fault), placer.fault)
        for name in self._scratchpads:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(placer, name))
        m.d.comb += [
            self.done.eq(placer.done),
            self.writing.eq(placer.writing),
            self.waiting.eq(~self.idle & ~self.writing),
            self.idle.eq(placer.idle & ~boxes.o.valid & ~taken.o.valid),
        ]
        return m
