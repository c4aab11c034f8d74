"""The control registers behind AXI4-Lite, made from the table in :mod:`weft.isa.registers`."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.registers import REGISTERS
from .axi import CONTROL_BITS, Response, axi4lite_signature

BYTES = CONTROL_BITS // 8


class RegisterBlock(wiring.Component):
    """Every register of :data:`weft.isa.registers.REGISTERS` as a member of its lower-case name.

    A read-only register is an input, 32 bits a word; a read-write one an output that keeps what
    was written; a write-only one an output that shows for one cycle the bits that were written
    as 1. Byte strobes hold. Reads of anything else give 0, writes to it do nothing; every answer
    is OKAY.

    Address and data of a write may come in either order. One read and one write are answered at
    a time, each on its own; a read or a write every second cycle.

    Members
    -------
    axil : :py:`In(axi4lite_signature())`
        The bus.
    """

    def __init__(self):
        self._read_only = [r for r in REGISTERS if r.access == "read-only"]
        self._written = [r for r in REGISTERS if r.access != "read-only"]
        members = {"axil": In(axi4lite_signature())}
        for r in REGISTERS:
            side = In if r.access == "read-only" else Out
            members[r.name.lower()] = side(CONTROL_BITS * r.words)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        self._reads(m)
        self._writes(m)
        return m

    def _reads(self, m):
        bus = self.axil
        m.d.comb += [bus.arready.eq(~bus.rvalid), bus.rresp.eq(Response.OKAY)]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(0)]
            with m.Switch(bus.araddr):
                for r in REGISTERS:
                    if r.access != "write-only":
                        for k in range(r.words):
                            word = getattr(self, r.name.lower()).word_select(k, CONTROL_BITS)
                            with m.Case(_bytes_of(bus.araddr, r.offset + BYTES * k)):
                                m.d.sync += bus.rdata.eq(word)
        with m.Elif(bus.rready):
            m.d.sync += bus.rvalid.eq(0)

    def _writes(self, m):
        bus = self.axil
        address = Signal.like(bus.awaddr)
        data = Signal.like(bus.wdata)
        strobe = Signal.like(bus.wstrb)
        has_address = Signal()
        has_data = Signal()
        write = Signal()
        m.d.comb += [
            bus.awready.eq(~has_address),
            bus.wready.eq(~has_data),
            bus.bresp.eq(Response.OKAY),
            write.eq(has_address & has_data & ~bus.bvalid),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [has_address.eq(1), address.eq(bus.awaddr)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [has_data.eq(1), data.eq(bus.wdata), strobe.eq(bus.wstrb)]
        with m.If(write):
            m.d.sync += [has_address.eq(0), has_data.eq(0), bus.bvalid.eq(1)]
        with m.Elif(bus.bready):
            m.d.sync += bus.bvalid.eq(0)

        mask = Cat(bit.replicate(8) for bit in strobe)
        for r in self._written:
            value = getattr(self, r.name.lower())
            chosen = write & address.matches(_bytes_of(address, r.offset))
            if r.access == "write-only":
                with m.If(chosen):
                    m.d.comb += value.eq(data & mask)
            else:
                with m.If(chosen):
                    m.d.sync += value.eq((data & mask) | (value & ~mask))


def _bytes_of(address, offset: int) -> str:
    """The pattern of the byte addresses within the word at ``offset``."""
    low = (BYTES - 1).bit_length()
    return f"{offset >> low:0{len(address) - low}b}" + "-" * low
