"""Reductions along memory, compared with numpy's in wider types."""

from __future__ import annotations

import numpy as np
import pytest

from tests.isa.processors import SKYLAKE, without_avx512
from weft.isa.native import NativeCode, Processor, this_processor
from weft.isa.nest import (
    F32,
    I32,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    For,
    Index,
    Load,
    Nest,
    Select,
    Store,
    Sum,
)

PROCESSORS = [this_processor(), without_avx512()]
EXTENTS = [1, 7, 8, 9, 15, 16, 17, 24, 31, 33, 63, 64, 65, 80, 127, 200]
ROWS = 3
r, c = Index("r"), Index("c")


def values(dtype: DType, extent: int) -> np.ndarray:
    rng = np.random.default_rng(extent)
    if dtype == F32:
        return rng.normal(size=(ROWS, extent)).astype(np.float32)
    return rng.integers(-(1 << 31), 1 << 31, (ROWS, extent)).astype(np.int32)


def run(body: Block | For, arrays: dict[str, np.ndarray], processor: Processor) -> NativeCode:
    kinds = {np.dtype(np.float32): F32, np.dtype(np.int32): I32}
    buffers = tuple(Buffer(n, kinds[a.dtype], a.shape) for n, a in arrays.items())
    nest = Nest("f", (), buffers, For("r", Const(0), Const(ROWS), body))
    code = NativeCode([nest], tiled=True, processor=processor)
    code.run("f", {}, arrays)
    return code


@pytest.mark.parametrize("processor", PROCESSORS, ids=["own", "256"])
@pytest.mark.parametrize("dtype", [F32, I32], ids=str)
@pytest.mark.parametrize("extent", EXTENTS)
def test_a_sum_and_an_extremum_of_every_length(
    extent: int, dtype: DType, processor: Processor
) -> None:
    x = values(dtype, extent)
    total, most = np.zeros(ROWS, x.dtype), x[:, 0].copy()
    element = Load("x", (r, c))
    kept = Load("most", (r,))
    body = Block((
        Store("total", (r,), Sum((("c", extent),), element)),
        For("c", Const(0), Const(extent), Store(
            "most", (r,), Select(Binary("lt", kept, element), element, kept))),
    ))  # fmt: skip
    run(body, {"x": x, "total": total, "most": most}, processor)
    assert np.array_equal(most, x.max(axis=1))
    if dtype == F32:
        exact = x.astype(np.float64)
        bound = extent * 2.0**-24 * np.abs(exact).sum(axis=1)
        assert (np.abs(total - exact.sum(axis=1)) <= bound).all()
    else:
        assert np.array_equal(total, x.astype(np.int64).sum(axis=1).astype(np.int32))


def stored_and_summed(dtype: DType, extent: int, *, other: bool = False) -> Block:
    """``y = x + x`` in lanes, and ``total`` the sum of ``y``, or of its row's neighbour."""
    twice = Binary("add", *(Load("x", (r, c)),) * 2)
    row = Binary("mod", Binary("add", r, Const(1)), Const(ROWS)) if other else r
    summed = Sum((("k", extent),), Load("y", (row, Index("k"))))
    return Block((
        For("c", Const(0), Const(extent), Store("y", (r, c), twice), True),
        Store("total", (r,), Binary("sub", summed, Cast(dtype, Const(1)))),
    ))  # fmt: skip


@pytest.mark.parametrize("processor", PROCESSORS, ids=["own", "256"])
@pytest.mark.parametrize("dtype", [F32, I32], ids=str)
@pytest.mark.parametrize("extent", [*EXTENTS, 1024, 1031])
def test_a_sum_of_what_a_loop_has_just_stored(
    extent: int, dtype: DType, processor: Processor
) -> None:
    x = values(dtype, extent)
    y, total = np.zeros_like(x), np.zeros(ROWS, x.dtype)
    run(stored_and_summed(dtype, extent), {"x": x, "y": y, "total": total}, processor)
    assert np.array_equal(y, x + x)
    if dtype == F32:
        exact = y.astype(np.float64)
        bound = (extent + 1) * 2.0**-24 * (1 + np.abs(exact).sum(axis=1))
        assert (np.abs(total - (exact.sum(axis=1) - 1)) <= bound).all()
    else:
        assert np.array_equal(total, (y.astype(np.int64).sum(axis=1) - 1).astype(np.int32))


@pytest.mark.parametrize(("other", "loads"), [(False, 0), (True, 1)])
def test_only_a_sum_of_the_same_elements_is_taken_along(other: bool, loads: int) -> None:
    """Elsewhere what was stored is loaded again, in the order of the statements."""
    extent = 256
    x = values(I32, extent)
    y, total = np.zeros_like(x), np.zeros(ROWS, np.int32)
    body = stored_and_summed(I32, extent, other=other)
    code = run(body, {"x": x, "y": y, "total": total}, this_processor())
    before = np.zeros_like(x)
    expected = np.zeros(ROWS, np.int64)
    for row in range(ROWS):
        before[row] = 2 * x[row]
        expected[row] = before[(row + 1) % ROWS if other else row].astype(np.int64).sum() - 1
    assert np.array_equal(total, expected.astype(np.int32))
    loops = code.text().partition("f/body")[2].count("phi i64 [ 0")
    assert loops == 2 + loads  # the rows', that in lanes, and another one for the sum


def test_vectors_are_as_wide_as_registers_or_the_row() -> None:
    def text(extent: int) -> str:
        buffers = Buffer("x", F32, (ROWS, extent)), Buffer("total", F32, (ROWS,))
        body = Store("total", (r,), Sum((("c", extent),), Load("x", (r, c))))
        nest = Nest("f", (), buffers, For("r", Const(0), Const(ROWS), body))
        return NativeCode([nest], tiled=True, processor=SKYLAKE).text()

    assert "load <16 x float>" in text(64)
    assert "load <8 x float>" in text(15)
    assert "load <" not in text(7)
