"""Contractions in register tiles: the same integers as numpy's, on every kind of processor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weft.compiler.graph import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    Node,
    Quant,
    Tensor,
    Window,
)
from weft.compiler.host import HostCode
from weft.compiler.operators import lowered
from weft.compiler.pack import packed
from weft.compiler.pack_forms import Packed
from weft.isa.errors import ConfigError
from weft.isa.interpret import interpret
from weft.isa.native import NativeCode, Processor, this_processor
from weft.isa.nest import (
    F32,
    I8,
    I32,
    U8,
    Buffer,
    Cast,
    DType,
    For,
    Index,
    Load,
    Nest,
    Store,
    Sum,
    expr,
)
from weft.isa.storage import numpy_dtype
from weft.isa.tiles import Target
from weft.runtime.executor import threads_of

BASELINE = Processor(this_processor().triple, "x86-64", "")
HOSTS = [None] if not BASELINE.triple.startswith("x86_64") else [None, BASELINE]


def quantized(
    kind: str, size: int, filters: int, channels: int, extent: int, stride: int, pad: int
) -> Graph:
    """One operator with random weights."""
    rng = np.random.default_rng(filters * 100 + channels)
    if kind == "depthwise":
        w, axis, filters = rng.integers(-127, 128, (1, size, size, channels), np.int8), 3, channels
    elif kind == "dense":
        w, axis = rng.integers(-127, 128, (filters, channels), np.int8), 0
    else:
        w, axis = rng.integers(-127, 128, (filters, size, size, channels), np.int8), 0
    out = (extent + 2 * pad - size) // stride + 1
    x_shape = (extent, channels) if kind == "dense" else (1, extent, extent, channels)
    out_shape = (extent, filters) if kind == "dense" else (1, out, out, filters)
    scales = tuple(map(float, rng.uniform(0.002, 0.004, filters)))
    per_channel = Quant(scales, (0,) * filters, axis)
    tensors = {
        "x": Tensor("x", I8, x_shape, Quant((1.0,), (7,))),
        "w": Tensor("w", I8, w.shape, Quant((0.003,), (0,)) if kind == "dense" else per_channel, w),
        "b": Tensor("b", I32, (filters,), None, rng.integers(-999, 999, filters, np.int32)),
        "out": Tensor("out", I8, out_shape, Quant((1.0,), (-5,))),
    }
    window = Window((size, size), (stride, stride), (1, 1), (pad,) * 4)
    ops = {"conv": Conv2D(window), "depthwise": DepthwiseConv2D(window), "dense": FullyConnected()}
    node = Node("op", ops[kind], ("x", "w", "b"), ("out",))
    return Graph("g", tensors, (node,), ("x",), ("out",))


def expected(graph: Graph, x: np.ndarray) -> np.ndarray:
    """By the plain interpreter of the operator's own nest."""
    operator = lowered(graph, graph.nodes[0])
    arrays = {b.name: np.zeros(b.shape, np.int8) for b in operator.nest.buffers}
    arrays |= {n: t.data for n, t in graph.tensors.items() if t.data is not None and n in arrays}
    arrays |= operator.constants
    arrays["x"] = x.reshape(operator.nest.buffer("x").shape)
    interpret(operator.nest, {}, arrays)
    return arrays["out"].reshape(graph.tensors["out"].shape)


@pytest.mark.parametrize("processor", HOSTS, ids=["this computer", "any of its kind"][: len(HOSTS)])
@pytest.mark.parametrize(
    ("kind", "size", "filters", "channels", "extent", "stride", "pad"),
    [
        ("conv", 3, 20, 5, 9, 1, 1),
        ("conv", 7, 16, 3, 15, 2, 3),
        ("conv", 1, 3, 32, 6, 2, 0),
        ("depthwise", 3, 0, 19, 8, 1, 1),
        ("dense", 1, 37, 50, 3, 1, 0),
    ],
)  # fmt: skip
def test_quantized_operators_give_the_interpreters_integers(
    kind: str, size: int, filters: int, channels: int, extent: int, stride: int, pad: int,
    processor: Processor | None,
) -> None:  # fmt: skip
    graph = quantized(kind, size, filters, channels, extent, stride, pad)
    x = np.random.default_rng(5).integers(-128, 128, graph.tensors["x"].shape).astype(np.int8)
    code = HostCode(graph, graph.nodes, processor=processor)
    assert np.array_equal(code.run({"x": x})["out"], expected(graph, x))


def bound(made: Packed, given_arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An array for each buffer; zeros for those that hold nothing before."""
    arrays: dict[str, np.ndarray] = {}
    for buffer in made.nest.buffers:
        name = made.views.get(buffer.name, buffer.name)
        array = made.constants.get(name, given_arrays.get(name))
        if array is None:
            array = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
        arrays[buffer.name] = array.reshape(buffer.shape)
    return arrays


def product(rows: int, depth: int, columns: int) -> Nest:
    i, j, k = Index("i"), Index("j"), Index("k")
    buffers = Buffer("a", F32, (rows, depth)), Buffer("b", F32, (depth, columns))
    total = Sum((("k", depth),), Load("a", (i, k)) * Load("b", (k, j)))
    body = For("j", expr(0), expr(columns), Store("out", (i, j), total), True)
    return Nest("p", (), (*buffers, Buffer("out", F32, (rows, columns))),
                For("i", expr(0), expr(rows), body, True))  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 30), st.integers(2, 40), st.integers(1, 40), st.booleans())
@example(rows=5, depth=12, columns=128, known=False)  # columns are packed group by group
def test_packing_means_the_same_and_tiles_compute_it(
    rows: int, depth: int, columns: int, known: bool
) -> None:
    nest = product(rows, depth, columns)
    rng = np.random.default_rng(rows)
    a = rng.integers(-9, 9, (rows, depth)).astype(np.float32)
    b = rng.integers(-9, 9, (depth, columns)).astype(np.float32)
    made = packed(nest, lambda name: b if known and name == "b" else None, this_processor().target)
    if made is None:
        assert columns == 1  # a constant vector, which is no matrix of columns
        return
    for run in (
        lambda n, m: interpret(n, {}, m),
        lambda n, m: NativeCode([n], tiled=True).run(n.name, {}, m),
    ):
        arrays = bound(made, {"a": a, "b": b, "out": np.zeros((rows, columns), np.float32)})
        run(made.nest, arrays)
        assert np.array_equal(arrays["out"].reshape(rows, columns), a @ b)


BYTES = [Target(512, 32, True, True), Target(256, 16, True, True)]
VNNI = Processor(
    "x86_64-unknown-linux-gnu", "cascadelake", "+avx512f,+avx512bw,+avx512vl,+avx512vnni"
)


def product_of_bytes(rows: int, depth: int, columns: int, x: DType, zero: int) -> Nest:
    """``out[i, j] = sum (a[i, k] - zero) * b[k, j]``."""
    i, j, k = Index("i"), Index("j"), Index("k")
    buffers = (
        Buffer("a", x, (rows, depth)), Buffer("b", I8, (depth, columns)),
        Buffer("out", I32, (rows, columns)),
    )  # fmt: skip
    factor = Cast(I32, Load("a", (i, k))) - zero
    total = Sum((("k", depth),), factor * Load("b", (k, j)))
    body = For("j", expr(0), expr(columns), Store("out", (i, j), total), True)
    return Nest("p", (), buffers, For("i", expr(0), expr(rows), body, True))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 30), st.integers(2, 70), st.integers(2, 70), st.sampled_from([U8, I8]),
    st.integers(-128, 255), st.booleans(), st.sampled_from(BYTES),
)  # fmt: skip
@example(3, 1024, 40, I8, -128, True, BYTES[0])
@example(3, 7, 8, U8, 0, False, BYTES[0])  # columns that are no constants
def test_products_of_bytes_are_exact(
    rows: int, depth: int, columns: int, x: DType, zero: int, known: bool, target: Target
) -> None:
    nest = product_of_bytes(rows, depth, columns, x, zero)
    rng = np.random.default_rng(depth)
    a = rng.choice([x.min, x.max, 3, 77], (rows, depth)).astype(numpy_dtype(x))
    b = rng.choice([-128, 127, 0, 5], (depth, columns)).astype(np.int8)
    made = packed(nest, lambda name: b if known and name == "b" else None, target)
    assert made is not None
    kinds = {b.dtype for b in made.nest.buffers if b.name.startswith("p 0 ")}
    if known or (x == U8 and zero == 0 and rows < 8 <= columns):  # else ``b`` may be the rows
        assert kinds >= {U8, I8}
    expected = (a.astype(np.int64) - zero) @ b.astype(np.int64)
    code = NativeCode([made.nest], tiled=True)  # by such products only where this computer has them
    for run in (lambda m: interpret(made.nest, {}, m), lambda m: code.run("p", {}, m)):
        arrays = bound(made, {"a": a, "b": b, "out": np.zeros((rows, columns), np.int32)})
        run(arrays)
        assert np.array_equal(arrays["out"].reshape(rows, columns), expected)


def test_weights_beyond_a_byte_are_no_products_of_bytes() -> None:
    i, j, k = Index("i"), Index("j"), Index("k")
    buffers = Buffer("a", I8, (4, 8)), Buffer("b", U8, (8, 16)), Buffer("out", I32, (4, 16))
    for greatest, are in ((129, True), (130, False)):
        b = np.full((8, 16), 2, np.uint8)
        b[3, 5] = greatest
        total = Sum((("k", 8),), Load("a", (i, k)) * (Cast(I32, Load("b", (k, j))) - 2))
        body = For("j", expr(0), expr(16), Store("out", (i, j), total), True)
        nest = Nest("p", (), buffers, For("i", expr(0), expr(4), body, True))
        made = packed(nest, lambda name, b=b: b if name == "b" else None, BYTES[0])
        assert made is not None
        assert (made.constants["p 0 columns"].dtype == np.int8) == are


@pytest.mark.skipif(not BASELINE.triple.startswith("x86_64"), reason="the instruction is x86's")
def test_a_processor_with_products_of_bytes_uses_them() -> None:
    b = np.ones((64, 64), np.int8)
    nest = product_of_bytes(60, 64, 64, I8, 3)
    made = packed(nest, lambda name: b if name == "b" else None, VNNI.target)
    assert made is not None
    blocks = NativeCode([made.nest], tiled=True, processor=VNNI).assembly().split("\n.LBB")
    hot = max(blocks, key=lambda b: b.count("vpdpbusd"))
    assert hot.count("vpdpbusd") >= 24
    assert not [line for line in hot.splitlines() if "zmm" in line and "(%rsp)" in line]


@pytest.mark.parametrize("depth", [512, 1024])  # in one stretch and in several
@pytest.mark.parametrize("rows", [209, 217, 225, 233, 300])
def test_what_is_left_of_the_blocks_of_rows_writes_nothing_else(rows: int, depth: int) -> None:
    nest = product(rows, depth, 64)
    rng = np.random.default_rng(rows)
    a = rng.integers(-9, 9, (rows, depth)).astype(np.float32)
    b = rng.integers(-9, 9, (depth, 64)).astype(np.float32)
    made = packed(nest, lambda name: b if name == "b" else None, this_processor().target)
    assert made is not None
    margin = 64 * 64
    memory = np.full(rows * 64 + 2 * margin, 0.5, np.float32)
    out = memory[margin:-margin]
    given_arrays = bound(made, {"a": a, "out": out})
    NativeCode([made.nest], tiled=True).run(made.nest.name, {}, given_arrays)
    assert np.array_equal(out.reshape(rows, 64), a @ b)
    assert (memory[:margin] == 0.5).all()
    assert (memory[-margin:] == 0.5).all()


@pytest.mark.parametrize(
    ("rows", "columns", "fetched"), [(30, 768, True), (2, 768, True), (30, 64, False)]
)
def test_columns_that_stay_in_no_near_cache_are_fetched_ahead(
    rows: int, columns: int, fetched: bool
) -> None:
    nest = product(rows, 512, columns)
    rng = np.random.default_rng(columns)
    a = rng.integers(-9, 9, (rows, 512)).astype(np.float32)
    b = rng.integers(-9, 9, (512, columns)).astype(np.float32)
    made = packed(nest, lambda name: b if name == "b" else None, this_processor().target)
    assert made is not None
    out = np.zeros((rows, columns), np.float32)
    given_arrays = bound(made, {"a": a, "out": out})
    code = NativeCode([made.nest], tiled=True)
    assert ("i32 0, i32 2, i32 1)" in code.text()) == fetched
    code.run(made.nest.name, {}, given_arrays)
    assert np.array_equal(given_arrays["out"], a @ b)


def test_no_vector_is_spilled_in_the_inner_loop_of_a_convolution() -> None:
    if "+avx2" not in this_processor().features.split(","):
        pytest.skip("the registers that are counted are those of AVX2")
    nest = product(60, 64, 64)
    zeros = np.zeros((64, 64), np.float32)
    made = packed(nest, lambda name: zeros if name == "b" else None, this_processor().target)
    assert made is not None
    blocks = NativeCode([made.nest], tiled=True).assembly().split("\n.LBB")
    hot = max(blocks, key=lambda b: b.count("vfmadd"))
    assert hot.count("vfmadd") >= 24
    assert not [line for line in hot.splitlines() if re.search("[yz]mm", line) and "(%rsp)" in line]


AARCH64 = Processor("aarch64-linux-gnu", "generic", "+neon")

MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
int64_t kernel(const int64_t *params, const int64_t (*buffers)[2]);
int main(int count, char **names) {
  int64_t table[16][2];
  for (int i = 1; i < count; i++) {
    FILE *f = fopen(names[i], "rb");
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *memory = calloc(1, size + 64);
    if (fread(memory, 1, size, f) != (size_t)size) return 2;
    fclose(f);
    table[i - 1][0] = (int64_t)memory;
    table[i - 1][1] = size;
  }
  int64_t status = kernel(0, table);
  for (int i = 1; i < count; i++) {
    FILE *f = fopen(names[i], "r+b");
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    fwrite((void *)table[i - 1][0], 1, size, f);
    fclose(f);
  }
  return (int)status;
}
"""


@pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-gcc")),
    reason="qemu-user and a compiler that links for aarch64 are not installed",
)
def test_another_architecture_gives_the_same_integers(tmp_path: Path) -> None:
    graph = quantized("conv", 3, 20, 5, 9, 1, 1)
    x = np.random.default_rng(5).integers(-128, 128, graph.tensors["x"].shape).astype(np.int8)
    operator = lowered(graph, graph.nodes[0])
    weights = graph.tensors["w"].data
    made = packed(
        operator.nest,
        lambda n: operator.constants.get(n, weights if n == "w" else None),
        AARCH64.target,
    )
    assert made is not None
    arrays = {**operator.constants, **made.constants, "x": x}
    names: list[str] = []
    for k, buffer in enumerate(made.nest.buffers):
        path = tmp_path / f"{k}.bin"
        element = max(1, buffer.dtype.bits // 8)
        data = arrays.get(made.views.get(buffer.name, buffer.name))
        size = int(np.prod(buffer.shape)) * element
        path.write_bytes(bytes(size) if data is None else data.tobytes())
        names.append(str(path))
    kernel = Nest("kernel", (), made.nest.buffers, made.nest.body)
    (tmp_path / "kernel.o").write_bytes(
        NativeCode([kernel], tiled=True, processor=AARCH64).object()
    )
    (tmp_path / "main.c").write_text(MAIN)
    build = ["aarch64-linux-gnu-gcc", "-static", "-o", "run", "main.c", "kernel.o"]
    subprocess.run(build, cwd=tmp_path, check=True)
    subprocess.run(["qemu-aarch64", str(tmp_path / "run"), *names], check=True)
    at = [b.name for b in made.nest.buffers].index("out")
    got = np.frombuffer((tmp_path / f"{at}.bin").read_bytes(), np.int8)
    assert np.array_equal(got.reshape(graph.tensors["out"].shape), expected(graph, x))


# --- threads -------------------------------------------------------------------------------------


def busy() -> Graph:
    return quantized("conv", 3, 64, 32, 30, 1, 1)


def test_the_number_of_threads_changes_no_bit() -> None:
    graph = busy()
    x = np.random.default_rng(5).integers(-128, 128, graph.tensors["x"].shape).astype(np.int8)
    results = [
        HostCode(graph, graph.nodes, threads=threads).run({"x": x})["out"] for threads in (1, 2, 5)
    ]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_the_threads_survive_a_fork_and_other_callers_and_end_with_the_interpreter() -> None:
    script = """
import os, threading, sys
import numpy as np
sys.path.insert(0, os.getcwd())
from tests.compiler.test_pack import busy
from weft.compiler.host import HostCode
graph = busy()
x = np.ones(graph.tensors["x"].shape, np.int8)
codes = [HostCode(graph, graph.nodes, threads=3) for _ in range(3)]
first = codes[0].run({"x": x})["out"]
child = os.fork()
if child == 0:
    os._exit(0 if (codes[0].run({"x": x})["out"] == first).all() else 1)
assert os.waitpid(child, 0)[1] == 0
wrong = []
def call(code):
    for _ in range(20):
        if (code.run({"x": x})["out"] != first).any():
            wrong.append(1)
callers = [threading.Thread(target=call, args=(code,)) for code in codes]
[t.start() for t in callers]
[t.join() for t in callers]
assert not wrong
assert sum(t.name == "weft" for t in threading.enumerate()) == 2
print("done")
"""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60,
        env=os.environ, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


def test_a_constant_is_not_read_when_it_was_packed() -> None:
    ones = np.ones((8, 8), np.float32)
    made = packed(product(8, 8, 8), lambda n: ones if n == "b" else None, this_processor().target)
    assert made is not None
    assert "b" not in {b.name for b in made.nest.buffers}


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1000"])
def test_a_number_of_threads_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="WEFT_THREADS is a number from 1 to 256, not"):
        threads_of(text)
