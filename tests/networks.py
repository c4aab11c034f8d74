"""Small quantized networks made from seeds: one operator each, all of them, or at random.

Weights are drawn at random; the scales of activations are then taken from what random samples
really produce, as a converter does, so that every tensor uses its range and some values saturate.
Scales are 32-bit floats, and nodes are named as their output, so that a network survives a TFLite
file unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from weft.compiler.graph import (
    Activation,
    Add,
    AveragePool2D,
    Call,
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
    element_dtype,
)
from weft.compiler.tflite.write import same_pads
from weft.isa.nest import I8, I32, U8

PAIRWISE: Mapping[str, tuple[Callable[[Activation], Op], np.ufunc]] = {
    "add": (Add, np.add),
    "sub": (Sub, np.subtract),
    "mul": (Mul, np.multiply),
}
SAMPLES = 16
"""How many random inputs the scales are calibrated with."""
CLAMPS: Mapping[Activation, tuple[float, float]] = {
    "none": (-np.inf, np.inf),
    "relu": (0, np.inf),
    "relu6": (0, 6),
    "relu_n1_to_1": (-1, 1),
}
Pair = int | tuple[int, int]
Padding = Literal["same", "valid"]


class NetworkBuilder:
    """Builds a graph operator by operator; every method returns the name of its output.

    ``seed`` decides everything that is drawn. ``clip`` of an operator is how much of the range
    that its samples reach its output keeps: below 1, results saturate more often. With
    ``asymmetric``, weights have a zero point of their own, as those of legacy networks do.
    """

    def __init__(self, name: str = "network", seed: int = 0, asymmetric: bool = False):
        self.name = name
        self._asymmetric = asymmetric
        self._rng = np.random.default_rng(seed)
        self._tensors: dict[str, Tensor] = {}
        self._nodes: list[Node] = []
        self._inputs: list[str] = []
        self._reals: dict[str, np.ndarray] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor that has been made."""
        return self._tensors[name].shape

    def input(self, *shape: int) -> str:
        """Another input of the network, int8."""
        low, high = -self._rng.uniform(0, 4), self._rng.uniform(1, 4)
        reals = self._rng.uniform(low, high, (SAMPLES, *shape))
        name = f"input_{len(self._inputs)}"
        self._inputs.append(name)
        return self._activation(name, reals, _quant_of(reals, 1.0))

    def constant(self, *shape: int) -> str:
        """An int8 constant, for instance the second operand of an addition."""
        name = f"constant_{len(self._tensors)}"
        quant = _quant_of(np.array([-2.0, 1.5]), 1.0)
        data = self._rng.integers(-128, 128, shape).astype(np.int8)
        self._tensors[name] = Tensor(name, I8, shape, quant, data)
        reals = (data - quant.zero_point[0]) * quant.scale[0]
        self._reals[name] = np.broadcast_to(reals, (SAMPLES, *shape))
        return name

    def conv(
        self, x: str, channels: int, size: Pair = 3, *, activation: Activation = "none",
        bias: bool = True, per_channel: bool = True, clip: float = 0.7, **window: Any,
    ) -> str:  # fmt: skip
        """Convolution; for ``window`` see :meth:`_window`."""
        op = Conv2D(self._window(x, size, **window), activation)
        depth = self.shape(x)[3]
        weights = self._weights((channels, *op.window.size, depth), 0, (1, 2, 3))
        return self._filter("conv", op, x, weights, 0, bias, per_channel, clip)

    def depthwise(
        self, x: str, size: Pair = 3, *, multiplier: int = 1, activation: Activation = "none",
        bias: bool = True, per_channel: bool = True, clip: float = 0.7, **window: Any,
    ) -> str:  # fmt: skip
        """Depthwise convolution; for ``window`` see :meth:`_window`."""
        op = DepthwiseConv2D(self._window(x, size, **window), multiplier, activation)
        channels = self.shape(x)[3] * multiplier
        weights = self._weights((1, *op.window.size, channels), 3, (1, 2))
        return self._filter("depthwise", op, x, weights, 3, bias, per_channel, clip)

    def fc(
        self, x: str, units: int, *, activation: Activation = "none",
        bias: bool = True, per_channel: bool = False, clip: float = 0.7,
    ) -> str:  # fmt: skip
        """Fully connected, over all but the first axis."""
        shape = self.shape(x)
        weights = self._weights((units, int(np.prod(shape[1:]))), 0, (1,))
        op = FullyConnected(activation)
        return self._filter("fc", op, x, weights, 0, bias, per_channel, clip)

    def add(self, a: str, b: str, *, activation: Activation = "none", clip: float = 0.7) -> str:
        """Sum of two tensors whose shapes broadcast."""
        return self.arithmetic("add", a, b, activation=activation, clip=clip)

    def arithmetic(
        self, kind: str, a: str, b: str, *, activation: Activation = "none", clip: float = 0.7
    ) -> str:
        """``add``, ``sub`` or ``mul`` of two tensors whose shapes broadcast."""
        op, function = PAIRWISE[kind]
        rank = max(len(self.shape(a)), len(self.shape(b)))
        left, right = (
            v.reshape(SAMPLES, *(1,) * (rank + 1 - v.ndim), *v.shape[1:])
            for v in (self._reals[a], self._reals[b])
        )
        reals = np.clip(function(left, right), *CLAMPS[activation])
        return self._node(kind, op(activation), (a, b), reals, _quant_of(reals, clip))

    def average_pool(
        self, x: str, size: Pair = 2, *, activation: Activation = "none", **window: Any
    ) -> str:
        """Average pool; for ``window`` see :meth:`_window`."""
        op = AveragePool2D(self._window(x, size, **window), activation)
        taps = windows_of(_merged(self._reals[x]), op.window, np.nan)
        return self._pool("average_pool", op, x, np.nanmean(taps, (4, 5)))

    def max_pool(
        self, x: str, size: Pair = 2, *, activation: Activation = "none", **window: Any
    ) -> str:
        """Maximum pool; for ``window`` see :meth:`_window`."""
        op = MaxPool2D(self._window(x, size, **window), activation)
        taps = windows_of(_merged(self._reals[x]), op.window, -np.inf)
        return self._pool("max_pool", op, x, taps.max((4, 5)))

    def reshape(self, x: str, *shape: int) -> str:
        """The same elements under another shape."""
        reals = self._reals[x].reshape(SAMPLES, *shape)
        return self._node("reshape", Reshape(), (x,), reals, self._quant(x))

    def requantize(self, x: str, *, clip: float = 0.5) -> str:
        """The same values in a quantization of their own."""
        op, reals = Call("tfl.quantize", (("to", "i8"),)), self._reals[x]
        return self._node("quantize", op, (x,), reals, _quant_of(reals, clip))

    def softmax(self, x: str, *, beta: float = 1.0) -> str:
        """Over the last axis; the output's scale is 1/256, its zero point -128."""
        powers = np.exp(beta * (self._reals[x] - self._reals[x].max(-1, keepdims=True)))
        reals = powers / powers.sum(-1, keepdims=True)
        return self._node("softmax", Softmax(beta), (x,), reals, Quant((1 / 256,), (-128,)))

    def graph(self, *outputs: str) -> Graph:
        """The network; without ``outputs``, the last node's is the only one."""
        chosen = outputs or self._nodes[-1].outputs
        return Graph(
            self.name, dict(self._tensors), tuple(self._nodes), tuple(self._inputs), chosen
        )

    # --- what the operators share ----------------------------------------------------------------

    def _window(
        self, x: str, size: Pair, *,
        strides: Pair = 1, dilations: Pair = 1, padding: Padding = "same",
    ) -> Window:  # fmt: skip
        """One number stands for both directions; ``padding`` is TFLite's."""
        window = Window(_pair(size), _pair(strides), _pair(dilations))
        if padding == "valid":
            return window
        _, height, width, _ = self.shape(x)
        pads = same_pads((height, width), window)
        return Window(window.size, window.strides, window.dilations, pads)

    def _weights(self, shape: tuple[int, ...], axis: int, summed: tuple[int, ...]) -> np.ndarray:
        """Real weights that keep magnitudes, more or less: channels differ by up to 3 times."""
        depth = int(np.prod([shape[i] for i in summed]))
        gains = 2.0 ** self._rng.uniform(-1, 0.5, shape[axis])
        spread = gains.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return self._rng.normal(0, 1 / np.sqrt(depth), shape) * spread

    def _filter(
        self, kind: str, op: Conv2D | DepthwiseConv2D | FullyConnected, x: str,
        weights: np.ndarray, axis: int, bias: bool, per_channel: bool, clip: float,
    ) -> str:  # fmt: skip
        """A node with weights and bias, quantized as TFLite does."""
        name = self._name(kind)
        channels = weights.shape[axis]
        others = tuple(i for i in range(weights.ndim) if i != axis)
        per_channel = per_channel and channels > 1  # a file does not tell one channel from none
        if self._asymmetric:
            per_channel = False
            quant = _quant_of(weights, 1.0)
            steps = np.array(quant.scale).reshape((1,) * weights.ndim)
            integers = np.clip(np.rint(weights / steps) + quant.zero_point[0], -128, 127)
        else:
            greatest = np.abs(weights).max(others if per_channel else None, keepdims=True)
            steps = (greatest / 127).astype(np.float32).astype(np.float64)
            integers = np.clip(np.rint(weights / steps), -127, 127)
            quant = Quant(_floats(steps), (0,) * steps.size, axis if per_channel else None)
        self._constant(f"{name}.weights", integers.astype(np.int8), quant)
        integers, zeros = integers - quant.zero_point[0], (0,) * steps.size

        bias_steps = np.float32(self._quant(x).scale[0]) * steps.astype(np.float32).reshape(-1)
        reals = _apply(op, self._reals[x], integers * steps)
        if bias:
            offsets = self._rng.normal(0, 0.3 * reals.std() + 1e-6, channels)
            counts = np.rint(offsets / bias_steps).astype(np.int32)
            quant = Quant(_floats(bias_steps), zeros, 0 if per_channel else None)
            self._constant(f"{name}.bias", counts, quant)
            reals = reals + counts * bias_steps.astype(np.float64)
        reals = np.clip(reals, *CLAMPS[op.activation])
        inputs = (x, f"{name}.weights", f"{name}.bias" if bias else "")
        return self._node(kind, op, inputs, reals, _quant_of(reals, clip))

    def _pool(self, kind: str, op: AveragePool2D | MaxPool2D, x: str, reals: np.ndarray) -> str:
        reals = np.clip(reals, *CLAMPS[op.activation]).reshape(SAMPLES, -1, *reals.shape[1:])
        return self._node(kind, op, (x,), reals, self._quant(x))

    def _constant(self, name: str, data: np.ndarray, quant: Quant) -> None:
        dtype = I8 if data.dtype == np.int8 else I32
        self._tensors[name] = Tensor(name, dtype, data.shape, quant, data)

    def _name(self, kind: str) -> str:
        return f"{kind}_{len(self._nodes)}"

    def _quant(self, name: str) -> Quant:
        quant = self._tensors[name].quant
        assert quant is not None
        return quant

    def _node(
        self, kind: str, op: Op, inputs: tuple[str, ...], reals: np.ndarray, quant: Quant
    ) -> str:
        name = self._name(kind)
        self._nodes.append(Node(name, op, inputs, (name,)))
        return self._activation(name, reals, quant)

    def _activation(self, name: str, reals: np.ndarray, quant: Quant) -> str:
        self._tensors[name] = Tensor(name, I8, reals.shape[1:], quant)
        (scale,), (zero,) = quant.scale, quant.zero_point
        self._reals[name] = (np.clip(np.rint(reals / scale) + zero, -128, 127) - zero) * scale
        return name


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values.reshape(-1).astype(np.float32))


def _quant_of(reals: np.ndarray, clip: float) -> Quant:
    """The int8 quantization of that part of the range, zero being a value of it."""
    low, high = min(0.0, float(reals.min()) * clip), max(0.0, float(reals.max()) * clip)
    scale = float(np.float32(max(high - low, 0.01) / 255))
    return Quant((scale,), (int(np.clip(np.rint(-128 - low / scale), -128, 127)),))


def _merged(reals: np.ndarray) -> np.ndarray:
    """Samples and batch as one axis."""
    return reals.reshape(-1, *reals.shape[2:])


def windows_of(x: np.ndarray, window: Window, fill: float) -> np.ndarray:
    """[N,H,W,C] as [N, vertical, horizontal, C, KH, KW], ``fill`` where it is padded."""
    top, bottom, left, right = window.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    (kh, kw), (dh, dw), (sh, sw) = window.size, window.dilations, window.strides
    reach = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    return sliding_window_view(padded, reach, (1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]


def _apply(
    op: Conv2D | DepthwiseConv2D | FullyConnected, x: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The sums of products, in real numbers, over samples [S, ...]."""
    if isinstance(op, FullyConnected):
        return x.reshape(*x.shape[:2], -1) @ weights.T
    taps = windows_of(_merged(x), op.window, 0)
    if isinstance(op, Conv2D):
        y = np.einsum("nyxcij,oijc->nyxo", taps, weights)
    else:
        repeated = np.repeat(taps, op.multiplier, 3)
        y = np.einsum("nyxcij,ijc->nyxc", repeated, weights[0])
    return y.reshape(*x.shape[:2], *y.shape[1:])


def unsigned(graph: Graph) -> Graph:
    """``graph`` with every byte and zero point 128 higher, as legacy networks have them."""

    def moved(tensor: Tensor) -> Tensor:
        if tensor.dtype != I8 or tensor.quant is None:
            return tensor
        zeros = tuple(zero + 128 for zero in tensor.quant.zero_point)
        data = None if tensor.data is None else (tensor.data.view(np.uint8) ^ np.uint8(128))
        return replace(tensor, dtype=U8, quant=replace(tensor.quant, zero_point=zeros), data=data)

    return replace(graph, tensors={name: moved(t) for name, t in graph.tensors.items()})


# --- whole networks ----------------------------------------------------------------------------

KINDS = ("conv", "depthwise", "fc", "average_pool", "max_pool", "softmax")
"""The operators of one activation that :func:`single` makes."""


def single(kind: str, shape: tuple[int, ...], *arguments: Any, seed: int = 0, **options: Any):
    """A network of one operator: ``single("conv", (1, 8, 8, 3), 16, 3, strides=2)``."""
    network = NetworkBuilder(kind, seed)
    getattr(network, kind)(network.input(*shape), *arguments, **options)
    return network.graph()


def addition(
    a: tuple[int, ...], b: tuple[int, ...], *, seed: int = 0, activation: Activation = "none"
) -> Graph:
    """A network that adds its two inputs."""
    return arithmetic("add", a, b, seed=seed, activation=activation)


def arithmetic(
    kind: str, a: tuple[int, ...], b: tuple[int, ...], *, constant: bool = False, seed: int = 0,
    activation: Activation = "none",
) -> Graph:  # fmt: skip
    """A network that adds, subtracts or multiplies its two inputs, or one and a constant."""
    network = NetworkBuilder(kind, seed)
    x = network.input(*a)
    other = network.constant(*b) if constant else network.input(*b)
    network.arithmetic(kind, x, other, activation=activation)
    return network.graph()


def every_operator(seed: int = 0) -> Graph:
    """A classifier of 10 x 10 x 3 images in which every operator occurs."""
    n = NetworkBuilder("every_operator", seed)
    stem = n.conv(n.input(1, 10, 10, 3), 16, 3, activation="relu")
    y = n.depthwise(stem, 3, activation="relu6")
    y = n.conv(y, 16, 1)
    y = n.add(stem, y, activation="relu")
    y = n.max_pool(y, 2, strides=2, padding="valid")
    y = n.conv(y, 24, 3, strides=2, activation="relu")
    y = n.average_pool(y, 3, padding="valid")
    y = n.fc(n.reshape(y, 1, 24), 10)
    n.softmax(y)
    return n.graph()


def residual(seed: int = 0, channels: int = 20, image: int = 7) -> Graph:
    """Two convolutions and a shortcut, twice; the second shortcut is a strided convolution."""
    n = NetworkBuilder("residual", seed)
    x = n.conv(n.input(1, image, image, 3), channels, activation="relu")
    y = n.conv(n.conv(x, channels, activation="relu"), channels)
    x = n.add(x, y, activation="relu")
    y = n.conv(n.conv(x, 2 * channels, strides=2, activation="relu"), 2 * channels)
    n.add(n.conv(x, 2 * channels, 1, strides=2), y, activation="relu")
    return n.graph()


def random_network(seed: int) -> Graph:
    """A chain of 2 to 7 operators, some with shortcuts, over odd shapes.

    Images from 1 x 1 to 11 x 11, channels from 1 to 35, windows up to 5 x 5 with strides,
    dilations and either padding, all activations, now and then without bias, per tensor, with
    strong saturation, a second output, a batch of 2, or a classifier's end.
    """
    rng = np.random.default_rng(seed)
    n = NetworkBuilder(f"random_{seed}", seed)
    batch = 2 if rng.random() < 0.15 else 1
    height, width = (int(v) for v in rng.choice([1, 2, 3, 5, 6, 7, 8, 11], 2))
    x = n.input(batch, height, width, int(rng.choice([1, 2, 3, 5, 8, 16, 17])))
    earlier = [x]
    for _ in range(rng.integers(2, 8)):
        step = STEPS[rng.integers(len(STEPS))]
        x = step(n, x, rng, earlier)
        earlier.append(x)
    outputs = [x]
    if rng.random() < 0.5:
        flat = n.reshape(x, batch, int(np.prod(n.shape(x)[1:])))
        logits = n.fc(flat, int(rng.integers(1, 13)), per_channel=bool(rng.integers(2)))
        outputs = [n.softmax(logits)]
        if rng.random() < 0.2:
            outputs.append(logits)
    return n.graph(*outputs)


def _conv_step(n: NetworkBuilder, x: str, rng: np.random.Generator, earlier: list[str]) -> str:
    channels = int(rng.choice([1, 3, 7, 8, 15, 16, 20, 35]))
    return n.conv(x, channels, **_random_window(n, x, rng), **_random_filter(rng))


def _depthwise_step(n: NetworkBuilder, x: str, rng: np.random.Generator, earlier: list[str]) -> str:
    multiplier = int(rng.choice([1, 1, 1, 2, 3])) if n.shape(x)[3] < 16 else 1
    return n.depthwise(x, multiplier=multiplier, **_random_window(n, x, rng), **_random_filter(rng))


def _pool_step(n: NetworkBuilder, x: str, rng: np.random.Generator, earlier: list[str]) -> str:
    window = _random_window(n, x, rng, dilated=False)
    pool = n.average_pool if rng.integers(2) else n.max_pool
    return pool(x, activation=_random_activation(rng), **window)


def _add_step(n: NetworkBuilder, x: str, rng: np.random.Generator, earlier: list[str]) -> str:
    fitting = [e for e in earlier if n.shape(e) == n.shape(x)]
    if rng.random() < 0.2:
        other = n.constant(1, 1, 1, n.shape(x)[3])
    else:
        other = fitting[rng.integers(len(fitting))]
    pair = (x, other) if rng.integers(2) else (other, x)
    return n.add(*pair, activation=_random_activation(rng))


Step = Callable[[NetworkBuilder, str, np.random.Generator, list[str]], str]
STEPS: tuple[Step, ...] = (
    _conv_step, _conv_step, _conv_step, _depthwise_step, _depthwise_step, _pool_step, _add_step
)  # fmt: skip
"""What a step of a random network may be, the more often the likelier."""


def _random_activation(rng: np.random.Generator) -> Activation:
    names: tuple[Activation, ...] = ("none", "none", "relu", "relu", "relu6", "relu_n1_to_1")
    return names[rng.integers(len(names))]


def _random_filter(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "activation": _random_activation(rng),
        "bias": bool(rng.random() < 0.8),
        "per_channel": bool(rng.random() < 0.7),
        "clip": float(rng.choice([0.7, 0.9, 0.3])),
    }


def _random_window(
    n: NetworkBuilder, x: str, rng: np.random.Generator, dilated: bool = True
) -> dict[str, Any]:
    size = tuple(int(v) for v in rng.choice([1, 1, 2, 3, 3, 4, 5], 2))
    strides = tuple(int(v) for v in rng.choice([1, 1, 1, 2, 3], 2))
    dilations = tuple(int(v) for v in rng.choice([1, 2, 3], 2)) if rng.random() < 0.2 else (1, 1)
    if not dilated:
        dilations = (1, 1)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    fits = all(r <= extent for r, extent in zip(reach, n.shape(x)[1:3], strict=True))
    padding: Padding = "valid" if fits and rng.integers(2) else "same"
    return {"size": size, "strides": strides, "dilations": dilations, "padding": padding}


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """An array of bytes for each input, over the whole range."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(-128, 128, graph.tensors[name].shape)
        .astype(np.int8)
        .view(element_dtype(graph.tensors[name].dtype))
        for name in graph.inputs
    }


def assert_same_graph(a: Graph, b: Graph) -> None:
    """Every field of both is equal, constants bit for bit; the first difference is shown."""
    assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
    assert a.carried == b.carried
    assert a.nodes == b.nodes
    assert list(a.tensors) == list(b.tensors)
    for name, left in a.tensors.items():
        right = b.tensors[name]
        mine, theirs = ((t.name, t.dtype, t.shape, t.quant) for t in (left, right))
        assert mine == theirs
        assert (left.data is None) == (right.data is None), name
        if left.data is not None and right.data is not None:
            assert left.data.dtype == right.data.dtype, name
            np.testing.assert_array_equal(left.data, right.data, err_msg=name)
