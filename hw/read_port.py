"""The machine's reads: several clients on one pair of AXI4 channels."""

from __future__ import annotations

from collections.abc import Collection

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .axi import (
    BURST_BEATS,
    BURST_BITS,
    BURST_INCR,
    CACHE,
    ID_BITS,
    REQUEST,
    axi4_read_signature,
    read_client_signature,
)
from .bursts import BURST, Bursts
from .interfaces import ADDRESS_BITS
from .merge import Merge
from .queue import CutQueue, Queue

OUTSTANDING = 16
"""Bursts under way at once, those of all clients together."""
BUFFER_BEATS = 128
"""Beats under way or held for a client; at a beat a cycle, the latency that can be hidden."""


class ReadPort(wiring.Component):
    """Reads for several clients, a burst a cycle out and a beat a cycle in.

    Each client has a queue, and a burst is asked for only when its beats have a place there.
    So ``rready`` is always 1 and no client, however slow, holds up another. Clients take turns,
    burst by burst; ``arid`` is the client's number, so that the beats of different clients may
    come in any order. A client's requests that continue one another leave as one burst where
    they have to wait, so that many short ones use up the bursts under way no sooner than a
    long one does.

    A request takes four cycles to ``arvalid``; a beat takes one from ``rvalid`` to its client.

    Parameters
    ----------
    config : AcceleratorConfig
        Decides the width of the bus.
    clients : int
        How many, at most one for each AXI id.
    long : collection of int
        Those whose requests are long by themselves: they are not looked at.

    Members
    -------
    client : array of :py:`In(read_client_signature(config))`
        Who reads.
    axi : :py:`Out(axi4_read_signature(config))`
        AR and R.
    beat : :py:`Out(1)`
        A beat arrives in this cycle; for the counters.
    """

    def __init__(self, config: AcceleratorConfig, clients: int, long: Collection[int] = ()):
        assert 1 <= clients <= 1 << ID_BITS
        self._config, self._long = config, long
        super().__init__(
            {
                "client": In(read_client_signature(config)).array(clients),
                "axi": Out(axi4_read_signature(config)),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi, clients = self.axi, self.client

        # A queue and not a register: nothing in the machine but it depends on ``arready``.
        address = data.StructLayout({"address": ADDRESS_BITS, "len": BURST_BITS, "id": ID_BITS})
        m.submodules.addresses = addresses = Queue(address, 2)
        m.d.comb += [
            axi.arvalid.eq(addresses.o.valid),
            addresses.o.ready.eq(axi.arready),
            axi.araddr.eq(addresses.o.p.address),
            axi.arlen.eq(addresses.o.p.len),
            axi.arid.eq(addresses.o.p.id),
            axi.arsize.eq(exact_log2(self._config.bus_bytes)),
            axi.arburst.eq(BURST_INCR),
            axi.arcache.eq(CACHE),
            axi.rready.eq(1),
            self.beat.eq(axi.rvalid),
        ]

        outstanding = Signal(range(OUTSTANDING + 1))
        asks, take = Signal(len(clients)), Signal()
        m.submodules.turns = turns = Turns(len(clients))
        m.d.comb += [
            take.eq(addresses.i.ready & (outstanding != OUTSTANDING)),
            turns.asks.eq(asks),
            turns.take.eq(take),
            addresses.i.valid.eq(asks.any() & (outstanding != OUTSTANDING)),
        ]
        started = addresses.i.valid & addresses.i.ready
        m.d.sync += outstanding.eq(outstanding + started - (axi.rvalid & axi.rlast))

        for number, client in enumerate(clients):
            m.submodules[f"bursts_{number}"] = bursts = Bursts(self._config)
            m.submodules[f"queue_{number}"] = queue = CutQueue(
                client.beat.payload.shape(), BUFFER_BEATS
            )
            m.submodules[f"bursts_{number}_cut"] = cut = Queue(BURST, 2)
            m.submodules[f"merged_{number}"] = merged = Queue(REQUEST, 2)
            if number in self._long:
                wiring.connect(m, wiring.flipped(client.request), merged.i)
            else:
                m.submodules[f"merge_{number}"] = merge = Merge(self._config)
                wiring.connect(m, wiring.flipped(client.request), merge.i)
                m.d.comb += merge.scarce.eq(outstanding >= OUTSTANDING // 2)
                wiring.connect(m, merge.o, merged.i)
            wiring.connect(m, merged.o, bursts.i)
            wiring.connect(m, bursts.o, cut.i)
            wiring.connect(m, queue.o, wiring.flipped(client.beat))

            promised = Signal(range(BUFFER_BEATS + 1))
            granted = take & turns.grant[number]
            left = Signal()  # a beat, in the cycle before
            m.d.comb += [
                asks[number].eq(cut.o.valid & (promised <= BUFFER_BEATS - BURST_BEATS)),
                cut.o.ready.eq(granted),
                queue.i.valid.eq(axi.rvalid & (axi.rid == number)),
                queue.i.p.data.eq(axi.rdata),
                queue.i.p.error.eq(axi.rresp[1]),
            ]
            m.d.sync += promised.eq(promised + Mux(granted, cut.o.p.beats, 0) - left)
            m.d.sync += left.eq(client.beat.valid & client.beat.ready)
            with m.If(turns.grant[number]):
                m.d.comb += [
                    addresses.i.p.address.eq(cut.o.p.address),
                    addresses.i.p.len.eq(cut.o.p.len),
                    addresses.i.p.id.eq(number),
                ]
        return m


class Turns(wiring.Component):
    """Round robin: who has been served last comes last.

    Members
    -------
    asks : :py:`In(count)`
        Who wants to be served.
    take : :py:`In(1)`
        The one granted is served in this cycle.
    grant : :py:`Out(count)`
        At most one bit, of one who asks; combinational.
    """

    def __init__(self, count: int):
        self._count = count
        super().__init__({"asks": In(count), "take": In(1), "grant": Out(count)})

    def elaborate(self, platform):
        m = Module()
        last = Signal(range(self._count))
        with m.Switch(last):
            for served in range(self._count):
                with m.Case(served):
                    order = [(served + 1 + i) % self._count for i in range(self._count)]
                    for place, number in enumerate(order):
                        before = Cat(self.asks[earlier] for earlier in order[:place]).any()
                        m.d.comb += self.grant[number].eq(self.asks[number] & ~before)
        for number in range(self._count):
            with m.If(self.take & self.grant[number]):
                m.d.sync += last.eq(number)
        return m
