"""Models for :mod:`benchmarks.host`: single operators and whole networks with random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from weft.compiler.graph import Conv2D, Graph, Node, Quant, Tensor, Window
from weft.isa.nest import I8, I32

OPSET = 20


def random(shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers, the same at every call."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def value_of(info: onnx.ValueInfoProto) -> np.ndarray:
    """A value for a model's input."""
    shape = tuple(max(1, d.dim_value) for d in info.type.tensor_type.shape.dim)
    return random(shape)


def made(
    name: str, nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, ...]], out: str,
    constants: dict[str, np.ndarray], kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:  # fmt: skip
    """A checked model with one output."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, kind, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(out, kind, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


# --- layers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A square convolution: extent of the image, channels, size and stride of the filter."""

    name: str
    extent: int
    channels: int
    filters: int
    size: int
    stride: int

    @property
    def pad(self) -> int:
        """On every side."""
        return self.size // 2

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Of the image, NCHW."""
        return (1, self.channels, self.extent, self.extent)

    @property
    def out(self) -> int:
        """The extent of the output."""
        return (self.extent + 2 * self.pad - self.size) // self.stride + 1

    @property
    def macs(self) -> int:
        """Without regard to the border."""
        return self.out**2 * self.filters * self.channels * self.size**2


# fmt: off
LAYERS = tuple(Layer(*row) for row in (
    ("C1", 224, 3, 64, 7, 2), ("C2", 56, 64, 64, 3, 1), ("C3", 56, 64, 64, 1, 1),
    ("C4", 56, 64, 128, 3, 2), ("C5", 56, 64, 128, 1, 2), ("C6", 28, 128, 128, 3, 1),
    ("C7", 28, 128, 256, 3, 2), ("C8", 28, 128, 256, 1, 2), ("C9", 14, 256, 256, 3, 1),
    ("C10", 14, 256, 512, 3, 2), ("C11", 14, 256, 512, 1, 2), ("C12", 7, 512, 512, 3, 1),
))
"""The convolutions of ResNet-18, as VTA's and TVM's lists number them."""
# fmt: on


def layer(one: Layer) -> onnx.ModelProto:
    """A convolution with bias and Relu between pools that leave the layout of images free."""
    w = random((one.filters, one.channels, one.size, one.size)) / math.sqrt(one.channels)
    pool = {"kernel_shape": [1, 1]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["before"], "first", **pool),
        helper.make_node(
            "Conv", ["before", "w", "b"], ["sum"], "conv", kernel_shape=[one.size] * 2,
            strides=[one.stride] * 2, pads=[one.pad] * 4,
        ),
        helper.make_node("Relu", ["sum"], ["after"], "relu"),
        helper.make_node("MaxPool", ["after"], ["out"], "last", **pool),
    ]  # fmt: skip
    return made(one.name, nodes, {"x": one.x_shape}, "out", {"w": w, "b": random((one.filters,))})


def int8_layer(one: Layer) -> Graph:
    """The same in signed bytes, as the graph's own operators have it."""
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (one.filters, one.size, one.size, one.channels), np.int8)
    spread = 74 * 74 * math.sqrt(one.size**2 * one.channels)
    shape, out = (1, one.extent, one.extent, one.channels), (1, one.out, one.out, one.filters)
    x_quant, out_quant = Quant((1.0,), (3,)), Quant((spread / 40,), (-5,))
    per_channel = Quant(tuple(rng.uniform(0.9, 1.1, one.filters)), (0,) * one.filters, 0)
    tensors = {
        "x": Tensor("x", I8, shape, x_quant),
        "w": Tensor("w", I8, w.shape, per_channel, w),
        "b": Tensor("b", I32, (one.filters,), None, rng.integers(-999, 999, one.filters, np.int32)),
        "out": Tensor("out", I8, out, out_quant),
    }
    size, strides, pad = (one.size, one.size), (one.stride, one.stride), one.pad
    window = Window(size, strides, (1, 1), (pad, pad, pad, pad))
    if one.extent % 2 == 0 and one.stride == 2:
        less = max(0, (one.out - 1) * 2 + one.size - one.extent - one.pad)
        window = Window(size, strides, (1, 1), (pad, less, pad, less))
    node = Node("conv", Conv2D(window, "relu"), ("x", "w", "b"), ("out",))
    return Graph(one.name, tensors, (node,), ("x",), ("out",))


def u8u8_layer(one: Layer) -> onnx.ModelProto:
    """The same for the peer, in the form that it computes without saturation."""
    rng = np.random.default_rng(0)
    w = rng.integers(0, 255, (one.filters, one.channels, one.size, one.size), np.uint8)
    spread = 74 * 74 * math.sqrt(one.size**2 * one.channels)
    constants = {
        "w": w, "b": rng.integers(-999, 999, one.filters, np.int32),
        "x_scale": np.float32(1), "w_scale": rng.uniform(0.9, 1.1, one.filters).astype(np.float32),
        "out_scale": np.float32(spread / 40), "zero": np.uint8(128),
        "w_zero": np.full(one.filters, 128, np.uint8),
    }  # fmt: skip
    names = ["x", "x_scale", "zero", "w", "w_scale", "w_zero", "out_scale", "zero", "b"]
    node = helper.make_node(
        "QLinearConv", names, ["out"], "conv", kernel_shape=[one.size] * 2,
        strides=[one.stride] * 2, pads=[one.pad] * 4,
    )  # fmt: skip
    arrays = {name: np.asarray(a) for name, a in constants.items()}
    return made(one.name, [node], {"x": one.x_shape}, "out", arrays, TensorProto.UINT8)


# --- rows ----------------------------------------------------------------------------------------


def matmul(rows: int, depth: int, columns: int) -> onnx.ModelProto:
    """A product of two activations."""
    node = helper.make_node("MatMul", ["x", "w"], ["out"], "matmul")
    return made("dense", [node], {"x": (rows, depth), "w": (depth, columns)}, "out", {})


def softmax(rows: int, columns: int) -> onnx.ModelProto:
    """Over the last axis."""
    node = helper.make_node("Softmax", ["x"], ["out"], "softmax")
    return made("softmax", [node], {"x": (rows, columns)}, "out", {})


def layernorm(rows: int, columns: int) -> onnx.ModelProto:
    """Over the last axis."""
    node = helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["out"], "norm")
    constants = {"scale": random((columns,)), "bias": random((columns,))}
    return made("layernorm", [node], {"x": (rows, columns)}, "out", constants)


def chain(count: int) -> onnx.ModelProto:
    """relu(x * y + x) * y - x."""
    nodes = [
        helper.make_node("Mul", ["x", "y"], ["a"], "mul"),
        helper.make_node("Add", ["a", "x"], ["b"], "add"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("Mul", ["c", "y"], ["d"], "mul2"),
        helper.make_node("Sub", ["d", "x"], ["out"], "sub"),
    ]
    return made("chain", nodes, {"x": (count,), "y": (count,)}, "out", {})


# --- networks ------------------------------------------------------------------------------------


class Network:
    """A network being written down, layer by layer; the current tensor is ``self.at``."""

    def __init__(self, name: str, shape: tuple[int, ...]):
        self.name, self.shape, self.at = name, shape, "x"
        self.channels = shape[1]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def node(self, kind: str, inputs: list[str], **attributes: object) -> str:
        """One more node; its output."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], f"n{name}", **attributes))
        self.at = name
        return name

    def conv(
        self, filters: int, size: int, stride: int = 1, relu: bool = True, depthwise: bool = False,
        x: str = "", channels: int = 0,
    ) -> str:  # fmt: skip
        """A convolution with bias."""
        channels = channels or self.channels
        group = channels if depthwise else 1
        fan = channels // group * size * size
        w, b = f"w{len(self.nodes)}", f"b{len(self.nodes)}"
        shape = (filters, channels // group, size, size)
        self.constants[w] = (self.rng.standard_normal(shape) * math.sqrt(2 / fan)).astype("f4")
        self.constants[b] = (self.rng.standard_normal(filters) * 0.1).astype("f4")
        self.node(
            "Conv", [x or self.at, w, b], kernel_shape=[size] * 2, strides=[stride] * 2,
            pads=[size // 2] * 4, group=group,
        )  # fmt: skip
        self.channels = filters
        return self.node("Relu", [self.at]) if relu else self.at

    def block(self, filters: int, stride: int) -> None:
        """A residual block of two convolutions."""
        before, channels = self.at, self.channels
        self.conv(filters, 3, stride)
        body = self.conv(filters, 3, 1, relu=False)
        short = before
        if stride > 1 or channels != filters:
            short = self.conv(filters, 1, stride, relu=False, x=before, channels=channels)
        self.node("Relu", [self.node("Add", [body, short])])

    def classifier(self, classes: int) -> onnx.ModelProto:
        """The mean of the image and a matrix."""
        self.node("Flatten", [self.node("GlobalAveragePool", [self.at])])
        self.constants["fc.w"] = self.rng.standard_normal((self.channels, classes)).astype("f4")
        self.constants["fc.b"] = self.rng.standard_normal(classes).astype("f4")
        out = self.node("Gemm", [self.at, "fc.w", "fc.b"])
        return made(self.name, self.nodes, {"x": self.shape}, out, self.constants)


def resnet18() -> onnx.ModelProto:
    """ResNet-18 at 224 x 224."""
    net = Network("ResNet-18", (1, 3, 224, 224))
    net.conv(64, 7, 2)
    net.node("MaxPool", [net.at], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        net.block(filters, stride)
        net.block(filters, 1)
    return net.classifier(1000)


def resnet8() -> onnx.ModelProto:
    """MLPerf Tiny's ResNet for CIFAR-10."""
    net = Network("ResNet-8", (1, 3, 32, 32))
    net.conv(16, 3)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        net.block(filters, stride)
    return net.classifier(10)


def mobilenet() -> onnx.ModelProto:
    """MobileNetV1-0.25 at 96 x 96 with two classes."""
    net = Network("MobileNetV1-0.25", (1, 3, 96, 96))
    net.conv(8, 3, 2)
    for filters, stride in (
        (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1),
    ):  # fmt: skip
        net.conv(net.channels, 3, stride, depthwise=True)
        net.conv(filters, 1)
    return net.classifier(2)


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "ResNet-8": resnet8, "MobileNetV1-0.25": mobilenet, "ResNet-18": resnet18,
}  # fmt: skip


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with unsigned activations and signed weights per channel, by its own statistics."""
    import logging
    import tempfile

    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{i.name: value_of(i) for i in model.graph.input}]

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return self.left.pop() if self.left else None

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/a.onnx")
        quantize_static(
            f"{folder}/a.onnx", f"{folder}/b.onnx", Samples(), quant_format=QuantFormat.QDQ,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return onnx.load(f"{folder}/b.onnx")
