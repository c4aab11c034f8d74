"""The matrix unit: an INP element times a WGT element, transposed."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.nest import Const as Literal
from ..isa.nest import Index, Load, Sum, substitute, walk
from . import pipeline
from .form import Form, delayed
from .lower import Leaf, Lowering, named, stored
from .products import MACHINE_WORD, STAGES, product_sums

OPERAND_STAGES = 1
"""Registers between the scratchpads and the multipliers."""


def product_sum(config: AcceleratorConfig) -> Sum:
    """The sum of products in GEMM's meaning, of the lane with indices ``b``, ``o``."""
    value = stored(InstructionSet(config).meaning("gemm")).value
    return next(node for node in walk(value) if isinstance(node, Sum))


def sum_bits(config: AcceleratorConfig) -> int:
    """Bits of a lane's sum, signed, with every operand at its extreme."""
    inp, wgt = Signal(signed(config.inp_width)), Signal(signed(config.wgt_width))
    term = Lowering(named({"inp": inp, "wgt": wgt})).term(product_sum(config))
    return 1 + max(term.high.bit_length(), (~term.low).bit_length())


class MatrixUnit(wiring.Component):
    """Multiplies: a product of elements a cycle, :attr:`latency` cycles, never stalls.

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
        Elements as their scratchpads hold them.
    sum : :py:`Out`
        Batch x block signed lanes of :attr:`lane_bits` bits.

    Attributes
    ----------
    latency : int
        Cycles from operands to sums.
    lane_bits : int
        Those of a sum, or a machine word's in a simulator, which then has no sign to extend.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self.config = config
        self.form = form
        self.lane_bits = MACHINE_WORD if form == "simulation" else sum_bits(config)
        super().__init__(
            {
                "inp": In(8 * config.inp_element_bytes),
                "wgt": In(8 * config.wgt_element_bytes),
                "sum": Out(config.batch * config.block * self.lane_bits),
            }
        )
        self.latency = OPERAND_STAGES + config.block.bit_length()

    def elaborate(self, platform):
        m = Module()
        if self.form == "simulation":
            sums = product_sums(m, self.config, self.inp, self.wgt)
            m.d.comb += self.sum.eq(delayed(m, sums, self.latency - STAGES))
        else:
            operands = (delayed(m, operand, OPERAND_STAGES) for operand in (self.inp, self.wgt))
            leaf = self._leaf(*operands)
            stages = pipeline.Pipelining(m, leaf, stage_depth=1)
            e, cycles = product_sum(self.config), self.latency - OPERAND_STAGES
            lanes = (substitute(e, {"b": Literal(b), "o": Literal(o)}) for b, o in self._lanes())
            m.d.comb += self.sum.eq(Cat(stages.at(lane, cycles) for lane in lanes))
        return m

    def _lanes(self) -> list[tuple[int, int]]:
        return [(b, o) for b in range(self.config.batch) for o in range(self.config.block)]

    def _leaf(self, inp: Value, wgt: Value) -> Leaf:
        """``inp[src, b, c]`` and ``wgt[wgt, o, c]`` of the elements at hand."""
        config = self.config
        elements = {"inp": (inp, config.inp_width), "wgt": (wgt, config.wgt_width)}

        def leaf(e: Load | Index) -> Value:
            element, bits = elements[e.buffer]
            row, column = (index.value for index in e.indices[1:])
            return element.word_select(row * config.block + column, bits).as_signed()

        return leaf
