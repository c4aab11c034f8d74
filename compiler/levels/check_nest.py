"""What is legal in a loop nest of an operator: everything that it names is there."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import NoReturn

from ...isa.errors import ModelError
from ...isa.nest import (
    BOOL,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    MATH,
    U8,
    U16,
    U32,
    Binary,
    Block,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Math,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
)

TYPES = (BOOL, I8, I16, I32, I64, U8, U16, U32, DType("u", 64), F16, F32, F64)
EXTENT_LIMIT = 1 << 31
"""Of a loop and of an axis."""


def check_nest(nest: Nest, writes: Collection[str]) -> None:
    """Return if ``nest`` is legal and stores into buffers of ``writes`` alone.

    Every buffer and index that occurs is there, elements have as many indices as their buffer,
    types and extents are ones that arrays can have. Whether indices are in range is seen where
    the nest is matched with instructions, or run.

    Raises
    ------
    ModelError
        With what is wrong.
    """
    if nest.params:
        raise ModelError(f"an operator's nest has no parameters, {nest.params[0]!r} is one")
    names = [buffer.name for buffer in nest.buffers]
    for one, other in pairwise(sorted(names)):
        if one == other:
            raise ModelError(f"there are two buffers {one!r}")
    for buffer in nest.buffers:
        if buffer.dtype not in TYPES or buffer.strides is not None:
            raise ModelError(f"buffer {buffer.name!r} is no array of {buffer.dtype}")
        if not all(0 <= extent < EXTENT_LIMIT for extent in buffer.shape):
            raise ModelError(f"buffer {buffer.name!r} of shape {list(buffer.shape)}")
    checker = _Checker({b.name: len(b.shape) for b in nest.buffers}, frozenset(writes))
    checker.stmt(nest.body, frozenset())


class _Checker:
    def __init__(self, ranks: dict[str, int], writes: frozenset[str]):
        self.ranks, self.writes = ranks, writes

    def fail(self, message: str) -> NoReturn:
        raise ModelError(message)

    def stmt(self, stmt: Stmt, known: frozenset[str]) -> None:
        match stmt:
            case Block(stmts):
                for one in stmts:
                    self.stmt(one, known)
            case For(index, start, stop, body):
                self.expr(start, known)
                self.expr(stop, known)
                self.stmt(body, known | {index})
            case Let(name, value, body):
                self.expr(value, known)
                self.stmt(body, known | {name})
            case If(cond, body):
                self.expr(cond, known)
                self.stmt(body, known)
            case Store(buffer, indices, value):
                self.element(buffer, indices, known)
                if buffer not in self.writes:
                    self.fail(f"it stores into {buffer!r}, which is no output")
                self.expr(value, known)
            case _:
                self.fail(f"no statement: {type(stmt).__name__}")

    def expr(self, e: Expr, known: frozenset[str]) -> None:
        match e:
            case Const(value, dtype):
                self.type(dtype)
                if dtype.kind != "f" and not dtype.min <= value <= dtype.max:
                    self.fail(f"{value} is no {dtype}")
            case Index(name):
                if name not in known:
                    self.fail(f"there is no index {name!r}")
            case Load(buffer, indices):
                self.element(buffer, indices, known)
            case Binary(_, a, b):
                self.expr(a, known)
                self.expr(b, known)
            case Cast(dtype, a):
                self.type(dtype)
                self.expr(a, known)
            case Select(cond, a, b):
                for part in (cond, a, b):
                    self.expr(part, known)
            case Sum(axes, body):
                if not all(0 <= extent < EXTENT_LIMIT for _, extent in axes):
                    self.fail(f"a sum over {axes}")
                self.expr(body, known | {name for name, _ in axes})
            case Math(function, arguments):
                if function not in MATH:
                    self.fail(f"there is no function {function!r}")
                for part in arguments:
                    self.expr(part, known)
            case _:
                self.fail(f"no expression: {type(e).__name__}")

    def element(self, buffer: str, indices: tuple[Expr, ...], known: frozenset[str]) -> None:
        if buffer not in self.ranks:
            self.fail(f"there is no buffer {buffer!r}")
        if len(indices) != self.ranks[buffer]:
            self.fail(f"{buffer!r} has {self.ranks[buffer]} axes; an element has {len(indices)}")
        for index in indices:
            self.expr(index, known)

    def type(self, dtype: DType) -> None:
        if dtype not in TYPES:
            self.fail(f"there is no type {dtype}")
