"""The parameters of rescaling, read part by part where lanes take turns."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .arrival import bank_count, write_parts
from .form import Form
from .interfaces import read_signature, write_signature, yielding_read_signature
from .scratchpad import Scratchpad, registered


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


class Parted(wiring.Component):
    """A memory of wide elements that are read part by part; zero after power-up.

    A read of a part a cycle, and a write. One that covers several parts takes a cycle for each, in
    their order: who reads them in their order, too, sees all if the first is read two cycles after
    the write or later.

    Parameters
    ----------
    depth, width, masks : int
        Elements, bits of one, and equal shares of it that can be written separately.
    parts : int
        Equal parts of an element that are read separately.
    banks : int
        Consecutive elements that a write covers, as for :class:`Scratchpad`.

    Members
    -------
    write : :py:`In(write_signature(...))`
        Of elements. ``ready`` comes from registers.
    read : :py:`In(read_signature(...))`
        Of parts, whose number is in the highest bits of the address.
    """

    def __init__(self, depth: int, width: int, masks: int, parts: int, banks: int = 1):
        self._parts, self._banks = parts, banks
        self._masks, self._width = masks, width
        self._cells = Scratchpad(depth * parts, width // parts, max(1, masks // parts), banks=banks)
        index_bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "write": In(write_signature(index_bits, banks * width, banks * masks)),
                "read": In(read_signature(index_bits + exact_log2(parts), width // parts)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cells = cells = self._cells
        wiring.connect(m, wiring.flipped(self.read), cells.read[0])
        held, accepted = registered(m, self.write, self.write.ready), Signal()
        masks = [self._of_part(held.mask, self._masks, part) for part in range(self._parts)]
        todo = Signal(self._parts)  # of the write that is held
        more = todo & (todo - 1)[: self._parts]
        now = todo & ~more
        m.d.comb += [
            self.write.ready.eq(~more.any()),
            accepted.eq(self.write.valid & self.write.ready),
        ]
        with m.If(accepted):
            coming = (
                self._of_part(self.write.mask, self._masks, part).any()
                for part in range(self._parts)
            )
            m.d.sync += todo.eq(Cat(coming))
        with m.Else():
            m.d.sync += todo.eq(more)
        number = reduce(or_, (now[part].replicate(8) & part for part in range(self._parts)))[
            : exact_log2(self._parts)
        ]
        data = [self._of_part(held.data, self._width, part) for part in range(self._parts)]
        m.d.comb += [
            cells.write.valid.eq(todo.any()),
            cells.write.address.eq(Cat(held.address, number)),
            cells.write.mask.eq(_chosen(now, masks)),
            cells.write.data.eq(_chosen(now, data)),
        ]
        return m

    def _of_part(self, value: Value, share: int, part: int) -> Value:
        """What of each bank's ``share`` bits belongs to a part; one bit serves several parts."""
        elements = (value.word_select(bank, share) for bank in range(self._banks))
        if share < self._parts:
            return Cat(element[part * share // self._parts] for element in elements)
        return Cat(element.word_select(part, share // self._parts) for element in elements)


def _chosen(flags: Value, values: list[Value]) -> Value:
    """The value whose flag is 1, of at most one."""
    return reduce(or_, (flag.replicate(len(v)) & v for flag, v in zip(flags, values, strict=True)))
