"""Who writes into the INP scratchpad: the load engine and, beside it, the store engine."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.memories import MEMORIES, MemoryType
from .arrival import write_signatures


def inp_write_signature(config: AcceleratorConfig) -> wiring.Signature:
    """A write of as many elements as a beat holds into the INP scratchpad."""
    return write_signatures(config, [MEMORIES[MemoryType.INP]])["inp"]


class InputWrites(wiring.Component):
    """Puts the writes of two engines one after another; a write a cycle, without latency.

    The store engine goes first, but not before a write of the load engine that has waited for a
    cycle. So who writes alone writes in every cycle; where both want to they alternate; and
    neither waits for longer than a cycle.

    ``store.ready`` comes from a register. ``load.ready`` depends on ``store.valid`` alone.

    Members
    -------
    load, store : :py:`In(inp_write_signature(config))`
        The engines' writes; each stays as it is until it is taken.
    o : :py:`Out(inp_write_signature(config))`
        The scratchpad, which is always ready.
    """

    def __init__(self, config: AcceleratorConfig):
        write = inp_write_signature(config)
        super().__init__({"load": In(write), "store": In(write), "o": Out(write)})

    def elaborate(self, platform):
        m = Module()
        load, store, o = self.load, self.store, self.o
        waited, first = Signal(), Signal()
        m.d.comb += [
            first.eq(store.valid & ~waited),
            store.ready.eq(~waited),
            load.ready.eq(~first),
            o.valid.eq(first | load.valid),
            o.address.eq(Mux(first, store.address, load.address)),
            o.mask.eq(Mux(first, store.mask, load.mask)),
            o.data.eq(Mux(first, store.data, load.data)),
        ]
        m.d.sync += waited.eq(load.valid & first)
        return m
