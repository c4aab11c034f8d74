"""The matrix unit: an INP element times a WGT element, transposed; or channel by channel."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa import formats
from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError
from ..isa.instructions import InstructionSet
from ..isa.nest import Binary, Expr, Index, Load, Sum
from ..isa.nest import Const as Literal
from ..isa.traverse import rewrite, substitute, walk
from . import idle, pipeline
from .form import Form, delayed
from .lower import Lowering, low_bits, named, stored
from .products import MACHINE_WORD, STAGES, product_sums

OPERAND_STAGES = 1
"""Registers between the scratchpads and the multipliers."""


def product_sum(config: AcceleratorConfig) -> Sum:
    """The sum of products in GEMM's meaning, of the lane with indices ``b``, ``o``."""
    return _sum_of(config, "gemm")


def depthwise_sum(config: AcceleratorConfig) -> Sum:
    """The sum over taps in the meaning of the depthwise modes."""
    return _sum_of(config, "depthwise.set")


def sliding_sum(config: AcceleratorConfig) -> Sum:
    """The sum of products in the meaning of the sliding modes."""
    return _sum_of(config, "sliding.set")


def _sum_of(config: AcceleratorConfig, operation: str) -> Sum:
    value = stored(InstructionSet(config).meaning(operation)).value
    return next(node for node in walk(value) if isinstance(node, Sum))


def matmul_modes(config: AcceleratorConfig) -> dict[str, list[int]]:
    """The modes of MATMUL whose steps add to what is there, those that are depthwise, and those
    that begin at any lane.

    Raises
    ------
    ConfigError
        If an operation was declared whose sum the array has no datapath for.
    """
    modes: dict[str, list[int]] = {"accumulate": [], "depthwise": [], "sliding": []}
    sums = {"depthwise": depthwise_sum(config)} if config.taps else {}
    sums |= {"sliding": sliding_sum(config)} if config.sliding else {}
    for operation in InstructionSet(config).operations.values():
        if operation.format is formats.MATMUL:
            parts = list(walk(stored(operation.meaning(config)).value))
            known = (product_sum(config), *sums.values())
            if any(isinstance(part, Sum) and part not in known for part in parts):
                raise ConfigError(f"the array has no datapath for the sum of {operation.name}")
            if any(isinstance(part, Load) and part.buffer == "acc" for part in parts):
                modes["accumulate"].append(operation.fixed["mode"])
            for kind, total in sums.items():
                if total in parts:
                    modes[kind].append(operation.fixed["mode"])
    return modes


def sum_bits(config: AcceleratorConfig) -> int:
    """Bits of a lane's sum, signed, with every operand at its extreme."""
    inp, wgt = Signal(signed(config.inp_width)), Signal(signed(config.wgt_width))
    term = Lowering(named({"inp": inp, "wgt": wgt})).term(product_sum(config))
    return 1 + max(term.high.bit_length(), (~term.low).bit_length())


class MatrixUnit(wiring.Component):
    """Multiplies: a product of elements a cycle, :attr:`latency` cycles, never stalls.

    With depthwise taps a lane's sum is that of GEMM or of the depthwise modes, cycle by cycle, by
    the same multipliers: those of the first taps take other lanes, the rest take zeros.

    With sliding steps the inputs of a product begin at any lane of ``inp``, which comes a cycle
    before the other operands; meanwhile its elements are turned.

    Parameters
    ----------
    config : AcceleratorConfig
        Batch, block and widths.
    form : Form
        How it is built. ``simulation``: as :mod:`weft.hw.products` says. ``synthesis``:
        registers for the operands, the products and every level of an adder tree.

    Members
    -------
    inp, wgt : :py:`In`
        Elements as their scratchpads hold them; ``inp`` has ``config.neighbours`` of them.
    slide : :py:`In`
        The lane of ``inp`` at which a product's inputs begin, 0 with ``depthwise``; there with
        sliding steps.
    depthwise : :py:`In(1)`
        Which sum it is; there with taps.
    sum : :py:`Out`
        Batch x block signed lanes of :attr:`lane_bits` bits.

    Attributes
    ----------
    latency : int
        Cycles from ``inp`` to sums.
    ahead : int
        Cycles by which ``inp`` and ``slide`` come before ``wgt`` and ``depthwise``.
    lane_bits : int
        Those of a sum, or a machine word's in a simulator, which then has no sign to extend.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self.config = config
        self.form = form
        self.lane_bits = MACHINE_WORD if form == "simulation" else sum_bits(config)
        ports = {
            "inp": In(8 * config.inp_element_bytes * config.neighbours),
            "wgt": In(8 * config.wgt_element_bytes),
            "sum": Out(config.batch * config.block * self.lane_bits),
        }
        if config.taps:
            ports["depthwise"] = In(1)
        if config.sliding:
            ports["slide"] = In(exact_log2(config.block))
        super().__init__(ports)
        self.ahead = int(config.sliding)
        self.latency = self.ahead + OPERAND_STAGES + config.block.bit_length()
        self._elements: Value = self.inp
        self._window: Value = self.inp

    def elaborate(self, platform):
        m = Module()
        self._elements = delayed(m, self.inp, self.ahead)
        self._window = self._turned(m)
        if self.form == "simulation":
            sums = product_sums(m, self.config, self._window, self.wgt)
            if self.config.taps:
                others = delayed(m, self._depthwise_sums(m), STAGES)
                sums = Mux(delayed(m, self.depthwise, STAGES), others, sums)
            m.d.comb += self.sum.eq(delayed(m, sums, self.latency - self.ahead - STAGES))
        else:
            stages = pipeline.Pipelining(m, _Operands(m, self), stage_depth=1)
            e, cycles = _by_place(product_sum(self.config)), self.config.block.bit_length()
            lanes = (_of_lane(e, b, o) for b, o in self._lanes())
            m.d.comb += self.sum.eq(Cat(stages.at(lane, cycles) for lane in lanes))
        return m

    def _lanes(self) -> list[tuple[int, int]]:
        return [(b, o) for b in range(self.config.batch) for o in range(self.config.block)]

    def lane(self, e: Load) -> Value:
        """A lane of the elements at hand: ``inp[src + t, b, c]`` or ``wgt[wgt, o, c]``."""
        config = self.config
        first, row, column = e.indices
        neighbours = isinstance(first, Binary)  # all of them in order, else what a product takes
        following = first.b.value if neighbours else 0
        elements, bits, rows = {
            "inp": (
                self._elements if neighbours else self._window,
                config.inp_width,
                config.batch,
            ),
            "wgt": (self.wgt, config.wgt_width, config.block),
        }[e.buffer]
        number = (following * rows + row.value) * config.block + column.value
        return elements.word_select(number, bits).as_signed()

    def _turned(self, m: Module) -> Value:
        """What a product takes: a block of lanes of each image, from ``slide`` on."""
        config = self.config
        if not config.sliding:
            return self._elements
        lane = delayed(m, self.slide, self.ahead)
        width = config.block * config.inp_width
        window = Signal(config.batch * width)
        for b in range(config.batch):
            here, after = (
                self._elements.word_select(n * config.batch + b, width) for n in range(2)
            )
            lanes = Cat(here, after) >> (lane * config.inp_width)
            m.d.comb += window.word_select(b, width).eq(lanes[:width])
        return window

    def _depthwise_sums(self, m: Module) -> Value:
        """Of every lane, in cycles with ``depthwise``."""
        m.submodules[idle.NAME] = inner = Module()
        e, bits = depthwise_sum(self.config), self.lane_bits
        lower = Lowering(self.lane, inner)
        lanes = [low_bits(lower(_of_lane(e, b, o)), bits) for b, o in self._lanes()]
        sums = Signal(len(lanes) * bits)
        with inner.If(self.depthwise):
            inner.d.comb += sums.eq(Cat(lanes))
        return sums


def _of_lane(e: Expr, b: int, o: int) -> Expr:
    return substitute(e, {"b": Literal(b), "o": Literal(o)})


def _by_place(e: Sum) -> Sum:
    """With every operand named by its multiplier: lane ``b``, ``o`` and its number."""
    ((number, _),) = e.axes
    place = Index("b"), Index("o"), Index(number)
    return rewrite(e, lambda n: Load(n.buffer, place) if isinstance(n, Load) else None)


class _Operands:
    """The multipliers' operands, registered; those that several multipliers share, once."""

    def __init__(self, m: Module, unit: MatrixUnit):
        config = unit.config
        self._m, self._unit, self._taps = m, unit, config.taps
        self._gemm = product_sum(config)
        self._depthwise = depthwise_sum(config) if config.taps else None
        self._registers: dict[tuple, Value] = {}

    def __call__(self, place: Load) -> Value:
        """The operand from ``inp`` or ``wgt`` of the multiplier at ``place``."""
        b, o, number = (index.value for index in place.indices)
        load, other = _factor(self._gemm, place.buffer, b, o, number), None
        if number < self._taps:
            other = _factor(self._depthwise, place.buffer, b, o, number)
        key = load, other
        if key not in self._registers:
            value = self._unit.lane(load)
            if other is not None:
                value = Mux(self._unit.depthwise, self._unit.lane(other), value)
            elif self._taps and place.buffer == "inp":
                value = Mux(self._unit.depthwise, 0, value)
            self._registers[key] = delayed(self._m, value, OPERAND_STAGES)
        return self._registers[key]


def _factor(e: Sum, buffer: str, b: int, o: int, number: int) -> Load:
    """What the term ``number`` of a lane's sum loads from ``buffer``."""
    ((name, _),) = e.axes
    term = substitute(_of_lane(e.body, b, o), {name: Literal(number)})
    return next(n for n in walk(term) if isinstance(n, Load) and n.buffer == buffer)
