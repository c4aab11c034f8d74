"""Small float networks for tests; import it only where ``onnx`` is there."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from tests.compiler.onnx.models import model
from weft.compiler.catalog import Site
from weft.compiler.graph import Graph
from weft.compiler.host import HostCode
from weft.compiler.onnx import read
from weft.compiler.onnx.fold import evaluate
from weft.sim.paths import cache_directory


def graph_of(proto: Any) -> Graph:
    made = read(proto if isinstance(proto, bytes) else proto.SerializeToString(), "net")
    return made.graph(made.shapes({}))


CACHE = cache_directory() / "host"
"""Compiled objects: a network that several tests quantize is compiled once."""
_codes: dict[int, HostCode] = {}
"""Compiled graphs by their identity; a HostCode keeps its graph alive."""


def run(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor for one sample of the one input."""
    if id(graph) not in _codes:
        _codes[id(graph)] = HostCode(graph, graph.nodes, CACHE)
    return _codes[id(graph)].run({graph.inputs[0]: x})


def interpreted(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The first output for one sample, by each operator's definition: small graphs alone."""
    values = {name: t.data for name, t in graph.tensors.items() if t.data is not None}
    values[graph.inputs[0]] = x
    for node in graph.nodes:
        made = evaluate(Site.of(graph, node), [values[n] if n else None for n in node.inputs])
        values.update(zip(node.outputs, made, strict=True))
    return values[graph.outputs[0]]


def samples(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


class Maker:
    """Nodes and constants of one model, each constant random but the same every time."""

    def __init__(self, seed: int = 11):
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def normal(self, name: str, *shape: int, spread: float = 1.0) -> str:
        return self.constant(name, self.random.normal(0, spread, shape))

    def conv(self, x: str, output: str, o: int, c: int, k: int = 3, **attributes: Any) -> str:
        w = self.normal(f"{output}.w", o, c, k, k, spread=(2 / (c * k * k)) ** 0.5)
        b = self.normal(f"{output}.b", o, spread=0.2)
        attributes.setdefault("pads", [k // 2] * 4)
        return self.node("Conv", [x, w, b], output, **attributes)

    def model(self, shape: tuple[int, ...], output: str) -> Any:
        return model(self.nodes, {"x": shape}, [output], self.constants)


def residual() -> Any:
    """All that becomes integers: convolutions, depthwise ones, a sum, pools, a Concat, a Gemm."""
    m = Maker()
    one = m.node("Relu", [m.conv("x", "conv1", 8, 3)], "relu1")
    two = m.conv(one, "depth", 8, 1, group=8)
    low, high = m.constant("low", 0), m.constant("high", 6)
    two = m.node("Clip", [two, low, high], "clip")
    two = m.conv(two, "point", 8, 8, 1)
    three = m.node("Relu", [m.node("Add", [one, two], "sum")], "relu2")
    left = m.node("MaxPool", [three], "pool", kernel_shape=[2, 2], strides=[2, 2])
    right = m.conv(three, "down", 8, 8, strides=[2, 2])
    both = m.node("Concat", [left, right], "both", axis=1)
    four = m.node("AveragePool", [both], "mean", kernel_shape=[2, 2], strides=[2, 2])
    five = m.node("GlobalAveragePool", [four], "global")
    flat = m.node("Flatten", [five], "flat")
    gemm = [flat, m.normal("fc", 16, 5, spread=0.5), m.normal("fb", 5)]
    logits = m.node("Gemm", gemm, "logits")
    m.node("Softmax", [logits], "y")
    return m.model((1, 3, 8, 8), "y")


def small() -> Any:
    """Two convolutions and a classifier."""
    m = Maker(5)
    one = m.node("Relu", [m.conv("x", "first", 8, 3)], "relu")
    two = m.conv(one, "second", 8, 8)
    flat = m.node("Flatten", [m.node("GlobalAveragePool", [two], "mean")], "flat")
    m.node("Gemm", [flat, m.normal("fc", 8, 5), m.normal("fb", 5)], "logits")
    return m.model((1, 3, 8, 8), "logits")
