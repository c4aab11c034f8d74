"""How elements come over the bus and go into a scratchpad, for each memory type."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import wiring
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from ..isa.memories import MEMORIES, Memory
from .interfaces import write_signature


def write_parts(config: AcceleratorConfig, scratchpad: str) -> int:
    """Parts of an element that a scratchpad's writes mask: the beats that it would fill."""
    return max(1, getattr(config, f"{scratchpad}_element_bytes") // config.bus_bytes)


def bank_count(config: AcceleratorConfig, scratchpad: str) -> int:
    """Elements of a scratchpad that come or go with a beat, at most: its banks."""
    sizes = [m.element_bytes(config) for m in MEMORIES.values() if m.scratchpad == scratchpad]
    return max(1, config.bus_bytes // min(sizes))


def write_signatures(
    config: AcceleratorConfig, memories: Sequence[Memory]
) -> dict[str, wiring.Signature]:
    """The write port of each scratchpad that ``memories`` fill, by its name."""
    signatures = {}
    for name in dict.fromkeys(memory.scratchpad for memory in memories):
        banks = bank_count(config, name)
        signatures[name] = write_signature(
            getattr(config, f"{name}_index_bits"),
            banks * 8 * getattr(config, f"{name}_element_bytes"),
            banks * write_parts(config, name),
        )
    return signatures


class Arrival:
    """How the elements of a memory type come in beats and go into the scratchpad's parts.

    Attributes
    ----------
    beats : int
        Beats of an element; 1 if it is narrower than the bus.
    slots : int
        Elements of a beat; 1 if it is not.
    banks : int
        Elements that a write covers.
    """

    def __init__(self, config: AcceleratorConfig, memory: Memory):
        dram, bus = memory.element_bytes(config), config.bus_bytes
        self.memory = memory
        self.beats, self.slots = max(1, dram // bus), max(1, bus // dram)
        self.banks = bank_count(config, memory.scratchpad)
        self._bits = 8 * getattr(config, f"{memory.scratchpad}_element_bytes")
        self._parts = write_parts(config, memory.scratchpad)
        self._dram_lane = memory.dram_dtype(config).bits
        # Lanes below 8 bits stay packed in the scratchpad; ACC8's bytes become accumulators.
        wide = memory.sram_dtype.bits > 8
        self._lane = memory.sram_dtype.bits if wide else self._dram_lane

    def mask(self, m: Module, part: Value, index: Value, count: Value, inside: Value) -> Value:
        """What a write covers: ``count`` elements from ``index`` on.

        Of an element whose beats come one after another it is what beat number ``part`` fills.
        """
        group = self._parts // self.beats
        filled = Cat((part == number).replicate(group) for number in range(self.beats))
        parts = Mux(inside, filled, ~C(0, self._parts))
        if self.banks == 1:
            return parts
        ahead = Cat(count > number for number in range(self.banks))
        covered = Signal(2 * self.banks, name=f"{self.memory.name}_covered")
        m.d.comb += covered.eq(Cat(ahead, ahead) << index[: exact_log2(self.banks)])
        return Cat(parts & bit.replicate(self._parts) for bit in covered[self.banks :])

    def data(
        self, m: Module, beat: Value, slot: Value, index: Value, pad: Value, inside: Value
    ) -> Value:
        """Each bank's element, every part of which holds the beat, or every lane the pad.

        ``slot`` is where in the beat the element stands that goes to ``index``.
        """
        width = len(beat) // self.slots
        turn = Signal(exact_log2(self.slots), name=f"{self.memory.name}_turn")
        m.d.comb += turn.eq(slot - index)
        elements = [
            beat.word_select((turn + number)[: len(turn)], width) if len(turn) else beat
            for number in range(self.slots)
        ]
        banks = self.banks // self.slots
        return Cat(self._element(raw, pad, inside) for raw in elements).replicate(banks)

    def _element(self, raw: Value, pad: Value, inside: Value) -> Value:
        lanes = [
            raw[at : at + self._dram_lane].as_signed() for at in range(0, len(raw), self._dram_lane)
        ]
        whole = Cat(Cat(lane, lane[-1].replicate(self._lane - len(lane))) for lane in lanes)
        fill = Cat(pad, pad[-1].replicate(self._lane))[: self._lane].replicate(len(lanes))
        return Mux(inside, whole, fill).replicate(self._bits // len(whole))
