"""A memory whose elements are read part by part."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from .choice import one_of
from .interfaces import read_signature, write_signature
from .scratchpad import Scratchpad, registered


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
        # Eight bits are enough for any part's number; what is not one is cut off.
        numbers = (now[part].replicate(8) & part for part in range(self._parts))
        number = reduce(or_, numbers)[: exact_log2(self._parts)]
        data = [self._of_part(held.data, self._width, part) for part in range(self._parts)]
        m.d.comb += [
            cells.write.valid.eq(todo.any()),
            cells.write.address.eq(Cat(held.address, number)),
            cells.write.mask.eq(one_of(now, masks)),
            cells.write.data.eq(one_of(now, data)),
        ]
        return m

    def _of_part(self, value: Value, share: int, part: int) -> Value:
        """What of each bank's ``share`` bits belongs to a part; one bit serves several parts."""
        elements = (value.word_select(bank, share) for bank in range(self._banks))
        if share < self._parts:
            return Cat(element[part * share // self._parts] for element in elements)
        return Cat(element.word_select(part, share // self._parts) for element in elements)
