"""Quantized networks beside their reference, each layer fed what the reference fed it.

``python -m tests.compiler.onnx.layers [SAMPLES] [--hw NAME]`` prints, for every quantized tensor of
the two quantized networks that were measured elsewhere, how many elements differ from what
onnxruntime computes in single precision; and for every sample of another class what the file says
in double precision (:mod:`.exact`). The hardware decides how the host rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import weft
from tests.compiler.onnx.exact import evaluated
from tests.compiler.onnx.models import onnx, session
from tests.compiler.onnx.networks import NETWORKS, Measured
from weft.compiler.graph import Graph, Node, op_name
from weft.compiler.pipeline import compile_graph
from weft.isa import PRESETS, AcceleratorConfig
from weft.runtime.executor import Executor

Values = Mapping[str, np.ndarray]


@dataclass
class Layer:
    """One quantized tensor in both."""

    tensor: str
    op: str
    elements: int = 0
    different: int = 0
    beyond: int = 0
    """Elements that are more than one step away."""

    def see(self, got: np.ndarray, expected: np.ndarray) -> None:
        """Compare the values of one sample."""
        steps = np.abs(got.astype(np.int64) - expected.astype(np.int64))
        self.elements += steps.size
        self.different += int((steps > 0).sum())
        self.beyond += int((steps > 1).sum())


class Reference:
    """Every tensor that onnxruntime computes of a model, by its name in the file."""

    def __init__(self, proto: Any):
        shown = onnx.ModelProto()
        shown.CopyFrom(proto)
        self.names = [name for node in proto.graph.node for name in node.output if name]
        del shown.graph.output[:]
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        self.session = session(shown)

    def __call__(self, inputs: Values) -> dict[str, np.ndarray]:
        values = self.session.run(self.names, dict(inputs))
        return {**inputs, **dict(zip(self.names, values, strict=True))}


def value_of(graph: Graph, name: str, values: Values) -> np.ndarray | None:
    """The value of a tensor of the graph, given those of the file; None if the file has none.

    The graph has images as NHWC, too, and unsigned bytes as signed ones.
    """
    tensor, image = graph.tensors[name], name.removesuffix("/nhwc")
    if name in values:
        value = values[name]
    elif image in values:
        value = values[image].transpose(0, 2, 3, 1)
    else:
        return None
    if value.dtype == np.uint8 and tensor.dtype.kind == "i":
        value = (value.astype(np.int16) - 128).astype(np.int8)
    return np.ascontiguousarray(value).reshape(tensor.shape)


def cut(graph: Graph, values: Values) -> tuple[Graph, dict[str, str]]:
    """The graph with every tensor that ``values`` has as an input, and the tensors that are
    computed of them under other names: ``{name: name of what is computed}``."""
    known = {
        name
        for name, tensor in graph.tensors.items()
        if tensor.data is None and value_of(graph, name, values) is not None
    }
    made = {n: f"{n}/made" for node in graph.nodes for n in node.outputs if n in known}
    tensors = {**graph.tensors, **{m: replace(graph.tensors[n], name=m) for n, m in made.items()}}
    nodes: list[Node] = [
        replace(node, outputs=tuple(made.get(name, name) for name in node.outputs))
        for node in graph.nodes
    ]
    inputs = tuple(name for name in graph.tensors if name in known)
    return Graph(graph.name, tensors, tuple(nodes), inputs, tuple(made.values())), made


def measured(
    graph: Graph, proto: Any, samples: Sequence[Values], hardware: str = "base"
) -> list[Layer]:
    """The quantized tensors of ``graph``, each computed from the reference's own tensors, on the
    host beside a preset."""
    reference = Reference(proto)
    layers: dict[str, Layer] = {}
    executor, made, inputs = None, dict[str, str](), ()
    for sample in samples:
        values = reference(sample)
        if executor is None:
            pieces, made = cut(graph, values)
            inputs = pieces.inputs
            config = AcceleratorConfig.preset(hardware)
            executor = Executor(compile_graph(pieces, config, placement="cpu"), None)
            writers = {name: node for node in graph.nodes for name in node.outputs}
            layers = {
                name: Layer(name, op_name(writers[name].op))
                for name in made
                if graph.tensors[name].dtype.kind != "f"
            }
        given = {name: value_of(graph, name, values) for name in inputs}
        got, _ = executor({name: value for name, value in given.items() if value is not None})
        for name, layer in layers.items():
            expected = value_of(graph, name, values)
            assert expected is not None
            layer.see(got[made[name]], expected)
    return list(layers.values())


@dataclass(frozen=True)
class Parting:
    """A sample that the network puts into another class than its reference does."""

    sample: int
    got: int
    reference: int
    exact: np.ndarray
    """What the file says in double precision."""


def partings(network: Measured, got: np.ndarray) -> Iterator[Parting]:
    """Where answers for the first samples are of another class."""
    expected = network.golden["out_qdq"][: len(got)]
    for k in np.nonzero(got.argmax(1) != expected.argmax(1))[0]:
        (exact,) = evaluated(network.proto, network.sample(int(k)))
        yield Parting(int(k), int(got[k].argmax()), int(expected[k].argmax()), exact[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantized networks beside their reference.")
    parser.add_argument("samples", nargs="?", type=int, help="how many of each (all)")
    parser.add_argument("--hw", default="base", choices=PRESETS, help="the hardware (base)")
    options = parser.parse_args()
    for name in NETWORKS:
        network = Measured.load(name)
        net = weft.load(network.path)
        samples = [network.sample(k) for k in range(network.count)][: options.samples]
        layers = measured(net.graph, network.proto, samples, options.hw)
        for layer in layers:
            if layer.different:
                print(f"{layer.tensor:48} {layer.op:16} {layer.different} of {layer.elements}")
        total, different, beyond = (
            sum(getattr(layer, what) for layer in layers)
            for what in ("elements", "different", "beyond")
        )
        print(
            f"{name}: {len(samples)} samples, {len(layers)} quantized tensors: {different} of "
            f"{total} elements differ, {beyond} by more than one step"
        )
        with weft.jit(net, options.hw, "cpu") as run:
            got = run(*(np.concatenate(list(x)) for x in _columns(samples)))
        found = list(partings(network, got))
        print(f"{name}: {len(samples) - len(found)} of {len(samples)} samples in the same class")
        for p in found:
            logits = ", ".join(f"{p.exact[c]:.3f} of class {c}" for c in (p.got, p.reference))
            print(f"  sample {p.sample}: class {p.got}, {p.reference} in single precision; {logits}"
                  " in double precision")  # fmt: skip


def _columns(samples: Sequence[Values]) -> Iterator[Iterator[np.ndarray]]:
    """The samples of each input."""
    for name in samples[0]:
        yield (sample[name] for sample in samples)


if __name__ == "__main__":
    main()
