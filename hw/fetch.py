"""Instructions from DRAM."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from ..isa.faults import FaultCode
from ..isa.formats import INSTRUCTION_BITS, INSTRUCTION_BYTES
from .axi import read_client_signature
from .interfaces import ADDRESS_BITS, INDEX_BITS, Fault, Issue

PROGRAM = data.StructLayout({"address": ADDRESS_BITS, "count": INDEX_BITS})
"""Where a stream of instructions stands, a multiple of an instruction's bytes, and its length."""
REQUEST_BEATS_BITS = 16
"""A request has at most 2 to this power beats."""


class Fetch(wiring.Component):
    """Reads a stream of instructions; one a cycle where a beat holds one, and the bus gives it.

    All of the stream is requested at once, in requests that the read port cuts into bursts as it
    has room for: its queue is the prefetch. The first request leaves in the cycle after ``start``;
    an instruction is offered in the cycle in which the port offers its last beat.

    Members
    -------
    start : :py:`In(stream.Signature(PROGRAM))`
        What to fetch next; taken while ``idle``.
    bus : :py:`Out(read_client_signature(config))`
        DRAM.
    o : :py:`Out(Issue)`
        The instructions in order, ``index`` from 0.
    fault : :py:`Out(Fault)`
        BUS_READ at the instruction that the error hit, held until reset; nothing follows it.
    idle : :py:`Out(1)`
        Nothing to fetch or to deliver any more.
    """

    def __init__(self, config: AcceleratorConfig):
        self._bus_bytes = config.bus_bytes
        super().__init__(
            {
                "start": In(stream.Signature(PROGRAM)),
                "bus": Out(read_client_signature(config)),
                "o": Out(Issue),
                "fault": Out(Fault),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal(INDEX_BITS)  # instructions not yet delivered
        m.d.comb += [self.idle.eq(left == 0), self.start.ready.eq(self.idle & ~self.fault.valid)]

        self._request(m)
        word, valid, error = self._words(m, delivered=self.o.valid & self.o.ready, last=left == 1)

        m.d.comb += [
            self.o.p.word.eq(word),
            self.o.valid.eq(valid & ~error & ~self.fault.valid),
            self.fault.code.eq(FaultCode.BUS_READ),
            self.fault.index.eq(self.o.p.index),
        ]
        with m.If(valid & error):
            m.d.sync += self.fault.valid.eq(1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [left.eq(left - 1), self.o.p.index.eq(self.o.p.index + 1)]
        with m.If(self.start.ready & self.start.valid):
            m.d.sync += [left.eq(self.start.p.count), self.o.p.index.eq(0)]
        return m

    def _request(self, m: Module) -> None:
        """Requests every beat that holds an instruction of the stream."""
        bus, program, request = self._bus_bytes, self.start.p, self.bus.request
        beat_bits = exact_log2(bus)
        most = 1 << REQUEST_BEATS_BITS
        beats = Signal(INDEX_BITS + exact_log2(INSTRUCTION_BYTES) - beat_bits + 1)
        rest, whole = beats[:REQUEST_BEATS_BITS], beats[REQUEST_BEATS_BITS:]
        more = Signal()  # whole requests, looked at a request ahead
        m.d.comb += request.p.beats.eq(Mux(more, most, rest))
        with m.If(request.valid & request.ready):
            m.d.sync += [
                request.p.address.eq(request.p.address + (most << beat_bits)),
                whole.eq(whole - 1),
                more.eq(whole != 1),
                request.valid.eq(more & ((whole != 1) | rest.any())),
            ]
        with m.If(self.start.ready & self.start.valid):
            end = program.address[:beat_bits] + program.count * INSTRUCTION_BYTES
            wanted = Signal.like(beats)
            m.d.comb += wanted.eq((end + bus - 1) >> beat_bits)
            m.d.sync += [
                request.p.address.eq(program.address & -bus),
                request.valid.eq(program.count != 0),
                beats.eq(wanted),
                more.eq(wanted[REQUEST_BEATS_BITS:].any()),
            ]

    def _words(self, m: Module, delivered: Value, last: Value) -> tuple[Value, Value, Value]:
        """The next instruction, whether it is there, and whether an error hit it.

        ``delivered`` says that it leaves in this cycle, ``last`` that it is the stream's last.
        """
        beat = self.bus.beat
        words, beats = self._bus_bytes // INSTRUCTION_BYTES, INSTRUCTION_BYTES // self._bus_bytes
        if beats > 1:
            at, held, failed = Signal(range(beats)), Signal(INSTRUCTION_BITS), Signal()
            complete = at == beats - 1
            word = Cat(held[len(beat.p.data) :], beat.p.data)
            m.d.comb += beat.ready.eq(~complete | delivered)
            with m.If(beat.valid & beat.ready):
                m.d.sync += [
                    held.eq(word),
                    at.eq(at + 1),
                    failed.eq(~complete & (failed | beat.p.error)),
                ]
            return word, beat.valid & complete, failed | beat.p.error
        at = Signal(range(words))
        m.d.comb += beat.ready.eq(delivered & ((at == words - 1) | last))
        with m.If(delivered):
            m.d.sync += at.eq(at + 1)
        with m.If(self.start.ready & self.start.valid):
            m.d.sync += at.eq(self.start.p.address >> exact_log2(INSTRUCTION_BYTES))
        return beat.p.data.word_select(at, INSTRUCTION_BITS), beat.valid, beat.p.error
