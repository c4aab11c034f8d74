"""The matrix unit: an INP element times a WGT element, transposed."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.nest import Const as Literal
from ..isa.nest import Expr, Index, Load, Sum, substitute, walk
from . import pipeline
from .form import Form, delayed
from .lower import Leaf, Lowering, named, stored

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
        How it is built. ``simulation``: an expression per lane. ``synthesis``: registers for
        the operands, the products and every level of an adder tree.

    Members
    -------
    inp, wgt : :py:`In`
        Elements as their scratchpads hold them.
    sum : :py:`Out`
        Batch x block signed lanes of :func:`sum_bits` bits.

    Attributes
    ----------
    latency : int
        Cycles from operands to sums.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self.config = config
        self.form = form
        super().__init__(
            {
                "inp": In(8 * config.inp_element_bytes),
                "wgt": In(8 * config.wgt_element_bytes),
                "sum": Out(config.batch * config.block * sum_bits(config)),
            }
        )
        self.latency = OPERAND_STAGES + config.block.bit_length()

    def elaborate(self, platform):
        m = Module()
        if self.form == "simulation":
            sums = [self._plain_sum(b, o) for b, o in self._lanes()]
            m.d.comb += self.sum.eq(delayed(m, Cat(sums), self.latency))
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

    def _plain_sum(self, b: int, o: int) -> Value:
        """The same sum without a negative value in it, for a simulator, which would extend the
        sign of each: operands are offset by half their range, and the sum is put right."""
        config = self.config
        x = _offset_row(self.inp, b, config.block, config.inp_width)
        w = _offset_row(self.wgt, o, config.block, config.wgt_width)
        half_x, half_w = 1 << (config.inp_width - 1), 1 << (config.wgt_width - 1)
        products = sum(p * q for p, q in zip(x, w, strict=True))
        constant = config.block * half_x * half_w
        value = products + constant - (sum(x) * half_w + sum(w) * half_x)
        return value[: sum_bits(config)]


def _offset_row(element: Value, row: int, block: int, bits: int) -> list[Value]:
    words = [element.word_select(row * block + n, bits) for n in range(block)]
    return [word ^ (1 << (bits - 1)) for word in words]
