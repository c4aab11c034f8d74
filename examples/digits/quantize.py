"""A trained network in int8, the way TensorFlow Lite's converter does it.

Weights are symmetric, each output channel with its own scale (fully connected ones share one);
activations are asymmetric, their range calibrated on samples; biases are 32-bit in units of input
scale times weight scale. A ReLU becomes the clamp of the operator before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from layers import Conv, Dense, Depthwise, Flatten, Layer, MaxPool, MeanPool, Relu, Residual

from weft.compiler.graph import (
    Activation,
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Node,
    Op,
    Quant,
    Reshape,
    Softmax,
    Tensor,
    Window,
)
from weft.compiler.tflite.write import same_pads
from weft.isa.nest import I8, I32

INPUT = Quant((float(np.float32(1 / 255)),), (-128,))
"""Of the images: brightness from 0 to 1."""
PROBABILITY = Quant((1 / 256,), (-128,))
"""Of a softmax, by TensorFlow Lite's definition."""


def quantize(name: str, layers: Sequence[Layer], samples: np.ndarray) -> Graph:
    """``layers`` with a softmax behind them, for one image of the shape of ``samples`` [N,H,W,C].

    Parameters
    ----------
    name : str
        The graph's.
    layers : sequence of Layer
        Trained.
    samples : ndarray
        Images with values from 0 to 1, to calibrate the ranges with.
    """
    network = _Quantizer(samples)
    logits = network.chain(layers, "image")
    network.node("probabilities", Softmax(), (logits,), network.reals[logits], PROBABILITY)
    return Graph(
        name, network.tensors, tuple(network.nodes), ("image",), ("probabilities",)
    )  # fmt: skip


_HALVES = Window((2, 2), (2, 2))
_POOLS: dict[type[Layer], tuple[str, Op]] = {
    MaxPool: ("pool", MaxPool2D(_HALVES)),
    MeanPool: ("mean", AveragePool2D(_HALVES)),
    Flatten: ("flat", Reshape()),
}
"""What keeps the scale of its input: names and operators."""


class _Quantizer:
    """The graph so far, and what every activation of it is on the samples, in real numbers."""

    def __init__(self, samples: np.ndarray):
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.reals: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}
        self._activation("image", samples, INPUT)

    def chain(self, layers: Sequence[Layer], x: str) -> str:
        """Nodes for the layers, one after another, from tensor ``x``; the last one's output."""
        for i, layer in enumerate(layers):
            follower = layers[i + 1] if i + 1 < len(layers) else None
            if not isinstance(layer, Relu):
                x = self._layer(layer, x, "relu" if isinstance(follower, Relu) else "none")
        return x

    def _layer(self, layer: Layer, x: str, activation: Activation) -> str:
        match layer:
            case Conv() | Depthwise():
                window = Window((layer.size, layer.size))
                _, height, width, _ = self.tensors[x].shape
                window = Window(window.size, pads=same_pads((height, width), window))
                if isinstance(layer, Conv):
                    weights = np.moveaxis(layer.weights, 3, 0)
                    return self._filter("conv", Conv2D(window, activation), layer, x, weights, 0)
                op = DepthwiseConv2D(window, 1, activation)
                return self._filter("depthwise", op, layer, x, layer.weights[None], 3)
            case Dense():
                op = FullyConnected(activation)
                return self._filter("dense", op, layer, x, layer.weights.T, None)
            case MaxPool() | MeanPool() | Flatten():
                kind, op = _POOLS[type(layer)]
                reals = layer.forward(self.reals[x])
                return self.node(self._name(kind), op, (x,), reals, self._quant(x))
            case Residual():
                y = self.chain(layer.body, x)
                reals = _clamped(self.reals[x] + self.reals[y], activation)
                return self.node(
                    self._name("add"), Add(activation), (x, y), reals, _calibrated(reals)
                )
            case _:
                raise TypeError(f"no int8 operator for {type(layer).__name__}")

    def _filter(
        self,
        kind: str,
        op: Conv2D | DepthwiseConv2D | FullyConnected,
        layer: Conv | Depthwise | Dense,
        x: str,
        weights: np.ndarray,
        axis: int | None,
    ) -> str:
        name = self._name(kind)
        summed = tuple(i for i in range(weights.ndim) if axis is not None and i != axis)
        greatest = np.abs(weights).max(summed or None, keepdims=True)
        steps = (greatest / 127).astype(np.float32)
        integers = np.rint(weights / steps).astype(np.int8)
        self._constant(f"{name}.weights", integers, steps, axis)
        units = np.float32(self._quant(x).scale[0]) * steps.reshape(-1)
        bias = np.rint(layer.bias / units).astype(np.int32)
        self._constant(f"{name}.bias", bias, units, None if axis is None else 0)
        reals = _clamped(layer.forward(self.reals[x]), op.activation)
        return self.node(
            name, op, (x, f"{name}.weights", f"{name}.bias"), reals, _calibrated(reals)
        )

    def node(
        self, name: str, op: Op, inputs: tuple[str, ...], reals: np.ndarray, quant: Quant
    ) -> str:
        """A node and its output, both of that name."""
        self.nodes.append(Node(name, op, inputs, (name,)))
        self._activation(name, reals, quant)
        return name

    def _activation(self, name: str, reals: np.ndarray, quant: Quant) -> None:
        self.tensors[name] = Tensor(name, I8, (1, *reals.shape[1:]), quant)
        self.reals[name] = reals

    def _constant(self, name: str, data: np.ndarray, steps: np.ndarray, axis: int | None) -> None:
        quant = Quant(tuple(float(s) for s in steps.reshape(-1)), (0,) * steps.size, axis)
        dtype = I8 if data.dtype == np.int8 else I32
        self.tensors[name] = Tensor(name, dtype, data.shape, quant, np.ascontiguousarray(data))

    def _quant(self, name: str) -> Quant:
        quant = self.tensors[name].quant
        assert quant is not None
        return quant

    def _name(self, kind: str) -> str:
        """``kind`` numbered from 1, so that the table shows which of them it means."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}{self._counts[kind]}"


def _clamped(reals: np.ndarray, activation: Activation) -> np.ndarray:
    return np.maximum(reals, 0) if activation == "relu" else reals


def _calibrated(reals: np.ndarray) -> Quant:
    """The range that the samples reach, zero being one of its values."""
    low, high = min(float(reals.min()), 0.0), max(float(reals.max()), 0.0)
    scale = float(np.float32((high - low) / 255))
    return Quant((scale,), (round(-128 - low / scale),))


def quantize_images(images: np.ndarray) -> np.ndarray:
    """Brightness from 0 to 1 as the network's int8 input."""
    return (np.floor(images / INPUT.scale[0] + 0.5) + INPUT.zero_point[0]).astype(np.int8)
