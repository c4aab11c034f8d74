"""From accumulators to what STORE and STOREX write."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import QNT_LANE_BYTES, AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import QNT_LANE
from ..isa.nest import Expr, Load, Select
from . import pipeline
from .form import Form, delayed
from .lower import Leaf, named, stored


def qnt_records(element: Value, lane: int) -> dict[str, Value]:
    """The records of a channel within a QNT element, by the names that meanings give them."""
    records = {}
    for record in QNT_LANE:
        at = 8 * (QNT_LANE_BYTES * lane + record.offset)
        bits = element[at : at + record.dtype.bits]
        records[f"qnt.{record.name}"] = bits.as_signed() if record.dtype.kind == "i" else bits
    return records


def acc_lane(element: Value, lane: int, config: AcceleratorConfig) -> Value:
    """A lane of an ACC element, the batch's items one after another."""
    return element.word_select(lane, config.acc_width).as_signed()


class Requantizer(wiring.Component):
    """Narrows accumulators: a cycle for ``elements`` of them, :attr:`latency` without stalls.

    What it does to a lane is the value that ``store.out`` or, with ``requantize``,
    ``storex.out`` stores. Its stages stand still together while ``o`` is not taken.

    Parameters
    ----------
    config : AcceleratorConfig
        Number and widths of the lanes.
    form : Form
        How it is built.
    elements : int
        ACC elements that are narrowed at once, with the same parameters.

    Members
    -------
    i : :py:`In(stream)` of ``acc``, ``qnt``, ``requantize``
        ``acc``: elements x batch x block lanes of 32 bits; ``qnt``: an element of parameters.
        The last two have no bits for a configuration without ``requantize``.
    o : :py:`Out(stream)`
        Elements x batch x block lanes of ``out_width`` bits, in order.

    Attributes
    ----------
    latency : int
        Cycles from ``i`` to ``o``.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis", elements: int = 1):
        self.config = config
        self.form = form
        self._lanes = elements * config.batch * config.block
        element = data.StructLayout(
            {
                "acc": self._lanes * config.acc_width,
                "qnt": 8 * config.qnt_element_bytes if config.requantize else 0,
                "requantize": int(config.requantize),
            }
        )
        super().__init__(
            {
                "i": In(stream.Signature(element)),
                "o": Out(stream.Signature(self._lanes * config.out_width)),
            }
        )
        self._value = _narrowed(config)
        self.latency = 1 + max(1, pipeline.latency(self._leaf(self.i.payload, 0), self._value))

    def _leaf(self, element, lane: int) -> Leaf:
        config = self.config
        values = {"acc": acc_lane(element.acc, lane, config)}
        if config.requantize:
            values |= qnt_records(element.qnt, lane % config.block)
            values["requantize"] = element.requantize
        return named(values)

    def elaborate(self, platform):
        m = Module()
        advance = self.o.ready | ~self.o.valid
        full = Signal(self.latency)
        with m.If(advance):
            m.d.sync += full.eq(Cat(self.i.valid, full))
        element, cycles = self.i.payload, self.latency
        if self.form == "synthesis":  # what comes from memories comes late in its cycle
            element, cycles = (
                data.View(element.shape(), delayed(m, element, 1, advance)),
                cycles - 1,
            )
        leaves = [self._leaf(element, lane) for lane in range(self._lanes)]
        narrow = pipeline.lanes(
            m,
            self.form,
            leaves,
            self._value,
            self.config.out_width,
            cycles,
            self.i.valid,
            advance,
        )
        m.d.comb += [
            self.i.ready.eq(advance),
            self.o.valid.eq(full[-1]),
            self.o.payload.eq(narrow),
        ]
        return m


def _narrowed(config: AcceleratorConfig) -> Expr:
    """What is stored of a lane; the flag ``requantize`` chooses between the two operations."""
    instructions = InstructionSet(config)
    plain = stored(instructions.meaning("store.out")).value
    if not config.requantize:
        return plain
    return Select(Load("requantize", ()), stored(instructions.meaning("storex.out")).value, plain)
