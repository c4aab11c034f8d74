"""The networks that come with the package ``onnx`` without their weights: every constant of size is
a ConstantOfShape in them.

``python -m tests.compiler.onnx.light [WORD ...]`` runs all, or those whose names hold one of the
words, with weights drawn at random in place of those constants, and prints what that takes and how
far the answer is from onnxruntime's.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import weft
from tests.compiler.onnx.models import numpy_helper, onnx, reference
from weft.compiler.onnx import read
from weft.runtime.network import of_model

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.onnx")))


def loaded(name: str) -> Any:
    """The model as it is in the package."""
    return onnx.load(FOLDER / f"{name}.onnx")


def with_weights(proto: Any) -> Any:
    """The model with weights: what is drawn depends on nothing but the model."""
    drawn = onnx.ModelProto()
    drawn.CopyFrom(proto)
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    random = np.random.default_rng(1)
    del drawn.graph.node[:]
    for node in proto.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            drawn.graph.node.add().CopyFrom(node)
            continue
        shape = tuple(shapes[node.input[0]])
        value = random.uniform(0.5, 1.5, shape)
        if len(shape) > 1:
            fan = int(np.prod(shape[1:]))
            value = random.standard_normal(shape, np.float32) * np.sqrt(2 / fan)
        drawn.graph.initializer.append(
            numpy_helper.from_array(value.astype(np.float32), node.output[0])
        )
    return drawn


def image() -> np.ndarray:
    """What all of them take."""
    return np.random.default_rng(2).random((1, 3, 224, 224), np.float32)


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in units of the largest value."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def _report(name: str) -> str:
    """A row of the table, of a process of its own."""
    data = with_weights(loaded(name)).SerializeToString()
    size = len(data) / 1e6
    x, before = image(), _peak()
    seconds = [time.process_time()]
    network = of_model(read(data, name), name)
    seconds.append(time.process_time())
    with weft.jit(network, "base", "cpu") as run:
        got = run(x)
        seconds.append(time.process_time())
        run(x)
        seconds.append(time.process_time())
    assert network.graph is not None
    peak, nodes = _peak() - before, len(network.graph.nodes)
    (expected,) = reference(data, {network.graph.inputs[0]: x})
    load, first, again = (b - a for a, b in pairwise(seconds))
    return (
        f"{name:22} {size:5.0f} MB {nodes:4} nodes: read {load:5.2f} s, compiled and run "
        f"{first:5.2f} s, run {again:5.2f} s, {peak / 1e6:5.0f} MB more at most; "
        f"{difference(got, expected):.0e} from onnxruntime"
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["--one"]:
        print(_report(words[1]))
        return
    for name in NAMES:
        if not words or any(word in name for word in words):
            command = [sys.executable, "-m", "tests.compiler.onnx.light", "--one", name]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
