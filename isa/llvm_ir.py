"""LLVM IR as text: values of the nest language's types, and one function's instructions.

Vectors of lanes and scalars mix freely: an operation on both spreads the scalar.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

from .nest import BOOL, COMPARISONS, DType, promote

SINGLE_BITS = 24
"""Of a number in single precision, without sign and exponent."""


@dataclass(frozen=True)
class Value:
    """An SSA value or literal; ``lanes`` is 0 for a scalar."""

    text: str
    dtype: DType
    lanes: int = 0

    @property
    def number(self) -> int | None:
        """What an integer literal says; None for anything else."""
        if self.lanes or self.dtype.kind == "f" or self.text.startswith("%"):
            return None
        if self.dtype == BOOL:
            return int(self.text == "true")
        return (
            int(self.text) & ((1 << self.dtype.bits) - 1)
            if self.dtype.kind == "u"
            else int(self.text)
        )


FLOATS = {16: "half", 32: "float", 64: "double"}


def type_text(dtype: DType, lanes: int = 0) -> str:
    """A type as LLVM writes it."""
    scalar = FLOATS[dtype.bits] if dtype.kind == "f" else f"i{dtype.bits}"
    return f"<{lanes} x {scalar}>" if lanes else scalar


def type_suffix(dtype: DType, lanes: int = 0) -> str:
    """A type as it stands in the name of an overloaded intrinsic."""
    scalar = f"{'f' if dtype.kind == 'f' else 'i'}{dtype.bits}"
    return f"v{lanes}{scalar}" if lanes else scalar


class Builder:
    """Writes instructions into blocks."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.count = 0
        self.block = "entry"

    # --- lines and blocks

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def emit(self, text: str) -> str:
        """An instruction's result, under a new name."""
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self, hint: str) -> str:
        """A new name that begins with ``hint``."""
        self.count += 1
        return f"{hint}{self.count}"

    def start(self, label: str) -> None:
        """The block of that label begins here."""
        self.lines.append(f"{label}:")
        self.block = label

    def jump(self, label: str) -> None:
        """The block ends by going to ``label``."""
        self.line(f"br label %{label}")

    def branch(self, cond: Value, yes: str, no: str) -> None:
        """The block ends by going one way or the other."""
        self.line(f"br i1 {cond.text}, label %{yes}, label %{no}")

    def op(self, text: str, dtype: DType, lanes: int = 0) -> Value:
        """An instruction whose result has a type."""
        return Value(self.emit(text), dtype, lanes)

    def call(
        self, name: str, result: tuple[DType, int], *arguments: Value, flags: str = ""
    ) -> Value:
        """A call of an intrinsic, declared along the way."""
        types = ", ".join(type_text(a.dtype, a.lanes) for a in arguments)
        self.declarations.add(f"declare {type_text(*result)} @{name}({types})")
        values = ", ".join(f"{type_text(a.dtype, a.lanes)} {a.text}" for a in arguments)
        return self.op(f"call {flags}{type_text(*result)} @{name}({values})", *result)

    # --- values

    def constant(self, value: float, dtype: DType) -> Value:
        """A literal; integers wrap, and are written as signed ones."""
        if dtype.kind == "f":
            if dtype.bits == 16:
                bits = struct.unpack("<H", struct.pack("<e", value))[0]
                return Value(f"0xH{bits:04X}", dtype)
            if dtype.bits == 32:
                (value,) = struct.unpack("<f", struct.pack("<f", value))
            return Value(f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}", dtype)
        if dtype == BOOL:
            return Value("true" if int(value) & 1 else "false", dtype)
        wrapped = int(value) & ((1 << dtype.bits) - 1)
        return Value(str(wrapped - ((wrapped >> (dtype.bits - 1)) << dtype.bits)), dtype)

    def splat(self, value: Value, lanes: int) -> Value:
        """A value in every lane."""
        if value.lanes == lanes:
            return value
        kind = type_text(value.dtype)
        if not value.text.startswith("%"):
            return Value(f"splat ({kind} {value.text})", value.dtype, lanes)
        wide = type_text(value.dtype, lanes)
        one = self.emit(f"insertelement {wide} poison, {kind} {value.text}, i64 0")
        return self.op(
            f"shufflevector {wide} {one}, {wide} poison, <{lanes} x i32> zeroinitializer",
            value.dtype,
            lanes,
        )

    def shuffle(self, a: Value, b: Value, order: list[int]) -> Value:
        """The lanes of two vectors in an order; those of ``b`` come after those of ``a``."""
        kind = type_text(a.dtype, a.lanes)
        mask = ", ".join(f"i32 {i}" for i in order)
        text = f"shufflevector {kind} {a.text}, {kind} {b.text}, <{len(order)} x i32> <{mask}>"
        return self.op(text, a.dtype, len(order))

    def cast(self, value: Value, dtype: DType) -> Value:
        """A value in another type, as :class:`weft.isa.nest.Cast` has it."""
        source, lanes = value.dtype, value.lanes
        if source == dtype:
            return value
        if value.number is not None:
            return self.constant(value.number, dtype)
        if dtype.kind == "f":
            if source.kind == "f":
                word = "fpext" if dtype.bits > source.bits else "fptrunc"
            else:
                word = "sitofp" if source.kind == "i" else "uitofp"
        elif source.kind == "f" and lanes and dtype.bits <= 32:
            return self.cast(self.saturated(value, dtype), dtype)
        elif source.kind == "f":
            name = "fptosi" if dtype.kind == "i" else "fptoui"
            name = f"llvm.{name}.sat.{type_suffix(dtype, lanes)}.{type_suffix(source, lanes)}"
            return self.call(name, (dtype, lanes), value)
        elif source.bits == dtype.bits:
            return replace(value, dtype=dtype)
        elif source.bits > dtype.bits:
            word = "trunc"
        else:
            word = "sext" if source.kind == "i" else "zext"
        kinds = type_text(source, lanes), type_text(dtype, lanes)
        return self.op(f"{word} {kinds[0]} {value.text} to {kinds[1]}", dtype, lanes)

    def saturated(self, value: Value, dtype: DType) -> Value:
        """Floats as the nearest integers towards 0 that a type of at most 32 bits has, in lanes of
        32 bits; 0 for what is no number.

        LLVM's own conversion that saturates takes lanes one by one on x86.
        """
        source, lanes = value.dtype, value.lanes
        kind = type_text(source, lanes)
        low, high, bits = float(dtype.min), float(dtype.max), dtype.max.bit_length()
        exact = source.bits == 64 or bits <= SINGLE_BITS
        if source.bits == 16:
            value, source = self.cast(value, DType("f", 32)), DType("f", 32)
            kind = type_text(source, lanes)
        if not exact:
            high = float((1 << bits) - (1 << (bits - SINGLE_BITS)))  # the greatest there is

        def either(test: str, limit: float) -> Value:
            other = self.splat(self.constant(limit, source), lanes)
            holds = self.emit(f"fcmp {test} {kind} {value.text}, {other.text}")
            return self.choose(Value(holds, BOOL, lanes), value, other)

        given, wide = value, DType("u" if dtype == DType("u", 32) else "i", 32)
        value = either("ogt", low)
        value = either("olt", high)
        word = "fptoui" if wide.kind == "u" else "fptosi"
        made = self.op(f"{word} {kind} {value.text} to {type_text(wide, lanes)}", wide, lanes)
        if not exact:
            most = self.splat(self.constant(float(dtype.max), source), lanes)
            over = self.emit(f"fcmp oge {kind} {given.text}, {most.text}")
            made = self.choose(Value(over, BOOL, lanes), self.constant(dtype.max, wide), made)
        number = self.emit(f"fcmp ord {kind} {given.text}, {given.text}")
        return self.choose(Value(number, BOOL, lanes), made, self.constant(0, wide))

    def holds(self, value: Value) -> Value:
        """``value != 0`` as an ``i1``."""
        if value.dtype == BOOL:
            return value
        kind = type_text(value.dtype, value.lanes)
        if value.dtype.kind == "f":
            return self.op(f"fcmp une {kind} {value.text}, zeroinitializer", BOOL, value.lanes)
        zero = "zeroinitializer" if value.lanes else "0"
        return self.op(f"icmp ne {kind} {value.text}, {zero}", BOOL, value.lanes)

    # --- operations

    def binary(self, op: str, a: Value, b: Value, flags: str = "") -> Value:
        """An operation of :data:`weft.isa.nest.BinaryOp`, with promotion.

        ``flags`` may promise that an addition or multiplication does not overflow.
        """
        dtype = promote(a.dtype, b.dtype)
        a, b = self.cast(a, dtype), self.cast(b, dtype)
        simple = self.folded(op, a, b, dtype)
        if simple is not None:
            return simple
        lanes, divisor = max(a.lanes, b.lanes), b.number
        if lanes:
            a, b = self.splat(a, lanes), self.splat(b, lanes)
        kind = type_text(dtype, lanes)
        if op in COMPARISONS:
            table = _FLOAT_COMPARE if dtype.kind == "f" else _COMPARE
            word = table[op].format(s="s" if dtype.kind == "i" else "u")
            return self.op(f"{word} {kind} {a.text}, {b.text}", BOOL, lanes)
        if op in ("min", "max"):
            return self.extreme(op, a, b)
        if dtype.kind == "f":
            if op not in _FLOAT:
                raise TypeError(f"{op} is not defined on {dtype}")
            return self.op(f"{_FLOAT[op]} {kind} {a.text}, {b.text}", dtype, lanes)
        if op in ("div", "mod"):
            return self.divide(op, a, b, divisor)
        word = _INTEGER[op].format(a="a" if dtype.kind == "i" else "l")
        return self.op(f"{word}{flags} {kind} {a.text}, {b.text}", dtype, lanes)

    def math(self, function: str, arguments: list[Value]) -> Value:
        """A function of :data:`weft.isa.nest.MATH`: an instruction, or the C library a lane each.

        The C library's functions may be assumed to touch no memory.
        """
        dtype = reduce(promote, (a.dtype for a in arguments))
        arguments = [self.cast(a, dtype) for a in arguments]
        lanes = max(a.lanes for a in arguments)
        if lanes:
            arguments = [self.splat(a, lanes) for a in arguments]
        if function in _INTRINSICS:
            name = f"llvm.{_INTRINSICS[function]}.{type_suffix(dtype, lanes)}"
            return self.call(name, (dtype, lanes), *arguments)
        name = f"{function}f" if dtype.bits == 32 else function
        if not lanes:
            return self.call(name, (dtype, 0), *arguments)
        kind, scalar, text = type_text(dtype, lanes), type_text(dtype), "poison"
        for i in range(lanes):
            one = [self.op(f"extractelement {kind} {a.text}, i64 {i}", dtype) for a in arguments]
            value = self.call(name, (dtype, 0), *one)
            text = self.emit(f"insertelement {kind} {text}, {scalar} {value.text}, i64 {i}")
        return Value(text, dtype, lanes)

    def folded(self, op: str, a: Value, b: Value, dtype: DType) -> Value | None:
        """What arithmetic of addresses comes to when it is trivial."""
        x, y = a.number, b.number
        if op == "add" and x is not None and y is not None:
            return self.constant(x + y, dtype)
        if op == "mul" and x is not None and y is not None:
            return self.constant(x * y, dtype)
        if (op == "add" and x == 0) or (op == "mul" and x == 1):
            return b
        if (op == "add" and y == 0) or (op == "mul" and y == 1):
            return a
        return None

    def divide(self, op: str, a: Value, b: Value, divisor: int | None) -> Value:
        """Towards minus infinity; 0 where the divisor is 0; the least value wraps.

        ``divisor`` is ``b`` where that is known.
        """
        dtype, lanes = a.dtype, a.lanes
        kind = type_text(dtype, lanes)
        if divisor is not None and divisor > 0 and divisor & (divisor - 1) == 0:
            if op == "mod":
                return self.binary("and", a, self.constant(divisor - 1, dtype))
            return self.binary("shr", a, self.constant(divisor.bit_length() - 1, dtype))
        zero, one = self.constant(0, dtype), self.constant(1, dtype)
        is_zero = None
        if not divisor:
            is_zero = self.binary("eq", b, zero)
            b = self.choose(is_zero, one, b)
        if dtype.kind == "u":
            word = "udiv" if op == "div" else "urem"
            result = self.op(f"{word} {kind} {a.text}, {b.text}", dtype, lanes)
        else:
            result = self.divide_signed(op, a, b, divisor)
        return result if is_zero is None else self.choose(is_zero, zero, result)

    def divide_signed(self, op: str, a: Value, b: Value, divisor: int | None) -> Value:
        """With a divisor that is not 0."""
        dtype, lanes = a.dtype, a.lanes
        kind = type_text(dtype, lanes)
        zero, one = self.constant(0, dtype), self.constant(1, dtype)
        negate = None
        if divisor in (None, 0, -1):
            negate = self.binary("eq", b, self.constant(-1, dtype))
            safe = self.choose(negate, one, b)
        else:
            safe = b
        rest = self.op(f"srem {kind} {a.text}, {safe.text}", dtype, lanes)
        differs = self.binary("lt", self.binary("xor", rest, safe), zero)
        inexact = self.binary("ne", rest, zero)
        kind_bool = type_text(BOOL, lanes)
        adjust = self.op(f"and {kind_bool} {differs.text}, {inexact.text}", BOOL, lanes)
        if op == "mod":
            result = self.binary("add", rest, self.choose(adjust, safe, zero))
            return result if negate is None else self.choose(negate, zero, result)
        quotient = self.op(f"sdiv {kind} {a.text}, {safe.text}", dtype, lanes)
        result = self.binary("sub", quotient, self.cast(adjust, dtype))
        return (
            result if negate is None else self.choose(negate, self.binary("sub", zero, a), result)
        )

    def shift(self, value: Value, op: str, amount: Value) -> Value:
        """A shift without promotion."""
        word = _INTEGER[op].format(a="a" if value.dtype.kind == "i" else "l")
        by = self.splat(amount, value.lanes) if value.lanes else amount
        kind = type_text(value.dtype, value.lanes)
        return self.op(f"{word} {kind} {value.text}, {by.text}", value.dtype, value.lanes)

    def extreme(self, op: str, a: Value, b: Value) -> Value:
        """The ``min`` or ``max`` of two values of one type, in it."""
        word = {"i": f"s{op}", "u": f"u{op}", "f": f"{op}imum"}[a.dtype.kind]
        name = f"llvm.{word}.{type_suffix(a.dtype, a.lanes)}"
        # Which of two zeros is greater is left open.
        flags = "nsz " if a.dtype.kind == "f" else ""
        return self.call(name, (a.dtype, a.lanes), a, b, flags=flags)

    def choose(self, cond: Value, a: Value, b: Value) -> Value:
        """LLVM's ``select``: both are there already."""
        lanes = max(cond.lanes, a.lanes, b.lanes)
        if lanes:
            a, b = self.splat(a, lanes), self.splat(b, lanes)
        kind = type_text(a.dtype, lanes)
        cond_kind = type_text(BOOL, cond.lanes)
        text = f"select {cond_kind} {cond.text}, {kind} {a.text}, {kind} {b.text}"
        return self.op(text, a.dtype, lanes)

    def either(self, cond: Value, a: Callable[[], Value], b: Callable[[], Value]) -> Value:
        """The value of the branch that is taken."""
        yes, no, end = self.label("yes"), self.label("no"), self.label("end")
        self.branch(cond, yes, no)
        self.start(yes)
        x = a()
        x_block = self.block
        self.jump(end)
        self.start(no)
        y = b()
        y_block = self.block
        self.jump(end)
        self.start(end)
        kind = type_text(x.dtype, x.lanes)
        text = f"phi {kind} [ {x.text}, %{x_block} ], [ {y.text}, %{y_block} ]"
        return self.op(text, x.dtype, x.lanes)


# fmt: off
_INTEGER = {
    "add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor",
    "shl": "shl", "shr": "{a}shr",
}
_INTRINSICS = {
    "abs": "fabs", "floor": "floor", "ceil": "ceil", "rint": "roundeven", "sqrt": "sqrt",
}
_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"eq": "icmp eq", "ne": "icmp ne", "lt": "icmp {s}lt", "le": "icmp {s}le"}
_FLOAT_COMPARE = {"eq": "fcmp oeq", "ne": "fcmp une", "lt": "fcmp olt", "le": "fcmp ole"}
# fmt: on
