"""The accumulators: written by steps in any cycle, and by loads beside them."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from ..isa.config import AcceleratorConfig
from .arrival import write_parts
from .interfaces import read_signature, write_signature

STORE = 2
"""The read port that sees no write of the same cycle; the ports before it see those of steps."""


BANK_BITS = 2
"""The banks' number is two to the power of these, or less where there are few accumulators."""


class Accumulators(wiring.Component):
    """The accumulator scratchpad; zero after power-up. Steps write and all ports read every cycle.

    Where loads write at the same time, the elements are in four memories with a write port
    each, by the lowest bits of their index, and a load's write waits only while a step writes the
    same bank. Steps and loads that both go from element to element meet once and then follow one
    another; with two banks instead of four, two beats an element would meet every other step again.
    What a step writes is left out of the memory where the next step writes the same element
    (``superseded``), so that a sum over many steps keeps its bank busy for one cycle, not for all.
    What makes a load wait for long is a long walk over different elements in steps of four.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.
    shared : bool
        Whether loads write while steps do. Otherwise there is one bank.

    Members
    -------
    step : :py:`In(write_signature(...))`
        Writes of steps, of whole elements; always ready.
    superseded : :py:`In(1)`
        The next cycle's ``step`` writes the same element, and only ports that see it read before.
    load : :py:`In(write_signature(...))`
        Writes of loads, ``ready`` in a cycle in which no step writes the bank.
    read : :py:`In(read_signature(...)).array(3)`
        The first two see what a step writes in the same cycle; the last is the store engine's.
    """

    def __init__(self, config: AcceleratorConfig, shared: bool):
        self._depth = config.acc_depth
        self._bits = min(BANK_BITS, config.acc_index_bits - 1) if shared else 0
        bits, width = config.acc_index_bits, 8 * config.acc_element_bytes
        self._parts = write_parts(config, "acc")
        super().__init__(
            {
                "step": In(write_signature(bits, width, 1)),
                "superseded": In(1),
                "load": In(write_signature(bits, width, self._parts)),
                "read": In(read_signature(bits, width)).array(STORE + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, load = self.step, self.load
        lasting = step.valid & ~self.superseded if self._bits else step.valid
        m.d.comb += step.ready.eq(1)
        outputs = [[] for _ in self.read]
        for number in range(1 << self._bits):
            m.submodules[f"bank{number}"] = cells = memory.Memory(
                shape=len(step.data), depth=self._depth >> self._bits, init=[]
            )
            write = cells.write_port(granularity=len(step.data) // self._parts)
            by_step, by_load = Signal(name=f"by_step{number}"), Signal(name=f"by_load{number}")
            m.d.comb += [
                by_step.eq(lasting & (self._bank(step.address) == number)),
                by_load.eq(load.valid & (self._bank(load.address) == number)),
                write.addr.eq(Mux(by_step, self._row(step.address), self._row(load.address))),
                write.data.eq(Mux(by_step, step.data, load.data)),
                write.en.eq(Mux(by_step, ~0, load.mask & by_load.replicate(self._parts))),
            ]
            with m.If(self._bank(load.address) == number):
                m.d.comb += load.ready.eq(~by_step)
            for port, into in zip(self.read, outputs, strict=True):
                read = cells.read_port(transparent_for=[])
                m.d.comb += [
                    read.addr.eq(self._row(port.address)),
                    read.en.eq(port.enable & (self._bank(port.address) == number)),
                ]
                into.append(read.data)
        for number, (port, banks) in enumerate(zip(self.read, outputs, strict=True)):
            bank = Signal(self._bits, name=f"bank_of_{number}")
            with m.If(port.enable):
                m.d.sync += bank.eq(self._bank(port.address))
            found = Array(banks)[bank] if self._bits else banks[0]
            if number != STORE:
                hit = Signal(name=f"hit{number}")
                passed = Signal(len(step.data), name=f"passed{number}")
                with m.If(port.enable):
                    m.d.sync += hit.eq(step.valid & (step.address == port.address))
                    m.d.sync += passed.eq(step.data)
                found = Mux(hit, passed, found)
            m.d.comb += port.data.eq(found)
        return m

    def _bank(self, address: Value) -> Value:
        return address[: self._bits]

    def _row(self, address: Value) -> Value:
        return address[self._bits :]
