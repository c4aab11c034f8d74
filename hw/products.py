"""Sums of products in the form that a simulator is quickest with.

It pays for every sign that it extends and for every width that is not a machine word's, and its
compiler computes eight neighbouring words at once where all eight take the same steps. So all is
modulo 2**32: inputs have their sign extended once for all rows, weights are offset by half their
range, which the last addend puts right, and the products of a word of weights are added into a
word of their own, to the next ones like the weights' words.
"""

from __future__ import annotations

from functools import reduce

from amaranth import *

from ..isa.config import AcceleratorConfig
from .form import delayed
from .lower import low_bits

MACHINE_WORD = 32
"""Bits that a simulator computes with at once, more than enough for a sum of products."""
STAGES = 1
"""Registers within: the words' own sums."""
_TOGETHER = 16
"""Words of a register. Of longer ones Verilator makes loops."""


def product_sums(m: Module, config: AcceleratorConfig, inp: Value, wgt: Value) -> Value:
    """Batch x block sums of :data:`MACHINE_WORD` bits, :data:`STAGES` cycles after the operands.

    ``inp`` and ``wgt`` are elements as their scratchpads hold them.
    """
    sums = []
    bits = config.wgt_width
    half = 1 << (bits - 1)
    per_word = min(config.block, MACHINE_WORD // bits)
    words = config.block // per_word
    for b in range(config.batch):
        inputs = _inputs(m, config, inp, b)
        products = [
            _modulo(inputs[n % config.block] * weight)
            for n in range(config.block**2)
            for weight in [(wgt.word_select(n, bits) + half)[:bits]]
        ]
        parts = _registered(
            m, [_total(products[n : n + per_word]) for n in range(0, len(products), per_word)]
        )
        offset = Signal(MACHINE_WORD, name=f"offset{b}")
        m.d.comb += offset.eq(-(_total(inputs) << (bits - 1)))
        offset = delayed(m, offset, STAGES)
        sums += [_total([*parts[n : n + words], offset]) for n in range(0, len(parts), words)]
    return Cat(sums)


def _registered(m: Module, parts: list[Value]) -> list[Value]:
    registers = [
        delayed(m, Cat(parts[n : n + _TOGETHER]), STAGES) for n in range(0, len(parts), _TOGETHER)
    ]
    return [Cat(registers).word_select(n, MACHINE_WORD) for n in range(len(parts))]


def _inputs(m: Module, config: AcceleratorConfig, inp: Value, b: int) -> list[Signal]:
    inputs = [Signal(MACHINE_WORD, name=f"inp{b}_{c}") for c in range(config.block)]
    for c, word in enumerate(inputs):
        lane = inp.word_select(b * config.block + c, config.inp_width).as_signed()
        m.d.comb += word.eq(low_bits(lane, MACHINE_WORD))
    return inputs


def _total(values: list[Value]) -> Value:
    return reduce(lambda a, b: _modulo(a + b), values)


def _modulo(value: Value) -> Value:
    return value[:MACHINE_WORD]
