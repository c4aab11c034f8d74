"""The INP scratchpad: elements, and the ones that follow them."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from ..isa.config import AcceleratorConfig
from .arrival import bank_count, write_parts
from .form import Form
from .interfaces import input_signature, write_signature
from .scratchpad import Scratchpad


class Inputs(wiring.Component):
    """A scratchpad that gives ``config.taps`` consecutive elements a cycle, at any alignment.

    A read of one element leaves the others as they are. Nothing is forwarded: a read sees what
    was written before its cycle.

    Parameters
    ----------
    config : AcceleratorConfig
        Depth, width and taps.
    form : Form
        How it is built. ``synthesis``: banks by the low bits of the address, each with one port
        for reading. ``simulation``: one memory with as many ports as taps, unless a write covers
        several elements.

    Members
    -------
    write : :py:`In(write_signature(...))`
        The elements of a beat, or fewer by the mask, at the end of the cycle; each where its
        index's low bits say.
    read : :py:`In(input_signature(config))`
        ``data`` comes a cycle after ``enable`` and stays until the next read that concerns it.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self._form = form
        self._depth, self._width = config.inp_depth, 8 * config.inp_element_bytes
        self._parts, self._taps = write_parts(config, "inp"), max(1, config.taps)
        self._written = count = bank_count(config, "inp")
        write = write_signature(config.inp_index_bits, count * self._width, count * self._parts)
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
        for tap in range(self._taps):
            read = cells.read_port()
            m.d.comb += [
                read.addr.eq(self.read.address + tap),
                read.en.eq(self.read.enable & (self._following() if tap else 1)),
                self.read.data.word_select(tap, self._width).eq(read.data),
            ]

    def _banks(self, m: Module):
        bits = (max(self._taps, self._written) - 1).bit_length()
        count = 1 << bits
        low, row = self.read.address[:bits], self.read.address[bits:]
        first = Signal.like(low)
        with m.If(self.read.enable):
            m.d.sync += first.eq(low)
        read: list[Value] = []
        for number in range(count):
            bank = Scratchpad(max(1, self._depth // count), self._width, self._parts)
            m.submodules[f"bank{number}"] = bank
            port = bank.read[0]
            beyond = (number - self.write.address[:bits])[:bits]
            slot = number % self._written
            m.d.comb += [
                bank.write.valid.eq(self.write.valid & (beyond < self._written)),
                bank.write.address.eq((self.write.address + beyond)[bits:]),
                bank.write.mask.eq(self.write.mask.word_select(slot, self._parts)),
                bank.write.data.eq(self.write.data.word_select(slot, self._width)),
                port.address.eq(row + (low > number) if number < count - 1 else row),
                port.enable.eq(self.read.enable & ((low == number) | self._following())),
            ]
            read.append(port.data)
        for tap in range(self._taps):
            turned = Cat(read[(start + tap) % count] for start in range(count))
            m.d.comb += self.read.data.word_select(tap, self._width).eq(
                turned.word_select(first, self._width)
            )

    def _following(self) -> Value:
        """Whether a read takes all elements."""
        return self.read.following if self._taps > 1 else C(0)
