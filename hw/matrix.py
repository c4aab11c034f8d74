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
from .lower import Leaf, Lowering, low_bits, named, stored

MACHINE_WORD = 32
"""Bits that a simulator computes with at once, more than enough for a sum of products."""
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
            self._prepare(m)
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
        """The same sum in the form that a simulator is quickest with.

        It pays for every sign that it extends and for every width that is not a machine word's.
        So all is modulo 2**32, inputs have their sign extended once for all rows, and weights
        are offset by half their range; the last addend puts that right.
        """
        config = self.config
        half = 1 << (config.wgt_width - 1)
        total = self._corrections[b]
        for c in range(config.block):
            weight = self.wgt.word_select(o * config.block + c, config.wgt_width) + half
            product = self._inputs[b][c] * weight[: config.wgt_width]
            total = (total + product[:MACHINE_WORD])[:MACHINE_WORD]
        return total[: sum_bits(config)]

    def _prepare(self, m: Module):
        """Signals for what all rows of an item share."""
        config = self.config
        self._inputs, self._corrections = [], []
        for b in range(config.batch):
            inputs = [Signal(MACHINE_WORD, name=f"inp{b}_{c}") for c in range(config.block)]
            for c, word in enumerate(inputs):
                lane = self.inp.word_select(b * config.block + c, config.inp_width).as_signed()
                m.d.comb += word.eq(low_bits(lane, MACHINE_WORD))
            correction = Signal(MACHINE_WORD, name=f"correction{b}")
            m.d.comb += correction.eq(-(sum(inputs) << (config.wgt_width - 1)))
            self._inputs.append(inputs)
            self._corrections.append(correction)
