"""From a float graph and a plan to a QDQ graph: what is rounded, and where, as ONNX says it.

Behind every quantized tensor ``t`` stand ``QuantizeLinear``, which writes the bytes
``t_quantized``, and ``DequantizeLinear``, which writes ``t_dequantized``; an output of the graph
keeps its name and is what is dequantized. Weights are signed bytes of -127 to 127 with zero point
0, per output channel or not; a bias is 32 bits in the scale of the products. A clamp that the range
of its result does already is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...isa.nest import F32, I8, I32
from ..graph import Attribute, Call, Graph, Node, Quant, Tensor
from ..onnx.simplify import pruned
from .plan import FILTERS, Plan, Unit

BIAS_LIMIT = 1 << 29
"""No bias is larger in its scale: accumulators have 32 bits."""
WEIGHT_LIMIT = 127


@dataclass(frozen=True, eq=False)
class Filter:
    """A node with constant weights: which, along which axis its output channels lie, its bias."""

    weights: np.ndarray
    axis: int
    bias: np.ndarray


def filter_of(graph: Graph, unit: Unit) -> Filter:
    """The constants of a unit of :data:`.plan.FILTERS`, as they are in ``graph``."""
    node = unit.node
    assert isinstance(node.op, Call)
    weights = graph.tensors[node.inputs[1]].data
    assert weights is not None
    across = unit.kind == "MatMul" or (
        unit.kind == "Gemm" and not dict(node.op.attributes).get("transB", 0)
    )
    axis = 1 if across and weights.ndim > 1 else 0
    bias = np.zeros(weights.shape[axis], np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        data = graph.tensors[node.inputs[2]].data
        assert data is not None
        bias = np.array(np.broadcast_to(data.reshape(-1), bias.shape), np.float32)
    return Filter(weights, axis, bias)


def weight_scales(filter: Filter, x: Quant, per_channel: bool) -> np.ndarray:
    """The scales of weights: their greatest magnitude is 127; [channels], or [] for one scale.

    A channel of next to nothing has a scale in which its bias is an accumulator.
    """
    others = tuple(k for k in range(filter.weights.ndim) if k != filter.axis)
    most = np.abs(filter.weights.astype(np.float64)).max(others, initial=0)
    least = np.abs(filter.bias.astype(np.float64)) / (BIAS_LIMIT * x.scale[0])
    scales = np.maximum(most / WEIGHT_LIMIT, least)
    scales = np.maximum(scales, np.finfo(np.float32).tiny * 2**24)
    return (scales if per_channel else scales.max()).astype(np.float32)


def integer_weights(filter: Filter, scales: np.ndarray) -> np.ndarray:
    """The weights in those scales."""
    shape = [1] * filter.weights.ndim
    shape[filter.axis] = -1 if scales.ndim else 1
    ratio = filter.weights.astype(np.float64) / scales.astype(np.float64).reshape(shape)
    return np.clip(np.rint(ratio), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def inserted(
    graph: Graph,
    plan: Plan,
    quants: Mapping[str, Quant],
    *,
    per_channel: bool = True,
    biases: Mapping[str, np.ndarray] | None = None,
    open_biases: bool = False,
) -> Graph:
    """``graph`` with everything in ``plan`` between DequantizeLinear and QuantizeLinear.

    Parameters
    ----------
    graph : Graph
        Of catalog operators on floats.
    plan : Plan
        What becomes integers.
    quants : mapping
        The quantization of every tensor of the plan.
    per_channel : bool
        Whether weights have a scale for each output channel.
    biases : mapping or None
        By the name of a node: a bias instead of its own.
    open_biases : bool
        Leave biases of Conv and Gemm real, as inputs of the graph (:func:`open_bias`), and every
        clamp in its place: what comes before it is the node's own output.
    """
    return _Inserter(graph, plan, quants, per_channel, biases or {}, open_biases).graph()


class _Inserter:
    def __init__(
        self, graph: Graph, plan: Plan, quants: Mapping[str, Quant], per_channel: bool,
        biases: Mapping[str, np.ndarray], open_biases: bool,
    ):  # fmt: skip
        self.old, self.plan, self.quants = graph, plan, quants
        self.per_channel, self.biases, self.open_biases = per_channel, biases, open_biases
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.inputs = list(graph.inputs)
        self.real: dict[str, str] = {}
        """Where everybody but a unit reads a tensor that a unit writes."""
        self.dequantized: dict[str, str] = {}
        self.node_names = {node.name for node in graph.nodes}

    def graph(self) -> Graph:
        clamps = {unit.clamp.name for unit in self.plan.units.values() if unit.clamp is not None}
        for node in self.old.nodes:
            if node.name in self.plan.units:
                self.unit(self.plan.units[node.name])
            elif node.name not in clamps:
                inputs = tuple(self.real.get(name, name) for name in node.inputs)
                self.nodes.append(replace(node, inputs=inputs))
        made = replace(
            self.old, tensors=self.tensors, nodes=tuple(self.nodes), inputs=tuple(self.inputs)
        )
        return pruned(made)

    def unit(self, unit: Unit) -> None:
        """The node between what it reads and what it writes, both rounded."""
        node = unit.node
        inputs = [self.rounded(name) if name in unit.inputs else name for name in node.inputs]
        if unit.kind in FILTERS:
            inputs[1:] = self.filter(unit)
        last, clamp = unit.output, unit.clamp
        raw = self.free(f"{last}_float") if last in self.old.outputs else last
        self.like(raw, last)
        if clamp is not None and self.redundant(clamp, self.quants[last]):
            clamp = None
        plain = raw if clamp is None else node.outputs[0]
        self.nodes.append(replace(node, inputs=tuple(inputs), outputs=(plain,)))
        if clamp is not None:
            self.nodes.append(replace(clamp, inputs=(plain, *clamp.inputs[1:]), outputs=(raw,)))
        self.real[last] = self.rounded(last, raw)

    def redundant(self, clamp: Node, quant: Quant) -> bool:
        """Whether saturation in ``quant`` clamps as ``clamp`` does, to within half a step."""
        if self.open_biases:
            return False
        low, high = clamp_bounds(self.old, clamp)
        scale, zero = quant.scale[0], quant.zero_point[0]
        least, most = (I8.min - zero) * scale, (I8.max - zero) * scale
        return least >= low - scale / 2 and most <= high + scale / 2

    def rounded(self, name: str, raw: str | None = None) -> str:
        """``name`` after a QuantizeLinear and a DequantizeLinear."""
        if name in self.dequantized:
            return self.dequantized[name]
        quant = self.quants[name]
        source = raw or name
        is_output = name in self.old.outputs and raw is not None
        integers = self.free(f"{name}_quantized")
        real = name if is_output else self.free(f"{name}_dequantized")
        self.tensors[integers] = Tensor(integers, I8, self.old.tensors[name].shape)
        self.like(real, name)
        scale = self.constant(f"{name}_scale", np.float32(quant.scale[0]))
        zero = self.constant(f"{name}_zero_point", np.int8(quant.zero_point[0]))
        self.call("QuantizeLinear", (source, scale, zero), integers)
        self.call("DequantizeLinear", (integers, scale, zero), real)
        self.dequantized[name] = real
        return real

    def filter(self, unit: Unit) -> Sequence[str]:
        """Dequantized weights and, of what has one, the bias."""
        node, x = unit.node, self.quants[unit.inputs[0]]
        filter = filter_of(self.old, unit)
        if node.name in self.biases:
            filter = replace(filter, bias=self.biases[node.name])
        scales = weight_scales(filter, x, self.per_channel)
        weights = self.constant(f"{node.name}/weights", integer_weights(filter, scales))
        scale = self.constant(f"{node.name}/weights_scale", scales)
        zero = self.constant(f"{node.name}/weights_zero_point", np.zeros(scales.shape, np.int8))
        real = self.free(f"{node.name}/weights_dequantized")
        self.tensors[real] = Tensor(real, F32, filter.weights.shape)
        self.call("DequantizeLinear", (weights, scale, zero), real, axis=filter.axis)
        if unit.kind == "MatMul":
            return [real]
        if self.open_biases:
            name = open_bias(node.name)
            self.tensors[name] = Tensor(name, F32, filter.bias.shape)
            self.inputs.append(name)
            return [real, name]
        name = f"{node.name}/bias"
        if not filter.bias.any():
            return [real]
        steps = np.float32(x.scale[0]) * np.broadcast_to(scales, filter.bias.shape)
        integers = np.rint(filter.bias.astype(np.float64) / steps.astype(np.float64))
        bias = self.constant(self.free(name), integers.astype(np.int32))
        step = self.constant(f"{name}_scale", steps if scales.ndim else steps[0])
        real_bias = self.free(f"{name}_dequantized")
        self.tensors[real_bias] = Tensor(real_bias, F32, filter.bias.shape)
        self.call("DequantizeLinear", (bias, step), real_bias, axis=0)
        return [real, real_bias]

    # --- what is made

    def free(self, wish: str) -> str:
        """A name that no tensor has."""
        while wish in self.tensors:
            wish += "_"
        return wish

    def like(self, name: str, old: str) -> None:
        """A tensor of the type and shape of one of the old graph."""
        self.tensors[name] = replace(self.old.tensors[old], name=name)

    def constant(self, wish: str, data: np.ndarray | np.generic) -> str:
        """A constant of bytes, 32-bit integers or floats."""
        name, array = self.free(wish), np.asarray(data)
        dtype = {"int8": I8, "int32": I32, "float32": F32}[array.dtype.name]
        self.tensors[name] = Tensor(name, dtype, array.shape, None, array)
        return name

    def call(self, kind: str, inputs: Sequence[str], output: str, **attributes: Attribute) -> None:
        """A node called like its output."""
        call = Call(kind, tuple(sorted(attributes.items())))
        self.nodes.append(Node(self.name(output), call, tuple(inputs), (output,)))

    def name(self, wish: str) -> str:
        """A name that no node has."""
        wish = f"{wish}/node"
        while wish in self.node_names:
            wish += "_"
        self.node_names.add(wish)
        return wish


def open_bias(node: str) -> str:
    """The name of an open bias; with the space in it, no tensor of a file has it."""
    return f"{node} bias"


def clamp_bounds(graph: Graph, node: Node) -> tuple[float, float]:
    """The least and greatest value that a Relu or Clip gives; its bounds are constants."""
    assert isinstance(node.op, Call)
    if node.op.kind == "Relu":
        return 0.0, math.inf
    bounds = [-math.inf, math.inf]
    for k, name in enumerate(node.inputs[1:3]):
        data = graph.tensors[name].data if name else None
        if data is not None:
            bounds[k] = float(data.reshape(-1)[0])
    return bounds[0], bounds[1]
