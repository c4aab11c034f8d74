"""Pictures of few channels: loops in parts along borders, channels put between one another."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weft.compiler.borders import parted
from weft.compiler.flatten import flattened
from weft.isa.native import NativeCode
from weft.isa.nest import (
    F32,
    I8,
    I16,
    Buffer,
    Const,
    DType,
    Expr,
    Index,
    Load,
    Nest,
    Select,
    Store,
    expr,
)
from weft.isa.storage import numpy_dtype
from weft.isa.traverse import loops, under_loops

TYPES = st.sampled_from([F32, I8, I16])
y, x, c = map(Index, "yxc")


def all_of(*conditions: Expr) -> Expr:
    first, *rest = conditions
    for condition in rest:
        first = first & condition
    return first


def bordered(
    dtype: DType, channels: int, rows: int, columns: int, before: int, after: int, fill: int
) -> Nest:
    """``out[y, x, c]``, a picture of which channels lie apart, with a border."""
    high, wide = rows + before + after, columns + before + after
    inside = all_of(
        expr(0) <= y - before, y - before < rows, expr(0) <= x - before, x - before < columns
    )
    value = Select(inside, Load("a", (c, y - before, x - before)), Const(fill, dtype))
    buffers = (
        Buffer("a", dtype, (channels, rows, columns)),
        Buffer("out", dtype, (high, wide, channels)),
    )
    axes = [("y", high), ("x", wide), ("c", channels)]
    return Nest("f", (), buffers, loops(axes, Store("out", (y, x, c), value)))


@settings(max_examples=60, deadline=None)
@given(
    TYPES, st.integers(1, 9), st.integers(1, 4), st.integers(1, 70), st.integers(0, 4),
    st.integers(0, 4),
)  # fmt: skip
@example(I8, 3, 2, 64, 3, 2)
@example(F32, 4, 1, 17, 1, 0)
def test_pictures_get_their_borders(
    dtype: DType, channels: int, rows: int, columns: int, before: int, after: int
) -> None:
    rng = np.random.default_rng(columns)
    a = rng.integers(-99, 99, (channels, rows, columns)).astype(numpy_dtype(dtype))
    made = flattened(bordered(dtype, channels, rows, columns, before, after, -7))
    around = [(before, after)] * 2
    expected = np.pad(a.transpose(1, 2, 0), [*around, (0, 0)], constant_values=-7)
    memory = np.full(expected.size + 128, 77, expected.dtype)
    out = memory[64:-64]
    NativeCode([made], tiled=True).run("f", {}, {"a": a.reshape(-1), "out": out})
    assert np.array_equal(out.reshape(expected.shape), expected)
    assert (memory[:64] == 77).all()
    assert (memory[-64:] == 77).all()


@pytest.mark.parametrize(
    ("channels", "columns", "extents"),
    [(3, 40, [2, 40, 3]), (16, 40, [45]), (3, 9, [14])],
    ids=["few channels", "many channels", "few columns"],
)
def test_only_few_channels_of_long_rows_make_parts(
    channels: int, columns: int, extents: list[int]
) -> None:
    nest = bordered(F32, channels, 5, columns, 2, 3, 0)
    shape = nest.buffer("out").shape
    place = (y * (shape[1] * channels) + x * channels + c,)
    around, store = under_loops(nest.body)
    assert isinstance(store, Store)
    flat = Store("out", place, store.value)
    buffers = {"a": nest.buffer("a"), "out": Buffer("out", F32, (int(np.prod(shape)),))}
    parts = parted(loops(around, flat), buffers)
    assert [dict(under_loops(part)[0])["x"] for part in parts] == extents


@settings(max_examples=40, deadline=None)
@given(TYPES, st.integers(2, 5), st.integers(2, 70))
@example(F32, 3, 33)
@example(I8, 4, 31)
def test_channels_are_put_between_one_another(dtype: DType, channels: int, pixels: int) -> None:
    rng = np.random.default_rng(pixels)
    a = rng.integers(-50, 50, (channels, pixels)).astype(numpy_dtype(dtype))
    store = Store("out", (x * channels + c,), Load("a", (c, x)))
    body = loops([("c", channels), ("x", pixels)], store)
    buffers = Buffer("a", dtype, a.shape), Buffer("out", dtype, (a.size,))
    memory = np.full(a.size + 128, 77, a.dtype)
    code = NativeCode([Nest("f", (), buffers, body)], tiled=True)
    code.run("f", {}, {"a": a, "out": memory[64:-64]})
    assert np.array_equal(memory[64:-64].reshape(pixels, channels), a.T)
    assert (memory[:64] == 77).all()
    assert (memory[-64:] == 77).all()
    if channels <= 4 and pixels >= 16:  # one store of all of them
        assert re.search(rf"store <{16 * channels} x", code.text())
