"""Float networks quantized here: what does each way to choose ranges cost in top-1?

    python benchmarks/quantize.py [--on functional|cpu] [NAME ...]

Every network is calibrated on the first of its samples and tested on the others. ``digits`` is the
example's, trained here (it needs scikit-learn), calibrated on images that it was trained on and
tested on those held out. The last column is the signal-to-noise ratio of the network's output on
the calibration data. Exit code 1 if a way, with all else at its defaults, loses more than a point.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the example trains: the same result every time

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import weft
from weft.compiler import onnx
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
    Reshape,
    Tensor,
    Window,
)
from weft.compiler.quantize import Options, quantize
from weft.compiler.quantize.quantize import prepared
from weft.isa.nest import F32
from weft.runtime.network import Network
from weft.sim.paths import cache_directory

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("WEFT_SHARED", ROOT.parent / "shared"))
CALIBRATION = {"digits": 100, "resnet8_cifar10": 50, "dscnn_kws": 100, "resnet20_cifar10": 50}
"""Samples that ranges and biases come from: the first ones."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WAYS: dict[str, dict[str, Any]] = {
    "minmax": {},
    "percentile": {"method": "percentile"},
    "mse": {"method": "mse"},
    "entropy": {"method": "entropy"},
    "minmax, biases as they are": {"bias_correction": False},
    "minmax, weights of one scale": {"per_channel": False},
}
POINT = 0.01
"""What a way may lose; the last two are there for comparison and may lose more."""

Data = tuple[Graph, np.ndarray, np.ndarray, int]
"""The float graph, samples, labels, and how many of them are for calibration."""


def resnet20() -> Data:
    """The ONNX file; images are normalized as its origin says."""
    folder = SHARED / "models" / "resnet20_cifar10"
    golden = np.load(folder / "resnet20_cifar10_golden.npz")
    x = (golden["x"].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    graph = weft.load(folder / "resnet20_cifar10_fp32.onnx").graph
    return graph, np.ascontiguousarray(x.transpose(0, 3, 1, 2)), golden["y"], 0


def tflite(name: str) -> Data:
    """A float TFLite file; samples are those of the int8 file beside it, made real."""
    folder = SHARED / "models" / name
    golden = np.load(folder / f"{name}_golden.npz")
    integers = weft.load(folder / f"{name}.tflite").graph
    quant = integers.tensors[integers.inputs[0]].quant
    assert quant is not None
    x = (golden["x"].astype(np.float32) - quant.zero_point[0]) * np.float32(quant.scale[0])
    return weft.load(folder / f"{name}_float.tflite").graph, x, golden["y"], 0


def digits() -> Data:
    """The example's network, trained; calibration images come first, held-out ones behind them."""
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    import train

    images, labels = train.data()
    reals = images.astype(np.float32) / train.BRIGHTEST
    layers = train.train(reals[train.HELD_OUT :], labels[train.HELD_OUT :], say=False)
    count = CALIBRATION["digits"]
    order = np.r_[train.HELD_OUT : train.HELD_OUT + count, 0 : train.HELD_OUT]
    return float_graph(layers), reals[order], labels[order], count


def float_graph(layers: Sequence[Any]) -> Graph:
    """The example's layers as TFLite's operators on floats, for one image of 8 x 8."""
    import layers as kinds

    image = Tensor("image", F32, (1, 8, 8, 1))
    tensors, nodes = {"image": image}, list[Node]()
    halves = Window((2, 2), (2, 2))
    value = np.zeros((1, 8, 8, 1), np.float32)

    def constant(name: str, data: np.ndarray) -> str:
        data = np.ascontiguousarray(data, np.float32)
        tensors[name] = Tensor(name, F32, data.shape, None, data)
        return name

    def add(kind: str, op: Op, inputs: tuple[str, ...], value: np.ndarray) -> str:
        name = f"{kind}{len(nodes)}"
        tensors[name] = Tensor(name, F32, (1, *value.shape[1:]))
        nodes.append(Node(name, op, inputs, (name,)))
        return name

    def chain(body: Sequence[Any], x: str, value: np.ndarray) -> tuple[str, np.ndarray]:
        for i, layer in enumerate(body):
            if isinstance(layer, kinds.Relu):
                continue
            after = body[i + 1] if i + 1 < len(body) else None
            relu: Activation = "relu" if isinstance(after, kinds.Relu) else "none"
            at, result = f"w{len(nodes)}", layer.forward(value)
            match layer:
                case kinds.Conv() | kinds.Depthwise():
                    k = layer.size // 2
                    window = Window((layer.size, layer.size), pads=(k, k, k, k))
                    w, op = layer.weights[None], DepthwiseConv2D(window, 1, relu)
                    if isinstance(layer, kinds.Conv):
                        w, op = np.moveaxis(layer.weights, 3, 0), Conv2D(window, relu)
                    inputs = (x, constant(at, w), constant(f"{at}.bias", layer.bias))
                    x = add("conv", op, inputs, result)
                case kinds.Dense():
                    inputs = (
                        x, constant(at, layer.weights.T), constant(f"{at}.bias", layer.bias),
                    )  # fmt: skip
                    x = add("dense", FullyConnected(relu), inputs, result)
                case kinds.Residual():
                    y, _ = chain(layer.body, x, value)
                    x = add("add", Add(relu), (x, y), result)
                case kinds.MaxPool():
                    x = add("pool", MaxPool2D(halves), (x,), result)
                case kinds.MeanPool():
                    x = add("mean", AveragePool2D(halves), (x,), result)
                case kinds.Flatten():
                    x = add("flat", Reshape(), (x,), result)
            value = result
        return x, value

    output, _ = chain(layers, "image", value)
    return Graph("digits", tensors, tuple(nodes), ("image",), (output,))


NETWORKS = {
    "digits": digits,
    "resnet8_cifar10": lambda: tflite("resnet8_cifar10"),
    "dscnn_kws": lambda: tflite("dscnn_kws"),
    "resnet20_cifar10": resnet20,
}


def top1(network: Network, on: str, x: np.ndarray, y: np.ndarray) -> float:
    """The fraction of samples that get their label."""
    with weft.jit(network, "base", on) as run:
        scores = run(x)
    assert isinstance(scores, np.ndarray)
    return float((scores.argmax(1) == y).mean())


def measure(name: str, on: str) -> dict[str, Any]:
    """One network every way, as plain data."""
    graph, x, y, _ = NETWORKS[name]()
    count = CALIBRATION[name]
    test, labels = x[count:], y[count:]
    simple = prepared(graph)
    sha = hashlib.sha256(onnx.write(simple)).hexdigest()
    record: dict[str, Any] = {
        "network": name,
        "calibrated_on": count,
        "tested_on": len(test),
        "float": top1(Network(name, simple, sha), "cpu", test, labels),
        "ways": {},
    }
    for way, given in WAYS.items():
        options = Options(**given, cache=cache_directory() / "host")
        made = quantize(graph, {graph.inputs[0]: x[:count]}, options)
        data = onnx.write(made.qdq)
        model = onnx.read(data, name)
        integers = model.graph(model.shapes({}))
        network = Network(name, integers, hashlib.sha256(data).hexdigest())
        (noise,) = made.outputs.values()
        accuracy = top1(network, on, test, labels)
        record["ways"][way] = {"top1": accuracy, "snr_db": noise.decibels}
    return record


def main() -> int:
    """Measure the named networks, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--on", default="functional", choices=("functional", "cpu"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    unknown = set(options.names) - set(NETWORKS)
    if unknown:
        parser.error(f"no network {min(unknown)}; there are {', '.join(NETWORKS)}")
    records = [measure(name, options.on) for name in options.names or NETWORKS]
    if options.json:
        print(json.dumps(records, indent=2))
    else:
        _print(records)
    losses = [
        record["float"] - record["ways"][way]["top1"]
        for record in records
        for way in WAYS
        if "," not in way
    ]
    return int(max(losses) > POINT)


def _print(records: Sequence[dict[str, Any]]) -> None:
    print("| network | calibrated on | tested on | float | " + " | ".join(WAYS) + " |")
    print("|---" * (4 + len(WAYS)) + "|")
    for record in records:
        cells = [f"{way['top1']:.1%} ({way['snr_db']:.1f} dB)" for way in record["ways"].values()]
        print(
            f"| {record['network']} | {record['calibrated_on']} | {record['tested_on']} | "
            f"{record['float']:.1%} | " + " | ".join(cells) + " |"
        )


if __name__ == "__main__":
    sys.exit(main())
