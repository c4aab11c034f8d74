"""The load engine: from DRAM into the scratchpads, beside what the compute engine does."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine
from .arrival import write_signatures
from .axi import read_client_signature
from .box_reader import BoxReader
from .boxes import box_of
from .interfaces import Activity, Fault, Issue


class LoadEngine(wiring.Component):
    """Executes LOAD of INP and WGT, LOADX of all; see :class:`BoxReader` for what they cost.

    Takes up to one instruction a cycle, and requests the data of about ``BOXES`` instructions
    ahead of the one that it is writing.

    Members
    -------
    i : :py:`In(Issue)`
        Instructions, statically legal, whose tokens have been taken.
    bus : :py:`Out(read_client_signature(config))`
        DRAM.
    inp, wgt, uop, acc, qnt : :py:`Out(write_signature(...))`
        The scratchpads that its instructions fill. While one does not accept a write, the engine
        waits.
    done : :py:`Out(1)`
        An instruction is complete, in order; a read enabled in the next cycle sees all of it.
    fault : :py:`Out(Fault)`
        Held until reset; nothing completes any more.
    activity : :py:`Out(Activity)`
        BUSY in a cycle that writes, else WAIT_MEMORY while there is an instruction.
    idle : :py:`Out(1)`
        No instruction is there.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        self._memories, self._formats = InstructionSet(config).loads(Engine.LOAD)
        self._scratchpads = write_signatures(config, self._memories)
        super().__init__(
            {
                "i": In(Issue),
                "bus": Out(read_client_signature(config)),
                **{name: Out(port) for name, port in self._scratchpads.items()},
                "done": Out(1),
                "fault": Out(Fault),
                "activity": Out(Activity),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = BoxReader(self._config, self._memories)
        m.d.comb += [
            reader.i.payload.eq(box_of(m, self._config, self.i.payload, self._formats)),
            reader.i.valid.eq(self.i.valid),
            self.i.ready.eq(reader.i.ready),
            self.done.eq(reader.done),
            self.idle.eq(reader.idle),
        ]
        with m.If(reader.writing):
            m.d.comb += self.activity.eq(Activity.BUSY)
        with m.Elif(reader.waiting):
            m.d.comb += self.activity.eq(Activity.WAIT_MEMORY)
        wiring.connect(m, reader.bus, wiring.flipped(self.bus))
        wiring.connect(m, reader.fault, wiring.flipped(self.fault))
        for name in self._scratchpads:
            wiring.connect(m, getattr(reader, name), wiring.flipped(getattr(self, name)))
        return m
