"""Small random networks: one operator each, or a few in a chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from weft.compiler.graph import (
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Op,
    Quant,
    Reshape,
    Softmax,
    Sub,
    Tensor,
    Window,
)
from weft.isa.nest import I8, I32, DType

Draw = Callable[[st.SearchStrategy], object]
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


def tensor(
    name: str,
    shape: Sequence[int],
    scale: float = 0.5,
    zero_point: int = 0,
    data: np.ndarray | None = None,
    dtype: DType = I8,
) -> Tensor:
    """A tensor that is quantized as a whole."""
    return Tensor(name, dtype, tuple(shape), Quant((scale,), (zero_point,)), data)


def graph_of(tensors: Sequence[Tensor], nodes: Sequence[Node], name: str = "small") -> Graph:
    """A graph whose inputs are what no node writes, and whose output is the last tensor."""
    written = {output for node in nodes for output in node.outputs}
    by_name = {t.name: t for t in tensors}
    inputs = [t.name for t in by_name.values() if t.data is None and t.name not in written]
    return Graph(name, by_name, tuple(nodes), tuple(inputs), (tensors[-1].name,))


def single(op: Op, inputs: Sequence[Tensor | None], out: Tensor) -> Graph:
    """A graph of one node, called ``op``."""
    names = tuple("" if t is None else t.name for t in inputs)
    node = Node("op", op, names, (out.name,))
    return graph_of([*filter(None, inputs), out], [node])


@st.composite
def scales(draw, least: float = 2.0**-6, most: float = 2.0**2) -> float:
    """A single-precision scale."""
    return float(np.float32(draw(st.floats(least, most, exclude_min=True))))


zero_points = st.integers(-128, 127)
roundings = st.sampled_from(("away", "even"))


@st.composite
def generators(draw) -> np.random.Generator:
    """For data; one seed is easier to shrink than an array."""
    return np.random.default_rng(draw(st.integers(0, 1 << 20)))


def bytes_of(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Uniform int8, with the extremes more often than by chance."""
    values = rng.integers(-128, 128, tuple(shape))
    extreme = rng.random(tuple(shape)) < 0.1
    return np.where(extreme, rng.choice([-128, 127], tuple(shape)), values).astype(np.int8)


@st.composite
def windows(draw, extents: tuple[int, int], dilated: bool = True, padded: bool = True) -> Window:
    """A window that fits an image of these extents at least once."""
    sizes, strides, dilations, pads = [], [], [], []
    for extent in extents:
        size = draw(st.integers(1, 4))
        dilation = draw(st.integers(1, 2)) if dilated else 1
        reach = (size - 1) * dilation + 1
        before, after = (draw(st.integers(0, reach - 1)) if padded else 0 for _ in range(2))
        if extent + before + after < reach:
            size, dilation, before, after = 1, 1, 0, 0
        sizes.append(size)
        strides.append(draw(st.integers(1, 3)))
        dilations.append(dilation)
        pads.append((before, after))
    return Window(tuple(sizes), tuple(strides), tuple(dilations), (*pads[0], *pads[1]))


def covered(window: Window, extents: Sequence[int]) -> tuple[int, int]:
    """How many windows fit, counted one by one."""
    counts = []
    for axis, extent in enumerate(extents):
        before, after = window.pads[2 * axis : 2 * axis + 2]
        positions = range(-before, extent + after, window.strides[axis])
        reach = (window.size[axis] - 1) * window.dilations[axis]
        counts.append(sum(first + reach < extent + after for first in positions))
    return counts[0], counts[1]


def _filter_quant(draw, rng: np.random.Generator, channels: int, axis: int) -> Quant:
    if draw(st.booleans()) and channels > 1:
        return Quant(
            tuple(float(s) for s in rng.uniform(0.001, 0.1, channels).astype(np.float32)),
            (0,) * channels,
            axis,
        )
    zero_point = draw(st.one_of(st.just(0), zero_points))
    return Quant((float(np.float32(rng.uniform(0.001, 0.1))),), (zero_point,))


def _bias(draw, rng: np.random.Generator, channels: int) -> Tensor | None:
    if not draw(st.booleans()):
        return None
    return Tensor("b", I32, (channels,), None, rng.integers(-5000, 5000, channels).astype(np.int32))


@st.composite
def conv2d_graphs(draw) -> Graph:
    rng = draw(generators())
    n, h, w, c, o = (draw(st.integers(1, most)) for most in (2, 6, 6, 5, 5))
    window = draw(windows((h, w)))
    weights = bytes_of(rng, (o, *window.size, c))
    return single(
        Conv2D(window, draw(st.sampled_from(ACTIVATIONS)), draw(roundings)),
        (
            tensor("x", (n, h, w, c), draw(scales()), draw(zero_points)),
            Tensor("w", I8, weights.shape, _filter_quant(draw, rng, o, 0), weights),
            _bias(draw, rng, o),
        ),
        tensor("y", (n, *covered(window, (h, w)), o), draw(scales()), draw(zero_points)),
    )


@st.composite
def depthwise_graphs(draw) -> Graph:
    rng = draw(generators())
    n, h, w, c, multiplier = (draw(st.integers(1, most)) for most in (2, 6, 6, 5, 3))
    window = draw(windows((h, w)))
    o = c * multiplier
    weights = bytes_of(rng, (1, *window.size, o))
    return single(
        DepthwiseConv2D(window, multiplier, draw(st.sampled_from(ACTIVATIONS)), draw(roundings)),
        (
            tensor("x", (n, h, w, c), draw(scales()), draw(zero_points)),
            Tensor("w", I8, weights.shape, _filter_quant(draw, rng, o, 3), weights),
            _bias(draw, rng, o),
        ),
        tensor("y", (n, *covered(window, (h, w)), o), draw(scales()), draw(zero_points)),
    )


@st.composite
def fully_connected_graphs(draw) -> Graph:
    rng = draw(generators())
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    depth = math.prod(shape[draw(st.integers(0, len(shape) - 1)) :])
    rows, o = math.prod(shape) // depth, draw(st.integers(1, 5))
    weights = bytes_of(rng, (o, depth))
    return single(
        FullyConnected(draw(st.sampled_from(ACTIVATIONS)), draw(roundings)),
        (
            tensor("x", shape, draw(scales()), draw(zero_points)),
            Tensor("w", I8, weights.shape, _filter_quant(draw, rng, o, 0), weights),
            _bias(draw, rng, o),
        ),
        tensor("y", (rows, o), draw(scales()), draw(zero_points)),
    )


@st.composite
def pairwise_graphs(draw) -> Graph:
    shape = draw(st.lists(st.integers(1, 4), max_size=5))
    shapes = [[1 if draw(st.integers(0, 3)) == 0 else extent for extent in shape] for _ in range(2)]
    out = [max(pair) for pair in zip(*shapes, strict=True)]
    left = shapes[0][draw(st.integers(0, len(shape))) :] if out == shapes[1] else shapes[0]
    a, b = (
        tensor(name, s, draw(scales()), draw(zero_points))
        for name, s in (("a", left), ("b", shapes[1]))
    )
    if draw(st.booleans()):
        rng = draw(generators())
        b = tensor("b", b.shape, draw(scales()), draw(zero_points), bytes_of(rng, b.shape))
    inputs = (a, a) if left == out and draw(st.integers(0, 4)) == 0 else (a, b)
    return single(
        draw(st.sampled_from((Add, Sub, Mul)))(draw(st.sampled_from(ACTIVATIONS)), draw(roundings)),
        inputs,
        tensor("y", out, draw(scales()), draw(zero_points)),
    )


@st.composite
def pool_graphs(draw, op: type[AveragePool2D] | type[MaxPool2D]) -> Graph:
    n, h, w, c = (draw(st.integers(1, most)) for most in (2, 7, 7, 5))
    window = draw(windows((h, w), dilated=False))
    scale, zero_point = draw(scales()), draw(zero_points)
    made = op(window, draw(st.sampled_from(ACTIVATIONS)))
    if isinstance(made, AveragePool2D):
        made = replace(made, ties=draw(st.sampled_from(("away", "up"))))
    return single(
        made,
        (tensor("x", (n, h, w, c), scale, zero_point),),
        tensor("y", (n, *covered(window, (h, w)), c), scale, zero_point),
    )


@st.composite
def reshape_graphs(draw) -> Graph:
    shape = draw(st.lists(st.integers(1, 4), max_size=4))
    count = math.prod(shape)
    target = draw(st.sampled_from([[count], [1, count], [count, 1], shape[::-1], [1, *shape]]))
    return single(Reshape(), (tensor("x", shape),), tensor("y", target))


@st.composite
def softmax_graphs(draw) -> Graph:
    shape = draw(st.lists(st.integers(1, 3), max_size=2))
    classes = draw(st.one_of(st.integers(1, 12), st.sampled_from((511, 1001))))
    scale = draw(st.one_of(scales(2.0**-20, 2.0**-4), scales(2.0**-4, 2.0**8)))
    beta = draw(st.sampled_from([1.0, 0.5, 2.0, 40.0]))
    shape = (*shape, classes)
    return single(
        Softmax(beta),
        (tensor("x", shape, scale, draw(zero_points)),),
        tensor("y", shape, 1 / 256, -128),
    )


def any_graphs() -> st.SearchStrategy[Graph]:
    """Any of the above."""
    return st.one_of(
        conv2d_graphs(),
        depthwise_graphs(),
        fully_connected_graphs(),
        pairwise_graphs(),
        pool_graphs(AveragePool2D),
        pool_graphs(MaxPool2D),
        reshape_graphs(),
        softmax_graphs(),
    )


def chain() -> Graph:
    """A fixed network with every operator, for golden texts and for tests of damage."""
    rng = np.random.default_rng(7)

    def weights(name: str, *shape: int, axis: int | None = None) -> Tensor:
        channels = 1 if axis is None else shape[axis]
        own = tuple((np.arange(channels) + 1) / 64)
        quant = Quant(own, (0,) * channels, axis)
        return Tensor(name, I8, shape, quant, bytes_of(rng, shape))

    def bias(name: str, channels: int) -> Tensor:
        data = rng.integers(-99, 99, channels).astype(np.int32)
        return Tensor(name, I32, (channels,), Quant((0.0078125,), (0,)), data)

    same = Window((3, 3), (2, 2), (1, 1), (0, 1, 0, 1))
    tensors = [
        tensor("image", (1, 6, 6, 2), 0.5, -1),
        weights("conv/weights", 4, 3, 3, 2, axis=0),
        bias("conv/bias", 4),
        tensor("conv", (1, 3, 3, 4), 0.25, 3),
        weights("depthwise/weights", 1, 3, 3, 4, axis=3),
        tensor("depthwise", (1, 3, 3, 4), 0.25, -128),
        tensor("add", (1, 3, 3, 4), 0.75, 5),
        tensor("max_pool", (1, 2, 2, 4), 0.75, 5),
        tensor("average_pool", (1, 1, 1, 4), 0.75, 5),
        tensor("flat", (1, 4), 0.75, 5),
        weights("dense/weights", 3, 4),
        bias("dense/bias", 3),
        tensor("dense", (1, 3), 0.125, 17),
        tensor("odds", (1, 3), 1 / 256, -128),
    ]
    padded = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    nodes = [
        Node("conv", Conv2D(same, "relu"), ("image", "conv/weights", "conv/bias"), ("conv",)),
        Node(
            "depthwise",
            DepthwiseConv2D(padded, 1, "relu6"),
            ("conv", "depthwise/weights", ""),
            ("depthwise",),
        ),
        Node("add", Add(), ("conv", "depthwise"), ("add",)),
        Node("max_pool", MaxPool2D(Window((2, 2))), ("add",), ("max_pool",)),
        Node("average_pool", AveragePool2D(Window((2, 2))), ("max_pool",), ("average_pool",)),
        Node("flat", Reshape(), ("average_pool",), ("flat",)),
        Node("dense", FullyConnected(), ("flat", "dense/weights", "dense/bias"), ("dense",)),
        Node("odds", Softmax(), ("dense",), ("odds",)),
    ]
    return graph_of(tensors, nodes, "chain")
