"""The two roundings of requantization on vectors of ``i32``, as LLVM IR.

:mod:`weft.isa.requantize` writes them in ``i64``, of which a vector register holds half as many.
The high half of a product is made of the products of even and of odd lanes; the rounding shift
compares what is shifted out with one half. Both give the same bits.
"""

from __future__ import annotations

from .llvm_ir import Value, type_text
from .llvm_sums import Sums
from .nest import I32, I64, Binary, Cast, Const
from .requantize import high_product, rounding_shift_right


class Roundings(Sums):
    """Sums, and roundings in lanes."""

    def rounding(self, e: Cast) -> Value | None:
        """The value of one of the two expressions; None of anything else, or without lanes."""
        if self.lanes is None or self.lanes.count % 2:
            return None
        match e:
            case Cast(_, Binary("shr", Binary("add", Cast(_, x), _), Cast(_, amount))) if (
                self.dtype(x) == self.dtype(amount) == I32 and e == rounding_shift_right(x, amount)
            ):
                return self.shifted(self.expr(x), self.expr(amount))
            case Cast(
                _, Binary("shr", Binary("add", Binary("mul", Cast(_, x), Cast(_, m)), _), Const())
            ) if self.dtype(x) == self.dtype(m) == I32 and e == high_product(x, m):
                return self.high(self.expr(x), self.expr(m))
        return None

    def shifted(self, x: Value, amount: Value) -> Value:
        """To the right, to nearest, ties away from zero."""
        lanes = max(x.lanes, amount.lanes)
        one = self.constant(1, I32)
        mask = self.binary("sub", self.binary("shl", one, amount), one)
        sign = self.binary("shr", x, self.constant(31, I32))
        half = self.binary("sub", self.binary("shr", mask, one), sign)
        up = self.binary("lt", half, self.binary("and", x, mask))
        low = self.binary("shr", x, amount)
        if not lanes:
            return self.binary("add", low, self.cast(up, I32))
        kind = type_text(I32, lanes)
        if not up.lanes:
            return self.binary("add", low, self.cast(up, I32))
        minus = self.op(f"sext <{lanes} x i1> {up.text} to {kind}", I32, lanes)
        return self.binary("sub", low, minus)

    def high(self, x: Value, m: Value) -> Value:
        """The high half of twice the product, to nearest, ties upwards."""
        lanes = max(x.lanes, m.lanes)
        if not lanes:
            product = self.binary("mul", self.cast(x, I64), self.cast(m, I64))
            return self.cast(self.rounded(product, 31), I32)
        halves = [self.halves(self.splat(v, lanes)) for v in (x, m)]
        even, odd = (self.rounded(self.binary("mul", a, b)) for a, b in zip(*halves, strict=True))
        even = self.shift_logically(even, "lshr", 31)
        odd = self.shift_logically(odd, "shl", 1)
        a, b = (self.narrow(v, lanes) for v in (even, odd))
        return self.shuffle(a, b, [i if i % 2 == 0 else lanes + i for i in range(lanes)])

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
