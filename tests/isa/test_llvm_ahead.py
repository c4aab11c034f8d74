"""Rows that are fetched while the one before them is computed."""

from __future__ import annotations

import numpy as np
import pytest

from weft.isa.native import NativeCode
from weft.isa.nest import F32, Binary, Block, Buffer, Const, For, Index, Load, Nest, Store, Sum

ROWS = 5


def code(columns: int, apart: int) -> NativeCode:
    """``out = x + 1`` in rows that begin ``apart`` elements from one another; then it twice."""
    buffers = Buffer("x", F32, (ROWS * apart,)), Buffer("out", F32, (ROWS * apart,))
    place = (Binary("add", Binary("mul", Index("r"), Const(apart)), Index("c")),)

    def along(value: Load, other: Const | Load) -> For:
        stored = Store("out", place, Binary("add", value, other))
        return For("c", Const(0), Const(columns), stored, True)

    more, twice = along(Load("x", place), Const(1.0, F32)), along(*(Load("out", place),) * 2)
    body = For("r", Const(0), Const(ROWS), Block((more, twice)))
    return NativeCode([Nest("f", (), buffers, body)], tiled=True)


@pytest.mark.parametrize(
    ("columns", "apart", "asked"), [(1024, 1024, 2), (1000, 1000, 2), (64, 64, 0), (1024, 1040, 0)]
)
def test_rows_of_about_a_page_are_asked_for_once_by_the_one_before(
    columns: int, apart: int, asked: int
) -> None:
    made = code(columns, apart)
    assert made.text().count("call void @llvm.prefetch") == asked
    x = np.random.default_rng(0).normal(size=(ROWS, apart)).astype(np.float32)
    out = np.zeros_like(x)
    made.run("f", {}, {"x": x.reshape(-1), "out": out.reshape(-1)})
    assert np.array_equal(out[:, :columns], (x[:, :columns] + 1) * 2)


@pytest.mark.parametrize(("rows", "columns", "asked"), [(64, 1024, 1), (63, 1024, 0), (64, 512, 0)])
def test_packing_asks_some_rows_ahead_where_each_is_a_page(
    rows: int, columns: int, asked: int
) -> None:
    buffers = Buffer("w", F32, (rows, columns)), Buffer("out", F32, (4, rows, 16))
    r, k, c = map(Index, "rkc")
    column = Binary("add", Binary("mul", k, Const(16)), c)
    inner = For("c", Const(0), Const(16), Store("out", (k, r, c), Load("w", (r, column))), True)
    body = For("r", Const(0), Const(rows), For("k", Const(0), Const(4), inner))
    made = NativeCode([Nest("f", (), buffers, body)], tiled=True)
    assert made.text().count("call void @llvm.prefetch") == asked
    w = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    out = np.zeros((4, rows, 16), np.float32)
    made.run("f", {}, {"w": w, "out": out})
    assert np.array_equal(out, w[:, :64].reshape(rows, 4, 16).transpose(1, 0, 2))


def test_what_lies_where_a_sum_has_come_to_is_not_asked_for() -> None:
    buffers = Buffer("w", F32, (64, 3, 512)), Buffer("out", F32, (64, 16))
    r, c = Index("r"), Index("c")
    total = Sum((("k", 3),), Load("w", (r, Index("k"), c)))
    inner = For("c", Const(0), Const(16), Store("out", (r, c), total), True)
    body = For("r", Const(0), Const(64), inner)
    made = NativeCode([Nest("f", (), buffers, body)], tiled=True)
    w = np.random.default_rng(0).integers(-9, 9, (64, 3, 512)).astype(np.float32)
    out = np.zeros((64, 16), np.float32)
    made.run("f", {}, {"w": w, "out": out})
    assert np.array_equal(out, w[:, :, :16].sum(axis=1))
