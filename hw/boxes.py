"""Boxes: from an instruction to the rows that it moves between DRAM and a scratchpad."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from ..isa.formats import Format, enabled
from ..isa.memories import Memory
from .axi import BEATS_BITS
from .interfaces import ADDRESS_BITS, BOX, format_struct


def box_of(m: Module, config: AcceleratorConfig, issue, formats: Sequence[Format]) -> data.View:
    """The box that an ``ISSUE`` of one of ``formats`` moves; combinational.

    Members of ``BOX`` that a format does not have are 0. Formats that ``config`` does not admit
    are left out.
    """
    box = Signal(BOX, name="box")
    opcode = format_struct(config, formats[0].opcode)(issue.word).opcode
    with m.Switch(opcode):
        for format in formats:
            if format in enabled(config):
                fields = format_struct(config, format.opcode)(issue.word)
                named = format.layout(config).by_name
                with m.Case(format.opcode):
                    m.d.comb += [box[n].eq(fields[n]) for n in BOX.members if n in named]
    m.d.comb += box.index.eq(issue.index)
    return box


ROW = data.StructLayout({"address": ADDRESS_BITS, "beats": BEATS_BITS, "last": 1})
"""A row of a box: the byte address of its first element, the beats that it touches."""


class Rows(wiring.Component):
    """Boxes to rows; one row a cycle, one cycle of latency. An empty box has no rows.

    Parameters
    ----------
    config : AcceleratorConfig
        Decides the widths of elements and bus.
    memories : sequence of Memory
        The memory types that boxes name.

    Members
    -------
    i : :py:`In(stream.Signature(BOX))`
        The boxes. While the last row of one is taken the next can come.
    o : :py:`Out(stream.Signature(ROW))`
        Their rows, in order, without the padding.
    """

    def __init__(self, config: AcceleratorConfig, memories: Sequence[Memory]):
        self._bus_bytes = config.bus_bytes
        self._shifts = {
            memory.type: exact_log2(memory.element_bytes(config)) for memory in memories
        }
        super().__init__({"i": In(stream.Signature(BOX)), "o": Out(stream.Signature(ROW))})

    def elaborate(self, platform):
        m = Module()
        box, row = self.i.p, self.o.p
        beat_bits = exact_log2(self._bus_bytes)
        most = max(self._shifts.values())

        shift = Signal(range(most + 1))
        with m.Switch(box.memory_type):
            for memory_type, amount in self._shifts.items():
                with m.Case(memory_type):
                    m.d.comb += shift.eq(amount)

        stride, size = Signal(16 + most), Signal(16 + most)  # bytes
        left = Signal.like(box.y_size)
        m.d.comb += [
            row.beats.eq((row.address[:beat_bits] + size + (self._bus_bytes - 1)) >> beat_bits),
            self.i.ready.eq(~self.o.valid | (self.o.ready & row.last)),
        ]
        with m.If(self.o.ready):
            m.d.sync += [
                row.address.eq(row.address + stride),
                left.eq(left - 1),
                row.last.eq(left == 2),  # what is left is compared a row ahead
            ]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid & box.x_size.any() & box.y_size.any()),
                row.address.eq(box.dram_base << shift),
                stride.eq(box.x_stride << shift),
                size.eq(box.x_size << shift),
                left.eq(box.y_size),
                row.last.eq(box.y_size == 1),
            ]
        return m
