"""From accumulators to what STORE and STOREX write."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import QNT_LANE_BYTES, AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import QNT_LANE
from ..isa.nest import Expr, Load, Select
from . import pipeline
from .form import Form, delayed
from .lower import Leaf, named, stored
from .parameters import part_read, parts_for
from .queue import Queue


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


RESULTS = 16
"""Results that may wait or be under way where lanes take turns: more than the stages hold."""


def requantizer_layout(
    config: AcceleratorConfig, lanes: int, by_index: bool = False
) -> data.StructLayout:
    """So many accumulators and what they are narrowed with.

    ``acc``: lanes of 32 bits; ``qnt``: the parameters of as many channels, at most ``block``, or
    ``by_index`` where they are; ``requantize``: whether they matter. The last two have no bits for
    a configuration without ``requantize``.
    """
    bits = 8 * QNT_LANE_BYTES * min(lanes, config.block)
    return data.StructLayout(
        {
            "acc": lanes * config.acc_width,
            "qnt": (config.qnt_index_bits if by_index else bits) if config.requantize else 0,
            "requantize": int(config.requantize),
        }
    )


class Requantizer(wiring.Component):
    """Narrows accumulators: a cycle for ``lanes`` of them, :attr:`latency` without stalls.

    What it does to a lane is the value that ``store.out`` or, with ``requantize``,
    ``storex.out`` stores. Its stages stand still together while ``o`` is not taken.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths of the lanes.
    form : Form
        How it is built.
    lanes : int
        Accumulators that are narrowed at once. Where they are more than ``block``, the same
        parameters serve them again.

    Members
    -------
    i : :py:`In(stream.Signature(requantizer_layout(config, lanes)))`
        Accumulators and parameters.
    o : :py:`Out(stream)`
        ``lanes`` results of ``out_width`` bits, in order.

    Attributes
    ----------
    latency : int
        Cycles from ``i`` to ``o``.
    """

    def __init__(self, config: AcceleratorConfig, form: Form, lanes: int):
        self.config = config
        self.form = form
        self._lanes = lanes
        super().__init__(
            {
                "i": In(stream.Signature(requantizer_layout(config, lanes))),
                "o": Out(stream.Signature(self._lanes * config.out_width)),
            }
        )
        self._value = _narrowed(config)
        self.latency = 1 + max(1, pipeline.latency(self._leaf(self.i.payload, 0), self._value))

    def _leaf(self, element, lane: int) -> Leaf:
        config = self.config
        values = {"acc": acc_lane(element.acc, lane, config)}
        if config.requantize:
            values |= qnt_records(element.qnt, lane % min(self._lanes, config.block))
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


class RequantizerInTurn(wiring.Component):
    """A :class:`Requantizer` that fewer lanes serve: ``turns`` cycles for ``lanes`` accumulators.

    Its stages never stand still: accumulators are taken when there is a place for their results.
    It reads the parameters itself, for the lanes whose turn it is.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths of the lanes.
    form : Form
        How it is built.
    lanes : int
        Accumulators that come at once.
    turns : int
        A power of two that divides ``lanes``.

    Members
    -------
    i : :py:`In(stream.Signature(requantizer_layout(config, lanes, by_index=True)))`
        Accumulators, and where their parameters are.
    qnt : :py:`Out(part_read(config, parts_for(config, lanes // turns)))`
        The parameters; with ``requantize``.
    o : stream
        That of a requantizer of all lanes.

    Attributes
    ----------
    latency : int
        Cycles from ``i`` to ``o`` without stalls.
    """

    def __init__(self, config: AcceleratorConfig, form: Form, lanes: int, turns: int):
        self._lanes, self._turns = lanes // turns, turns
        self._some = Requantizer(config, form, self._lanes)
        self._out_bits = self._lanes * config.out_width
        self.latency = self._some.latency + turns + 1
        self._parts = parts_for(config, self._lanes)
        super().__init__(
            {
                "i": In(stream.Signature(requantizer_layout(config, lanes, by_index=True))),
                **({"qnt": Out(part_read(config, self._parts))} if config.requantize else {}),
                "o": Out(stream.Signature(lanes * config.out_width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.some = some = self._some
        m.submodules.whole = whole = Queue(len(self.o.payload), RESULTS)
        wiring.connect(m, whole.o, wiring.flipped(self.o))
        held, turn = Signal(self.i.payload.shape(), reset_less=True), Signal(self._turns - 1)
        ends, there = Signal(init=1), Signal()
        promised, room = Signal(range(RESULTS + 1)), Signal(init=1)
        taken, gone = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        m.d.comb += [
            some.i.p.acc.eq(held.acc),
            some.i.p.requantize.eq(held.requantize),
            some.i.valid.eq(there),
            self.i.ready.eq(ends & room),
        ]
        # What is at ``i`` is held whether it is taken or not: nothing has to be known for that but
        # that the turns have ended, from a register.
        with m.If(ends):
            m.d.sync += [held.eq(self.i.payload), there.eq(taken)]
            m.d.sync += [turn.eq(taken), ends.eq(~taken)]
        with m.Else():
            m.d.sync += [
                held.acc.eq(held.acc >> len(some.i.p.acc)),
                turn.eq(turn << 1),
                ends.eq(turn[-1]),
            ]
        if len(some.i.p.qnt):
            part = Signal(exact_log2(self._parts))  # a whole number of times in the turns
            m.d.sync += part.eq(part + (taken | ~ends))
            m.d.comb += [
                self.qnt.enable.eq(1),
                self.qnt.address.eq(Cat(Mux(ends, self.i.p.qnt, held.qnt), part)),
                some.i.p.qnt.eq(self.qnt.data),
            ]
        with m.If(taken & ~gone):
            m.d.sync += [promised.eq(promised + 1), room.eq(promised != RESULTS - 1)]
        with m.Elif(gone & ~taken):
            m.d.sync += [promised.eq(promised - 1), room.eq(1)]

        done, results = Signal(range(self._turns)), Signal(len(self.o.payload) - self._out_bits)
        m.d.comb += [
            whole.i.payload.eq(Cat(results, some.o.payload)),
            whole.i.valid.eq(some.o.valid & (done == self._turns - 1)),
            some.o.ready.eq(1),
        ]
        with m.If(some.o.valid):
            m.d.sync += [
                done.eq(done + 1),
                results.eq(Cat(results, some.o.payload)[self._out_bits :]),
            ]
        return m


def requantizer(
    config: AcceleratorConfig, form: Form, elements: int = 1
) -> Requantizer | RequantizerInTurn:
    """What narrows so many ACC elements, with the same parameters, every ``rescale_cycles``."""
    lanes = elements * config.batch * config.block
    if config.rescale_cycles == 1:
        return Requantizer(config, form, lanes)
    return RequantizerInTurn(config, form, lanes, config.rescale_cycles)


def _narrowed(config: AcceleratorConfig) -> Expr:
    """What is stored of a lane; the flag ``requantize`` chooses between the two operations."""
    instructions = InstructionSet(config)
    plain = stored(instructions.meaning("store.out")).value
    if not config.requantize:
        return plain
    return Select(Load("requantize", ()), stored(instructions.meaning("storex.out")).value, plain)
