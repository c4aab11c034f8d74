"""The two roundings of requantization on vectors of ``i32``, as LLVM IR.

:mod:`weft.isa.requantize` writes them in ``i64``, of which a vector register holds half as many.
The high half of a product is made of the products of even and of odd lanes. A rounding shift is
that of the magnitude, as an unsigned integer, which has room for one half; where ties may go to
even, what is shifted out is compared with a half. All give the same bits.
"""

from __future__ import annotations

from .llvm_ir import Value, type_suffix, type_text
from .llvm_sums import Sums
from .nest import I32, I64, U32, Binary, Cast, Const, Expr, Select
from .requantize import Even, high_product, rounding_shift_right, shift_left, shiftable


class Roundings(Sums):
    """Sums, and roundings in lanes."""

    def rounding(self, e: Cast) -> Value | None:
        """The value of one of the two expressions; None of anything else, or without lanes."""
        if self.lanes is None or self.lanes.count % 2:
            return None
        match e:
            case Cast(_, Binary("shr", Binary("add", Cast(_, x), nudge), Cast(_, amount))) if (
                self.dtype(x) == self.dtype(amount) == I32
            ):
                for even in _evens(nudge):
                    if e == rounding_shift_right(x, amount, even):
                        return self.shifted(self.expr(x), self.expr(amount), even)
            case Cast(
                _, Binary("shr", Binary("add", Binary("mul", Cast(_, x), Cast(_, m)), _), Const())
            ) if self.dtype(x) == self.dtype(m) == I32 and e == high_product(x, m):
                return self.high(self.expr(_as_shift(x)), self.expr(m))
        return None

    def shifted(self, x: Value, amount: Value, even: Even) -> Value:
        """To the right, to nearest, ties to even or away from zero."""
        lanes = max(x.lanes, amount.lanes)
        x = self.splat(x, lanes) if lanes else x
        if even is not False:
            return self.compared(x, amount, even)
        size = self.cast(self.magnitude(x), U32)
        by = self.cast(amount, U32)
        one = self.constant(1, U32)
        half = self.binary("shr", self.binary("shl", one, by), one)
        near = self.cast(self.binary("shr", self.binary("add", size, half), by), I32)
        zero = self.constant(0, I32)
        return self.choose(self.binary("lt", x, zero), self.binary("sub", zero, near), near)

    def compared(self, x: Value, by: Value, even: Even) -> Value:
        """To the right, to nearest; ties to even or, where that is not so, away from zero.

        The next integer is nearer where what is shifted out is more than a half, and a tie is made
        more than a half where it goes up.
        """
        one, zero, least = self.constant(1, I32), self.constant(0, I32), self.constant(1, U32)
        below = self.binary("shr", x, by)
        unit = self.binary("shl", one, by)
        rest = self.binary("and", x, self.binary("sub", unit, one))
        half = self.binary("max", self.binary("shr", self.cast(unit, U32), least), least)
        up = self.binary("and", below, one)
        if isinstance(even, Expr):
            away = self.choose(self.binary("lt", x, zero), zero, one)
            up = self.choose(self.expr(even), up, away)
        more = self.binary("lt", half, self.cast(self.binary("add", rest, up), U32))
        return self.choose(more, self.binary("add", below, one), below)

    def magnitude(self, x: Value) -> Value:
        """Without the sign; of the least integer itself, which is right as an unsigned one."""
        kind = type_text(x.dtype, x.lanes)
        name = f"llvm.abs.{type_suffix(x.dtype, x.lanes)}"
        self.declarations.add(f"declare {kind} @{name}({kind}, i1)")
        return self.op(f"call {kind} @{name}({kind} {x.text}, i1 false)", x.dtype, x.lanes)

    def high(self, x: Value, m: Value) -> Value:
        """The high half of twice the product, to nearest, ties upwards."""
        lanes = max(x.lanes, m.lanes)
        if not lanes:
            product = self.binary("mul", self.cast(x, I64), self.cast(m, I64))
            return self.cast(self.rounded(product, 31), I32)
        halves = [self.halves(self.splat(v, lanes)) for v in (x, m)]
        even, odd = (self.rounded(self.binary("mul", a, b)) for a, b in zip(*halves, strict=True))
        # LLVM would shift a literal before it multiplies, and then it is too wide for one product.
        literal = m.number is not None
        even = self.shift_logically(even, "lshr", 31)
        odd = self.shift_logically(odd, *(("lshr", 31) if literal else ("shl", 1)))
        a, b = self.narrow(even, lanes), self.narrow(odd, lanes)
        order = [i if i % 2 == 0 else lanes + i - literal for i in range(lanes)]
        return self.shuffle(a, b, order)

    def rounded(self, product: Value, by: int = 0) -> Value:
        """With one half added, and shifted."""
        value = self.binary("add", product, self.constant(1 << 30, I64))
        return self.binary("shr", value, self.constant(by, I64)) if by else value

    def halves(self, value: Value) -> tuple[Value, Value]:
        """The even and the odd lanes as ``i64``."""
        half = value.lanes // 2
        kinds = type_text(I32, value.lanes), type_text(I64, half)
        wide = self.op(f"bitcast {kinds[0]} {value.text} to {kinds[1]}", I64, half)
        by = self.constant(32, I64)
        low = self.binary("shr", self.binary("shl", wide, by), by)
        return low, self.binary("shr", wide, by)

    def shift_logically(self, value: Value, word: str, by: int) -> Value:
        """By a constant."""
        kind = type_text(I64, value.lanes)
        return self.op(f"{word} {kind} {value.text}, splat (i64 {by})", I64, value.lanes)

    def narrow(self, value: Value, lanes: int) -> Value:
        """The same bits as ``i32``."""
        kinds = type_text(I64, value.lanes), type_text(I32, lanes)
        return self.op(f"bitcast {kinds[0]} {value.text} to {kinds[1]}", I32, lanes)


def _evens(nudge: Expr) -> tuple[Even, ...]:
    """Where ties may go, given what is added before a shift."""
    match nudge:
        case Select(_, _, Binary("sub", _, Select(cond))):
            return False, cond
    return (True,)


def _as_shift(x: Expr) -> Expr:
    """A saturating shift to the left as one of what can be shifted; anything else as it is."""
    match x:
        case Binary(
            "or",
            Binary("and", Binary("shl", a, amount), _),
            Binary("and", _, Binary("shr", Binary("shl", Cast(_, flag), _), _)),
        ):
            even = flag.a if isinstance(flag, Binary) and flag.op == "and" else True
            if x == shift_left(a, amount, even):
                fits = shiftable(a, amount)
                return (fits if even is True else Select(even, fits, a)) << amount
    return x
