"""Where elements lie, as LLVM IR: what several addresses have in common is computed once.

An index is taken apart into names times literals and one literal more. Addresses that differ by
literals only share a pointer, and those are left to the processor's addressing. LLVM would find
some of that, too, but from a multiple of the text, in a multiple of the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from .lanes import Lanes
from .llvm_ir import Value
from .llvm_math import Functions
from .nest import I64, Binary, Buffer, Cast, Const, DType, Expr, Index
from .tiles import Target


@dataclass(frozen=True)
class Offset:
    """A place in a buffer: ``start`` and a literal, in the units of
    :func:`weft.isa.storage.unit_strides`."""

    start: Value
    further: int = 0

    def beyond(self, distance: int) -> Offset:
        """A place further along."""
        return Offset(self.start, self.further + distance)


@dataclass(frozen=True)
class Linear:
    """An index as terms, expressions times literals, and a literal; ``wide`` if its type is ``i64``
    whatever it is added to."""

    terms: tuple[tuple[Expr, int], ...]
    literal: int
    wide: bool


class Places(Functions, ABC):
    """A builder that knows values by what they are computed from."""

    names: dict[str, Value]
    lanes: Lanes | None
    target: Target | None
    """What tiles are for; None where all is left to LLVM's passes. Where there are tiles, pointers
    are frozen: how they come about is nothing to the passes over loops, which would spend a quarter
    of their time on it."""

    def __init__(self) -> None:
        super().__init__()
        self.known_sums: dict[tuple[str | int, ...], Value] = {}
        """Those that control has come by, by their terms: names and what they are multiplied by."""
        self.known_pointers: dict[tuple[str, str], str] = {}
        """Likewise, by where a buffer begins and the name of the offset."""
        self.apart: dict[int, tuple[Expr, Linear]] = {}
        """Indices taken apart, by their identity."""

    @abstractmethod
    def dtype(self, e: Expr) -> DType:
        """The type of an expression."""

    @abstractmethod
    def first_lane(self, e: Expr) -> Value:
        """A scalar: an expression for the first lane."""

    def linear(self, e: Expr) -> Linear:
        """An index taken apart."""
        found = self.apart.get(id(e))
        if found is None:
            found = self.apart[id(e)] = e, self._linear(e)
        return found[1]

    def _linear(self, e: Expr) -> Linear:
        match e:
            case Const(value=int(value), dtype=dtype):
                return Linear((), value, dtype == I64)
            case Index():
                return Linear(((e, 1),), 0, True)
            case Cast(dtype, a) if dtype == I64 and self.linear(a).wide:
                return self.linear(a)
            case Binary("add" | "sub" as op, a, b):
                x, y = self.linear(a), self.linear(b)
                if x.wide or y.wide:
                    sign = 1 if op == "add" else -1
                    terms = dict(x.terms)
                    for term, by in y.terms:
                        terms[term] = terms.get(term, 0) + sign * by
                    return Linear(tuple(terms.items()), x.literal + sign * y.literal, True)
            case Binary("mul", a, Const(value=int(value), dtype=dtype)) | Binary(
                "mul", Const(value=int(value), dtype=dtype), a
            ):
                x = self.linear(a)
                if x.wide or dtype == I64:
                    terms = tuple((term, by * value) for term, by in x.terms)
                    return Linear(terms, x.literal * value, True)
        return Linear(((e, 1),), 0, self.dtype(e) == I64)

    def offset(self, indices: tuple[Expr, ...], strides: tuple[int, ...]) -> Offset:
        """Of the first lane's element."""
        terms: dict[str, int] = {}
        further = 0
        for index, stride in zip(indices, strides, strict=True):
            apart = self.linear(index)
            further += apart.literal * stride
            for term, by in apart.terms:
                value = self.names[term.name] if isinstance(term, Index) else self.first_lane(term)
                value = self.cast(value, I64)
                if value.number is None:
                    terms[value.text] = terms.get(value.text, 0) + by * stride
                else:
                    further += value.number * by * stride
        return Offset(self.total(terms), further)

    def total(self, terms: Mapping[str, int]) -> Value:
        """The sum of values of ``i64`` times literals."""
        total = self.constant(0, I64)
        key: tuple[str | int, ...] = ()
        # In the order in which values came about: what is known before a loop comes first.
        for text, by in sorted(terms.items(), key=_age):
            if by:
                key = (*key, text, by)
                if key not in self.known_sums:
                    term = self.binary("mul", Value(text, I64), self.constant(by, I64))
                    self.known_sums[key] = self.binary("add", total, term)
                total = self.known_sums[key]
        return total

    def whole(self, offset: Offset) -> Value:
        """An offset as one number."""
        return self.binary("add", offset.start, self.constant(offset.further, I64))

    def pointer_at(self, buffer: Buffer, base: str, offset: Offset) -> str:
        """A pointer to the byte that holds the element at an offset from ``base``."""
        start, further = offset.start, offset.further
        if buffer.dtype.bits < 8:
            start, further = self.binary("shr", self.whole(offset), self.constant(3, I64)), 0
        pointer = base if start.number == 0 else self.known_pointers.get((base, start.text))
        if pointer is None:
            pointer = self.emit(f"getelementptr i8, ptr {base}, i64 {start.text}")
            if self.target is not None:
                pointer = self.emit(f"freeze ptr {pointer}")
            self.known_pointers[base, start.text] = pointer
        if not further:
            return pointer
        return self.emit(f"getelementptr i8, ptr {pointer}, i64 {further}")


def _age(term: tuple[str, int]) -> tuple[bool, int]:
    """Orders names: parameters, ``%p`` and a number, before others, a letter and a number that
    grows."""
    text = term[0]
    return not text.startswith("%p"), int(text[2:])
