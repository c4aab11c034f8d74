"""ResNet-18 on the RTL, layer by layer and as a whole, beside VTA's published RTL.

The layers are those of the network at 224 x 224, int8 in and out with requantization, weights and
inputs drawn from a seed. Every output is compared with the same network on the host, byte by byte.
VTA's cycles are those of its RTL with 32-bit results, without requantization, as measured for the
shapes of ``shared/facts/vta_isa.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import weft
from weft.compiler.graph import (
    Activation,
    Add,
    AveragePool2D,
    Conv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Node,
    Op,
    Quant,
    Reshape,
    Tensor,
    Window,
)
from weft.isa.nest import I8, I32
from weft.runtime.network import Network

SPREAD = 32.0
"""Standard deviation that a layer's outputs are scaled to, in steps of int8."""
WEIGHT_SCALE = 1 / 128


class Builder:
    """A network with random weights, whose activations use their range."""

    def __init__(self, name: str, seed: int = 0):
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.spread: dict[str, float] = {}

    def input(self, *shape: int) -> str:
        """An activation with values spread over all of int8."""
        self.spread["x"] = 74.0
        return self._tensor("x", shape, 1.0)

    def conv(
        self, x: str, channels: int, size: int, stride: int, *, activation: Activation = "none"
    ) -> str:
        """A square convolution, padded so that a stride of 1 keeps the image's size."""
        n, height, width, depth = self.tensors[x].shape
        pad = size // 2
        window = Window((size, size), (stride, stride), (1, 1), (pad, pad, pad, pad))
        rows, columns = ((extent + 2 * pad - size) // stride + 1 for extent in (height, width))
        shape = (n, rows, columns, channels)
        weights = (channels, size, size, depth)
        return self._filter("conv", Conv2D(window, activation), x, weights, shape)

    def fully_connected(self, x: str, units: int) -> str:
        """A layer over a tensor of rank 2."""
        rows, depth = self.tensors[x].shape
        return self._filter("fc", FullyConnected(), x, (units, depth), (rows, units))

    def add(self, a: str, b: str) -> str:
        """A residual sum with ReLU."""
        scale = self._scale(a, float(np.hypot(self._real(a), self._real(b))))
        return self._node("add", Add("relu"), (a, b), self.tensors[a].shape, scale)

    def pool(self, op: Op, x: str, shape: tuple[int, ...]) -> str:
        """A pool, which keeps its input's scale."""
        quant = self.tensors[x].quant
        assert quant is not None
        name = self._node(type(op).__name__, op, (x,), shape, quant.scale[0])
        self.spread[name] = self.spread[x]
        return name

    def graph(self) -> Network:
        """The network; the last node's output is its output."""
        graph = Graph(self.name, self.tensors, tuple(self.nodes), ("x",), self.nodes[-1].outputs)
        return Network(self.name, graph, f"{self.name}, seeded")

    def _filter(
        self, kind: str, op: Op, x: str, weights: tuple[int, ...], shape: tuple[int, ...]
    ) -> str:
        name = f"{kind}_{len(self.nodes)}"
        data = self.rng.integers(-127, 128, weights).astype(np.int8)
        depth = int(np.prod(weights[1:]))
        channels = weights[0]
        quant = Quant((WEIGHT_SCALE,) * channels, (0,) * channels, 0)
        if kind == "fc":
            quant = Quant((WEIGHT_SCALE,), (0,))
        self.tensors[f"{name}.weights"] = Tensor(f"{name}.weights", I8, weights, quant, data)
        bias = self.rng.integers(-1000, 1000, channels).astype(np.int32)
        self.tensors[f"{name}.bias"] = Tensor(f"{name}.bias", I32, (channels,), None, bias)
        real = self._real(x) * np.sqrt(depth) * float(data.std()) * WEIGHT_SCALE
        inputs = (x, f"{name}.weights", f"{name}.bias")
        return self._node(kind, op, inputs, shape, self._scale(x, real))

    def _real(self, x: str) -> float:
        quant = self.tensors[x].quant
        assert quant is not None
        return self.spread[x] * quant.scale[0]

    def _scale(self, x: str, real: float) -> float:
        return float(np.float32(real / SPREAD))

    def _node(
        self, kind: str, op: Op, inputs: tuple[str, ...], shape: tuple[int, ...], scale: float
    ) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.spread[name] = SPREAD
        self._tensor(name, shape, scale)
        self.nodes.append(Node(name, op, inputs, (name,)))
        return name

    def _tensor(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        self.tensors[name] = Tensor(name, I8, shape, Quant((scale,), (0,)))
        return name


def single(image: int, depth: int, channels: int, size: int, stride: int) -> Network:
    """One convolution of ResNet-18."""
    builder = Builder(f"{image}x{image} {depth}->{channels} {size}x{size}/{stride}")
    builder.conv(builder.input(1, image, image, depth), channels, size, stride, activation="relu")
    return builder.graph()


def resnet18() -> Network:
    """The whole network at 224 x 224, from the image to 1000 logits."""
    b = Builder("ResNet-18")
    x = b.conv(b.input(1, 224, 224, 3), 64, 7, 2, activation="relu")
    x = b.pool(MaxPool2D(Window((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))), x, (1, 56, 56, 64))
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for step in (stride, 1):
            y = b.conv(x, channels, 3, step, activation="relu")
            y = b.conv(y, channels, 3, 1)
            if step == 2:
                x = b.conv(x, channels, 1, step)
            x = b.add(x, y)
    x = b.pool(AveragePool2D(Window((7, 7))), x, (1, 1, 1, 512))
    x = b.pool(Reshape(), x, (1, 512))
    b.fully_connected(x, 1000)
    return b.graph()


LAYERS: Sequence[tuple[tuple[int, int, int, int, int], int | None, int]] = (
    ((56, 64, 64, 3, 1), 615_584, 470_000),
    ((28, 128, 128, 3, 1), 564_164, 468_000),
    ((14, 256, 256, 3, 1), 574_978, 468_000),
    ((7, 512, 512, 3, 1), 695_394, 480_000),
    ((56, 64, 128, 1, 2), 255_076, 28_000),
    ((224, 3, 64, 7, 2), None, 560_000),
)
"""(image, input channels, output channels, kernel, stride), VTA's cycles, the most we allow."""
WHOLE = (7_730_000, 7_900_000)
"""VTA's cycles for the whole network without its first layer, the most we allow with it."""


def measure(network: Network, hw: str, on: str) -> dict[str, Any]:
    """Run one seeded input and compare it with the host, as plain data."""
    graph = network.graph
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, graph.tensors["x"].shape).astype(np.int8)
    with weft.jit(network, hw, "cpu") as run:
        expected = run(x)
    started = time.perf_counter()
    with weft.jit(network, hw, on) as run:
        run.compile()
        compiled = time.perf_counter()
        outputs = run(x)
        record = run.report()
    assert isinstance(outputs, np.ndarray)
    assert isinstance(expected, np.ndarray)
    return {
        "name": network.name,
        "macs": record["totals"]["macs"],
        "cycles": record["totals"]["cycles"],
        "different_bytes": int((outputs != expected).sum()),
        "values": len(np.unique(expected)),
        "compile_seconds": compiled - started,
        "run_seconds": time.perf_counter() - compiled,
        "layers": record["layers"],
    }


def main() -> int:
    """Measure the layers, then the whole network, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hw", default="vta", help="preset or TOML file (default vta)")
    parser.add_argument("--on", default="rtl", choices=("rtl", "functional"))
    parser.add_argument("--layers", action="store_true", help="only the single layers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    work = [(single(*shape), vta, most) for shape, vta, most in LAYERS]
    if not options.layers:
        work.append((resnet18(), *WHOLE))
    if not options.json:
        print(f"{'layer':24}{'MACs/256':>11}{'VTA':>11}{'at most':>11}{'ours':>11}{'':>7}"
              f"{'bits':>8}{'compile':>9}{'run':>8}")  # fmt: skip
    rows: list[dict[str, Any]] = []
    for network, vta, most in work:
        row = measure(network, options.hw, options.on) | {"vta_cycles": vta, "at_most": most}
        rows.append(row)
        if not options.json:
            verdict = "ok" if row["cycles"] and row["cycles"] <= most else "short"
            bits = "exact" if not row["different_bytes"] else "DIFFER"
            print(
                f"{row['name']:24}{row['macs'] / 256:11,.0f}{vta or 'CPU':>11}{most:11,}"
                f"{row['cycles'] or 0:11,}{verdict:>7}{bits:>8}"
                f"{row['compile_seconds']:8.1f}s{row['run_seconds']:7.1f}s",
                flush=True,
            )
    if options.json:
        print(json.dumps({"hw": options.hw, "on": options.on, "layers": rows}, indent=2))
    return int(any(row["different_bytes"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
