"""On-chip memories."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from .interfaces import read_signature, write_signature


class Scratchpad(wiring.Component):
    """A memory with one write port and any number of read ports; zero after power-up.

    All ports work every cycle. A read of an element that is written in the same cycle gives the
    old data. Addresses beyond the depth must not occur.

    Elements lie in banks by the low bits of their index. So a write covers as many consecutive
    elements as there are banks, or fewer by its mask; what of it is beyond the depth means nothing.

    Parameters
    ----------
    depth : int
        Elements; a power of two if there are banks.
    width : int
        Bits of an element.
    parts : int
        Equal parts of an element that can be written separately.
    read_ports : int
        How many.
    banks : int
        A power of two.

    Members
    -------
    write : :py:`In(write_signature(...))`
        Takes effect at the end of the cycle; always ready.
    read : :py:`In(read_signature(...)).array(read_ports)`
        ``data`` comes a cycle after ``enable`` and stays until the next enabled read.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        parts: int = 1,
        read_ports: int = 1,
        banks: int = 1,
    ):
        self.depth = depth
        self.width = width
        self.parts = parts
        self.banks = banks
        self._bank_bits = exact_log2(banks)
        address_bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "write": In(write_signature(address_bits, banks * width, banks * parts)),
                "read": In(read_signature(address_bits, width)).array(read_ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.write.ready.eq(1)
        for number in range(self.banks):
            name = f"cells_{number}" if self.banks > 1 else "cells"
            depth = max(2, self.depth // self.banks)
            m.submodules[name] = cells = memory.Memory(shape=self.width, depth=depth, init=[])
            write = cells.write_port(granularity=self.width // self.parts)
            mask = self.write.mask.word_select(number, self.parts)
            m.d.comb += [
                write.addr.eq(self._row(self.write.address, number)),
                write.data.eq(self.write.data.word_select(number, self.width)),
                write.en.eq(mask & self.write.valid.replicate(self.parts)),
            ]
            for port in self.read:
                self._read(m, port, number, cells.read_port(transparent_for=[]))
        return m

    def _row(self, address: Value, bank: int) -> Value:
        """Where in a bank the one element lies that is its own of those from ``address`` on."""
        row, first = address[self._bank_bits :], address[: self._bank_bits]
        return row + (first > bank) if bank < (1 << len(first)) - 1 else row

    def _read(self, m: Module, port, bank: int, read) -> None:
        """A bank's part in a read of one element."""
        chosen = port.address[: self._bank_bits] == bank
        m.d.comb += [
            read.addr.eq(port.address[self._bank_bits :]),
            read.en.eq(port.enable & chosen),
        ]
        if self.banks == 1:
            m.d.comb += port.data.eq(read.data)
            return
        shown = Signal(name=f"shown_{bank}")
        with m.If(port.enable):
            m.d.sync += shown.eq(chosen)
        with m.If(shown):
            m.d.comb += port.data.eq(read.data)
