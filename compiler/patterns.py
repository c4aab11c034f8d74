"""The meanings of instructions as patterns.

An instruction's meaning stores one value for every lane of an element. Its loads from scratchpads
and DRAM and its parameters are *holes*, for whatever :mod:`.unify` finds that can stand there. An
operation is one pattern, or several where a parameter from the QNT scratchpad decides between
meanings.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import QNT_LANE
from ..isa.nest import (
    BOOL,
    Binary,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Node,
    Select,
    Stmt,
    Store,
    Sum,
)
from ..isa.operations import Operation
from ..isa.traverse import distinct, rewrite, walk
from .affine import is_index

BITWISE: Mapping[str, Callable[[int, int], int]] = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "shl": operator.lshift,
    "shr": operator.rshift,
}
"""Operations whose result is known once a parameter is."""


@dataclass(frozen=True)
class Pattern:
    """One operation's meaning, a lane at a time.

    Attributes
    ----------
    operation : Operation
        Whose.
    target : Load
        The place that it writes, in the form of a load from there.
    lanes : mapping
        Extents of the lane loops and of the sums inside, by index.
    value : Expr
        What it writes.
    params : frozenset of str
        Parameters of the instruction that occur in ``value`` as numbers.
    """

    operation: Operation
    target: Load
    lanes: Mapping[str, int]
    value: Expr
    params: frozenset[str]
    types: Mapping[str, DType]
    """Of the buffers."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of the buffers."""
    chosen: Mapping[str, int] = field(default_factory=dict[str, int])
    """The parameters that decide between several meanings, with the value that stands for this
    one; without those that are 0, as in a record."""

    @cached_property
    def size(self) -> int:
        """Nodes of ``value``; the larger of two that match does more at once."""
        return sum(1 for _ in walk(self.value))

    @property
    def element(self) -> tuple[int, ...]:
        """Extents of the lanes that it writes."""
        return tuple(self.lanes[name] for i in self.target.indices[1:] if (name := is_index(i)))

    @cached_property
    def aligned(self) -> bool:
        """Whether every element that it reads has its lanes where the written one has them."""
        lanes = self.target.indices[1:]
        elements = [n for n in distinct(self.value) if isinstance(n, Load)]
        return all(
            e.indices[1:] == lanes or (e.buffer.startswith("qnt.") and e.indices[1:] == lanes[-1:])
            for e in elements
        )

    @property
    def stores(self) -> bool:
        """Whether it writes to DRAM."""
        return self.target.buffer.startswith("dram.")

    @property
    def source_types(self) -> set[DType]:
        """Of what it reads in DRAM."""
        return {t for name, t in self.types.items() if name.startswith("dram.")}

    def is_hole(self, e: Expr) -> bool:
        """Whether ``e`` stands for a value from outside."""
        return isinstance(e, Load) or (isinstance(e, Index) and e.name in self.params)


def patterns_of(operation: Operation, config: AcceleratorConfig) -> Iterator[Pattern]:
    """The meaning of ``operation`` as a pattern, if it is a single store; as several, if parameters
    decide between several."""
    whole = _pattern_of(operation, config)
    if whole is None:
        return
    records = {
        f"qnt.{record.name}": record
        for record in QNT_LANE
        if record.choices and any(loads_of(whole.value, f"qnt.{record.name}"))
    }
    if not records:
        yield whole
        return
    for values in product(*(record.choices for record in records.values())):
        chosen = dict(zip(records, values, strict=True))
        told = {records[name].name: value for name, value in chosen.items() if value}
        yield replace(whole, value=_decided(whole.value, chosen), chosen=told)


def loads_of(e: Expr, buffer: str) -> Iterator[Load]:
    """The elements of a buffer in an expression."""
    return (node for node in distinct(e) if isinstance(node, Load) and node.buffer == buffer)


def _decided(e: Expr, chosen: Mapping[str, int]) -> Expr:
    """``e`` with these values for elements of buffers, and without what then does nothing."""

    def rule(node: Node) -> Node | None:
        match node:
            case Load(buffer) if buffer in chosen:
                return Const(chosen[buffer])
            case Binary("ne", Const(value=int(a)), Const(value=int(b))):
                return Const(int(a != b), BOOL)
            case Binary(op, Const(value=int(a)), Const(value=int(b))) if op in BITWISE:
                return Const(BITWISE[op](a, b))
            case Binary("and", Const(value=0), _) | Binary("and", _, Const(value=0)):
                return Const(0)
            case Binary("and", Const(1, dtype), a) if dtype == BOOL:
                return a
            case Binary("and", a, Const(value=-1)) | Binary("or", a, Const(value=0)):
                return a
            case Cast(dtype, Const(value=int(a))) if dtype.min <= a <= dtype.max:
                return Const(a, dtype)
            case Select(Const(value=int(cond)), a, b):
                return a if cond else b
        return None

    result = rewrite(e, rule)
    assert isinstance(result, Expr)
    return result


def _pattern_of(operation: Operation, config: AcceleratorConfig) -> Pattern | None:
    """The meaning of ``operation`` as one pattern; None if it is no single store."""
    nest: Nest = operation.meaning(config)
    lanes: dict[str, int] = {}
    stmt: Stmt = nest.body
    while not isinstance(stmt, Store):
        match stmt:
            case For(index, Const(value=0), Const(value=int(stop)), body, parallel=True):
                lanes[index] = stop
                stmt = body
            case For(body=body) | Let(body=body) | If(body=body):
                stmt = body
            case _:
                return None
    value = normal(stmt.value)
    for node in distinct(value):
        if isinstance(node, Sum):
            lanes |= dict(node.axes)
    return Pattern(
        operation,
        Load(stmt.buffer, stmt.indices),
        lanes,
        value,
        frozenset(nest.params) & {"imm", "pad_value"},
        {buffer.name: buffer.dtype for buffer in nest.buffers},
        {buffer.name: buffer.shape for buffer in nest.buffers},
    )


@lru_cache(maxsize=256)
def patterns(config: AcceleratorConfig) -> tuple[Pattern, ...]:
    """Every operation that can be matched, the largest first."""
    operations = InstructionSet(config).operations.values()
    found = (pattern for o in operations for pattern in patterns_of(o, config))
    return tuple(sorted(found, key=lambda p: -p.size))


def normal(e: Expr) -> Expr:
    """``e`` with subtracted constants as added ones."""

    def rule(node: Node) -> Node | None:
        match node:
            case Binary("sub", a, Const(value=int(value), dtype=dtype)):
                return Binary("add", a, Const(-value, dtype))
        return None

    result = rewrite(e, rule)
    assert isinstance(result, Expr)
    return result
