"""Which nodes of a float graph become integers, and which tensors have one quantization.

A unit is a node with the clamp behind it, if it has one: one operator of integers. Convolutions and
products with constant weights become integers wherever they stand. Sums, differences and products
of two activations, pools and Concat do if all that they read is rounded anyway, and sums and their
like only if somebody reads integers from them: within a normalization or an activation function
they stay on floats. What only moves elements goes with what it moves, or with all that read it.

Tensors between which nothing is computed (a maximum over windows, a move, a Concat) share a
quantization, so that nothing is requantized there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...isa.nest import F32
from ..graph import Call, Graph, Node
from ..onnx.qdq import MOVES, WITH_RELU

FILTERS = frozenset(("Conv", "Gemm", "MatMul"))
"""Operators with constant weights, and their bias, if any, behind those."""
PAIRS = frozenset(("Add", "Sub", "Mul"))
SAME = MOVES | {"MaxPool", "Concat"}
"""Operators whose result is quantized as their inputs are."""
KINDS = FILTERS | PAIRS | SAME | {"AveragePool", "GlobalAveragePool"}
CLAMPS = frozenset(("Relu", "Clip"))


@dataclass(frozen=True)
class Unit:
    """An operator of integers to be."""

    node: Node
    clamp: Node | None
    inputs: tuple[str, ...]
    """Activations that it reads as integers."""

    @property
    def output(self) -> str:
        """The tensor whose integers it writes."""
        return (self.clamp or self.node).outputs[0]

    @property
    def kind(self) -> str:
        """Of its operator."""
        assert isinstance(self.node.op, Call)
        return self.node.op.kind


@dataclass(frozen=True)
class Plan:
    """What becomes integers: units by the name of their node, in order."""

    units: dict[str, Unit]
    groups: dict[str, str] = field(default_factory=dict)
    """From a quantized tensor to the one that stands for all with its quantization."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """All that are quantized, in order."""
        return tuple(self.groups)


def plan(graph: Graph, skip: Iterable[str] = ()) -> Plan:
    """The plan for ``graph`` but for the nodes ``skip``."""
    skipped = frozenset(skip)
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)
    units = {
        node.name: unit
        for node in graph.nodes
        if node.name not in skipped and (unit := _unit(graph, node, readers)) is not None
    }
    while True:
        useless = set(_useless(graph, units, readers))
        if not useless:
            return Plan(units, _groups(units.values()))
        units = {name: unit for name, unit in units.items() if name not in useless}


def _useless(graph: Graph, units: dict[str, Unit], readers: dict[str, list[Node]]) -> Iterator[str]:
    """Units without constant weights that would only round floats between floats."""
    written = {unit.output for unit in units.values()}
    rounded = written.union(graph.inputs)
    for unit in units.values():
        if unit.kind in FILTERS:
            rounded.update(unit.inputs)
    for name, unit in units.items():
        after = [reader.name in units for reader in readers.get(unit.output, ())]
        if unit.kind in FILTERS:
            useful = True
        elif unit.kind in MOVES:
            useful = unit.inputs[0] in written or (bool(after) and all(after))
        else:
            useful = rounded.issuperset(unit.inputs)
            if unit.kind in PAIRS:
                useful = useful and (any(after) or unit.output in graph.outputs)
        if not useful:
            yield name


def _unit(graph: Graph, node: Node, readers: dict[str, list[Node]]) -> Unit | None:
    if not isinstance(node.op, Call) or node.op.kind not in KINDS or len(node.outputs) != 1:
        return None
    kind = node.op.kind
    if graph.tensors[node.outputs[0]].dtype != F32:
        return None
    count = len(node.inputs) if kind == "Concat" else 2 if kind in PAIRS else 1
    inputs = node.inputs[:count]
    if any(graph.tensors[name].data is not None for name in inputs):
        return None
    if kind in FILTERS and not _constant(graph, node):
        return None
    clamp = None
    after = readers.get(node.outputs[0], [])
    if kind in WITH_RELU and len(after) == 1 and node.outputs[0] not in graph.outputs:
        (only,) = after
        if isinstance(only.op, Call) and only.op.kind in CLAMPS and _bounded(graph, only):
            clamp = only
    return Unit(node, clamp, tuple(inputs))


def _constant(graph: Graph, node: Node) -> bool:
    """Whether weights and bias are constants, with one bias a channel or one in all."""
    weights, *bias = (graph.tensors[name].data if name else None for name in node.inputs[1:])
    if (
        weights is None
        or weights.ndim < 2
        or (len(node.inputs) > 2 and node.inputs[2] and bias[0] is None)
    ):
        return False
    channels = weights.shape[0]
    if isinstance(node.op, Call) and node.op.kind != "Conv":
        if weights.ndim != 2:
            return False
        channels = weights.shape[0 if dict(node.op.attributes).get("transB", 0) else 1]
    return not bias or bias[0] is None or bias[0].size in (1, channels)


def _bounded(graph: Graph, node: Node) -> bool:
    """Whether the bounds of a clamp are constants."""
    return all(not name or graph.tensors[name].data is not None for name in node.inputs[1:])


def _groups(units: Iterable[Unit]) -> dict[str, str]:
    """The groups of tensors of one quantization."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for unit in units:
        for name in (*unit.inputs, unit.output):
            root(name)
        if unit.kind in SAME:
            for name in (*unit.inputs[1:], unit.output):
                parent[root(name)] = root(unit.inputs[0])
    return {name: root(name) for name in parent}
