"""Filters of three by three with fewer products: the same integers, and floats as near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.compiler.test_pack import BASELINE, HOSTS, expected, quantized
from weft.compiler.factors import Factors
from weft.compiler.graph import Graph
from weft.compiler.host import HostCode
from weft.compiler.operators import Operator, lowered
from weft.compiler.pack import packed
from weft.compiler.winograd import winograd
from weft.isa.interpret import interpret
from weft.isa.native import Processor, this_processor
from weft.isa.nest import F32, Buffer, Const, Index, Load, Nest, Select, Store, Sum, maximum
from weft.isa.traverse import loops


def with_filters(graph: Graph, w: np.ndarray) -> Graph:
    """The graph with other weights."""
    tensors = {**graph.tensors, "w": replace(graph.tensors["w"], data=w)}
    return replace(graph, tensors=tensors)


def taken(graph: Graph) -> bool:
    """Whether a graph's one convolution takes the form."""
    operator = lowered(graph, graph.nodes[0])
    assert isinstance(operator, Operator)
    nest = operator.nest
    data = {n: t.data for n, t in graph.tensors.items()}
    found = Factors.of(nest.body, {b.name: b for b in nest.buffers}, data.get)
    return found is not None and winograd(found, "") is not None


@pytest.mark.parametrize("processor", HOSTS, ids=["this computer", "any of its kind"][: len(HOSTS)])
@pytest.mark.parametrize(("extent", "pad"), [(7, 1), (6, 0)])
def test_integers_are_those_of_the_plain_sum(
    extent: int, pad: int, processor: Processor | None
) -> None:
    graph = quantized("conv", 3, 40, 33, extent, 1, pad)
    assert taken(graph)
    x = np.random.default_rng(5).integers(-128, 128, graph.tensors["x"].shape).astype(np.int8)
    code = HostCode(graph, graph.nodes, processor=processor)
    assert np.array_equal(code.run({"x": x})["out"], expected(graph, x))


def test_the_greatest_pixels_and_filters_do_not_overflow() -> None:
    graph = quantized("conv", 3, 32, 64, 4, 1, 1)
    signs = np.random.default_rng(0).choice((-1, 1), graph.tensors["w"].shape)
    signs[:8], signs[8:16] = 1, -1
    graph = with_filters(graph, np.where(signs > 0, 127, -128).astype(np.int8))
    shape = graph.tensors["x"].shape
    code = HostCode(graph, graph.nodes, processor=BASELINE)
    for pixels in ((-128,), (127,), (-128, 127)):
        x = np.random.default_rng(1).choice(pixels, shape).astype(np.int8)
        assert np.array_equal(code.run({"x": x})["out"], expected(graph, x))


def test_what_might_overflow_or_is_too_small_takes_another_way() -> None:
    many = quantized("conv", 3, 32, 4096, 3, 1, 1)
    full = with_filters(many, np.full(many.tensors["w"].shape, 127, np.int8))
    assert not taken(full)
    few = with_filters(many, np.ones(many.tensors["w"].shape, np.int8))
    assert taken(few)
    assert not taken(quantized("conv", 3, 32, 16, 6, 1, 1))
    assert not taken(quantized("conv", 3, 32, 32, 6, 2, 1))
    assert not taken(quantized("conv", 5, 32, 32, 6, 1, 2))


def pictures(count: int, channels: int, filters: int, rows: int, columns: int) -> Nest:
    """A convolution of several pictures with one more pixel all around, and what surrounds it."""
    n, o, c, y, x, i, j = map(Index, "nocyxij")
    row, column = y + i - 1, x + j - 1
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    pixel = Select(inside, Load("a", (n, row, column, c)), Const(0.0, F32))
    total = Sum((("i", 3), ("j", 3), ("c", channels)), pixel * Load("w", (o, c, i, j)))
    value = maximum(total + Load("b", (o,)), Const(0.0, F32))
    shape = count, rows, columns, filters
    buffers = (
        Buffer("a", F32, (count, rows, columns, channels)),
        Buffer("w", F32, (filters, channels, 3, 3)),
        Buffer("b", F32, (filters,)),
        Buffer("out", F32, shape),
    )
    axes = list(zip("nyxo", shape, strict=True))
    return Nest("pictures", (), buffers, loops(axes, Store("out", (n, y, x, o), value)))


def test_floats_of_several_pictures_are_as_near_as_those_of_the_plain_sum() -> None:
    nest = pictures(2, 32, 48, 5, 6)
    rng = np.random.default_rng(1)
    arrays = {b.name: rng.standard_normal(b.shape).astype(np.float32) for b in nest.buffers}
    made = packed(nest, lambda name: arrays[name] if name == "w" else None, this_processor().target)
    assert made is not None
    assert any("totals" in name for name in made.scratch)
    exact = {n: a.astype(np.float64) for n, a in arrays.items()}
    padded = np.pad(exact["a"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    wanted = np.maximum(np.einsum("nyxcij,ocij->nyxo", windows, exact["w"]) + exact["b"], 0)
    memory: dict[str, np.ndarray] = {}
    for buffer in sorted(made.nest.buffers, key=lambda b: b.name in made.views):
        name = made.views.get(buffer.name, buffer.name)
        array = memory.get(name, made.constants.get(name, arrays.get(name)))
        if array is None:
            array = np.zeros(buffer.shape, np.float32)
        memory[buffer.name] = array.reshape(buffer.shape)
    interpret(made.nest, {}, memory)
    assert np.abs(memory["out"] - wanted).max() < 1e-5 * np.abs(wanted).max()
