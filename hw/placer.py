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

    An element of padding takes a cycle; so does a beat, or each element of a beat that holds
    several. Box follows box without a gap. With a fault it stops until reset: it takes nothing
    any more, and the box of the fault and all after it are never done.

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
        An element or a part of one is written in this cycle.
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
        m.submodules.columns = columns = Span()
        m.submodules.rows = rows = Span()
        index = Signal(len(box.sram_base) + 1)

        # An element's beats, and a beat's elements. ``slot`` is where the element stands in its
        # beat, ``row_slot`` where the row's first does.
        last_part, last_slot = self._per_memory(m, memory_type)
        slot_bits = len(last_slot)
        part = Signal.like(last_part)
        slot, row_slot, stride = Signal(slot_bits), Signal(slot_bits), Signal(slot_bits)
        ends_beat = ((slot & last_slot) == last_slot) | columns.ends

        inside, beyond = Signal(), self._beyond(m, memory_type, index)
        works, offers, step, element_ends = Signal(), Signal(), Signal(), Signal()
        accepted = self._accepted(m, memory_type)
        m.d.comb += [
            inside.eq(rows.inside & columns.inside),
            works.eq(busy & ~empty & ~self.fault.valid & ~beyond),
            offers.eq(works & (~inside | (self.beat.valid & ~self.beat.p.error))),
            step.eq(offers & accepted),
            element_ends.eq(step & (~inside | (part == last_part))),
            columns.step.eq(element_ends),
            rows.step.eq(element_ends & columns.last),
            self.beat.ready.eq(works & inside & ends_beat & ~self.beat.p.error & accepted),
            self.done.eq((rows.step & rows.last) | (busy & empty & ~self.fault.valid)),
            self.writing.eq(step),
            self.idle.eq(~busy),
            self.i.ready.eq(~busy | self.done),
        ]
        with m.If(step & inside):
            m.d.sync += part.eq(Mux(element_ends, 0, part + 1))
        with m.If(element_ends):
            m.d.sync += index.eq(index + 1)
            with m.If(inside):
                m.d.sync += slot.eq(slot + 1)
            with m.If(rows.step & rows.inside):
                m.d.sync += [slot.eq(row_slot + stride), row_slot.eq(row_slot + stride)]

        index_of_box = Signal.like(box.index)
        with m.If(busy & ~empty & ~self.fault.valid):
            with m.If(beyond):
                m.d.sync += [self.fault.valid.eq(1), self.fault.code.eq(FaultCode.SRAM_RANGE)]
            with m.Elif(inside & self.beat.valid & self.beat.p.error):
                m.d.sync += [self.fault.valid.eq(1), self.fault.code.eq(FaultCode.BUS_READ)]
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
                                port.mask.eq(Mux(inside, arrival.mask(part), ~0)),
                                port.data.eq(arrival.data(self.beat.p.data, slot, pad, inside)),
                            ]
        return m

    def _per_memory(self, m: Module, memory_type: Value) -> tuple[Value, Value]:
        last_part = Signal(range(max(arrival.beats for arrival in self._arrivals)))
        last_slot = Signal(range(max(arrival.slots for arrival in self._arrivals)))
        with m.Switch(memory_type):
            for arrival in self._arrivals:
                with m.Case(arrival.memory.type):
                    m.d.comb += last_part.eq(arrival.beats - 1)
                    m.d.comb += last_slot.eq(arrival.slots - 1)
        return last_part, last_slot

    def _accepted(self, m: Module, memory_type: Value) -> Value:
        """Whether the box's scratchpad takes what is offered."""
        accepted = Signal()
        with m.Switch(memory_type):
            for arrival in self._arrivals:
                with m.Case(arrival.memory.type):
                    m.d.comb += accepted.eq(getattr(self, arrival.memory.scratchpad).ready)
        return accepted

    def _beyond(self, m: Module, memory_type: Value, index: Value) -> Value:
        beyond = Signal()
        with m.Switch(memory_type):
            for arrival in self._arrivals:
                with m.Case(arrival.memory.type):
                    m.d.comb += beyond.eq(index >= arrival.memory.depth(self._config))
        return beyond
