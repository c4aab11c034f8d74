"""The accumulators: written by steps in any cycle, and by loads beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .arrival import bank_count, write_parts
from .choice import one_of
from .form import Form, delayed
from .interfaces import (
    deciding_read_signature,
    read_ahead,
    write_signature,
    yielding_read_signature,
)
from .scratchpad import kept, read_in_turn

BANKS = 4
"""Where loads write while steps do; more where a beat holds more accumulators, and fewer where a
bank would have less than :data:`BANK_DEPTH`."""
BANK_DEPTH = 512
"""Elements below which a bank leaves a part of its block RAM unused."""


CHOICES: Mapping[Form, tuple[int, int]] = {"simulation": (1, 1), "synthesis": (2, 3)}
"""Addresses among which both readers of steps decide, by the form."""


def acc_banks(config: AcceleratorConfig, shared: bool) -> int:
    """How many banks the accumulators have; ``shared``: loads write while steps do."""
    depth = config.acc_depth
    least = min(BANKS, max(2, depth // BANK_DEPTH), depth // 2) if shared else 1
    return max(bank_count(config, "acc"), least)


class Accumulators(wiring.Component):
    """The accumulator scratchpad; zero after power-up. Steps write and all ports read every cycle.

    The elements are in banks with a write port each, by the lowest bits of their index. Where loads
    write while steps do, there are several (:func:`acc_banks`), and a load's write waits only while
    a step writes to its bank. Steps and loads that both go from element to element meet once and
    then follow one another; with two banks instead of four, two beats an element would meet every
    other step again.
    What a step writes is left out of the memory where the next step writes the same element
    (``superseded``), so that a sum over many steps keeps its bank busy for one cycle, not for all.
    What makes a load wait for long is a long walk over different elements in steps of four.

    Each bank has two read ports, as block RAM has but one beside that for writing and a copy is
    needed for each: that of the ALU's second operand is the store engine's, too. They likewise
    meet once and then follow one another.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.
    shared : bool
        Whether loads write while steps do.
    form : Form
        How it is built. ``synthesis``: with registers in front of the memory's write ports; what
        they hold passes beside it.

    Members
    -------
    step : :py:`In(write_signature(...))`
        Writes of steps, of whole elements; always ready.
    superseded : :py:`In(1)`
        The next cycle's ``step`` writes the same element, and only steps read it before.
    load : :py:`In(write_signature(...))`
        Writes of loads, of as many elements as come with a beat; ``ready`` in a cycle in which no
        step writes to one of their banks. A part of them may be written before, too.
    read_0, read_1 : :py:`In(deciding_read_signature(...))`
        For steps: an element, as it is with what ``step`` writes in the same cycle. ``data`` are
        there for a cycle. Of :data:`CHOICES` addresses.
    ahead : :py:`In(read_ahead(...))`
        What ``read_1`` reads in this cycle or, where a simulator, in the next.
    wide : :py:`In(yielding_read_signature(...))`
        For stores: the elements of a beat, from ``address`` on, each where the low bits of its
        index say, a cycle after ``enable``, as they are before the cycle before that; of what is
        written in that cycle, old or new. It waits for ``ahead`` where both want the same bank.
    """

    def __init__(self, config: AcceleratorConfig, shared: bool, form: Form = "synthesis"):
        self._form = form
        self._depth, self._width = config.acc_depth, 8 * config.acc_element_bytes
        self._slots, self._parts = bank_count(config, "acc"), write_parts(config, "acc")
        self._slot_bits = exact_log2(self._slots)
        self._bits = exact_log2(acc_banks(config, shared))
        self._shared = shared
        index = config.acc_index_bits
        beat = self._slots * self._width
        super().__init__(
            {
                "step": In(write_signature(index, self._width, 1)),
                "superseded": In(1),
                "load": In(write_signature(index, beat, self._slots * self._parts)),
                **{
                    f"read_{n}": In(deciding_read_signature(index, self._width, choices))
                    for n, choices in enumerate(CHOICES[form])
                },
                "ahead": In(read_ahead(index)),
                "wide": In(yielding_read_signature(index, beat)),
            }
        )

    @property
    def _read(self):
        return self.read_0, self.read_1

    def elaborate(self, platform):
        m = Module()
        banks = []
        for number in range(1 << self._bits):
            m.submodules[f"bank{number}"] = cells = memory.Memory(
                shape=self._width, depth=max(2, self._depth >> self._bits), init=[]
            )
            banks.append(cells)
        self._writes(m, banks)
        beat = [self._index(m, self.wide.address, slot) for slot in range(self._slots)]
        meets = Cat(i[: self._bits] == self.ahead.address[: self._bits] for i in beat)
        m.d.comb += self.wide.ready.eq(~(self.ahead.enable & meets.any()))
        if self._form == "simulation":
            self._read_each(m, banks, beat)
        else:
            self._read_in_turn(m, banks, beat)
        return m

    def _index(self, m: Module, address: Value, slot: int) -> Value:
        """The one index that ends in ``slot`` of those from ``address`` on."""
        index = Signal(len(address))
        group = address[self._slot_bits :]
        if slot < self._slots - 1:
            group = group + (address[: self._slot_bits] > slot)
        m.d.comb += index.eq(Cat(C(slot, self._slot_bits), group))
        return index

    def _writes(self, m: Module, banks) -> None:
        step, load = self.step, self.load
        registered = self._form == "synthesis"
        later = (lambda value: delayed(m, value, 1)) if registered else Value.cast
        lasting = step.valid & ~self.superseded if self._shared else step.valid
        step_data, load_data = later(step.data), later(load.data)
        waits = []
        for number, cells in enumerate(banks):
            slot = number % self._slots
            write = cells.write_port(granularity=self._width // self._parts)
            index = self._index(m, load.address, slot)
            by_step, meant = Signal(name=f"by_step{number}"), Signal(name=f"meant{number}")
            enable = Signal(self._parts, name=f"enable{number}")
            mask = load.mask.word_select(slot, self._parts)
            m.d.comb += [
                by_step.eq(lasting & (step.address[: self._bits] == number)),
                meant.eq((index[: self._bits] == number) & mask.any()),
                enable.eq(Mux(by_step, ~0, mask & (load.valid & meant).replicate(self._parts))),
                write.addr.eq(later(Mux(by_step, step.address, index)[self._bits :])),
                write.data.eq(
                    Mux(later(by_step), step_data, load_data.word_select(slot, self._width))
                ),
            ]
            if registered:
                m.d.sync += write.en.eq(enable)
            else:
                m.d.comb += write.en.eq(enable)
            waits.append(by_step & meant)
        m.d.comb += [step.ready.eq(1), load.ready.eq(~Cat(waits).any())]

    def _read_each(self, m: Module, banks, beat: Sequence[Value]) -> None:
        """Every port by itself; and what one step has written beside the read."""
        for number, port in enumerate(self._read):
            hit = Signal(name=f"hit{number}")
            passed = Signal(self._width, name=f"passed{number}")
            with m.If(port.enable):
                m.d.sync += hit.eq(self.step.valid & (self.step.address == port.address))
                m.d.sync += passed.eq(self.step.data)
            asks = [self._ask(port, port.address, at) for at in range(len(banks))]
            found = [read_in_turn(m, cells, ask) for cells, ask in zip(banks, asks, strict=True)]
            chosen = self._chosen(m, port, port.address, found)
            m.d.comb += port.data.eq(Mux(hit, passed, chosen))
        for slot, index in enumerate(beat):
            found = [
                read_in_turn(m, banks[at], self._ask(self.wide, index, at))
                for at in range(slot, len(banks), self._slots)
            ]
            chosen = self._chosen(m, self.wide, index, found)
            m.d.comb += self.wide.data.word_select(slot, self._width).eq(chosen)

    def _read_in_turn(self, m: Module, banks, beat: Sequence[Value]) -> None:
        """Two memories of each bank, one of them for ``read_1`` and, in between, for ``wide``."""
        found: list[list[Value]] = [[], []]
        for at, cells in enumerate(banks):
            first, second = (self._ask(port, port.address, at) for port in self._read)
            wide = self._ask(self.wide, beat[at % self._slots], at)
            found[0].append(read_in_turn(m, cells, first))
            found[1].append(read_in_turn(m, cells, second, wide))
        for number, port in enumerate(self._read):
            self._pass_beside(m, port, number, found[number])
        chosen = Cat(
            self._chosen(m, self.wide, index, found[1][slot :: self._slots])
            for slot, index in enumerate(beat)
        )
        m.d.comb += self.wide.data.eq(kept(m, self.wide.enable, chosen))

    def _pass_beside(self, m: Module, port, number: int, found: Sequence[Value]) -> None:
        """The memory, or what the last two steps have written, which it does not have yet.

        One flag for each, from a register: behind the memory is no time for decisions. Flags have
        readers all over the device, and copies of them; so they are compared with all addresses
        that it may be, and wait for the decision only.
        """
        step, address = self.step, self.step.address
        written = [step.data, *(delayed(m, step.data, n) for n in (1, 2))]
        before = delayed(m, Cat(step.valid, address), 1)
        hit, shown = Signal(2, name=f"hit{number}"), Signal(len(found), name=f"shown{number}")
        hits, shows = [], []
        for chosen, index in zip(port.choose, port.among, strict=True):
            now = step.valid & (address == index)
            earlier = before[0] & (before[1:] == index)
            here = Cat(index[: self._bits] == at for at in range(len(found)))
            hits.append(Cat(now, earlier & ~now) & chosen.replicate(2))
            shows.append(here & (chosen & ~now & ~earlier).replicate(len(found)))
        m.d.sync += [hit.eq(reduce(or_, hits)), shown.eq(reduce(or_, shows))]
        m.d.comb += port.data.eq(one_of((*hit, *shown), (*written[1:], *found)))

    def _ask(self, port, index: Value, at: int) -> tuple[Value, Value]:
        """Whether a port reads ``index`` from bank ``at``, and where in it."""
        return port.enable & (index[: self._bits] == at), index[self._bits :]

    def _chosen(self, m: Module, port, index: Value, found: Sequence[Value]) -> Value:
        """The element from those banks in which it may lie."""
        number = index[self._bits - exact_log2(len(found)) : self._bits]
        shown = Signal.like(number)
        with m.If(port.enable):
            m.d.sync += shown.eq(number)
        return Array(found)[shown] if len(found) > 1 else found[0]
