"""Where the data and the padding of boxes go in the scratchpads."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.faults import FaultCode
from ..isa.memories import Memory
from .arrival import Arrival, write_signatures
from .axi import read_client_signature
from .interfaces import BOX, Fault
from .span import Span


class Placer(wiring.Component):
    """Writes boxes, padding and beats, into scratchpads in row-major order.

    A beat takes a cycle. So does an element of padding, or as many of them as a beat would hold,
    on the same side of a row. Box follows box without a gap. With a fault it stops until reset:
    it takes nothing any more, and the box of the fault and all after it are never done.

    Parameters
    ----------
    config : AcceleratorConfig
        Decides the sizes.
    memories : sequence of Memory
        The memory types that boxes name.

    Members
    -------
    i : :py:`In(stream.Signature(BOX))`
        The boxes.
    beat : stream of beats
        Those of each box's rows, in order; the ones between two boxes' belong to the second.
    inp, wgt, ... : :py:`Out(write_signature(...))`
        The scratchpads, by name. What one does not accept waits, and all behind it.
    done : :py:`Out(1)`
        A box is complete; its last element is written in this cycle.
    fault : :py:`Out(Fault)`
        SRAM_RANGE or BUS_READ, held.
    writing : :py:`Out(1)`
        Elements or a part of one are written in this cycle.
    idle : :py:`Out(1)`
        No box is there.
    """

    def __init__(self, config: AcceleratorConfig, memories: Sequence[Memory]):
        self._config = config
        self._arrivals = [Arrival(config, memory) for memory in memories]
        self._scratchpads = write_signatures(config, memories)
        super().__init__(
            {
                "i": In(stream.Signature(BOX)),
                "beat": read_client_signature(config).members["beat"],
                **{name: Out(port) for name, port in self._scratchpads.items()},
                "done": Out(1),
                "fault": Out(Fault),
                "writing": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        box = self.i.p

        busy, empty = Signal(), Signal()
        memory_type, pad = Signal.like(box.memory_type), Signal.like(box.pad_value)
        greatest = max(arrival.banks for arrival in self._arrivals)
        m.submodules.columns = columns = Span(greatest)
        m.submodules.rows = rows = Span()
        index = Signal(len(box.sram_base) + 1)

        # An element's beats, and a beat's elements. ``slot`` is where the element at ``index``
        # stands in its beat, ``row_slot`` where the row's first does.
        last_part, slots, banks = self._per_memory(m, memory_type)
        part = Signal.like(last_part)
        slot_bits = len(slots) - 1
        slot, row_slot, stride = Signal(slot_bits), Signal(slot_bits), Signal(slot_bits)

        inside, offers, step, group_ends = Signal(), Signal(), Signal(), Signal()
        to = index + columns.count
        out, over = self._beyond(m, memory_type, index, to)
        live = busy & ~empty & ~self.fault.valid
        here = ~inside | self.beat.valid
        fails = inside & self.beat.valid & self.beat.p.error
        m.d.comb += [
            inside.eq(rows.inside & columns.inside),
            offers.eq(live & here & ~fails & ~over),
            step.eq(offers & self._accepted(m, memory_type)),
            group_ends.eq(step & (~inside | (part == last_part))),
            columns.step.eq(group_ends),
            rows.step.eq(group_ends & columns.last),
            self.beat.ready.eq(step & inside),
            self.done.eq((rows.step & rows.last) | (busy & empty & ~self.fault.valid)),
            self.writing.eq(step),
            self.idle.eq(~busy),
            self.i.ready.eq(~busy | self.done),
        ]
        if greatest > 1:
            in_beat = slots - (slot & (slots - 1)[:slot_bits])
            m.d.comb += columns.most.eq(Mux(inside, in_beat, banks))
        with m.If(step & inside):
            m.d.sync += part.eq(Mux(group_ends, 0, part + 1))
        with m.If(group_ends):
            m.d.sync += index.eq(to)
            with m.If(inside):
                m.d.sync += slot.eq(0)
            with m.If(rows.step & rows.inside):
                m.d.sync += [slot.eq(row_slot + stride), row_slot.eq(row_slot + stride)]

        index_of_box = Signal.like(box.index)
        with m.If(live):
            with m.If(fails & ~out):
                m.d.sync += [self.fault.valid.eq(1), self.fault.code.eq(FaultCode.BUS_READ)]
            with m.Elif(out | (over & here)):
                m.d.sync += [self.fault.valid.eq(1), self.fault.code.eq(FaultCode.SRAM_RANGE)]
        m.d.comb += self.fault.index.eq(index_of_box)

        for span, axis in ((columns, "x"), (rows, "y")):
            m.d.comb += [
                span.start.eq(self.i.ready),
                span.before.eq(box[f"{axis}_pad_0"]),
                span.size.eq(box[f"{axis}_size"]),
                span.after.eq(box[f"{axis}_pad_1"]),
            ]
        with m.If(self.i.ready):
            m.d.sync += [
                busy.eq(self.i.valid),
                empty.eq(
                    (box.x_size == 0)
                    | ((box.y_pad_0 == 0) & (box.y_size == 0) & (box.y_pad_1 == 0))
                ),
                memory_type.eq(box.memory_type),
                pad.eq(box.pad_value),
                index.eq(box.sram_base),
                slot.eq(box.dram_base),
                row_slot.eq(box.dram_base),
                stride.eq(box.x_stride),
                part.eq(0),
                index_of_box.eq(box.index),
            ]

        for name in self._scratchpads:
            port = getattr(self, name)
            m.d.comb += port.address.eq(index)
            with m.Switch(memory_type):
                for arrival in self._arrivals:
                    if arrival.memory.scratchpad == name:
                        with m.Case(arrival.memory.type):
                            m.d.comb += [
                                port.valid.eq(offers),
                                port.mask.eq(arrival.mask(m, part, index, columns.count, inside)),
                                port.data.eq(
                                    arrival.data(m, self.beat.p.data, slot, index, pad, inside)
                                ),
                            ]
        return m

    def _per_memory(self, m: Module, memory_type: Value) -> list[Signal]:
        """Of the boxes' memory: an element's last part, a beat's elements, and a write's."""
        rows = [(a.beats - 1, a.slots, a.banks) for a in self._arrivals]
        names = ("last_part", "slots", "banks")
        values = [
            Signal(range(max(column) + 1), name=name)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        ]
        with m.Switch(memory_type):
            for arrival, row in zip(self._arrivals, rows, strict=True):
                with m.Case(arrival.memory.type):
                    m.d.comb += [value.eq(each) for value, each in zip(values, row, strict=True)]
        return values

    def _accepted(self, m: Module, memory_type: Value) -> Value:
        """Whether the boxes' scratchpad takes what is offered."""
        accepted = Signal()
        with m.Switch(memory_type):
            for arrival in self._arrivals:
                with m.Case(arrival.memory.type):
                    m.d.comb += accepted.eq(getattr(self, arrival.memory.scratchpad).ready)
        return accepted

    def _beyond(
        self, m: Module, memory_type: Value, index: Value, to: Value
    ) -> tuple[Signal, Signal]:
        """Whether ``index``, or any before ``to``, is beyond the boxes' memory."""
        out, over = Signal(), Signal()
        with m.Switch(memory_type):
            for arrival in self._arrivals:
                depth = arrival.memory.depth(self._config)
                with m.Case(arrival.memory.type):
                    m.d.comb += [out.eq(index >= depth), over.eq(to > depth)]
        return out, over
