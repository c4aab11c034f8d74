"""The numpy interpreter against one that knows nothing but Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.isa.nests import Scalars, assert_equal, elements, memory_for, nests
from weft.isa.interpret import AccessError, interpret
from weft.isa.nest import (
    I4,
    I8,
    I32,
    I64,
    Binary,
    Buffer,
    Cast,
    Const,
    For,
    If,
    Index,
    Load,
    Nest,
    Select,
    Store,
    Sum,
    expr,
)


@settings(max_examples=150, deadline=None)
@given(nests(), st.integers(-5, 5), st.integers(0, 100))
def test_a_random_nest_does_what_its_definition_says(nest: Nest, n: int, seed: int):
    arrays = {b.name: memory_for(b, seed) for b in nest.buffers}
    wanted = {b.name: elements(b, arrays[b.name]) for b in nest.buffers}
    with np.errstate(all="ignore"):
        Scalars(nest, {"n": n}, wanted)
    interpret(nest, {"n": n}, arrays)
    for b in nest.buffers:
        assert_equal(b, arrays[b.name], wanted[b.name])


def copy_nest(index, source=8, target=8, dtype=I8):
    """``out[x] = a[index]`` for x below 8."""
    buffers = (Buffer("a", dtype, (source,)), Buffer("out", dtype, (target,)))
    body = Store("out", (Index("x"),), Load("a", (expr(index),)))
    return Nest("copy", (), buffers, For("x", expr(0), expr(8), body, parallel=True))


def run_copy(nest):
    arrays = {b.name: np.arange(b.shape[0], dtype=np.int8) for b in nest.buffers}
    interpret(nest, {}, arrays)
    return arrays["out"]


@pytest.mark.parametrize(
    ("nest", "buffer", "index"),
    [
        (copy_nest(Index("x") + 1), "a", 8),
        (copy_nest(Index("x") - 1), "a", -1),
        (copy_nest(0, target=7), "out", 7),
    ],
)
def test_an_index_out_of_range_is_reported(nest, buffer, index):
    with pytest.raises(AccessError) as caught:
        run_copy(nest)
    assert (caught.value.buffer, caught.value.index) == (buffer, index)


def test_the_branch_that_a_select_does_not_take_is_not_read():
    index = Index("x") + 100
    buffers = (Buffer("a", I8, (8,)), Buffer("out", I8, (8,)))
    value = Select(Index("x") < 4, Load("a", (Index("x"),)), Load("a", (Index("x") - 4,)))
    value = Select(Index("x") < 100, value, Load("a", (index,)))
    body = Store("out", (Index("x"),), value)
    assert list(
        run_copy(Nest("n", (), buffers, For("x", expr(0), expr(8), body, parallel=True)))
    ) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_store_under_a_condition_leaves_the_rest():
    nest = copy_nest(7 - Index("x"))
    loop = nest.body
    body = If(Index("x") % 2, loop.body)
    nest = Nest("n", (), nest.buffers, For("x", expr(0), expr(8), body, parallel=True))
    assert list(run_copy(nest)) == [0, 6, 2, 4, 4, 2, 6, 0]


def test_nibbles_are_packed_from_the_low_bits_up():
    nest = copy_nest(7 - Index("x"), dtype=I4)
    arrays = {"a": np.array([0x10, 0x32, 0x54, 0x76], np.uint8), "out": np.zeros(4, np.uint8)}
    interpret(nest, {}, arrays)
    assert arrays["out"].tobytes() == bytes([0x67, 0x45, 0x23, 0x01])


def test_flat_memory_is_seen_through_strides():
    buffers = (Buffer("a", I32, (0, 2), (8, 4)), Buffer("out", I32, (4,)))
    body = Store("out", (Index("x"),), Load("a", (Index("x"), expr(1))))
    nest = Nest("n", (), buffers, For("x", expr(0), Index("n"), body, parallel=True))
    nest = Nest("n", ("n",), buffers, nest.body)
    memory = np.arange(8, dtype=np.int32).view(np.uint8)
    out = np.zeros(4, np.int32)
    interpret(nest, {"n": 4}, {"a": memory, "out": out})
    assert out.tolist() == [1, 3, 5, 7]
    with pytest.raises(AccessError):
        interpret(nest, {"n": 5}, {"a": memory, "out": np.zeros(4, np.int32)})


def test_a_sum_of_products_wraps_at_32_bits():
    buffers = (Buffer("a", I32, (3,)), Buffer("out", I64, ()))
    big = Sum((("c", 3),), Load("a", (Index("c"),)) * Load("a", (Index("c"),)))
    out = np.zeros((), np.int64)
    a = np.array([2**31 - 1, 2**30, -5], np.int32)
    interpret(Nest("n", (), buffers, Store("out", (), big)), {}, {"a": a, "out": out})
    assert int(out) == ((1 + 0 + 25) + 2**31) % 2**32 - 2**31


def test_a_long_loop_goes_in_pieces(monkeypatch):
    monkeypatch.setattr("weft.isa.interpret.VECTOR_LIMIT", 3)
    assert list(run_copy(copy_nest(7 - Index("x")))) == [7, 6, 5, 4, 3, 2, 1, 0]


def test_a_shift_amount_out_of_range_is_refused():
    body = Store("out", (expr(0),), Binary("shl", Const(1), Const(32)))
    with pytest.raises(ValueError, match="shift"):
        interpret(
            Nest("n", (), (Buffer("out", I32, (1,)),), body), {}, {"out": np.zeros(1, np.int32)}
        )


def test_an_array_that_does_not_fit_is_refused():
    nest = copy_nest(0)
    with pytest.raises(ValueError, match="does not fit"):
        interpret(nest, {}, {"a": np.zeros(9, np.int8), "out": np.zeros(8, np.int8)})


def test_casts_keep_the_low_bits():
    body = Store("out", (expr(0),), Cast(I4, expr(0x7F8)))
    out = np.zeros(1, np.int32)
    interpret(Nest("n", (), (Buffer("out", I32, (1,)),), body), {}, {"out": out})
    assert out[0] == -8
