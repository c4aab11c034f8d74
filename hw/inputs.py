"""The INP scratchpad: elements, and the ones that follow them."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .arrival import bank_count, write_parts
from .form import Form
from .interfaces import input_signature, write_signature
from .scratchpad import registered


class Inputs(wiring.Component):
    """A scratchpad that gives ``config.neighbours`` consecutive elements a cycle, at any alignment.

    A read of one element leaves the others as they are. Nothing is forwarded: a read sees what
    was written before its cycle. Otherwise it is a :class:`weft.hw.scratchpad.Scratchpad`.

    Parameters
    ----------
    config : AcceleratorConfig
        Depth, width and neighbours.
    form : Form
        How it is built. ``synthesis``: banks by the low bits of the address, each with one port
        for reading. ``simulation``: one memory with as many ports, which costs nothing
        while a single element is read; where a beat holds several elements, banks as well.

    Members
    -------
    write : :py:`In(write_signature(...))`
        As many elements as a beat holds, at the end of the cycle, or in a circuit of the next:
        from a register, as with :class:`~weft.hw.scratchpad.Scratchpad`'s ``late``.
    read : :py:`In(input_signature(config))`
        ``data`` comes a cycle after ``enable`` and stays until the next read that concerns it.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self._form = form
        self._depth, self._width = config.inp_depth, 8 * config.inp_element_bytes
        self._parts, self._count = write_parts(config, "inp"), config.neighbours
        self._written = bank_count(config, "inp")
        write = write_signature(
            config.inp_index_bits, self._written * self._width, self._written * self._parts
        )
        super().__init__({"write": In(write), "read": In(input_signature(config))})

    def elaborate(self, platform):
        m = Module()
        if self._form == "simulation" and self._written == 1:
            self._ports(m)
        else:
            self._banks(m)
        return m

    def _ports(self, m: Module):
        m.submodules.cells = cells = memory.Memory(shape=self._width, depth=self._depth, init=[])
        write = cells.write_port(granularity=self._width // self._parts)
        m.d.comb += [
            write.addr.eq(self.write.address),
            write.data.eq(self.write.data),
            write.en.eq(self.write.mask & self.write.valid.replicate(self._parts)),
        ]
        for place in range(self._count):
            read = cells.read_port()
            m.d.comb += [
                read.addr.eq(self.read.address + place),
                read.en.eq(self.read.enable & (self._following() if place else 1)),
                self.read.data.word_select(place, self._width).eq(read.data),
            ]

    def _banks(self, m: Module):
        count = max(self._written, 1 << (self._count - 1).bit_length())
        bits = exact_log2(count)
        low = self.read.address[:bits]
        first = Signal.like(low)
        with m.If(self.read.enable):
            m.d.sync += first.eq(low)
        writes = registered(m, self.write) if self._form == "synthesis" else self.write
        banks: list[Value] = []
        for number in range(count):
            depth = max(2, self._depth // count)
            m.submodules[f"bank_{number}"] = cells = memory.Memory(
                shape=self._width, depth=depth, init=[]
            )
            write = cells.write_port(granularity=self._width // self._parts)
            word = number % self._written
            ahead = (number - writes.address[:bits])[:bits]
            covered = ahead < self._written if self._written < count else C(1)
            m.d.comb += [
                write.addr.eq(_row(writes.address, bits, number)),
                write.data.eq(writes.data.word_select(word, self._width)),
                write.en.eq(
                    writes.mask.word_select(word, self._parts)
                    & (writes.valid & covered).replicate(self._parts)
                ),
            ]
            read = cells.read_port()
            m.d.comb += [
                read.addr.eq(_row(self.read.address, bits, number)),
                read.en.eq(self.read.enable & ((low == number) | self._following())),
            ]
            banks.append(read.data)
        for place in range(self._count):
            turned = Cat(banks[(start + place) % count] for start in range(count))
            m.d.comb += self.read.data.word_select(place, self._width).eq(
                turned.word_select(first, self._width)
            )

    def _following(self) -> Value:
        """Whether a read takes all elements."""
        return self.read.following if self._count > 1 else C(0)


def _row(address: Value, bits: int, bank: int) -> Value:
    """Where in a bank the one element lies that is its own of those from ``address`` on."""
    row, first = address[bits:], address[:bits]
    return row + (first > bank) if bank < (1 << len(first)) - 1 else row
