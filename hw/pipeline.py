"""Lowering with registers: an expression becomes a pipeline by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as crossed

from amaranth import *
from amaranth.hdl import ValueLike

from ..isa.nest import DType, Expr
from . import idle
from .form import Form, delayed
from .lower import Leaf, Lowering, Term, low_bits

STAGE_DEPTH = 3
"""Logic that may follow one another in a stage, in the units of :data:`_DEPTHS`."""

_DEPTHS = {"and": 0, "or": 0, "xor": 0, "min": 2, "max": 2, "div": 9, "mod": 9, "shl": 2, "shr": 2}
"""Operations that are not as deep as an addition: 1."""

MULTIPLIER_BITS = 17
"""Of an unsigned operand of a multiplier; what is wider takes several of them."""


def latency(leaf: Leaf, *expressions: Expr) -> int:
    """Cycles that the expressions take as pipelines."""
    return Pipelining(None, leaf).stage(*expressions)


def lanes(
    m: Module,
    form: Form,
    leaves: Sequence[Leaf],
    e: Expr,
    bits: int,
    cycles: int,
    used: Value,
    advance: ValueLike = 1,
) -> Value:
    """``e`` of every lane, ``bits`` wide each, so many ``cycles`` after the leaves.

    ``cycles`` is at least :func:`latency`; ``advance`` moves the stages. The value matters where
    ``used`` was 1 with the leaves; a simulator computes it only there (:mod:`weft.hw.idle`).
    """
    if form == "simulation":
        m.submodules[idle.NAME] = inner = Module()
        results = Signal(len(leaves) * bits)
        values = [low_bits(Lowering(leaf, inner)(e), bits) for leaf in leaves]
        with inner.If(used):
            inner.d.comb += results.eq(Cat(values))
        return delayed(m, results, cycles, advance)
    return Cat(low_bits(Pipelining(m, leaf, advance).at(e, cycles), bits) for leaf in leaves)


class Pipelining(Lowering):
    """Builds values that are spread over stages with registers between them.

    Leaves are there at stage 0. A value is built in the first stage that has its operands and
    room below them; operands that are there earlier wait in registers, which are shared. A
    multiplication has registers in front of it and behind it, as a DSP block wants; one that takes
    several blocks has them behind the blocks and adds in the stage after.

    Parameters
    ----------
    m : Module or None
        Takes signals and registers; None only plans them.
    leaf : Leaf
        Gives the loads and names.
    advance : Value
        The registers move on when it is 1.
    stage_depth : int
        How much logic a stage takes.
    """

    def __init__(
        self, m: Module | None, leaf: Leaf, advance: ValueLike = 1, stage_depth: int = STAGE_DEPTH
    ):
        super().__init__(leaf, m)
        self._advance = advance
        self._stage_depth = stage_depth
        self._delayed: dict[tuple[int, int], Term] = {}
        self._kept: list[Value] = []

    def stage(self, *expressions: Expr) -> int:
        """The first stage in which all of these are there."""
        return max(self.term(e).stage for e in expressions)

    def at(self, e: Expr, stage: int) -> Value:
        """The value of ``e`` in a stage that is not before its own."""
        return self._later(self.term(e), stage).value

    def combine(
        self,
        op: str,
        build: Callable[..., Value],
        operands: tuple[Term, ...],
        low: int,
        high: int,
        dtype: DType,
    ) -> Term:
        """``build`` in the first stage that has room for it."""
        cost = 0 if operands[-1].constant and op in ("shl", "shr") else _DEPTHS.get(op, 1)
        stage = max((t.stage for t in operands if not t.constant), default=0)
        depth = max((t.depth for t in operands if not t.constant and t.stage == stage), default=0)
        multiplies = op == "mul" and not any(t.constant for t in operands)
        if depth and (depth + cost > self._stage_depth or multiplies):
            stage, depth = stage + 1, 0
        operands = tuple(self._later(t, stage) for t in operands)
        if multiplies and all(len(t.value) > MULTIPLIER_BITS + 1 for t in operands):
            value = self._wide_product(*operands, stage)
            term = super().combine(op, lambda *_: value, operands, low, high, dtype)
            return term.at(stage + 1, 2)
        term = super().combine(op, build, operands, low, high, dtype).at(stage, depth + cost)
        return self._later(term, stage + 1) if multiplies else term

    def _wide_product(self, a: Term, b: Term, stage: int) -> Value:
        """The product of what no multiplier takes at once: the parts' products are registered."""
        parts = []
        for x, y in crossed(_halves(a.value), _halves(b.value)):
            product = x * y
            term = Term(product, a.low, a.high, a.dtype, stage, 1)
            parts.append(self._later(term, stage + 1).value)
        low, *middle, high = parts
        top = Cat(low[MULTIPLIER_BITS:], high)
        upper = (top.as_signed() if high.shape().signed else top) + sum(middle)
        value = Cat(low[:MULTIPLIER_BITS], upper)
        return value.as_signed() if upper.shape().signed else value

    def _later(self, term: Term, stage: int) -> Term:
        if term.constant or term.stage >= stage:
            return term
        key = id(term.value), stage
        if key not in self._delayed:
            before = self._later(term, stage - 1)
            register = Signal(before.value.shape(), name=f"stage{stage}", reset_less=True)
            if self._m is not None:
                with self._m.If(self._advance):
                    self._m.d.sync += register.eq(before.value)
            self._kept.append(term.value)  # an id lasts as long as its value
            self._delayed[key] = Term(
                register, term.low, term.high, term.dtype, stage=stage, depth=0
            )
        return self._delayed[key]


def _halves(value: Value) -> tuple[Value, Value]:
    high = value[MULTIPLIER_BITS:]
    return value[:MULTIPLIER_BITS], high.as_signed() if value.shape().signed else high
