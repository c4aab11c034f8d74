"""Accumulators and their parameters, row by row."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from .arrival import bank_count
from .interfaces import yielding_read_signature
from .requantizer import requantizer_layout
from .store_rows import store_row


def acc_group(config: AcceleratorConfig) -> data.StructLayout:
    """Accumulators of a beat, in their banks, with the parameters that apply to all of them, or,
    if lanes take turns, with where these are.
    """
    lanes = bank_count(config, "acc") * config.batch * config.block
    return requantizer_layout(config, lanes, by_index=config.rescale_cycles > 1)


class AccReader(wiring.Component):
    """Reads rows of accumulators; a beat's a cycle, or one if they fill it; no gap between rows.

    A group is offered in the cycle after its read, and nothing is read before it is taken.
    Parameters are read once a row. Both are read in the same cycle, in which both are ready. If
    lanes take turns, a group has the index of its parameters instead.

    Members
    -------
    i : :py:`In(stream.Signature(store_row(config)))`
        The rows, none of them empty or beyond.
    acc, qnt : :py:`Out(yielding_read_signature(...))`
        The scratchpads; ``acc`` of as many elements as a beat holds, ``qnt`` with ``requantize``
        only, unless lanes take turns.
    o : :py:`Out(stream.Signature(acc_group(config)))`
        The accumulators that go into the row's first beat, its second, and so on.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config, self._requantize = config, config.requantize
        self._reads = config.requantize and config.rescale_cycles == 1
        group = acc_group(config)
        acc = yielding_read_signature(config.acc_index_bits, group["acc"].width)
        qnt = yielding_read_signature(config.qnt_index_bits, 8 * config.qnt_element_bytes)
        super().__init__(
            {
                "i": In(stream.Signature(store_row(config))),
                "acc": Out(acc),
                **({"qnt": Out(qnt)} if self._reads else {}),
                "o": Out(stream.Signature(group)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal.like(self.i.p.count)
        slot = Signal(len(self.i.p.slot))
        count = Signal(range((1 << len(slot)) + 1))
        room = (1 << len(slot)) - slot
        ends = left <= room
        first, requantize = Signal(), Signal()
        may = self.qnt.ready | ~(first & requantize) if self._reads else C(1)
        m.d.comb += [
            count.eq(Mux(ends, left, room)),
            self.acc.enable.eq((left != 0) & (~self.o.valid | self.o.ready) & self.acc.ready & may),
            self.o.p.acc.eq(self.acc.data),
            self.i.ready.eq((left == 0) | (ends & self.acc.enable)),
        ]
        with m.If(self.acc.enable):
            m.d.sync += [
                left.eq(left - count),
                self.acc.address.eq(self.acc.address + count),
                slot.eq(0),
            ]
        with m.If(self.acc.enable | self.o.ready):
            m.d.sync += self.o.valid.eq(self.acc.enable)
        with m.If(self.i.ready):
            m.d.sync += [
                left.eq(Mux(self.i.valid, self.i.p.count, 0)),
                self.acc.address.eq(self.i.p.acc),
                slot.eq(self.i.p.slot),
            ]
        if self._requantize:
            index = Signal.like(self.i.p.qnt)
            with m.If(self.acc.enable):
                m.d.sync += [first.eq(0), self.o.p.requantize.eq(requantize)]
            with m.If(self.i.ready):
                m.d.sync += [
                    first.eq(1),
                    index.eq(self.i.p.qnt),
                    requantize.eq(self.i.p.requantize),
                ]
            if self._reads:
                m.d.comb += [
                    self.qnt.enable.eq(self.acc.enable & first & requantize),
                    self.qnt.address.eq(index),
                    self.o.p.qnt.eq(self.qnt.data),
                ]
            else:
                with m.If(self.acc.enable):
                    m.d.sync += self.o.p.qnt.eq(index)
        return m
