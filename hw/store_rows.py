"""Stores as rows of accumulators."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from ..isa.formats import STORE, STOREX
from ..isa.memories import MEMORIES, MemoryType
from .arrival import bank_count
from .boxes import ROW, Rows, box_of
from .interfaces import BOX, INDEX_BITS, Issue, format_struct


def store_row(config: AcceleratorConfig) -> data.StructLayout:
    """A row of a STORE or STOREX.

    ``row`` is where it goes, ``slot`` how many elements would stand before it in its first beat;
    ``acc`` and ``count`` say which elements, ``qnt`` which parameters apply if ``requantize``.
    With ``keeping``, one that is ``kept`` goes to the INP scratchpad, to ``place``, and ``slot``
    is of its first write. ``empty`` stands for an instruction without rows, ``beyond`` for a row
    that reaches beyond a scratchpad: neither moves anything. ``index`` is the instruction's.
    """
    kept = {"kept": 1, "place": config.inp_index_bits} if config.keeping else {}
    return data.StructLayout(
        {
            "row": ROW,
            "slot": exact_log2(bank_count(config, "acc")),
            "acc": config.acc_index_bits,
            "count": BOX["x_size"].width,
            "qnt": config.qnt_index_bits,
            "requantize": 1,
            **kept,
            "empty": 1,
            "beyond": 1,
            "index": INDEX_BITS,
        }
    )


class StoreRows(wiring.Component):
    """Cuts stores into rows; one row a cycle, one cycle of latency.

    Every instruction gives at least one entry, in order: its rows, or one that is ``empty``. The
    entry that is ``beyond`` is the last ever, until reset.

    Members
    -------
    i : :py:`In(Issue)`
        STORE and STOREX.
    o : :py:`Out(stream.Signature(store_row(config)))`
        The rows.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        row = stream.Signature(store_row(config))
        super().__init__({"i": In(Issue), "o": Out(row)})

    def elaborate(self, platform):
        m = Module()
        config, entry = self._config, self.o.p
        box = box_of(m, config, self.i.payload, (STORE, STOREX))
        there = [MEMORIES[MemoryType.OUT], *([MEMORIES[MemoryType.INP]] if config.keeping else [])]
        m.submodules.rows = rows = Rows(config, there)

        acc = Signal(len(box.sram_base) + 1)
        end = acc + entry.count
        stopped = Signal()
        room = (self.o.ready | ~entry.empty) & ~stopped
        m.d.comb += [
            rows.i.payload.eq(box),
            rows.i.valid.eq(self.i.valid & room),
            rows.o.ready.eq(self.o.ready),
            self.i.ready.eq(rows.i.ready & room),
            self.o.valid.eq((rows.o.valid | entry.empty) & ~stopped),
            entry.row.eq(rows.o.payload),
            entry.slot.eq(rows.o.p.address >> exact_log2(config.out_element_bytes)),
            entry.acc.eq(acc),
        ]
        beyond = end > config.acc_depth
        with m.If(self.o.ready):
            m.d.sync += acc.eq(end)
            with m.If(self.o.valid & entry.beyond):
                m.d.sync += stopped.eq(1)
        with m.If(self.i.ready):
            m.d.sync += [
                acc.eq(box.sram_base),
                entry.count.eq(box.x_size),
                entry.empty.eq(self.i.valid & ((box.x_size == 0) | (box.y_size == 0))),
                entry.index.eq(box.index),
            ]
        if config.requantize:
            fields = format_struct(config, STOREX.opcode)(self.i.p.word)
            qnt, step = Signal(config.qnt_index_bits + 1), Signal()
            m.d.comb += entry.qnt.eq(qnt)
            beyond |= entry.requantize & (qnt >= config.qnt_depth)
            with m.If(self.o.ready):
                m.d.sync += qnt.eq(qnt + step)
            with m.If(self.i.ready):
                m.d.sync += [
                    qnt.eq(fields.qnt_base),
                    step.eq(fields.qnt_step),
                    entry.requantize.eq(fields.opcode == STOREX.opcode),
                ]
        if config.keeping:
            beyond |= entry.kept & self._place(m, box)
        m.d.comb += entry.beyond.eq(beyond & ~entry.empty)
        return m

    def _place(self, m: Module, box) -> Value:
        """Where rows stand in the INP scratchpad; returns whether one reaches beyond it."""
        config, entry = self._config, self.o.p
        # What is not beyond is less than a stride away from the next row.
        place = Signal(max(config.inp_index_bits, len(box.x_stride)) + 1)
        stride, far = Signal.like(box.x_stride), Signal()
        m.d.comb += entry.place.eq(place)
        with m.If(self.o.ready):
            m.d.sync += place.eq(place + stride)
        with m.If(self.i.ready):
            m.d.sync += [
                place.eq(box.dram_base),
                far.eq(box.dram_base[len(place) :].any()),
                stride.eq(box.x_stride),
                entry.kept.eq(box.memory_type == MemoryType.INP),
            ]
        return far | (place + entry.count > config.inp_depth)
