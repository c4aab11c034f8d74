"""Marks: numbers that stand for whole elements, and how steps combine them.

Every element of DRAM has a random mark of 64 bits, drawn from what lies at which address. Products
of marks stand for products of elements, sums for sums, and whatever else an instruction does mixes
the marks of what it reads. So an accumulator's mark tells what it was made of: two that were made
of the same products, in whatever order, have the same mark, and others, but for a chance of one in
2**64, have not. :mod:`.machine` computes a program's marks, :mod:`.meaning` those of its layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.nest import Load
from ..isa.traverse import walk
from .affine import affine, indices_of
from .patterns import Pattern, patterns

Marks = np.ndarray
"""``uint64``; arithmetic wraps."""


def mark(*parts: object) -> Marks:
    """A mark for each combination of integers or marks, which broadcast; order matters."""
    state: Marks = np.uint64(SEED)  # type: ignore[assignment]
    with np.errstate(over="ignore"):
        for piece in parts:
            value = np.asarray(piece)
            if value.dtype != np.uint64:
                value = value.astype(np.int64).view(np.uint64)
            state = (state ^ value) * np.uint64(FACTORS[0]) + np.uint64(SUMMAND)
            state = (state ^ (state >> np.uint64(SHIFTS[0]))) * np.uint64(FACTORS[1])
            state = state ^ (state >> np.uint64(SHIFTS[1]))
    return state


SEED, SUMMAND = 0x9E3779B97F4A7C15, 0x632BE59BD9B4E019
FACTORS, SHIFTS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB), (29, 31)
"""What :func:`mark` mixes with."""


CONSTANT, GRANULE, PAD, STORED, STEP = range(5)
"""What a mark is drawn for, its first part."""


def weight_marks(data: np.ndarray, address: int, bits: int) -> Marks:
    """Of elements of weights [..., rows, lanes] of so many bits that lie from ``address`` on: a
    mark for each row; one that holds only zeros has the mark 0."""
    rows = data.reshape(-1, *data.shape[-2:])
    at = address + np.arange(rows.shape[0] * rows.shape[1]) * (rows.shape[2] * bits // 8)
    marks = mark(CONSTANT, at.reshape(rows.shape[:2])) * rows.any(axis=2)
    return marks.reshape(data.shape[:-1])


def combined(rows: Marks) -> Marks:
    """The mark of an element of weights, given those of its rows."""
    return (rows * mark(STEP, np.arange(rows.shape[-1]))).sum(axis=-1, dtype=np.uint64)


def run_marks(elements: Marks, lanes: np.ndarray, block: int) -> Marks:
    """Of as many lanes as an element has, from each of ``lanes`` of ``elements`` [..., elements]
    on; where those are the lanes of one element, its own."""
    if block == 1:
        return elements[..., lanes]
    at, within = lanes // block, lanes % block
    first, last = elements[..., at], elements[..., np.minimum(at + 1, elements.shape[-1] - 1)]
    return np.where(within == 0, first, mark(STEP, within, first, last))


@dataclass(frozen=True)
class Form:
    """What the meaning of a step on weights says of its operands.

    Attributes
    ----------
    products : bool
        Whether there are any; without, the accumulator is cleared.
    adds : bool
        Whether they are added to what is there.
    taps : int
        Neighbouring elements, each times weights of its own; 0 for one element times all rows.
    by_rows : bool
        Whether those are rows of an element of weights; else they are elements, one behind the
        other.
    lanes : int
        What ``src`` counts in the inner loop: lanes of so many to an element, 1 for elements.
    """

    products: bool
    adds: bool
    taps: int
    by_rows: bool
    lanes: int


@lru_cache(maxsize=256)
def forms(config: AcceleratorConfig) -> Mapping[str, Form]:
    """The form of every operation that writes accumulators, by name."""
    return {
        pattern.operation.name: _form(pattern, config)
        for pattern in patterns(config)
        if pattern.target.buffer == "acc"
    }


def _form(pattern: Pattern, config: AcceleratorConfig) -> Form:
    inputs = [n for n in walk(pattern.value) if isinstance(n, Load) and n.buffer == "inp"]
    adds = pattern.target in walk(pattern.value)
    if not inputs:
        return Form(False, adds, 0, False, 1)
    element = affine(inputs[0].indices[0])
    if element is None:  # a division: a lane of a run that begins anywhere
        return Form(True, adds, 0, False, config.block)
    along = [name for name in element.indices if name in pattern.lanes]
    weights = next(n for n in walk(pattern.value) if isinstance(n, Load) and n.buffer == "wgt")
    by_rows = bool(along) and not indices_of(weights.indices[0]) & set(along)
    return Form(True, adds, pattern.lanes[along[0]] if along else 0, by_rows, 1)


SUMS = ("alu.add", "alu.max", "alu.min")
"""Operations on two accumulators whose order does not matter; their marks are sums. So nothing is
seen of the order in which one of them stands beside another."""


def addend(name: str, value: Marks) -> Marks:
    """What the second operand of one of :data:`SUMS` adds to the first one's mark."""
    return value if name == "alu.add" else mark(STEP, *name.encode(), value)


def alu(name: str, first: Marks, second: Marks) -> Marks:
    """The mark of what any other operation of the ALU makes."""
    if name in SUMS:
        return first + addend(name, second)
    return mark(STEP, *name.encode(), first, second)
