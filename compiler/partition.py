"""Which nodes run on the accelerator, and for each other one the exact reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..isa.config import AcceleratorConfig
from ..isa.errors import UnsupportedError
from ..isa.nest import I8
from .graph import Conv2D, DepthwiseConv2D, FullyConnected, Graph, Node, Reshape
from .jobs import Job, job_of
from .kernel import Kernel, Refusal, kernel_of
from .operators import nest_of, reason_against


@dataclass(frozen=True)
class Placement:
    """Where a node runs: on the accelerator as ``job``, or on the host for ``reason``."""

    node: Node
    job: Job | None
    reason: str = ""


def place(
    graph: Graph, config: AcceleratorConfig, placement: str, on_host: frozenset[str]
) -> tuple[Placement, ...]:
    """A placement for every node, in the graph's order.

    Parameters
    ----------
    graph : Graph
        A verified graph.
    config : AcceleratorConfig
        The hardware.
    placement : str
        ``auto``, or ``cpu`` for everything on the host.
    on_host : frozenset of str
        Nodes that run on the host in any case.

    Raises
    ------
    UnsupportedError
        If nodes are left that neither can run; it lists them all.
    """
    placed: list[Placement] = []
    lost: list[str] = []
    for node in graph.nodes:
        against_host = reason_against(graph, node)
        if against_host is not None:
            lost.append(f"node {node.name!r} ({type(node.op).__name__}): {against_host}")
            continue
        if placement == "cpu":
            placed.append(Placement(node, None, "everything was asked to run on the cpu"))
        elif node.name in on_host:
            placed.append(Placement(node, None, "it was asked to run on the cpu"))
        else:
            try:
                placed.append(Placement(node, job_of(kernel_for(graph, node), config)))
            except Refusal as refusal:
                placed.append(Placement(node, None, str(refusal)))
    if lost:
        raise UnsupportedError(f"{graph.name}: " + "; ".join(lost))
    return tuple(placed)


def kernel_for(graph: Graph, node: Node) -> Kernel:
    """The normal form of a node's nest; :class:`.kernel.Refusal` if it has none."""
    if isinstance(node.op, Reshape):
        raise Refusal("a copy; there is nothing to compute")
    operator = nest_of(graph, node)
    if operator.scratch:
        raise Refusal(f"{type(node.op).__name__} needs memory for intermediate values")
    shapes: dict[str, tuple[int, ...]] = {}
    constants = dict(operator.constants)
    for buffer in operator.nest.buffers:
        if buffer.name in constants:
            continue
        tensor = graph.tensors[buffer.name]
        if tensor.data is not None:
            constants[tensor.name] = tensor.data
        elif tensor.dtype != I8:
            raise Refusal(f"{tensor.name!r} is {tensor.dtype}, not i8")
        else:
            shapes[tensor.name] = tensor.shape
    return kernel_of(operator.nest, shapes, constants)


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a node, without padding."""
    match node.op:
        case Conv2D() | FullyConnected():
            weights = graph.tensors[node.inputs[1]].shape
            each = math.prod(weights[1:])
        case DepthwiseConv2D(window):
            each = math.prod(window.size)
        case _:
            return 0
    return math.prod(graph.tensors[node.outputs[0]].shape) * each


def compulsory_bytes(graph: Graph, node: Node) -> int:
    """What any schedule moves: each input and constant read once, each output written once."""
    tensors = [graph.tensors[name] for name in {*node.inputs, *node.outputs} if name]
    return sum(math.prod(tensor.shape) * tensor.dtype.bits // 8 for tensor in tensors)
