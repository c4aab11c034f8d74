"""Elements to beats, or to writes of the INP scratchpad."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .arrival import bank_count
from .axi import write_client_signature
from .input_writes import inp_write_signature
from .interfaces import BOX


def packed_row(config: AcceleratorConfig) -> data.StructLayout:
    """A row: how many elements, how many would stand before it in its first beat, its turn.

    ``turn`` is the bank of the accumulator that stands first in a beat, or would. With
    ``keeping``, the row may be ``kept``, from element ``place`` of the INP scratchpad on.
    """
    bits = exact_log2(bank_count(config, "acc"))
    kept = {"kept": 1, "place": config.inp_index_bits} if config.keeping else {}
    return data.StructLayout({"count": BOX["x_size"].width, "slot": bits, "turn": bits, **kept})


def kept_group(config: AcceleratorConfig) -> data.StructLayout:
    """A write into the INP scratchpad, as its ports take it, and whether it is a row's last."""
    write = inp_write_signature(config).members
    fields = {name: write[name].shape for name in ("address", "mask", "data")}
    return data.StructLayout({**fields, "last": 1})


class Packer(wiring.Component):
    """Makes beats of the elements of rows; a beat a cycle. Nothing is registered.

    Elements narrower than the bus come beat by beat, in the order of their accumulators' banks:
    they are turned to the places where they stand in the beat, and its strobe names the bytes
    that the row has there. Wider elements are cut.

    What is kept goes the same way, a cycle for as many elements as fill a beat: the scratchpad's
    banks are where a beat's elements are. Only wider elements are not cut: each takes a cycle.

    Members
    -------
    rows : :py:`In(stream.Signature(packed_row(config)))`
        The rows; each is taken with its last beat or write. Not used where elements are not
        narrower than the bus and none are kept.
    i : stream
        The elements of a beat, or one, ``out_element_bytes`` each.
    o : stream of ``data``, ``strobe``
        The beats.
    kept : :py:`Out(stream.Signature(kept_group(config)))`
        The writes; with ``keeping``.
    """

    def __init__(self, config: AcceleratorConfig):
        self._element, self._bus = config.out_element_bytes, config.bus_bytes
        self._keeping = config.keeping
        kept = {"kept": Out(stream.Signature(kept_group(config)))} if config.keeping else {}
        super().__init__(
            {
                "rows": In(stream.Signature(packed_row(config))),
                "i": In(stream.Signature(8 * max(self._element, self._bus))),
                "o": write_client_signature(config).members["data"],
                **kept,
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self._element < self._bus:
            self._turn(m)
        else:
            self._cut(m)
        return m

    def _cut(self, m: Module) -> None:
        beats = self._element // self._bus
        part = Signal(range(beats))
        last = part == beats - 1
        if self._keeping:
            taken, ready = self._cut_rows(m, last)
        else:
            taken, ready = C(1), self.o.ready & last
        valid = self.i.valid & self.rows.valid if self._keeping else self.i.valid
        m.d.comb += [
            self.rows.ready.eq(taken),
            *self._offer(valid),
            self.o.p.data.eq(self.i.payload.word_select(part, 8 * self._bus)),
            self.o.p.strobe.eq(~0),
            self.i.ready.eq(ready),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += part.eq(Mux(last, 0, part + 1))

    def _cut_rows(self, m: Module, last: Value) -> tuple[Value, Value]:
        """Whether the row ends, and whether an element may be taken, that is kept as it is or cut.

        ``last`` is of the last beat of what is cut.
        """
        row = self.rows.p
        left, inside, count = Signal.like(row.count), Signal(), Signal.like(row.count)
        taken = Signal()
        self._keep(m, inside, taken, count == 1, self.i.payload, C(1))
        m.d.comb += [
            count.eq(Mux(inside, left, row.count)),
            taken.eq(self.i.valid & self.i.ready),
        ]
        with m.If(taken):
            m.d.sync += [left.eq(count - 1), inside.eq(count != 1)]
        ready = Mux(row.kept, self.kept.ready, self.o.ready & last) & self.rows.valid
        return taken & (count == 1), ready

    def _offer(self, valid: Value) -> list:
        """Shows what is there, if ``valid``, to where the row goes."""
        if not self._keeping:
            return [self.o.valid.eq(valid)]
        kept = self.rows.p.kept
        return [self.o.valid.eq(valid & ~kept), self.kept.valid.eq(valid & kept)]

    def _keep(
        self, m: Module, inside: Value, moves: Value, last: Value, elements: Value, here: Value
    ) -> None:
        """What is written if the row is kept: those of ``elements`` that are ``here``."""
        group, place, bits = self.kept.p, self.rows.p.place, len(self.rows.p.slot)
        line, following = Signal(len(place) - bits), Signal(len(place) - bits)
        parts = len(group.mask) // len(here)
        m.d.comb += [
            line.eq(Mux(inside, following, place[bits:])),
            group.address.eq(Cat(C(0, bits), line)),
            group.mask.eq(Cat(one.replicate(parts) for one in here)),
            group.data.eq(elements),
            group.last.eq(last),
        ]
        with m.If(moves):
            m.d.sync += following.eq(line + 1)

    def _turn(self, m: Module) -> None:
        slots, row = self._bus // self._element, self.rows.p
        left, inside = Signal.like(row.count), Signal()  # of a row whose first beat has gone
        slot, count = Signal.like(row.slot), Signal.like(row.count)
        room = slots - slot
        last = count <= room
        end = Mux(last, slot + count[: len(slot) + 1], slots)
        moves = self.o.valid & self.o.ready
        valid, ready = self.i.valid & self.rows.valid, self.o.ready
        if self._keeping:
            moves, ready = Signal(), Mux(row.kept, self.kept.ready, self.o.ready)
            m.d.comb += moves.eq(valid & ready)
            here = self.o.p.strobe[:: self._element]
            self._keep(m, inside, moves, last, self.o.p.data, here)
        m.d.comb += [
            slot.eq(Mux(inside, 0, row.slot)),
            count.eq(Mux(inside, left, row.count)),
            *self._offer(valid),
            self.i.ready.eq(ready & self.rows.valid),
            self.rows.ready.eq(moves & last),
        ]
        with m.If(moves):
            m.d.sync += [left.eq(count - room), inside.eq(~last)]
        for number in range(slots):
            bank = (row.turn + number)[: len(row.turn)]
            here = number < end
            if number < slots - 1:
                here &= slot <= number
            m.d.comb += [
                self.o.p.data.word_select(number, 8 * self._element).eq(
                    self.i.payload.word_select(bank, 8 * self._element)
                ),
                self.o.p.strobe.word_select(number, self._element).eq(
                    here.replicate(self._element)
                ),
            ]
