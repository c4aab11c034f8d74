"""Accumulators and their parameters, row by row."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from .interfaces import read_signature
from .store_rows import store_row


def acc_element(config: AcceleratorConfig) -> data.StructLayout:
    """An accumulator with its parameters; the latter have no bits without ``requantize``."""
    return data.StructLayout(
        {
            "acc": 8 * config.acc_element_bytes,
            "qnt": 8 * config.qnt_element_bytes if config.requantize else 0,
            "requantize": int(config.requantize),
        }
    )


class AccReader(wiring.Component):
    """Reads rows of accumulators; one element a cycle, no gap between rows.

    An element is offered in the cycle after its read, and nothing is read before it is taken.
    Parameters are read once a row.

    Members
    -------
    i : :py:`In(stream.Signature(store_row(config)))`
        The rows, none of them empty or beyond.
    acc, qnt : :py:`Out(read_signature(...))`
        The scratchpads; ``qnt`` with ``requantize`` only.
    o : :py:`Out(stream.Signature(acc_element(config)))`
        The elements.
    """

    def __init__(self, config: AcceleratorConfig):
        self._requantize = config.requantize
        acc = read_signature(config.acc_index_bits, 8 * config.acc_element_bytes)
        qnt = read_signature(config.qnt_index_bits, 8 * config.qnt_element_bytes)
        super().__init__(
            {
                "i": In(stream.Signature(store_row(config))),
                "acc": Out(acc),
                **({"qnt": Out(qnt)} if config.requantize else {}),
                "o": Out(stream.Signature(acc_element(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal.like(self.i.p.count)
        m.d.comb += [
            self.acc.enable.eq((left != 0) & (~self.o.valid | self.o.ready)),
            self.o.p.acc.eq(self.acc.data),
            self.i.ready.eq((left == 0) | ((left == 1) & self.acc.enable)),
        ]
        with m.If(self.acc.enable):
            m.d.sync += [left.eq(left - 1), self.acc.address.eq(self.acc.address + 1)]
        with m.If(self.acc.enable | self.o.ready):
            m.d.sync += self.o.valid.eq(self.acc.enable)
        with m.If(self.i.ready):
            m.d.sync += [
                left.eq(Mux(self.i.valid, self.i.p.count, 0)),
                self.acc.address.eq(self.i.p.acc),
            ]
        if self._requantize:
            first, requantize = Signal(), Signal()
            m.d.comb += [
                self.qnt.enable.eq(self.acc.enable & first & requantize),
                self.o.p.qnt.eq(self.qnt.data),
            ]
            with m.If(self.acc.enable):
                m.d.sync += [first.eq(0), self.o.p.requantize.eq(requantize)]
            with m.If(self.i.ready):
                m.d.sync += [
                    first.eq(1),
                    self.qnt.address.eq(self.i.p.qnt),
                    requantize.eq(self.i.p.requantize),
                ]
        return m
