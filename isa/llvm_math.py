"""Functions of floating point on vectors of ``float``, as LLVM IR.

The C library takes one number at a time. Here are polynomials that were fitted for this purpose, in
the type itself. The greatest relative errors, over all arguments whose result is a normal number:
``exp`` 2e-7 (8e-8 where products are added in one step), ``tanh`` 3e-7, ``erf`` 4e-7
(tests/isa/test_llvm_math.py finds them). Infinities, NaN and results that are too great or too
small come out as IEEE 754 has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from .llvm_ir import Builder, Value, type_suffix, type_text
from .nest import F32, I32, DType, promote
from .tiles import Target

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
"""The logarithm of 2 in two parts; the first has few digits, so that its products are exact."""
ROUNDER = 12582912.0
"""1.5 * 2**23: what is added to it is rounded to an integer, which its low bits show."""
ROUNDER_BITS = 0x4B400000
EXP_RANGE = -104.0, 89.0
"""Beyond it the result is 0 or infinity."""
SCALED = 16
"""Lanes that AVX-512 multiplies by powers of 2 with one instruction."""

# fmt: off
EXP = (
    1.0, 1.0, 0.500000009570052, 0.16666518305906108, 0.041666204140287974, 0.008368953523018724,
    0.0013950602178169147,
)
TANH = (
    -0.3333328392520549, 0.13331491284912764, -0.05374349791562332, 0.020650586783475845,
    -0.005717044510289152,
)
TANH_NEAR = 0.625
ERF_NEAR = (
    1.128379165913768, -0.3761262713607962, 0.11283600177592627, -0.026854444649135615,
    0.005189535450100906, -0.0008020842267163487, 7.889122831091655e-05,
)
ERF_FAR = (
    -0.00018803703856384857, 1.1295784101562798, 0.6332199193642579, 0.10841855063404884,
    -0.025208240763102213, 0.004204556248857159, -0.00044133529824657295, 2.1686763042844826e-05,
)
ERF_END = 4.0
"""From here on it is 1."""
# fmt: on


class Floats:
    """Arithmetic on vectors of ``float``; ``scales`` where the target has AVX-512's scaling by
    powers of 2."""

    def __init__(self, builder: Builder, lanes: int, scales: bool):
        self.b, self.lanes, self.scales = builder, lanes, scales

    def c(self, value: float, dtype: DType = F32) -> Value:
        """A literal in every lane."""
        return self.b.splat(self.b.constant(value, dtype), self.lanes)

    def op(self, word: str, a: Value, b: Value) -> Value:
        """An instruction, which may be joined with another one."""
        kind = type_text(F32, self.lanes)
        return self.b.op(f"{word} contract {kind} {a.text}, {b.text}", F32, self.lanes)

    def exact(self, word: str, a: Value, b: Value) -> Value:
        """An instruction that stays by itself."""
        return self.b.op(f"{word} {type_text(F32, self.lanes)} {a.text}, {b.text}", F32, self.lanes)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Its value by Horner's rule, the constant first."""
        value = self.c(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            value = self.op("fadd", self.op("fmul", value, x), self.c(c))
        return value

    def bits(self, x: Value, dtype: DType) -> Value:
        """The same bits as another type."""
        kinds = type_text(x.dtype, self.lanes), type_text(dtype, self.lanes)
        return self.b.op(f"bitcast {kinds[0]} {x.text} to {kinds[1]}", dtype, self.lanes)

    def where(self, less: tuple[Value, Value], a: Value, b: Value) -> Value:
        """``a`` where the first is less than the second, else ``b``; also where one is NaN."""
        return self.b.choose(self.b.binary("lt", *less), a, b)

    def magnitude(self, x: Value) -> Value:
        """Without its sign."""
        return self.b.math("abs", [x])

    def signed(self, value: Value, like: Value) -> Value:
        """With the sign of ``like``."""
        name = f"llvm.copysign.{type_suffix(F32, self.lanes)}"
        return self.b.call(name, (F32, self.lanes), value, like)

    def scaled(self, x: Value, n: Value) -> Value:
        """``x`` times 2**``n``, rounded once, by AVX-512's instruction for it."""
        name, kind = "llvm.x86.avx512.mask.scalef.ps.512", (F32, SCALED)
        text = type_text(*kind)
        self.b.declarations.add(f"declare {text} @{name}({text}, {text}, {text}, i16, i32)")
        parts: list[Value] = []
        for first in range(0, self.lanes, SCALED):
            order = [min(i, self.lanes - 1) for i in range(first, first + SCALED)]
            a, b = (self.b.shuffle(v, v, order) for v in (x, n))
            arguments = f"{text} {a.text}, {text} {b.text}, {text} zeroinitializer, i16 -1, i32 4"
            parts.append(self.b.op(f"call {text} @{name}({arguments})", *kind))
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.b.shuffle(a, b, list(range(2 * a.lanes))) for a, b in pairs]
        return self.b.shuffle(parts[0], parts[0], list(range(self.lanes)))

    # --- functions

    def exp(self, x: Value) -> Value:
        """e to the power of x: 2**n times that of a rest of at most half of ln 2."""
        low, high = self.c(EXP_RANGE[0]), self.c(EXP_RANGE[1])
        x = self.where((x, low), low, x)
        x = self.where((high, x), high, x)
        shifted = self.op("fadd", self.op("fmul", x, self.c(LOG2_E)), self.c(ROUNDER))
        n = self.exact("fsub", shifted, self.c(ROUNDER))
        rest = self.op("fsub", x, self.op("fmul", n, self.c(LN2_HIGH)))
        rest = self.op("fsub", rest, self.op("fmul", n, self.c(LN2_LOW)))
        power = self.polynomial(rest, EXP)
        if self.scales:
            return self.scaled(power, n)
        whole = self.b.binary("sub", self.bits(shifted, I32), self.c(ROUNDER_BITS, I32))
        half = self.b.binary("shr", whole, self.c(1, I32))
        for part in (half, self.b.binary("sub", whole, half)):
            biased = self.b.binary(
                "shl", self.b.binary("add", part, self.c(127, I32)), self.c(23, I32)
            )
            power = self.exact("fmul", power, self.bits(biased, F32))
        return power

    def tanh(self, x: Value) -> Value:
        """By its series near 0, and by ``exp`` elsewhere."""
        size = self.magnitude(x)
        square = self.op("fmul", x, x)
        near = self.op("fmul", self.op("fmul", self.polynomial(square, TANH), square), x)
        near = self.op("fadd", near, x)
        power = self.exp(self.op("fadd", size, size))
        share = self.exact("fdiv", self.c(2.0), self.op("fadd", power, self.c(1.0)))
        far = self.op("fsub", self.c(1.0), share)
        return self.signed(self.where((size, self.c(TANH_NEAR)), near, far), x)

    def erf(self, x: Value) -> Value:
        """By its series below 1, and by 1 less a power of e above."""
        size = self.magnitude(x)
        near = self.op("fmul", self.polynomial(self.op("fmul", x, x), ERF_NEAR), x)
        end = self.c(ERF_END)
        bounded = self.where((end, size), end, size)
        power = self.exp(self.op("fsub", self.c(0.0), self.polynomial(bounded, ERF_FAR)))
        far = self.op("fsub", self.c(1.0), power)
        return self.signed(self.where((size, self.c(1.0)), near, far), x)


VECTORS: Mapping[str, Callable[[Floats, Value], Value]] = {
    "exp": Floats.exp, "tanh": Floats.tanh, "erf": Floats.erf,
}  # fmt: skip
"""The functions that there are."""


class Functions(Builder):
    """Instructions, and functions of vectors."""

    target: Target | None = None

    @property
    def avx512(self) -> bool:
        """Whether the target has the instructions of AVX-512."""
        return self.target is not None and self.target.pairs and self.target.bits == 512

    def math(self, function: str, arguments: list[Value]) -> Value:
        """As :class:`Builder` has it, but for the vectors of :data:`VECTORS`."""
        lanes = max(a.lanes for a in arguments)
        dtype = reduce(promote, (a.dtype for a in arguments))
        if not lanes or dtype != F32 or function not in VECTORS:
            return super().math(function, arguments)
        values = [self.splat(self.cast(a, F32), lanes) for a in arguments]
        return VECTORS[function](Floats(self, lanes, self.avx512), *values)
