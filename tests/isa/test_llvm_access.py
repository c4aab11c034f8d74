"""Results that no cache would hold are written past the caches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.isa.processors import SKYLAKE, without_avx512
from weft.isa.llvm_access import STREAMED
from weft.isa.native import NativeCode, Processor, this_processor
from weft.isa.nest import (
    F32,
    I8,
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
    Stmt,
    Store,
)
from weft.isa.storage import LINE

LARGE = STREAMED // 4
HINT = "!nontemporal"
i = Index("i")


def add(count: int, dtype: DType = I32, target: str = "out") -> For:
    """``out = x + y``."""
    total = Binary("add", Load("x", (i,)), Load("y", (i,)))
    return For("i", Const(0), Const(count), Store(target, (i,), Cast(dtype, total)), True)


def nest(count: int, body: Stmt, dtype: DType = I32) -> Nest:
    inputs = (Buffer(n, I32, (count,)) for n in "xy")
    return Nest("f", (), (*inputs, Buffer("out", dtype, (count,))), body)


def text(made: Nest, processor: Processor = SKYLAKE, checked: tuple[str, ...] = ()) -> str:
    return NativeCode([made], checked, 0, None, True, processor).text()


@pytest.mark.parametrize("count", [LARGE, LARGE + 1, LARGE + 27])
@pytest.mark.parametrize("begins", [0, 4, 32, 60])
def test_every_element_is_written_wherever_the_buffer_begins(count: int, begins: int) -> None:
    rng = np.random.default_rng(count)
    x, y = (rng.integers(-(1 << 31), 1 << 31, count).astype(np.int32) for _ in "xy")
    memory = np.full(4 * count + 3 * LINE, 0x55, np.uint8)
    first = -memory.ctypes.data % LINE + begins
    out = memory[first : first + 4 * count].view(np.int32)
    code = NativeCode([nest(count, add(count))], tiled=True)
    code.run("f", {}, {"x": x, "y": y, "out": out})
    assert np.array_equal(out, (x.astype(np.int64) + y).astype(np.int32))
    assert (memory[:first] == 0x55).all()
    assert (memory[first + 4 * count :] == 0x55).all()


def test_large_results_are_streamed_and_what_is_read_for_them_is_fetched_ahead() -> None:
    made = text(nest(LARGE, add(LARGE)))
    assert made.count(HINT) == 1
    assert made.count("call void @llvm.x86.sse.sfence") == 1
    assert made.count("call void @llvm.prefetch") == 2
    assert "vmovnt" in NativeCode([nest(LARGE, add(LARGE))], (), 0, None, True, SKYLAKE).assembly()


def again(count: int) -> Stmt:
    """The result, and then a change of it."""
    more = Store("out", (i,), Binary("mul", Load("out", (i,)), Const(3, I32)))
    return Block((add(count), For("i", Const(0), Const(count), more, True)))


@pytest.mark.parametrize(
    ("made", "checked", "processor"),
    [
        (nest(LARGE - 1, add(LARGE - 1)), (), SKYLAKE),
        (nest(LARGE, again(LARGE)), (), SKYLAKE),
        (nest(LARGE, Block((add(LARGE), add(LARGE)))), (), SKYLAKE),
        (nest(LARGE, add(LARGE)), ("out",), SKYLAKE),
        (nest(4 * LARGE, add(4 * LARGE, I8), I8), (), SKYLAKE),
        (nest(LARGE, add(LARGE)), (), without_avx512()),
    ],
    ids=["small", "read again", "written twice", "checked", "parts of lines", "short vectors"],
)
def test_other_results_are_not(made: Nest, checked: tuple[str, ...], processor: Processor) -> None:
    assert HINT not in text(made, processor, checked)


@pytest.mark.parametrize(("columns", "apart"), [(1000, 1024), (1024, 1024), (1001, 1003)])
def test_rows_go_by_lines_where_they_begin_with_one(columns: int, apart: int) -> None:
    rows = LARGE // apart + 1
    x = np.random.default_rng(0).normal(size=rows * apart).astype(np.float32)
    out = np.zeros(rows * apart + LINE, np.float32)
    first = -out.ctypes.data % LINE // 4
    place = (Binary("add", Binary("mul", Index("r"), Const(apart)), i),)
    stored = Store("out", place, Binary("mul", Load("x", place), Const(2.0, F32)))
    body = For("r", Const(0), Const(rows), For("i", Const(0), Const(columns), stored, True))
    buffers = tuple(Buffer(n, F32, (rows * apart,)) for n in ("x", "out"))
    made = Nest("f", (), buffers, body)
    assert HINT in text(made)
    code = NativeCode([made], tiled=True, processor=this_processor())
    code.run("f", {}, {"x": x, "out": out[first : first + rows * apart]})
    expected = (2 * x).reshape(rows, apart)
    expected[:, columns:] = 0
    assert np.array_equal(out[first : first + rows * apart].reshape(rows, apart), expected)
    assert not out[:first].any()
    assert not out[first + rows * apart :].any()


def test_a_place_that_changes_within_the_body_is_not_taken_for_a_line() -> None:
    """Lanes that are stored at each step of a loop further in, a line and a bit apart."""
    steps, apart, columns = 3, LARGE // 2 + 5, 1024
    k = Index("k")
    place = (Binary("add", Binary("mul", k, Const(apart)), i),)
    inner = For("k", Const(0), Const(steps), Store("out", place, Load("x", (i,))))
    body = For("i", Const(0), Const(columns), inner, True)
    buffers = Buffer("x", I32, (columns,)), Buffer("out", I32, (steps * apart,))
    made = Nest("f", (), buffers, body)
    assert HINT not in text(made)
    x = np.arange(columns, dtype=np.int32)
    out = np.zeros(steps * apart, np.int32)
    NativeCode([made], tiled=True).run("f", {}, {"x": x, "out": out})
    rows = out.reshape(steps, apart)
    assert np.array_equal(rows[:, :columns], np.broadcast_to(x, (steps, columns)))
    assert not rows[:, columns:].any()
