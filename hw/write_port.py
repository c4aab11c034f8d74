"""The machine's writes: one client on three AXI4 channels."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .axi import BURST_BITS, BURST_INCR, CACHE, axi4_write_signature, write_client_signature
from .bursts import BURST, Bursts
from .fork import fork
from .interfaces import ADDRESS_BITS
from .queue import Queue

OUTSTANDING = 16
"""Bursts whose response has not come."""


class WritePort(wiring.Component):
    """Writes for one client, a burst and a beat a cycle.

    Addresses go out as requests come, at most ``OUTSTANDING`` bursts ahead of the responses,
    whether their data are there or not. Data are taken as they come, at most two before their burst
    is known, and go out a cycle later, or when it is. ``bready`` is 1 unless two responses wait for
    the client.

    Members
    -------
    client : :py:`In(write_client_signature(config))`
        Who writes.
    axi : :py:`Out(axi4_write_signature(config))`
        AW, W and B.
    written : :py:`Out(range(bus_bytes + 1))`
        Bytes taken from the client in this cycle, by their strobes; for the counters.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "client": In(write_client_signature(config)),
                "axi": Out(axi4_write_signature(config)),
                "written": Out(range(config.bus_bytes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lengths = self._addresses(m)
        self._data(m, lengths)
        return m

    def _addresses(self, m: Module) -> Queue:
        """AW, and B, which ends what AW began; the queue holds the bursts whose data are due."""
        axi, client = self.axi, self.client
        m.submodules.bursts = bursts = Bursts(self._config)
        m.submodules.lengths = lengths = Queue(BURST_BITS, OUTSTANDING)
        m.submodules.under_way = under_way = Queue(data.StructLayout({"last": 1}), OUTSTANDING)
        wiring.connect(m, wiring.flipped(client.request), bursts.i)

        # Queues and not registers: nothing in the machine but them depends on AXI's ready signals.
        address = data.StructLayout({"address": ADDRESS_BITS, "len": BURST_BITS})
        m.submodules.addresses = addresses = Queue(address, 2)
        m.submodules.cut = cut = Queue(BURST, 2)
        wiring.connect(m, bursts.o, cut.i)
        m.d.comb += [
            cut.o.ready.eq(fork(m, cut.o.valid, addresses.i, lengths.i, under_way.i)),
            lengths.i.payload.eq(cut.o.p.len),
            under_way.i.p.last.eq(cut.o.p.last),
            addresses.i.p.address.eq(cut.o.p.address),
            addresses.i.p.len.eq(cut.o.p.len),
            axi.awvalid.eq(addresses.o.valid),
            addresses.o.ready.eq(axi.awready),
            axi.awaddr.eq(addresses.o.p.address),
            axi.awlen.eq(addresses.o.p.len),
            axi.awid.eq(0),
            axi.awsize.eq(exact_log2(self._config.bus_bytes)),
            axi.awburst.eq(BURST_INCR),
            axi.awcache.eq(CACHE),
        ]

        m.submodules.responses = responses = Queue(data.StructLayout({"error": 1}), 2)
        failed = Signal()  # an earlier burst of the same request
        m.d.comb += [
            responses.i.valid.eq(axi.bvalid),
            responses.i.p.error.eq(axi.bresp[1]),
            axi.bready.eq(responses.i.ready),
            client.response.valid.eq(responses.o.valid & under_way.o.p.last),
            client.response.p.error.eq(responses.o.p.error | failed),
            responses.o.ready.eq(client.response.ready | ~under_way.o.p.last),
            under_way.o.ready.eq(responses.o.valid & responses.o.ready),
        ]
        with m.If(under_way.o.ready):
            m.d.sync += failed.eq(~under_way.o.p.last & client.response.p.error)
        return lengths

    def _data(self, m: Module, lengths: Queue) -> None:
        """W: the client's beats, cut by the bursts' lengths behind a queue, so that the client
        does not wait for what the bursts are."""
        axi, beat = self.axi, self.client.data
        m.submodules.beats = beats = Queue(beat.payload.shape(), 2)
        wiring.connect(m, wiring.flipped(beat), beats.i)
        at = Signal(BURST_BITS)
        sent = axi.wvalid & axi.wready
        m.d.comb += [
            axi.wvalid.eq(beats.o.valid & lengths.o.valid),
            axi.wdata.eq(beats.o.p.data),
            axi.wstrb.eq(beats.o.p.strobe),
            axi.wlast.eq(at == lengths.o.payload),
            beats.o.ready.eq(axi.wready & lengths.o.valid),
            lengths.o.ready.eq(sent & axi.wlast),
            self.written.eq(Mux(beat.valid & beat.ready, sum(beat.p.strobe), 0)),
        ]
        with m.If(sent):
            m.d.sync += at.eq(Mux(axi.wlast, 0, at + 1))
