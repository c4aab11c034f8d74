"""On-chip memories."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.hdl import ValueLike
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from .choice import one_of
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
    in_turn : bool
        The ports read through one of the memory's; never two of them in one cycle, and only the
        last one's data stay.
    late : bool
        What is written takes effect a cycle later, from a register: what decides about a write
        need not reach every block RAM in its own cycle.

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
        in_turn: bool = False,
        late: bool = False,
    ):
        self._in_turn, self._late = in_turn, late
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
        writes = registered(m, self.write) if self._late else self.write
        found: list[list[Value]] = [[]] * self.banks
        for number in range(self.banks):
            name = f"cells_{number}" if self.banks > 1 else "cells"
            depth = max(2, self.depth // self.banks)
            m.submodules[name] = cells = memory.Memory(shape=self.width, depth=depth, init=[])
            write = cells.write_port(granularity=self.width // self.parts)
            mask = writes.mask.word_select(number, self.parts)
            m.d.comb += [
                write.addr.eq(self._row(writes.address, number)),
                write.data.eq(writes.data.word_select(number, self.width)),
                write.en.eq(mask & writes.valid.replicate(self.parts)),
            ]
            asks = [
                (port.enable & self._in(port, number), port.address[self._bank_bits :])
                for port in self.read
            ]
            if self._in_turn:
                found[number] = [read_in_turn(m, cells, *asks)] * len(asks)
            else:
                found[number] = [read_in_turn(m, cells, ask) for ask in asks]
        for port, *banks in zip(self.read, *found, strict=True):
            self._show(m, port, banks)
        return m

    def _row(self, address: Value, bank: int) -> Value:
        """Where in a bank the one element lies that is its own of those from ``address`` on."""
        row, first = address[self._bank_bits :], address[: self._bank_bits]
        return row + (first > bank) if bank < (1 << len(first)) - 1 else row

    def _in(self, port, bank: int) -> Value:
        return port.address[: self._bank_bits] == bank

    def _show(self, m: Module, port, found: Sequence[Value]) -> None:
        """Gives a port the data of the bank that it has read."""
        data = found[0]
        if self.banks > 1:
            shown = Signal(self.banks)
            with m.If(port.enable):
                m.d.sync += shown.eq(Cat(self._in(port, bank) for bank in range(self.banks)))
            data = one_of(shown, found)
        if self._in_turn and port is self.read[-1]:
            data = kept(m, port.enable, data)
        m.d.comb += port.data.eq(data)


def registered(m: Module, port, when: ValueLike = 1) -> data.View:
    """``valid``, ``address``, ``mask`` and ``data`` of a :func:`write_signature`, as they were in
    the last cycle before with ``when``.
    """
    layout = held_layout(port)
    later = Signal(layout, name="write_later", reset_less=True)
    with m.If(when):
        m.d.sync += [later[name].eq(getattr(port, name)) for name in layout.members]
    return later


def held_layout(port) -> data.StructLayout:
    """What :func:`registered` keeps of a port."""
    names = ("valid", "address", "mask", "data")
    return data.StructLayout({name: len(getattr(port, name)) for name in names})


def read_in_turn(m: Module, cells: memory.Memory, *asks: tuple[Value, Value]) -> Value:
    """What the first of those that ask gets from a memory, in the next cycle.

    Each asks with a flag and an address. Who was not the first, or the last to ask, must not look.
    Of several the last is read where none asks: whether one does is known too late for a memory.
    """
    read = cells.read_port(transparent_for=[])
    *before, (enable, row) = asks
    m.d.comb += [read.en.eq(1 if before else enable), read.addr.eq(row)]
    for enable, row in reversed(before):
        with m.If(enable):
            m.d.comb += read.addr.eq(row)
    return read.data


def kept(m: Module, enable: Value, data: Value) -> Value:
    """``data`` of the cycle after the last in which ``enable`` was 1."""
    fresh, held = Signal(), Signal(len(data), reset_less=True)
    m.d.sync += fresh.eq(enable)
    with m.If(fresh):
        m.d.sync += held.eq(data)
    return Mux(fresh, data, held)
