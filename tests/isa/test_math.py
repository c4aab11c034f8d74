"""Functions of floating point: native code, numpy and the text of a nest agree."""

from __future__ import annotations

import math

import numpy as np
import pytest

from weft.isa.interpret import interpret
from weft.isa.native import NativeCode
from weft.isa.nest import (
    F16,
    F32,
    F64,
    MATH,
    Binary,
    Buffer,
    Cast,
    DType,
    For,
    Index,
    Load,
    Math,
    Nest,
    Store,
    expr,
)
from weft.isa.nest_text import format_nest, parse_nest

COUNT = 37
"""Lanes and a rest."""


def nest_of(function: str, dtype: DType) -> Nest:
    i = (Index("i"),)
    value = Math(function, tuple(Load(name, i) for name in "ab"[: MATH[function]]))
    buffers = tuple(Buffer(name, dtype, (COUNT,)) for name in "abo")
    body = For("i", expr(0), expr(COUNT), Store("o", i, value), parallel=True)
    return Nest(f"nest_{function}", (), buffers, body)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_native_functions_are_those_of_numpy(dtype):
    kind = np.float32 if dtype == F32 else np.float64
    nests = [nest_of(function, dtype) for function in MATH]
    code = NativeCode(nests)
    generator = np.random.default_rng(1)
    a = generator.uniform(-3, 3, COUNT).astype(kind)
    b = generator.uniform(0.5, 3, COUNT).astype(kind)
    a[:4] = 0.5, 1.5, math.inf, math.nan
    for nest in nests:
        got, expected = np.zeros(COUNT, kind), np.zeros(COUNT, kind)
        code.run(nest.name, {}, {"a": a, "b": b, "o": got})
        interpret(nest, {}, {"a": a, "b": b, "o": expected})
        np.testing.assert_allclose(got, expected, rtol=4e-7, err_msg=nest.name)


@pytest.mark.parametrize("function", MATH)
def test_the_text_of_a_function_reads_back(function):
    nest = nest_of(function, F32)
    assert parse_nest(format_nest(nest)) == nest


def test_a_buffer_called_like_a_function_is_quoted():
    buffers = (Buffer("math.exp", F32, (1,)),)
    nest = Nest("n", (), buffers, Store("math.exp", (expr(0),), Load("math.exp", (expr(0),))))
    assert parse_nest(format_nest(nest)) == nest


def test_half_precision_is_computed_in_single():
    i = (Index("i"),)
    value = Cast(F16, Binary("mul", Cast(F32, Load("a", i)), Cast(F32, Load("a", i))))
    body = For("i", expr(0), expr(COUNT), Store("o", i, value), parallel=True)
    nest = Nest("square", (), (Buffer("a", F16, (COUNT,)), Buffer("o", F16, (COUNT,))), body)
    a = np.linspace(-300, 300, COUNT).astype(np.float16)
    got = np.zeros(COUNT, np.float16)
    NativeCode([nest]).run("square", {}, {"a": a, "o": got})
    with np.errstate(over="ignore"):
        assert np.array_equal(got, (a.astype(np.float32) ** 2).astype(np.float16))
