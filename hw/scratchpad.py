"""On-chip memories."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from .interfaces import read_signature, write_signature


class Scratchpad(wiring.Component):
    """A memory with one write port and any number of read ports; zero after power-up.

    All ports work every cycle. A read of an element that is written in the same cycle gives the
    new data on the first ``forwarding`` ports and the old on the others, which cost a bypass less.
    Addresses beyond the depth must not occur.

    Parameters
    ----------
    depth : int
        Elements.
    width : int
        Bits of an element.
    parts : int
        Equal parts of an element that can be written separately.
    read_ports : int
        How many.
    forwarding : int
        How many of them see what is written in the same cycle.

    Members
    -------
    write : :py:`In(write_signature(...))`
        Takes effect at the end of the cycle; always ready.
    read : :py:`In(read_signature(...)).array(read_ports)`
        ``data`` comes a cycle after ``enable`` and stays until the next enabled read.
    """

    def __init__(
        self, depth: int, width: int, parts: int = 1, read_ports: int = 1, forwarding: int = 0
    ):
        self.depth = depth
        self.width = width
        self.parts = parts
        self._forwarding = forwarding
        address_bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "write": In(write_signature(address_bits, width, parts)),
                "read": In(read_signature(address_bits, width)).array(read_ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cells = cells = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write = cells.write_port(granularity=self.width // self.parts)
        m.d.comb += [
            self.write.ready.eq(1),
            write.addr.eq(self.write.address),
            write.data.eq(self.write.data),
            write.en.eq(self.write.mask & self.write.valid.replicate(self.parts)),
        ]
        for number, port in enumerate(self.read):
            forwards = [write] if number < self._forwarding else []
            read = cells.read_port(transparent_for=forwards)
            m.d.comb += [
                read.addr.eq(port.address),
                read.en.eq(port.enable),
                port.data.eq(read.data),
            ]
        return m


def merge(m: Module, port, writers) -> None:
    """Connects several writers to a write port; while one writes, those after it wait."""
    free = port.ready
    for writer in writers:
        m.d.comb += writer.ready.eq(free)
        free = free & ~writer.valid
    *before, last = writers
    m.d.comb += _passes(port, last)
    for writer in reversed(before):
        with m.If(writer.valid):
            m.d.comb += _passes(port, writer)


def _passes(port, writer):
    return [getattr(port, n).eq(getattr(writer, n)) for n in ("valid", "address", "mask", "data")]
