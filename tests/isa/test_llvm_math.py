"""Functions on vectors, compared with numpy's in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.isa.processors import SKYLAKE, without_avx512
from weft.isa.native import NativeCode, Processor, this_processor
from weft.isa.nest import F32, I64, Buffer, Const, For, Index, Load, Math, Nest, Store

COUNT = 1 << 15
EDGES = [0.0, -0.0, math.inf, -math.inf, math.nan, 88.7, 88.8, 100.0, -87.4, -103.9, -200.0, 1e-30]


def code(function: str, lanes: int = COUNT, processor: Processor | None = None) -> NativeCode:
    """One function of ``x``, of so many elements at once at most."""
    buffers = Buffer("x", F32, (COUNT,)), Buffer("out", F32, (COUNT,))
    place = (Index("p") * Const(lanes, I64) + Index("i"),)
    value = Math(function, (Load("x", place),))
    body = For("i", Const(0), Const(lanes), Store("out", place, value), True)
    nest = Nest("f", (), buffers, For("p", Const(0), Const(COUNT // lanes), body))
    return NativeCode([nest], tiled=True, processor=processor)


def computed(
    function: str, x: np.ndarray, lanes: int = COUNT, processor: Processor | None = None
) -> np.ndarray:
    out = np.zeros(COUNT, np.float32)
    code(function, lanes, processor).run("f", {}, {"x": x, "out": out})
    return out


@pytest.mark.parametrize(
    ("function", "spread", "bound"), [("exp", 87.0, 2e-7), ("tanh", 12.0, 3e-7), ("erf", 6.0, 4e-7)]
)
def test_relative_error_stays_below_what_the_module_says(
    function: str, spread: float, bound: float
) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-spread, spread, COUNT).astype(np.float32)
    x[: COUNT // 4] = rng.uniform(-1.5, 1.5, COUNT // 4)
    x[: COUNT // 16] = rng.uniform(-1e-3, 1e-3, COUNT // 16)
    exact = np.vectorize(getattr(math, function))(x.astype(np.float64))
    error = np.abs(computed(function, x) - exact) / np.abs(exact)
    assert error.max() < bound


@pytest.mark.parametrize("function", ["exp", "tanh", "erf"])
def test_edges_come_out_as_in_double_precision(function: str) -> None:
    x = np.zeros(COUNT, np.float32)
    x[: len(EDGES)] = EDGES
    with np.errstate(all="ignore"):
        exact = {
            "exp": np.exp, "tanh": np.tanh, "erf": np.vectorize(math.erf),
        }[function](x.astype(np.float64)).astype(np.float32)  # fmt: skip
    got = computed(function, x)
    assert np.allclose(got, exact, rtol=1e-6, atol=1e-43, equal_nan=True)
    assert (np.signbit(got) == np.signbit(exact))[~np.isnan(exact)].all()


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32, 64, 512])
def test_scaling_by_one_instruction_gives_the_bits_of_two_products(lanes: int) -> None:
    own, narrow = this_processor(), without_avx512()
    x = np.random.default_rng(lanes).uniform(-110, 95, COUNT).astype(np.float32)
    x[: len(EDGES)] = EDGES
    results = [computed("exp", x, lanes, one).view(np.int32) for one in (own, narrow)]
    assert np.array_equal(*results)


def test_only_avx512_has_that_instruction() -> None:
    assert "scalef" in code("exp", 64, SKYLAKE).text()
    assert "scalef" not in code("exp", 64, without_avx512()).text()
