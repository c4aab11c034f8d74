"""The parameters of rescaling, read part by part where lanes take turns."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .arrival import bank_count, write_parts
from .form import Form
from .interfaces import read_signature, write_signature, yielding_read_signature
from .parted import Parted
from .scratchpad import Scratchpad


def parts_for(config: AcceleratorConfig, lanes: int) -> int:
    """Parts of an element that so many lanes want one after another."""
    return config.block // min(lanes, config.block)


def step_parts(config: AcceleratorConfig, form: Form) -> int:
    """Those that steps read; the lanes of a simulator take no turns."""
    return parts_for(config, config.rescale_lanes) if form == "synthesis" else 1


def store_parts(config: AcceleratorConfig) -> int:
    """Those that stores read, of whose accumulators a beat's come together."""
    return parts_for(config, bank_count(config, "acc") * config.rescale_lanes)


def part_read(config: AcceleratorConfig, parts: int) -> wiring.Signature:
    """Reads of a part, whose number is in the highest bits of the address."""
    bits = 8 * config.qnt_element_bytes // parts
    return read_signature(config.qnt_index_bits + exact_log2(parts), bits)


def store_read(config: AcceleratorConfig) -> wiring.Signature:
    """Reads for stores: of parts, or of elements where steps go first."""
    if config.rescale_cycles > 1:
        return part_read(config, store_parts(config))
    return yielding_read_signature(config.qnt_index_bits, 8 * config.qnt_element_bytes)


class Parameters(wiring.Component):
    """The QNT scratchpad: a read for steps and one for stores a cycle; zero after power-up.

    Both read whole elements through one port of block RAM, and stores let steps go first. Where
    lanes take turns, both have a copy of their own (:class:`Parted`), which gives them in every
    cycle the part for the lanes whose turn it is: of wide elements, few of which fill a block RAM,
    that takes less than one copy of whole ones, and no registers to keep them.

    Nobody reads in the cycle of a write or the next; tokens, and steps, take longer.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes, and whether lanes take turns.
    form : Form
        How it is built.

    Members
    -------
    write : :py:`In(write_signature(...))`
        Writes of loads.
    step : :py:`In(part_read(config, step_parts(config, form)))`
        For steps.
    ahead : :py:`In(1)`
        ``step`` reads in this cycle or, where a simulator, in the next.
    store : :py:`In(store_read(config))`
        For stores.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self._config, self._form = config, form
        width, parts = 8 * config.qnt_element_bytes, write_parts(config, "qnt")
        banks = bank_count(config, "qnt")
        self._shape = config.qnt_depth, width, parts
        self._banks = banks
        super().__init__(
            {
                "write": In(write_signature(config.qnt_index_bits, banks * width, banks * parts)),
                "step": In(part_read(config, step_parts(config, form))),
                "ahead": In(1),
                "store": In(store_read(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self._config.rescale_cycles > 1:
            self._copies(m)
        else:
            self._shared(m)
        return m

    def _shared(self, m: Module) -> None:
        circuit = self._form == "synthesis"
        m.submodules.cells = cells = Scratchpad(
            *self._shape, read_ports=2, banks=self._banks, in_turn=circuit, late=circuit
        )
        step, store = cells.read
        wiring.connect(m, wiring.flipped(self.write), cells.write)
        wiring.connect(m, wiring.flipped(self.step), step)
        m.d.comb += [
            store.enable.eq(self.store.enable),
            store.address.eq(self.store.address),
            self.store.data.eq(store.data),
            self.store.ready.eq(~self.ahead),
        ]

    def _copies(self, m: Module) -> None:
        for_steps = Parted(*self._shape, step_parts(self._config, self._form), self._banks)
        for_stores = Parted(*self._shape, store_parts(self._config), self._banks)
        m.submodules.for_steps, m.submodules.for_stores = for_steps, for_stores
        wiring.connect(m, wiring.flipped(self.step), for_steps.read)
        wiring.connect(m, wiring.flipped(self.store), for_stores.read)
        first, second = (copy.write for copy in (for_steps, for_stores))
        for write, other in ((first, second), (second, first)):
            m.d.comb += [
                write.valid.eq(self.write.valid & other.ready),
                write.address.eq(self.write.address),
                write.mask.eq(self.write.mask),
                write.data.eq(self.write.data),
            ]
        m.d.comb += self.write.ready.eq(first.ready & second.ready)
