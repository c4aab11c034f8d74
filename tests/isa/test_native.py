"""Native code against the interpreter, bit for bit."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.isa.nests import assert_equal, elements, memory_for, nests
from weft.isa import native
from weft.isa.interpret import AccessError, interpret
from weft.isa.native import NativeCode
from weft.isa.nest import (
    F32,
    I4,
    I8,
    I16,
    I32,
    I64,
    U8,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Select,
    Store,
    Sum,
    expr,
    maximum,
    minimum,
)
from weft.isa.requantize import high_product, rounding_shift_right
from weft.isa.traverse import loops


def arrays_for(nest: Nest, seed: int) -> dict[str, np.ndarray]:
    return {b.name: memory_for(b, seed) for b in nest.buffers}


def assert_agrees(nest: Nest, params: dict[str, int], seed: int = 0, level: int = 0) -> None:
    ours, oracle = arrays_for(nest, seed), arrays_for(nest, seed)
    interpret(nest, params, oracle)
    NativeCode([nest], level=level).run(nest.name, params, ours)
    for b in nest.buffers:
        assert_equal(b, ours[b.name], elements(b, oracle[b.name]))


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_floats_become_integers_as_the_interpreter_has_it(bits: int, lanes: int) -> None:
    kind = DType("f", bits)
    types = [DType(k, n) for k in "iu" for n in (8, 16, 32)]
    edges = [
        0.0,
        -0.0,
        0.99,
        -0.99,
        1.5,
        -1.5,
        np.inf,
        -np.inf,
        np.nan,
        3e9,
        -3e9,
        5e9,
        1e30,
        300.7,
    ]
    for t in types:
        edges += [end + step for end in (t.min, t.max) for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        edges += [t.max - float(t.max >> 23), t.max + float(t.max >> 22)]
    edges += [0.0] * (-len(edges) % lanes)
    shape = (len(edges) // lanes, lanes)
    at = Index("i"), Index("j")
    with np.errstate(over="ignore"):
        x = np.array(edges).astype(native.numpy_dtype(kind)).reshape(shape)
    buffers = [Buffer("x", kind, shape), *(Buffer(str(t), t, shape) for t in types)]
    stores = [Store(str(t), at, Cast(t, Load("x", at))) for t in types]
    axes = [("i", shape[0]), ("j", lanes)]
    nest = Nest("c", (), tuple(buffers), loops(axes, Block(tuple(stores))))
    results = []
    for run in (NativeCode([nest]).run, lambda _, p, arrays: interpret(nest, p, arrays)):
        arrays = {b.name: np.zeros(shape, native.numpy_dtype(b.dtype)) for b in buffers}
        arrays["x"] = x.copy()
        run("c", {}, arrays)
        results.append(arrays)
    for t in types:
        assert np.array_equal(results[0][str(t)], results[1][str(t)]), t
    finite = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=1e300, neginf=-1e300)
    for t in types:
        exact = np.clip(np.trunc(finite), t.min, t.max)
        assert np.array_equal(results[0][str(t)].astype(np.float64), exact), t


EDGES = [0, 1, 2, 3, 5, 1 << 30, (1 << 30) - 1, (1 << 31) - 1, 3 << 29, 0x55555555, 77777]
EDGES = [*EDGES, *(-x for x in EDGES), -(1 << 31)]


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_roundings_in_lanes_are_those_of_integers_without_limit(lanes: int, literal: bool) -> None:
    values = [x for x in EDGES for _ in EDGES]
    factors = [abs(m) & 0x7FFFFFFF for _ in EDGES for m in EDGES]
    values += [0] * (-len(values) % lanes)
    factors += [0] * (-len(factors) % lanes)
    shape = (len(values) // lanes, lanes)
    at = Index("i"), Index("j")
    for amount in range(32):
        by, factor = (amount, 1330872963) if literal else (Load("n", at), Load("m", at))
        chosen = Binary("ne", Load("e", at) & 1, expr(0))
        stores = (
            Store("high", at, high_product(Load("x", at), factor)),
            Store("near", at, rounding_shift_right(Load("x", at), by)),
            Store("even", at, rounding_shift_right(Load("x", at), by, even=True)),
            Store("either", at, rounding_shift_right(Load("x", at), by, chosen)),
        )
        names = ("x", "m", "n", "e", "high", "near", "even", "either")
        nest = Nest(
            "r", (), tuple(Buffer(n, I32, shape) for n in names),
            loops([("i", shape[0]), ("j", lanes)], Block(stores)),
        )  # fmt: skip
        arrays = {n: np.zeros(shape, np.int32) for n in names}
        arrays["x"][...] = np.reshape(values, shape)
        arrays["m"][...] = 1330872963 if literal else np.reshape(factors, shape)
        arrays["n"][...] = amount
        arrays["e"][...] = np.arange(len(values)).reshape(shape) // 3
        NativeCode([nest]).run("r", {}, arrays)
        for x, m, e, high, near, even, either in zip(
            *(arrays[n].flat for n in ("x", "m", "e", *names[4:])), strict=True
        ):
            assert high == (int(x) * int(m) + (1 << 30)) >> 31
            half = (1 << amount) >> 1
            assert near == (abs(int(x)) + half >> amount) * (-1 if x < 0 else 1), (x, amount)
            assert even == round(Fraction(int(x), 1 << amount)), (x, amount)
            assert either == (even if e & 1 else near)


@pytest.mark.parametrize("dtype", [I8, U8, I16], ids=str)
def test_extrema_of_narrow_integers_are_taken_as_such(dtype: DType) -> None:
    i = Index("i")
    a, b, c = (Load(n, (i,)) for n in "abc")
    value = minimum(maximum(maximum(a, b), expr(7)), c)
    names = ("a", "b", "c", "out")
    nest = Nest(
        "e", (), tuple(Buffer(n, dtype, (64,)) for n in names),
        loops([("i", 64)], Store("out", (i,), value)),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    few = [dtype.min, dtype.max, 7, 8, 0]
    arrays = {n: rng.choice(few, 64).astype(native.numpy_dtype(dtype)) for n in names}
    expected = np.minimum(np.maximum(np.maximum(arrays["a"], arrays["b"]), 7), arrays["c"])
    code = NativeCode([nest])
    code.run("e", {}, arrays)
    assert np.array_equal(arrays["out"], expected)
    assert not re.search(r"\b[sz]ext <", code.text())


@settings(max_examples=100, deadline=None)
@given(nests(), st.integers(-5, 5), st.integers(0, 100), st.sampled_from((0, 2)))
def test_a_random_nest_gives_what_the_interpreter_gives(nest, n, seed, level):
    assert_agrees(nest, {"n": n}, seed, level)


X, Y, C = Index("x"), Index("y"), Index("c")


def lane_nest(value, extent, out=I32, **buffers) -> Nest:
    """``out[y, x] = value`` for y below 3, in parallel lanes x."""
    declared = [Buffer(name, dtype, shape) for name, (dtype, shape) in buffers.items()]
    store = Store("out", (Y, X), value)
    body = For("x", expr(0), expr(extent), store, parallel=True)
    body = For("y", expr(0), expr(3), body, parallel=True)
    return Nest("lanes", (), (*declared, Buffer("out", out, (3, extent))), body)


EXTENTS = (2, 3, 4, 7, 8, 16, 17, 32, 40, 64, 100)


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("terms", [1, 2, 3, 16, 17, 37])
def test_a_sum_of_narrow_products_over_lanes(extent: int, terms: int):
    product = Load("a", (Y, C)) * Load("w", (C, X))
    nest = lane_nest(
        Load("out", (Y, X)) + Sum((("c", terms),), product),
        extent, a=(I8, (3, terms)), w=(I8, (terms, extent)),
    )  # fmt: skip
    assert_agrees(nest, {}, terms)


@pytest.mark.parametrize(
    "dtypes", [(I16, I16), (U8, I8), (U8, U8), (I4, I8), (I32, I8), (F32, F32)]
)
def test_the_types_of_a_sum_of_products(dtypes):
    product = Load("a", (Y, C)) * Load("w", (C, X))
    out = F32 if F32 in dtypes else I32
    nest = lane_nest(
        Sum((("c", 6),), product), 16, out, a=(dtypes[0], (3, 6)), w=(dtypes[1], (6, 16))
    )
    if out == F32:
        ours, oracle = arrays_for(nest, 1), arrays_for(nest, 1)
        for arrays in (ours, oracle):
            for name in ("a", "w"):
                arrays[name] /= np.abs(arrays[name]).max()
        interpret(nest, {}, oracle)
        NativeCode([nest]).run("lanes", {}, ours)
        assert np.allclose(ours["out"], oracle["out"], rtol=0, atol=1e-6)
    else:
        assert_agrees(nest, {})


def test_the_products_that_overflow_a_pair_wrap():
    product = Load("a", (C,)) * Load("w", (C, X))
    nest = lane_nest(Sum((("c", 4),), product), 16, a=(I16, (4,)), w=(I16, (4, 16)))
    arrays = {
        "a": np.full(4, -(2**15), np.int16),
        "w": np.full((4, 16), -(2**15), np.int16),
        "out": np.zeros((3, 16), np.int32),
    }
    NativeCode([nest]).run("lanes", {}, arrays)
    assert (arrays["out"] == 0).all()  # 4 * 2**30 modulo 2**32


def test_a_padded_convolution():
    """A sum over several axes with a condition that guards its loads."""
    ky, kx = Index("ky"), Index("kx")
    row, column = Y + ky - 1, X + kx - 1
    inside = (expr(0) <= row) & (row < 3) & (expr(0) <= column) & (column < 5)
    value = Select(inside, Load("a", (row, column, C)), expr(-7))
    total = Sum((("ky", 3), ("kx", 3), ("c", 5)), value * Load("w", (Index("o"), ky, kx, C)))
    store = Store("out", (Y, X, Index("o")), total)
    body = For("o", expr(0), expr(12), store, parallel=True)
    body = For("x", expr(0), expr(5), body, parallel=True)
    body = For("y", expr(0), expr(3), body, parallel=True)
    for strides in (None, (1, 15 * 12, 5 * 12, 12)):
        w = Buffer("w", I8, (12, 3, 3, 5), strides)
        nest = Nest(
            "conv", (), (Buffer("a", I8, (3, 5, 5)), w, Buffer("out", I32, (3, 5, 12))), body
        )
        natural = memory_for(Buffer("w", I8, (12, 3, 3, 5)), 0)
        weights = natural
        if strides:
            weights = np.ascontiguousarray(natural.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
        a, out = memory_for(nest.buffers[0], 0), np.zeros((3, 5, 12), np.int32)
        NativeCode([nest]).run("conv", {}, {"a": a, "w": weights, "out": out})
        padded = np.full((5, 7, 5), -7, np.int64)
        padded[1:4, 1:6] = a
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        wanted = np.einsum("yxcij,oijc->yxo", windows, natural.astype(np.int64))
        assert (out == wanted).all()


def row_conv(value, out=I32, channels=19, lanes=16, w=I8):
    """``out[y, o]``: a sum over taps k of a choice between sums over rows of channels."""
    k, o = Index("k"), Index("o")
    weight = Load("w", (o, k, C))
    inner = lambda x: Sum((("c", channels),), x * weight)  # noqa: E731
    total = Sum((("k", 3),), value(inner, k, o))
    store = Store("out", (Y, o), total)
    body = For("o", expr(0), expr(lanes), store, parallel=True)
    buffers = (
        Buffer("a", I8, (4, channels)), Buffer("w", w, (lanes, 3, channels)),
        Buffer("out", out, (3, lanes)),
    )  # fmt: skip
    return Nest("rows", (), buffers, For("y", expr(0), expr(3), body, parallel=True))


@pytest.mark.parametrize("channels", [8, 9, 16, 23, 32, 37, 100, 160])
@pytest.mark.parametrize("lanes", [2, 4, 7, 16, 40])
def test_a_sum_over_rows_of_memory(channels: int, lanes: int):
    a = lambda k: Load("a", (Y + k - 1, C))  # noqa: E731
    inside = lambda k: (expr(0) <= Y + k - 1) & (Y + k - 1 < 4)  # noqa: E731
    padded = row_conv(
        lambda inner, k, o: Select(inside(k), inner(a(k)), inner(expr(-7))),
        channels=channels, lanes=lanes,
    )  # fmt: skip
    assert_agrees(padded, {}, channels)
    plain = row_conv(lambda inner, k, o: inner(Load("a", (Y, C))), channels=channels, lanes=lanes)
    assert_agrees(plain, {}, lanes)


def test_a_sum_over_rows_of_other_kinds():
    wide = Load("a", (Y, C)) * 1000
    assert_agrees(row_conv(lambda inner, k, o: inner(wide)), {})
    assert_agrees(row_conv(lambda inner, k, o: inner(Load("a", (Y, C))), w=I32), {})
    assert_agrees(row_conv(lambda inner, k, o: inner(Load("a", (Y, C))), w=I64, out=I64), {})
    by_lane = lambda inner, k, o: Select(o % 2, inner(Load("a", (Y, C))), inner(expr(3)))  # noqa: E731
    assert_agrees(row_conv(by_lane), {})
    mixed = lambda inner, k, o: Select(k < 1, inner(Load("a", (Y, C))), expr(5))  # noqa: E731
    assert_agrees(row_conv(mixed), {})
    longer = lambda inner, k, o: Select(  # noqa: E731
        k < 1, inner(Load("a", (Y, C))), Sum((("c", 3),), Cast(I64, Load("a", (Y, C))))
    )
    assert_agrees(row_conv(longer, out=I64), {})


def test_a_sum_over_rows_of_floats():
    a, w = np.float32(np.random.default_rng(0).normal(size=(2, 40, 30)))
    buffers = (Buffer("a", F32, (30,)), Buffer("w", F32, (40, 30)), Buffer("out", F32, (40,)))
    total = Sum((("c", 30),), Load("a", (C,)) * Load("w", (X, C)))
    body = For("x", expr(0), expr(40), Store("out", (X,), total), parallel=True)
    out = np.zeros(40, np.float32)
    NativeCode([Nest("f", (), buffers, body)]).run("f", {}, {"a": a[0].copy(), "w": w, "out": out})
    assert np.allclose(out, w.astype(np.float64) @ a[0], rtol=0, atol=1e-5)


def test_a_load_that_only_some_lanes_make_stays_guarded():
    value = Select(X < 4, Load("a", (X,)), Const(9))
    assert_agrees(lane_nest(value, 16, a=(I32, (4,))), {})


def test_a_condition_over_loads_that_are_made_anyway():
    a = Load("a", (X,))
    assert_agrees(lane_nest(Select(a < 0, 0 - a, a + 1), 16, a=(I32, (16,))), {})


@pytest.mark.parametrize("extent", [2, 6, 16, 18, 33])
def test_nibbles_side_by_side(extent: int):
    value = Load("a", (Y, X)) + 1
    assert_agrees(lane_nest(value, extent, I4, a=(I4, (3, extent))), {})
    assert_agrees(lane_nest(value, extent, I8, a=(DType("u", 4), (3, extent))), {})
    odd = Load("a", (Y, X + 1))
    assert_agrees(lane_nest(odd, extent, I4, a=(I4, (3, extent + 1))), {})


def test_names_that_depend_on_the_lane():
    buffers = (Buffer("a", I32, (64,)), Buffer("out", I32, (3, 16)))
    for value in (X * 2 + 1, X + Y, X % 5, Cast(I64, Load("a", (X,))) % 64):
        body = Let("k", value, Store("out", (Y, X), Load("a", (Index("k"),)) + Index("k")))
        body = For("x", expr(0), expr(16), body, parallel=True)
        body = For("y", expr(0), expr(3), body)
        assert_agrees(Nest("lanes", (), buffers, body), {})


def test_weird_names_are_fine():
    buffers = (Buffer("a/ü:0", I32, (4,)), Buffer('o"', I32, (4,)))
    body = For("x y", expr(0), expr(4), Store('o"', (Index("x y"),), Load("a/ü:0", (expr(1),))))
    assert_agrees(Nest('über\\"', (), buffers, body), {})


# --- checked indices -----------------------------------------------------------------------------


def checked_run(body, n: int, shape=(8,), checked=("a", "out")):
    buffers = (Buffer("a", I32, shape), Buffer("out", I32, (8, 16)))
    nest = Nest("checked", ("n",), buffers, body)
    arrays = {
        "a": np.arange(8, dtype=np.int32) if len(shape) == 1 else np.ones(shape, np.int32),
        "out": np.zeros((8, 16), np.int32),
    }
    NativeCode([nest], checked).run("checked", {"n": n}, arrays)
    return arrays["out"]


def lanes16(value, row=None):
    row = expr(0) if row is None else row
    return For("x", expr(0), expr(16), Store("out", (row, X), value), parallel=True)


@pytest.mark.parametrize("n", [-(2**63), -1, 8, 2**62])
def test_a_checked_index_out_of_range_ends_the_nest(n: int):
    with pytest.raises(AccessError) as caught:
        checked_run(lanes16(Load("a", (Index("n"),))), n)
    assert caught.value.buffer == "a"
    with pytest.raises(AccessError) as caught:
        checked_run(lanes16(expr(1), Index("n")), n)
    assert caught.value.buffer == "out"


def test_an_index_that_is_not_accessed_is_not_checked():
    load = Load("a", (Index("n") + 100,))
    assert (checked_run(lanes16(Select(Index("n") < 0, load, Const(3))), 5)[0] == 3).all()
    assert not checked_run(If(Index("n") < 0, lanes16(load)), 5).any()
    assert not checked_run(For("z", expr(0), Index("n"), lanes16(load)), 0).any()
    assert not checked_run(Let("z", Index("n") + 100, lanes16(expr(0))), 5).any()


def test_what_was_stored_before_the_check_stays():
    buffers = (Buffer("a", I32, (8,)), Buffer("out", I32, (8, 16)))
    body = For("z", expr(5), expr(12), Store("out", (Index("z"), expr(0)), expr(1)))
    arrays = {"a": np.zeros(8, np.int32), "out": np.zeros((8, 16), np.int32)}
    with pytest.raises(AccessError):
        NativeCode([Nest("t", (), buffers, body)], ["out"]).run("t", {}, arrays)
    assert arrays["out"][:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("shape", [(8,), (0,)])
def test_the_lanes_of_a_checked_index_are_checked_at_both_ends(shape):
    checked = lambda value, n: checked_run(lanes16(value), n, shape)  # noqa: E731
    row = Binary("div", X, expr(2))
    assert checked(Load("a", (row + Index("n"),)), 0)[0].tolist() == [i // 2 for i in range(16)]
    for n in (-1, 1):
        with pytest.raises(AccessError):
            checked(Load("a", (row + Index("n"),)), n)
        with pytest.raises(AccessError):
            checked(Load("a", (X - 8 * Index("n"),)), n)


# --- the interface -------------------------------------------------------------------------------

DOUBLE = Nest(
    "double", ("n",), (Buffer("a", I32, (0,)), Buffer("out", I32, (0,))),
    For("x", expr(0), Index("n"), Store("out", (X,), Load("a", (X,)) * 2), parallel=True),
)  # fmt: skip


def test_a_prepared_call_sees_what_its_arrays_hold_then():
    a, out = np.zeros(100, np.int32), np.zeros(100, np.int32)
    call = NativeCode([DOUBLE]).prepare("double", {"a": a, "out": out})
    for k in range(3):
        a[:] = k
        call({"n": 99})
        assert (out[:99] == 2 * k).all()
        assert out[99] == 0


def test_a_sequence_stops_at_the_first_row_that_fails():
    code = NativeCode([DOUBLE], ["a"])
    a, out = np.arange(10, dtype=np.int32), np.zeros(10, np.int32)
    call = code.prepare("double", {"a": a, "out": out})
    params = np.array([[3], [10], [11], [1]], np.int64)
    rows = np.array(
        [[code.address("double"), p.ctypes.data, call.buffers.ctypes.data] for p in params]
    )
    assert code.sequence(rows[:2]) is None
    assert (out == 2 * a).all()
    assert code.sequence(rows) == (2, 0)


def test_arrays_that_do_not_fit_are_refused():
    code = NativeCode([DOUBLE])
    good = np.zeros(8, np.int32)
    with pytest.raises(ValueError, match="strides"):
        code.run("double", {"n": 1}, {"a": np.zeros(16, np.int32)[::2], "out": good})
    odd = np.zeros(33, np.uint8)[1:].view(np.int32)
    with pytest.raises(ValueError, match="aligned"):
        code.run("double", {"n": 1}, {"a": odd, "out": good})
    with pytest.raises(ValueError, match="does not fit"):
        code.run("double", {"n": 1}, {"a": np.zeros(8, np.float32), "out": good})


def test_two_nests_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        NativeCode([DOUBLE, DOUBLE])


def test_a_compiled_object_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    NativeCode([DOUBLE], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(NativeCode, "_compiled", None)
    a, out = np.arange(10, dtype=np.int32), np.zeros(10, np.int32)
    NativeCode([DOUBLE], cache=tmp_path).run("double", {"n": 10}, {"a": a, "out": out})
    assert (out == 2 * a).all()
    with pytest.raises(TypeError):
        NativeCode([DOUBLE], ["a"], cache=tmp_path)  # other checks are other code


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:40] + b"x" + b[41:], lambda b: b""]
)
def test_a_damaged_object_is_made_again(damage, tmp_path: Path):
    NativeCode([DOUBLE], cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    a, out = np.arange(10, dtype=np.int32), np.zeros(10, np.int32)
    NativeCode([DOUBLE], cache=tmp_path).run("double", {"n": 10}, {"a": a, "out": out})
    assert (out == 2 * a).all()
    assert kept.read_bytes() == whole


def test_importing_the_module_does_not_load_llvm():
    code = "import sys, weft.isa.native; sys.exit('llvmlite' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("pairs", [True, False])
def test_both_forms_of_a_sum_of_products_agree(pairs: bool, monkeypatch: pytest.MonkeyPatch):
    features = "+avx2" if pairs else ""
    here = native.this_processor()
    if pairs and "+avx2" not in here.features.split(","):
        pytest.skip("this processor has no AVX2")
    other = native.Processor(here.triple, "generic", features)
    monkeypatch.setattr(native, "this_processor", lambda: other)
    product = Load("a", (Y, C)) * Load("w", (C, X))
    nest = lane_nest(Sum((("c", 5),), product), 16, a=(I8, (3, 5)), w=(I8, (5, 16)))
    assert ("pmadd" in NativeCode([nest]).text()) == pairs
    assert_agrees(nest, {})


FAR_APART = """
import mmap, random, sys
from pathlib import Path
import numpy as np
from weft.isa.native import NativeCode
from weft.isa.nest import F32, Block, Buffer, Const, For, Index, Load, Nest, Store, expr

X = Index("x")
# Code of several pages, and constants in a section of less than one.
rows = [
    For("x", expr(0), expr(8), Store("b", (expr(i), X), Load("a", (X,)) * Const(i + 0.5, F32)))
    for i in range(40)
]
nest = Nest("rows", (), (Buffer("a", F32, (8,)), Buffer("b", F32, (40, 8))), Block(tuple(rows)))
a, expected = np.arange(8, dtype=np.float32), np.arange(40, dtype=np.float32)[:, None]
expected = a * (expected + np.float32(0.5))
random.seed(1)
keep = []
for _ in range(60):
    pages = [mmap.mmap(-1, 4096 * random.randint(1, 7)) for _ in range(6)]
    far = [mmap.mmap(-1, 1 << 28) for _ in range(12)]  # 3 GiB that are never touched
    for page in random.sample(pages, 3):
        page.close()
    code, b = NativeCode([nest], cache=Path(sys.argv[1])), np.zeros((40, 8), np.float32)
    code.run("rows", {}, {"a": a, "b": b})
    assert (b == expected).all()
    keep += [pages, far, code]
"""


def test_code_reaches_its_constants_in_a_process_whose_memory_is_in_pieces(tmp_path: Path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", FAR_APART, str(tmp_path)]
    assert subprocess.run(command, cwd=root, check=False).returncode == 0
