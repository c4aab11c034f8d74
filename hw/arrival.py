"""How elements come over the bus and go into a scratchpad, for each memory type."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import wiring
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from ..isa.memories import Memory
from .interfaces import write_signature


def write_parts(config: AcceleratorConfig, scratchpad: str) -> int:
    """Parts that a scratchpad's writes mask: the beats that an element of it would fill."""
    return max(1, getattr(config, f"{scratchpad}_element_bytes") // config.bus_bytes)


def write_signatures(
    config: AcceleratorConfig, memories: Sequence[Memory]
) -> dict[str, wiring.Signature]:
    """The write port of each scratchpad that ``memories`` fill, by its name."""
    return {
        name: write_signature(
            getattr(config, f"{name}_index_bits"),
            8 * getattr(config, f"{name}_element_bytes"),
            write_parts(config, name),
        )
        for name in dict.fromkeys(memory.scratchpad for memory in memories)
    }


class Arrival:
    """How the elements of a memory type come in beats and go into the scratchpad's parts.

    Attributes
    ----------
    beats : int
        Beats of an element; 1 if it is narrower than the bus.
    slots : int
        Elements of a beat; 1 if it is not.
    """

    def __init__(self, config: AcceleratorConfig, memory: Memory):
        dram, bus = memory.element_bytes(config), config.bus_bytes
        self.memory = memory
        self.beats, self.slots = max(1, dram // bus), max(1, bus // dram)
        self._bits = 8 * getattr(config, f"{memory.scratchpad}_element_bytes")
        self._parts = write_parts(config, memory.scratchpad)
        self._dram_lane = memory.dram_dtype(config).bits
        # Lanes below 8 bits stay packed in the scratchpad; ACC8's bytes become accumulators.
        wide = memory.sram_dtype.bits > 8
        self._lane = memory.sram_dtype.bits if wide else self._dram_lane

    def mask(self, part: Value) -> Value:
        """The parts of the element that beat number ``part`` of it fills."""
        group = self._parts // self.beats
        return Cat((part == number).replicate(group) for number in range(self.beats))

    def data(self, beat: Value, slot: Value, pad: Value, inside: Value) -> Value:
        """The element, every part of which holds the beat, or every lane the pad."""
        width = len(beat) // self.slots
        raw = beat.word_select(slot[: exact_log2(self.slots)], width) if self.slots > 1 else beat
        lanes = [
            raw[at : at + self._dram_lane].as_signed() for at in range(0, width, self._dram_lane)
        ]
        whole = Cat(Cat(lane, lane[-1].replicate(self._lane - len(lane))) for lane in lanes)
        fill = Cat(pad, pad[-1].replicate(self._lane))[: self._lane].replicate(len(lanes))
        return Mux(inside, whole, fill).replicate(self._bits // len(whole))
