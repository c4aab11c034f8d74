from __future__ import annotations

import numpy as np
import pytest
from amaranth import ClockDomain, Module, Shape, Signal, signed
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.hw.lower import Lowering, low_bits, named, stored
from weft.hw.pipeline import Pipelining
from weft.isa import AcceleratorConfig, InstructionSet, UnsupportedError
from weft.isa.nest import (
    F32,
    I8,
    I32,
    I64,
    U8,
    U16,
    U32,
    Binary,
    Cast,
    DType,
    Expr,
    Index,
    Load,
    Select,
    Sum,
    expr,
)
from weft.isa.nest import (
    Const as Literal,
)
from weft.isa.operations import shift_right
from weft.isa.requantize import requantize, rescale, rescale_int

TYPES = {"a8": I8, "b8": U8, "c16": U16, "d32": I32, "e32": U32, "f32": I32, "g64": I64}
EXTREMES = (0, 1, 2, 31, 127, 128, 255, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)


def wrap(value: int, dtype: DType) -> int:
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.kind == "i" and value >> dtype.bits - 1 else value


def python(e: Expr, values: dict[str, int]) -> tuple[int, DType]:
    """Value and type, by the words at the top of the nest language, on Python's own integers."""
    match e:
        case Literal(value, dtype):
            return wrap(int(value), dtype), dtype
        case Load(buffer=name):
            return values[name], TYPES[name]
        case Index(name):
            return values[name], I64
        case Cast(dtype, a):
            return wrap(python(a, values)[0], dtype), dtype
        case Select(cond, a, b):
            dtype = common(python(a, values)[1], python(b, values)[1])
            return wrap(python(a if python(cond, values)[0] else b, values)[0], dtype), dtype
        case Sum(((name, extent),), body):
            total = sum(python(body, values | {name: k})[0] for k in range(extent))
            dtype = common(python(body, values | {name: 0})[1], I32)
            return wrap(total, dtype), dtype
        case Binary(op, a, b):
            (x, left), (y, right) = python(a, values), python(b, values)
            dtype = common(left, right)
            x, y = wrap(x, dtype), wrap(y, dtype)
            if op in ("eq", "ne", "lt", "le"):
                return int({"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y}[op]), DType(
                    "u", 1
                )
            if op in ("shl", "shr"):
                return wrap(x << y if op == "shl" else x >> y, dtype), dtype
            functions = {
                "add": int.__add__, "sub": int.__sub__, "mul": int.__mul__,
                "div": int.__floordiv__, "mod": int.__mod__, "min": min, "max": max,
                "and": int.__and__, "or": int.__or__, "xor": int.__xor__,
            }  # fmt: skip
            return wrap(functions[op](x, y), dtype), dtype
    raise AssertionError(e)


def common(a: DType, b: DType) -> DType:
    bits = max(a.bits, b.bits, 32)
    return DType("u" if any(t.bits == bits and t.kind == "u" for t in (a, b)) else "i", bits)


def expressions() -> st.SearchStrategy[Expr]:
    constants = st.sampled_from([-(2**31), -3, -1, 0, 1, 5, 2**31 - 1])
    leaves = st.one_of(
        st.sampled_from([Load(name, ()) for name in TYPES]),
        st.just(Index("n")),
        st.builds(Literal, constants, st.sampled_from([I32, I64, I8])),
    )
    plain = st.sampled_from(
        ["add", "sub", "mul", "min", "max", "and", "or", "xor", "eq", "ne", "lt", "le"]
    )
    amount = st.one_of(
        st.builds(Literal, st.integers(0, 31)),
        st.builds(lambda e: Binary("and", e, Literal(31)), leaves),
    )
    divisor = st.one_of(
        st.builds(Literal, st.sampled_from([-7, -1, 1, 2, 3, 100])),
        st.builds(lambda e: Binary("or", Binary("and", e, Literal(15)), Literal(1)), leaves),
    )

    def extend(e: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.one_of(
            st.builds(Binary, plain, e, e),
            st.builds(Binary, st.sampled_from(["shl", "shr"]), e, amount),
            st.builds(Binary, st.sampled_from(["div", "mod"]), e, divisor),
            st.builds(Cast, st.sampled_from([I8, U8, I32, U32, I64, DType("u", 1)]), e),
            st.builds(Select, e, e, e),
            st.builds(summed, e, e),
        )

    return st.recursive(leaves, extend, max_leaves=8)


def summed(a: Expr, b: Expr) -> Expr:
    name = f"k{len(str(a)) + len(str(b))}"  # no index hides that of a sum around it
    return Sum(((name, 3),), a * Index(name) + b)


def evaluate(build, inputs: dict[str, Signal], rows: list[dict[str, int]]) -> list[int]:
    m = Module()
    o = Signal(signed(64))
    m.d.comb += o.eq(build(m))
    results = []

    async def bench(ctx):
        for row in rows:
            for name, signal in inputs.items():
                ctx.set(signal, row[name])
            await ctx.delay(1e-6)
            results.append(ctx.get(o))

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()
    return results


def leaves() -> dict[str, Signal]:
    shape = lambda t: Shape(t.bits, t.kind == "i")  # noqa: E731
    signals = {name: Signal(shape(dtype), name=name) for name, dtype in TYPES.items()}
    return signals | {"n": Signal(signed(20), name="n")}


def random_row(random) -> dict[str, int]:
    extreme = lambda t: wrap(random.choice(EXTREMES) * random.choice((1, -1)), t)  # noqa: E731
    row = {name: extreme(dtype) for name, dtype in TYPES.items()}
    return row | {"n": random.randrange(-(2**19), 2**19)}


@settings(max_examples=40, deadline=None)
@given(expressions(), st.randoms(use_true_random=False))
def test_lowered_expressions_equal_their_meaning(e, random):
    signals = leaves()
    rows = []
    for _ in range(8):
        row = {
            n: wrap(random.choice(EXTREMES) * random.choice((1, -1)), t) for n, t in TYPES.items()
        }
        rows.append(row | {"n": random.randrange(-(2**19), 2**19)})
    expected = [wrap(python(e, row)[0], I64) for row in rows]
    got = evaluate(lambda m: Lowering(named(signals))(e), signals, rows)
    assert got == expected


def test_floating_point_is_refused():
    with pytest.raises(UnsupportedError, match="integers"):
        Lowering(named({}))(Cast(F32, Literal(1)))


def test_a_product_is_as_wide_as_its_operands_need():
    x, y = Signal(signed(32)), Signal(signed(32))
    low = Lowering(named({"x": x, "y": y}))
    wide = low(Cast(I64, Load("x", ())) * Cast(I64, Load("y", ())))
    assert wide.shape() == signed(64)
    assert all(len(operand) == 32 for operand in wide.operands)


def test_a_masked_shift_amount_has_as_many_bits_as_the_mask():
    signals = {"x": Signal(signed(32)), "left": Signal(8)}
    e = Load("x", ()) >> (Load("left", ()) & 7)
    assert len(Lowering(named(signals))(e).operands[1]) == 3


def test_what_two_expressions_share_is_built_once():
    x = Signal(signed(32))
    low = Lowering(named({"x": x}))
    assert low(Load("x", ()) + 1) is low(Load("x", ()) + 1)


def test_a_meaning_has_one_store():
    meaning = InstructionSet(AcceleratorConfig.preset("tiny")).meaning("gemm")
    assert stored(meaning).buffer == "acc"
    with pytest.raises(UnsupportedError, match="0 stores"):
        stored(InstructionSet(AcceleratorConfig.preset("tiny")).meaning("finish"))


def requantized(rows: np.ndarray) -> tuple[list[int], list[int]]:
    names = ("x", "multiplier", "left", "right", "zero_point", "low", "high", "even")
    shapes = (signed(32), signed(32), 5, 5, signed(8), signed(8), signed(8), 1)
    signals = {n: Signal(s, name=n) for n, s in zip(names, shapes, strict=True)}
    loads = [Load(name, ()) for name in names]
    inputs = [dict(zip(names, map(int, row), strict=True)) for row in rows]
    out = []
    even = Binary("ne", loads[-1], expr(0))
    for e in (rescale(*loads[:4], even), requantize(*loads[:-1], even)):
        out.append(evaluate(lambda m, e=e: Lowering(named(signals))(e), signals, inputs))
    return out[0], out[1]


def extreme_parameters() -> np.ndarray:
    random = np.random.default_rng(1)
    x = [-(2**31), -(2**31) + 1, -1, 0, 1, 2**30, 2**31 - 1, -12345]
    multiplier = [0, 1, 2**30, 2**30 + 1, 2**31 - 1]
    rows = [(a, m, le, r) for a in x for m in multiplier for le in (0, 1, 31) for r in (0, 1, 31)]
    some = random.integers(-(2**31), 2**31, (200, 2))
    rows += [
        (a, abs(m), le, r)
        for (a, m), le, r in zip(
            some.tolist(), random.integers(0, 32, 200), random.integers(0, 32, 200), strict=True
        )
    ]
    clamps = random.integers(-128, 128, (len(rows), 3))
    return np.hstack([np.array(rows, np.int64), clamps])


@pytest.mark.parametrize("even", [False, True])
def test_rescale_and_requantize_round_as_the_reference_does(even: bool):
    rows = extreme_parameters()
    rescaled, narrowed = requantized(np.pad(rows, ((0, 0), (0, 1)), constant_values=even))
    expected = [rescale_int(*map(int, row[:4]), even) for row in rows]
    assert rescaled == expected
    wrapped = (np.array(expected) + rows[:, 4] + 2**31) % 2**32 - 2**31
    assert narrowed == np.minimum(np.maximum(wrapped, rows[:, 5]), rows[:, 6]).tolist()


def test_shift_right_is_defined_for_every_amount():
    signals = {"x": Signal(signed(32), name="x"), "n": Signal(signed(32), name="n")}
    amounts = (0, 1, 5, 31, 32, 33, 2**31 - 1, -1, -5, -31, -32, -33, -(2**31))
    rows = [{"x": x, "n": n} for x in (-(2**31), -7, -1, 0, 1, 12345, 2**31 - 1) for n in amounts]
    e = shift_right(Load("x", ()), Load("n", ()))
    got = evaluate(lambda m: low_bits(Lowering(named(signals))(e), 32).as_signed(), signals, rows)
    for row, value in zip(rows, got, strict=True):
        x, n = row["x"], row["n"]
        assert value == (x >> n if n >= 0 else wrap(x << -n if n > -32 else 0, I32))


@settings(max_examples=15, deadline=None)
@given(expressions(), st.randoms(use_true_random=False))
def test_a_pipeline_gives_the_same_values_later(e, random):
    rows = [random_row(random) for _ in range(6)]
    signals = leaves()
    m = Module()
    m.domains.sync = ClockDomain()  # a constant needs no register
    pipeline = Pipelining(m, named(signals))
    stage = pipeline.stage(e)
    o = Signal(signed(64))
    m.d.comb += o.eq(pipeline.at(e, stage + 1))
    got = []

    async def bench(ctx):
        for row in [*rows, *[rows[-1]] * (stage + 1)]:
            for name, signal in signals.items():
                ctx.set(signal, row[name])
            got.append(ctx.get(o))
            await ctx.tick()

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert got[stage + 1 :] == [wrap(python(e, row)[0], I64) for row in rows]


def test_a_nudged_shift_needs_no_adder_of_full_width():
    x = Signal(signed(64), name="x")
    nudged = (Cast(I64, Load("x", ())) >> 2) + Literal(1 << 30, I64) >> 31
    near = (-(2**63), -(2**32), -(2**32) - 1, -1, 0, 2**32 - 4, 2**32, 2**63 - 1)
    rows = [{"x": value} for value in near]
    got = evaluate(lambda m: Lowering(named({"x": x}))(nudged), {"x": x}, rows)
    assert got == [((value >> 2) + (1 << 30)) >> 31 for value in near]
    wrapping = Cast(I64, Load("x", ())) + Literal(1 << 30, I64) >> 31
    got = evaluate(lambda m: Lowering(named({"x": x}))(wrapping), {"x": x}, rows)
    assert got == [wrap(value + (1 << 30), I64) >> 31 for value in near]
