from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.networks import NetworkBuilder, addition, arithmetic, single
from weft.compiler.fit import fitted
from weft.compiler.graph import Graph
from weft.compiler.kernel import Kernel, Refusal, kernel_of
from weft.compiler.partition import kernel_for
from weft.compiler.tensorize import Contraction, Elementwise, tensorize
from weft.isa import AcceleratorConfig
from weft.isa.instructions import InstructionSet
from weft.isa.interpret import interpret
from weft.isa.nest import I8, I32, Buffer, Const, For, Index, Load, Nest, Store, Sum, expr
from weft.isa.requantize import requantize
from weft.isa.traverse import rewrite

BASE = AcceleratorConfig.preset("base")
TINY = AcceleratorConfig.preset("tiny")
VTA = replace(BASE, requantize=False, pad_value=False, overwrite=False)


def kernel(graph: Graph) -> Kernel:
    return kernel_for(graph, graph.nodes[-1])


def reason(graph: Graph, config: AcceleratorConfig = BASE) -> str:
    with pytest.raises(Refusal) as refusal:
        tensorize(kernel(graph), config)
    return str(refusal.value)


def contraction(graph: Graph, config: AcceleratorConfig = BASE) -> Contraction:
    found = tensorize(kernel(graph), config)
    assert isinstance(found, Contraction)
    return found


def test_a_convolution_becomes_matrix_steps():
    work = contraction(single("conv", (1, 9, 8, 5), 7, 3, strides=2))
    assert work.operations == ("matmul.set", "gemm", "loadx.inp", "load.wgt", "storex.out")
    rows, columns = work.image.rows, work.image.columns
    assert (rows.stride, rows.taps, rows.before, rows.after) == (2, 3, 1, 1)
    assert (columns.stride, columns.taps, columns.before, columns.after) == (2, 3, 0, 1)
    assert (work.channel, work.depth, work.picked) == ("o", "c", None)
    assert work.weight_lanes == (("o", 16), ("c", 16))


def test_without_overwriting_an_accumulator_is_cleared_first():
    work = contraction(single("conv", (1, 4, 4, 5), 7), replace(BASE, overwrite=False))
    assert work.first == ("gemm.reset", "gemm")


def test_the_zero_point_is_what_surrounds_the_image():
    graph = single("conv", (1, 4, 4, 5), 7)
    (x,) = graph.inputs
    assert contraction(graph).image.pad == graph.tensors[x].quant.zero_point[0]


def test_a_window_inside_of_the_image_needs_no_padding_load():
    work = contraction(single("conv", (1, 4, 4, 5), 7, padding="valid"))
    assert work.image.load == "load.inp"
    assert not work.image.padded


def test_a_depthwise_convolution_is_one_with_one_hot_weights():
    work = contraction(single("depthwise", (1, 5, 5, 20), 3, multiplier=2))
    assert work.depth == "depth"
    assert work.picked is not None
    assert work.add == "gemm"


def test_an_average_is_a_sum_with_weights_of_one():
    work = contraction(single("average_pool", (1, 4, 4, 8), 4, padding="valid"))
    assert work.add == "depthwise.add"
    assert work.kernel.constants == {}


def test_channels_by_themselves_take_the_depthwise_instruction_where_there_is_one():
    graph = single("depthwise", (1, 5, 5, 20), 3)
    work = contraction(graph)
    assert (work.first, work.add, work.tap_lanes) == (("depthwise.set",), "depthwise.add", 3)
    assert contraction(graph, replace(BASE, depthwise_taps=0)).add == "gemm"
    assert contraction(single("depthwise", (1, 5, 5, 20), 3, dilations=2)).add == "gemm"


def test_a_fully_connected_layer_over_an_image_has_the_whole_image_as_window():
    n = NetworkBuilder()
    n.fc(n.input(2, 3, 4, 5), 6)
    work = contraction(n.graph())
    assert (work.image.rows.taps, work.image.columns.taps) == (3, 4)


def test_an_addition_scales_both_operands_and_adds_them():
    work = tensorize(kernel(addition((1, 3, 3, 8), (1, 3, 3, 8))), BASE)
    assert isinstance(work, Elementwise)
    assert [act.operation for act in work.acts] == ["alu.scale", "alu.scale", "alu.add"]
    assert work.operations[:2] == ("loadx.acc8", "loadx.acc8")


@pytest.mark.parametrize(("kind", "operations"), [("mul", ["alu.mul.imm"]), ("sub", ["alu.scale"])])
def test_arithmetic_with_a_number_is_one_step_and_a_bias(kind: str, operations: list[str]):
    work = tensorize(kernel(arithmetic(kind, (1, 3, 3, 8), (1,), constant=True)), BASE)
    assert isinstance(work, Elementwise)
    assert [act.operation for act in work.acts] == operations
    assert len(work.images) == 1
    assert work.ending.record["bias"] != Const(0)


def test_a_maximum_runs_over_the_taps_from_the_least_value():
    work = tensorize(kernel(single("max_pool", (1, 6, 6, 4), 3, strides=2)), BASE)
    assert isinstance(work, Elementwise)
    assert [(act.operation, act.imm) for act in work.acts] == [
        ("gemm.reset", None),
        ("alu.add.imm", -128),
        ("alu.max", None),
    ]
    (image,) = work.images.values()
    assert (image.load, image.pad) == ("loadx.acc8", -128)


@pytest.mark.parametrize(
    ("graph", "config", "expected"),
    [
        (single("conv", (1, 4, 4, 5), 7), VTA, "it needs overwrite, pad_value, requantize"),
        (
            single("conv", (1, 4, 4, 5), 7),
            replace(BASE, pad_value=False),
            "it needs pad_value, which this hardware does not have",
        ),
        (
            addition((1, 3, 3, 8), (1, 3, 3, 8)),
            replace(BASE, requantize=False),
            "it needs requantize, which",
        ),
        (single("conv", (1, 4, 4, 5), 7), replace(TINY, inp_width=4), "this hardware stores i4"),
        (
            single("conv", (1, 4, 4, 5), 7),
            replace(TINY, wgt_width=4),
            "weights from -127 to 127; load.wgt loads i4",
        ),
        (addition((1, 3, 3, 8), (1, 1, 1, 8)), BASE, "broadcast along rows or columns"),
        (addition((1, 3, 3, 8), (1, 3, 3, 1)), BASE, "batch or channel differs"),
        (single("average_pool", (1, 5, 5, 8), 3), BASE, "its divisor varies"),
        (single("softmax", (1, 10)), BASE, "needs memory for intermediate values"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(graph, config, expected):
    with pytest.raises(Refusal, match=expected):
        tensorize(kernel(graph), config)


def hand_written(row: object) -> Kernel:
    """A sum of products whose input's row is ``row``."""
    x = Load("x", (Index("n"), row, Index("x"), Index("c")))
    total = Sum((("k", 3), ("c", 4)), x * Load("w", (Index("o"), Index("k"), Index("c"))))
    value = requantize(total, 1 << 30, 0, 5, 0, -128, 127)
    body = Store("y", tuple(map(Index, "nyxo")), value)
    for index, extent in reversed([("n", 1), ("y", 6), ("x", 8), ("o", 4)]):
        body = For(index, expr(0), expr(extent), body, parallel=True)
    buffers = (
        Buffer("x", I8, (1, 8, 8, 4)),
        Buffer("w", I8, (4, 3, 4)),
        Buffer("y", I8, (1, 6, 8, 4)),
    )
    weights = np.ones((4, 3, 4), np.int8)
    shapes = {"x": (1, 8, 8, 4), "y": (1, 6, 8, 4)}
    return kernel_of(Nest("hand", (), buffers, body), shapes, {"w": weights})


def test_the_matcher_decides_by_the_nest_and_not_by_the_operator():
    work = tensorize(hand_written(Index("y") + Index("k")), BASE)
    assert isinstance(work, Contraction)
    assert (work.image.rows.taps, work.image.columns.taps) == (3, 1)
    assert work.first == ("matmul.set",)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (Index("y") + Index("k") + 1, "read without a condition"),
        (Index("y") * Index("k"), "no multiple of loops"),
        (Index("x") + Index("k"), "no window over one axis"),
        (Index("y") - Index("k") + 2, "does not move forward"),
        (expr(3), "broadcast along rows|more than the window"),
    ],
)
def test_positions_that_are_no_window_are_refused(row, expected):
    with pytest.raises(Refusal, match=expected):
        tensorize(hand_written(row), BASE)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (2, 3), (5, 5), (8, 8), (25, 5), (7, 6)])
def test_a_mean_is_a_requantization_for_every_sum(size):
    shape = (1, size[0], size[1], 4)
    original = kernel(single("average_pool", shape, size, padding="valid"))
    ended = fitted(original)
    assert ended is not None
    count = size[0] * size[1]
    sums = np.arange(-128 * count, 127 * count + 1)
    away = np.trunc((np.abs(sums) + count // 2) / count) * np.sign(sums)
    low, high = mean_bounds(original, sums)
    np.testing.assert_array_equal(value_of(ended, sums), np.clip(away, low, high))


def mean_bounds(original: Kernel, sums: np.ndarray) -> tuple[int, int]:
    values = value_of(original, sums[[0, -1]])
    return int(values[0]), int(values[1])


def value_of(k: Kernel, sums: np.ndarray) -> np.ndarray:
    """The kernel's value where its sum is each of ``sums``."""
    out = np.zeros(len(sums), np.int32)
    i = Index("i")
    value = rewrite(k.value, lambda n: Load("sums", (i,)) if isinstance(n, Sum) else None)
    body = For("i", expr(0), expr(len(sums)), Store("out", (i,), value), parallel=True)
    buffers = (Buffer("sums", I32, sums.shape), Buffer("out", I32, sums.shape))
    interpret(Nest("v", (), buffers, body), {}, {"sums": sums.astype(np.int32), "out": out})
    return out


def test_a_step_that_no_requantization_equals_stays_on_the_host():
    original = kernel(single("average_pool", (1, 2, 2, 4), 2, padding="valid"))
    total = next(n for n in [original.value] if n is not None)
    odd = rewrite(total, lambda n: n % 3 if isinstance(n, Sum) else None)
    with pytest.raises(Refusal, match="no requantization equals"):
        fitted(replace(original, value=odd))


def test_every_chosen_operation_exists():
    operations = InstructionSet(BASE).operations
    for graph in (single("conv", (1, 4, 4, 5), 7), single("max_pool", (1, 4, 4, 3), 2)):
        assert set(tensorize(kernel(graph), BASE).operations) <= set(operations)


def test_a_change_of_scale_is_one_load_and_one_store():
    n = NetworkBuilder()
    n.requantize(n.input(1, 3, 3, 8))
    work = tensorize(kernel(n.graph()), BASE)
    assert isinstance(work, Elementwise)
    assert work.acts == ()
    assert work.operations == ("loadx.acc8", "storex.out")
