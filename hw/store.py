"""The store engine: accumulators to DRAM, or to where inputs are."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import FaultCode
from .acc_reader import AccReader, acc_group
from .arrival import bank_count
from .axi import REQUEST, write_client_signature
from .fork import fork
from .form import Form
from .input_writes import inp_write_signature
from .interfaces import INDEX_BITS, Activity, Fault, Issue, yielding_read_signature
from .packer import Packer, packed_row
from .parameters import store_read
from .queue import Queue
from .requantizer import requantizer
from .store_rows import StoreRows, store_row

ROWS_READ = 4
"""Rows that may wait to be read."""
ROWS_PACKED = 16
"""Rows between the accumulators and the bus: what the requantizer's stages hold, and some."""
ROWS_UNDER_WAY = 32
"""Rows, and instructions without any, that are not yet complete."""


class StoreEngine(wiring.Component):
    """Executes STORE and STOREX; a beat every ``rescale_cycles``, of an element or of all it holds.

    Instructions overlap, and so do their rows: accumulators of one are read while those before
    are on their way and the responses to others are awaited. An instruction is complete when the
    responses to all its rows have come.

    With ``keeping``, rows that go to the INP scratchpad overlap with those that go to DRAM: they
    take a cycle for the elements of a beat, or for one if that is wider, as long as ``inp`` takes
    them, and are complete when they are there; each row waits for those before it.

    Rows are checked before anything of them is requested or read. What has been requested is
    delivered, fault or not.

    Members
    -------
    i : :py:`In(Issue)`
        Instructions, statically legal, whose tokens have been taken.
    acc, qnt : :py:`Out(yielding_read_signature(...))`, :py:`Out(store_read(config))`
        The scratchpads; ``acc`` of as many elements as a beat holds, ``qnt`` with ``requantize``
        only.
    bus : :py:`Out(write_client_signature(config))`
        DRAM.
    inp : :py:`Out(inp_write_signature(config))`
        The INP scratchpad, from a register; with ``keeping`` only.
    done : :py:`Out(1)`
        An instruction is complete, in order.
    fault : :py:`Out(Fault)`
        SRAM_RANGE or BUS_WRITE when all before it is complete; held until reset.
    activity : :py:`Out(Activity)`
        BUSY in a cycle that reads an accumulator or sends a beat, or while the first row that is
        not complete is on its way to the INP scratchpad; else WAIT_MEMORY while there is an
        instruction.
    idle : :py:`Out(1)`
        No instruction is there.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self._config, self._form = config, form
        acc = yielding_read_signature(config.acc_index_bits, acc_group(config)["acc"].width)
        super().__init__(
            {
                "i": In(Issue),
                "acc": Out(acc),
                **({"qnt": Out(store_read(config))} if config.requantize else {}),
                "bus": Out(write_client_signature(config)),
                **({"inp": Out(inp_write_signature(config))} if config.keeping else {}),
                "done": Out(1),
                "fault": Out(Fault),
                "activity": Out(Activity),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, bus = self._config, self.bus
        m.submodules.store_rows = store_rows = StoreRows(config)
        m.submodules.rows = rows = Queue(store_row(config), 2)
        m.submodules.to_read = to_read = Queue(store_row(config), ROWS_READ)
        m.submodules.to_pack = to_pack = Queue(packed_row(config), ROWS_PACKED)
        m.submodules.requests = requests = Queue(REQUEST, 2)
        m.submodules.reader = reader = AccReader(config)
        narrow = requantizer(config, self._form, bank_count(config, "acc"))
        m.submodules.requantizer = narrow
        m.submodules.packer = packer = Packer(config)
        m.submodules.completion = completion = Completion(config.keeping)

        m.d.comb += [
            store_rows.i.payload.eq(self.i.payload),
            store_rows.i.valid.eq(self.i.valid & ~self.fault.valid),
            self.i.ready.eq(store_rows.i.ready & ~self.fault.valid),
        ]
        wiring.connect(m, store_rows.o, rows.i)
        entry = rows.o.p
        moves = ~(entry.empty | entry.beyond)
        leaves = moves & ~entry.kept if config.keeping else moves
        with m.If(leaves):
            taken = fork(m, rows.o.valid, completion.i, requests.i, to_read.i, to_pack.i)
            m.d.comb += rows.o.ready.eq(taken)
        if config.keeping:
            with m.Elif(moves):
                taken = fork(m, rows.o.valid, completion.i, to_read.i, to_pack.i)
                m.d.comb += rows.o.ready.eq(taken)
        with m.Else():
            m.d.comb += rows.o.ready.eq(fork(m, rows.o.valid, completion.i))
        m.d.comb += [
            requests.i.p.address.eq(entry.row.address & -config.bus_bytes),
            requests.i.p.beats.eq(entry.row.beats),
            to_read.i.payload.eq(entry),
            to_pack.i.p.count.eq(entry.count),
            to_pack.i.p.slot.eq(entry.slot),
            to_pack.i.p.turn.eq(entry.acc - entry.slot),
            completion.i.p.moves.eq(leaves),
            completion.i.p.beyond.eq(entry.beyond),
            completion.i.p.last.eq(entry.row.last | entry.empty),
            completion.i.p.index.eq(entry.index),
        ]

        wiring.connect(m, requests.o, wiring.flipped(bus.request))
        wiring.connect(m, to_read.o, reader.i)
        wiring.connect(m, wiring.flipped(self.acc), reader.acc)
        if config.requantize:
            who = reader if config.rescale_cycles == 1 else narrow
            wiring.connect(m, wiring.flipped(self.qnt), who.qnt)
        wiring.connect(m, reader.o, narrow.i)
        wiring.connect(m, narrow.o, packer.i)
        wiring.connect(m, to_pack.o, packer.rows)
        wiring.connect(m, packer.o, wiring.flipped(bus.data))
        if config.keeping:
            m.d.comb += [
                to_pack.i.p.kept.eq(entry.kept),
                to_pack.i.p.place.eq(entry.place),
                completion.i.p.kept.eq(moves & entry.kept),
            ]
            self._write_inputs(m, packer.kept, completion)

        wiring.connect(m, wiring.flipped(bus.response), completion.response)
        wiring.connect(m, wiring.flipped(self.fault), completion.fault)
        m.d.comb += [
            self.done.eq(completion.done),
            self.idle.eq(completion.idle & ~rows.o.valid & ~store_rows.o.valid),
        ]
        busy = self.acc.enable | (bus.data.valid & bus.data.ready)
        with m.If(busy | completion.inside if config.keeping else busy):
            m.d.comb += self.activity.eq(Activity.BUSY)
        with m.Elif(~self.idle):
            m.d.comb += self.activity.eq(Activity.WAIT_MEMORY)
        return m

    def _write_inputs(self, m: Module, kept, completion: Completion) -> None:
        """From a register, for what is in front of it is as slow as a beat's way to the bus."""
        inp, last = self.inp, Signal()
        m.d.comb += [
            kept.ready.eq(~inp.valid | inp.ready),
            completion.written.eq(inp.valid & inp.ready & last),
        ]
        with m.If(kept.ready):
            m.d.sync += [
                inp.valid.eq(kept.valid),
                inp.address.eq(kept.p.address),
                inp.mask.eq(kept.p.mask),
                inp.data.eq(kept.p.data),
                last.eq(kept.p.last),
            ]


class Completion(wiring.Component):
    """Waits for the responses to rows and reports instructions complete, or a fault, in order.

    Parameters
    ----------
    keeping : bool
        Whether there are rows that are kept: they have no response, but are written.

    Members
    -------
    i : stream
        Rows in order: ``moves`` if a response will come, ``kept`` if it will be written instead,
        ``beyond`` if the row is a fault, ``last`` of its instruction, the instruction's ``index``.
    response : stream
        From the bus.
    written : :py:`In(1)`
        The next row that is kept has been written, as is seen by a read in the next cycle.
    inside : :py:`Out(1)`
        The first row is one that is kept.
    done : :py:`Out(1)`
        An instruction is complete.
    fault : :py:`Out(Fault)`
        Held until reset; nothing is taken any more.
    idle : :py:`Out(1)`
        No row is there.
    """

    def __init__(self, keeping: bool = False):
        self._keeping = keeping
        row = data.StructLayout(
            {
                "moves": 1,
                **({"kept": 1} if keeping else {}),
                "beyond": 1,
                "last": 1,
                "index": INDEX_BITS,
            }
        )
        super().__init__(
            {
                "i": In(stream.Signature(row)),
                "response": In(stream.Signature(data.StructLayout({"error": 1}))),
                **({"written": In(1), "inside": Out(1)} if keeping else {}),
                "done": Out(1),
                "fault": Out(Fault),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.i.payload.shape(), ROWS_UNDER_WAY)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        row, answer = queue.o.p, self.response
        ends, fails = Signal(), Signal()
        live = queue.o.valid & ~self.fault.valid
        settled = answer.valid | ~row.moves
        if self._keeping:
            settled &= self._kept(m, queue, ends)
        m.d.comb += [
            ends.eq(live & settled),
            fails.eq(row.beyond | (row.moves & answer.p.error)),
            queue.o.ready.eq(ends & ~fails),
            answer.ready.eq(live & row.moves & ~fails),
            self.done.eq(ends & ~fails & row.last),
            self.idle.eq(~queue.o.valid),
            self.fault.index.eq(row.index),
        ]
        with m.If(ends & fails):
            m.d.sync += [
                self.fault.valid.eq(1),
                self.fault.code.eq(Mux(row.beyond, FaultCode.SRAM_RANGE, FaultCode.BUS_WRITE)),
            ]
        return m

    def _kept(self, m: Module, queue: Queue, ends: Value) -> Value:
        """Whether the first row, if it is kept, has been written; counts those that have."""
        kept, written = queue.o.p.kept, Signal(range(ROWS_UNDER_WAY + 1))
        m.d.comb += self.inside.eq(queue.o.valid & kept)
        m.d.sync += written.eq(written + self.written - (ends & kept))
        return written.any() | ~kept
