"""Which nodes run on the accelerator, and for each other one the exact reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..isa.config import AcceleratorConfig
from ..isa.errors import UnsupportedError
from ..isa.nest import I8, Load, Stmt
from ..isa.nest import Node as Term
from ..isa.traverse import rewrite
from .catalog import Kernel as Function
from .catalog import Site, products
from .effort import Effort
from .fit import changes_nothing
from .graph import Call, Conv2D, DepthwiseConv2D, FullyConnected, Graph, Node, Reshape, op_name
from .jobs import Job, job_of
from .kernel import DRAM_RANK, Kernel, Lack, Refusal, dram_shape, kernel_of
from .operators import Operator, lowered, reason_against
from .stays import Stay
from .unfold import unfoldings

COPIES = "a copy; there is nothing to compute"
UNCHANGED = "it changes nothing, whichever of the 256 values an element has; it becomes a copy"
"""The reason of a node that the host passes on."""
INTEGERS = frozenset({"tfl.quantize", "wide.high", "wide.low"})
"""Operators of the catalog whose loop nests instructions may match."""
REASONS = {
    "wide.join": "it makes sums of 32 bits, and the accelerator stores bytes",
    "tfl.lstm_cell": "its gates and states have 16 bits, and the accelerator stores bytes",
    "tfl.dequantize": "it makes floats, and the accelerator stores bytes",
}
"""Why others have none."""


@dataclass(frozen=True)
class Placement:
    """Where a node runs: on the accelerator as ``job``, or on the host for ``reason``.

    ``node`` is the graph's, or a copy of its input that equals it. ``views`` are nodes before it
    that need not run: it reads what they would copy. ``joins`` are nodes before it that the job
    does, too: it goes on with their results where these are. ``stay`` says where on chip its output
    waits for those that read it, if it does.
    """

    node: Node
    job: Job | None
    reason: str = ""
    views: tuple[Node, ...] = ()
    stay: Stay | None = None
    joins: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that the job does, in order."""
        return (*self.joins, self.node)

    @property
    def inner(self) -> tuple[str, ...]:
        """What they hand on among themselves and nobody else sees."""
        return tuple(name for node in self.joins for name in node.outputs)


def place(
    graph: Graph,
    config: AcceleratorConfig,
    placement: str,
    on_host: frozenset[str],
    nests: Mapping[str, Operator | Function],
    effort: Effort = "default",
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
    nests : mapping
        What each node computes.
    effort : str
        How long to search for schedules.

    Raises
    ------
    UnsupportedError
        If nodes are left that neither can run; it lists them all.
    """
    placed: list[Placement] = []
    lost: list[str] = []
    views: dict[str, Node] = {}
    for node in graph.nodes:
        against_host = reason_against(graph, node)
        if against_host is not None:
            lost.append(f"node {node.name!r} ({op_name(node.op)}): {against_host}")
            continue
        if placement == "cpu":
            placed.append(Placement(node, None, "everything was asked to run on the cpu"))
        elif node.name in on_host:
            placed.append(Placement(node, None, "it was asked to run on the cpu"))
        elif _is_view(graph, node, on_host) and not _on_host(node.inputs[0], placed):
            views[node.outputs[0]] = node
        else:
            view = views.get(node.inputs[0]) if node.inputs else None
            try:
                if view is not None:
                    seen = replace(node, inputs=(view.inputs[0], *node.inputs[1:]))
                    job = job_of(_seen(graph, seen, view, nests), config, effort=effort)
                    placed.append(Placement(seen, job, views=(view,)))
                    continue
                kernel = kernel_for(graph, node, nests)
                if changes_nothing(kernel) and _on_host(node.inputs[0], placed):
                    copy = replace(node, op=Reshape(), inputs=node.inputs[:1])
                    placed.append(Placement(copy, None, UNCHANGED))
                    continue
                job = job_of(kernel, config, effort=effort)
                if _host_writes_for_it_alone(graph, node, placed):
                    job = unfolded(job, kernel, graph, config, effort)
                placed.append(Placement(node, job))
            except Refusal as refusal:
                if view is not None:
                    placed.append(Placement(view, None, COPIES))
                placed.append(Placement(node, None, str(refusal)))
    if lost:
        raise UnsupportedError(f"{graph.name}: " + "; ".join(lost))
    return tuple(placed)


def _is_view(graph: Graph, node: Node, on_host: frozenset[str]) -> bool:
    """Whether a node copies what lies in DRAM as its only reader, a matrix product, expects it."""
    readers = [other for other in graph.nodes if node.outputs[0] in other.inputs]
    if not isinstance(node.op, Reshape) or node.outputs[0] in graph.outputs or len(readers) != 1:
        return False
    if not isinstance(readers[0].op, FullyConnected) or readers[0].name in on_host:
        return False
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    if x.data is not None or max(len(x.shape), len(out.shape)) > DRAM_RANK:
        return False
    same = x.quant == out.quant and x.dtype == out.dtype and bool(x.shape and out.shape)
    return same and dram_shape(x.shape) == dram_shape(out.shape)


def _on_host(name: str, placed: Sequence[Placement]) -> bool:
    """Whether the host writes this activation."""
    return all(p.job is None for p in placed if name in p.node.outputs)


def _host_writes_for_it_alone(graph: Graph, node: Node, placed: Sequence[Placement]) -> bool:
    """Whether the host writes the node's first input, and nothing but this node reads it."""
    x = node.inputs[0]
    readers = [other for other in graph.nodes if x in other.inputs]
    return readers == [node] and _on_host(x, placed)


def unfolded(
    job: Job, kernel: Kernel, graph: Graph, config: AcceleratorConfig, effort: Effort = "default"
) -> Job:
    """``job``, or a faster one with its input unfolded."""
    for form, name, unfold in unfoldings(kernel, fills_of(graph), config):
        try:
            other = job_of(form, config, effort=effort)
        except Refusal:
            continue
        if other.estimate < job.estimate:
            other.unfold = {name: unfold}
            other.read_bytes, other.met = job.read_bytes, job.met
            job = other
    return job


def fills_of(graph: Graph) -> dict[str, int]:
    """What the ragged lanes of each activation hold: its zero point."""
    return {
        name: tensor.quant.zero_point[0] if tensor.quant is not None else 0
        for name, tensor in graph.tensors.items()
    }


def _seen(graph: Graph, node: Node, view: Node, nests: Mapping[str, Operator | Function]) -> Kernel:
    """The normal form of a node that reads what ``view`` would copy."""
    operator = nests[node.name]
    assert isinstance(operator, Operator)
    names = {view.outputs[0]: view.inputs[0]}

    def renamed(term: Term) -> Term | None:
        match term:
            case Load(buffer, indices) if buffer in names:
                return Load(names[buffer], indices)
        return None

    body = rewrite(operator.nest.body, renamed)
    assert isinstance(body, Stmt)
    buffers = tuple(replace(b, name=names.get(b.name, b.name)) for b in operator.nest.buffers)
    nest = replace(operator.nest, body=body, buffers=buffers)
    return kernel_for(graph, node, {node.name: replace(operator, nest=nest)})


def kernel_for(
    graph: Graph, node: Node, nests: Mapping[str, Operator | Function] | None = None
) -> Kernel:
    """The normal form of a node's nest; :class:`.kernel.Refusal` if it has none."""
    if isinstance(node.op, Reshape):
        raise Refusal(COPIES, Lack.WORK)
    if isinstance(node.op, Call) and node.op.kind not in INTEGERS:
        if node.op.kind in REASONS:
            raise Refusal(REASONS[node.op.kind], Lack.BYTES)
        x = graph.tensors[node.inputs[0]] if node.inputs and node.inputs[0] else None
        if x is not None and x.dtype != I8:
            raise Refusal(f"{x.name!r} is {x.dtype}, not i8", Lack.INT8)
        raise Refusal(
            f"{node.op.kind} has no form in integers that instructions match", Lack.INTEGERS
        )
    operator = lowered(graph, node) if nests is None else nests[node.name]
    assert isinstance(operator, Operator)  # none of INTEGERS is a function
    if operator.scratch:
        raise Refusal(f"{op_name(node.op)} needs memory for intermediate values", Lack.NO_SCRATCH)
    shapes: dict[str, tuple[int, ...]] = {}
    constants = dict(operator.constants)
    for buffer in operator.nest.buffers:
        if buffer.name in constants:
            continue
        tensor = graph.tensors[buffer.name]
        if tensor.name in graph.carried:
            raise Refusal(f"{tensor.name!r} is carried over from one inference to the next")
        if tensor.data is not None:
            constants[tensor.name] = tensor.data
        elif tensor.dtype != I8:
            raise Refusal(f"{tensor.name!r} is {tensor.dtype}, not i8", Lack.INT8)
        else:
            shapes[tensor.name] = tensor.shape
    return kernel_of(operator.nest, shapes, constants)


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a node, without padding."""
    match node.op:
        case Conv2D() | FullyConnected():
            weights = graph.tensors[node.inputs[1]].shape
            each = math.prod(weights[1:])
        case Call():
            return products.macs(Site.of(graph, node))
        case DepthwiseConv2D(window):
            each = math.prod(window.size)
        case _:
            return 0
    return math.prod(graph.tensors[node.outputs[0]].shape) * each


def compulsory_bytes(graph: Graph, nodes: Sequence[Node], job: Job) -> int:
    """What any schedule of a job's nodes, one after another, moves: inputs where they are used and
    constants read once, each output written once."""
    names = {name for node in nodes for name in (*node.inputs, *node.outputs)} - {*job.inputs, ""}
    inner = {name for node in nodes[:-1] for name in node.outputs}
    return job.read_bytes + tensor_bytes(graph, names) + tensor_bytes(graph, inner)


def tensor_bytes(graph: Graph, names: Iterable[str]) -> int:
    """Of whole tensors."""
    tensors = [graph.tensors[name] for name in names]
    return sum(math.prod(tensor.shape) * tensor.dtype.bits for tensor in tensors) // 8
