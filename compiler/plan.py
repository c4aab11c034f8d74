"""Which loop nests the host runs for some nodes, and on memory that lies how."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..isa.nest import Load, Nest, Stmt, Store
from ..isa.nest import Node as Term
from ..isa.tiles import Target
from ..isa.traverse import rewrite
from .fuse import fused
from .graph import Call, Graph, Node
from .hoist import hoist
from .lying import lying, placed
from .operators import Kernel, Operator, lowered
from .pack import packed
from .pack_forms import Packed

CONVOLUTIONS = frozenset(("Conv", "ConvInteger", "QLinearConv"))
"""Operators that are fastest on images with channels last, but have others."""


@dataclass(frozen=True, eq=False)
class HostStep:
    """Nodes that become one loop nest, or one function of numpy's arrays.

    ``reads`` and ``writes`` are tensors; the inputs of a function are ``arguments``, as its node
    has them.
    """

    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nest: Nest | None
    constants: Mapping[str, np.ndarray]
    scratch: tuple[str, ...]
    kernel: Kernel | None = None
    arguments: tuple[str, ...] = ()

    def ready(
        self, constant: Callable[[str], np.ndarray | None], target: Target
    ) -> tuple[Packed, list[str]]:
        """The nest with its contractions made ready for a processor, and the names of the buffers
        that it calls ``b0``, ``b1`` ...: steps of the same structure have the same nest."""
        assert self.nest is not None
        names = [buffer.name for buffer in self.nest.buffers]

        def known(name: str) -> np.ndarray | None:
            own = names[int(name[1:])]
            return self.constants[own] if own in self.constants else constant(own)

        form = anonymous(self.nest)
        return packed(form, known, target) or Packed(hoist(form)), names


def anonymous(nest: Nest) -> Nest:
    """``nest`` without names of its own: a name may hold anything, and twins become equal."""
    names = {buffer.name: f"b{i}" for i, buffer in enumerate(nest.buffers)}

    def rule(term: Term) -> Term | None:
        match term:
            case Load(buffer, indices):
                return Load(names[buffer], indices)
            case Store(buffer, indices, value):
                return Store(names[buffer], indices, value)
        return None

    body = rewrite(nest.body, rule)
    assert isinstance(body, Stmt)
    buffers = tuple(replace(buffer, name=names[buffer.name]) for buffer in nest.buffers)
    return Nest("", nest.params, buffers, body)


VIEWS = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"))
"""Operators that give the same elements in the same order."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps, and tensors that are others under another shape."""

    steps: list[HostStep]
    views: dict[str, str]


def planned(
    graph: Graph, nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]
) -> Plan:
    """The steps for some nodes, in their order, of which ``outputs`` are asked for."""
    steps: list[HostStep] = []
    views: dict[str, str] = {}
    for node in nodes:
        written = [name for name in node.outputs if name]
        if not any(math.prod(graph.tensors[name].shape) for name in written):
            continue
        if _is_view(graph, node):
            views[written[0]] = views.get(node.inputs[0], node.inputs[0])
            continue
        made = lowered(graph, node)
        if isinstance(made, Operator):
            names = [b.name for b in made.nest.buffers if b.name not in made.constants]
            reads = [n for n in names if n in graph.tensors and n not in node.outputs]
            step = HostStep(
                (node.name,), (), tuple(written), made.nest, made.constants, made.scratch
            )
        else:
            reads = [n for n in node.inputs if n]
            step = HostStep((node.name,), (), node.outputs, None, {}, (), made, node.inputs)
        steps.append(replace(step, reads=tuple(dict.fromkeys(views.get(n, n) for n in reads))))
    kinds = {node.name: node.op.kind for node in nodes if isinstance(node.op, Call)}
    seeds = [
        name for step in steps if kinds.get(step.nodes[0]) in CONVOLUTIONS
        for name in (*step.reads, *step.writes)
    ]  # fmt: skip
    constants = [n for n, t in graph.tensors.items() if t.data is not None]
    fixed = {*inputs, *outputs, *constants, *views, *views.values()}
    shapes = {n: graph.tensors[n].shape for s in steps for n in (*s.reads, *s.writes) if n}
    strides = lying(
        [(s.nest, [n for n in (*s.reads, *s.writes) if n]) for s in steps], seeds, shapes, fixed
    )
    steps = [
        s if s.nest is None else replace(s, nest=placed(s.nest, strides, s.scratch)) for s in steps
    ]
    asked = [views.get(name, name) for name in outputs]
    return Plan(joined(steps, asked), views)


def _is_view(graph: Graph, node: Node) -> bool:
    """Whether a node's output can be its input's memory."""
    kind = node.op.kind if isinstance(node.op, Call) else type(node.op).__name__
    if kind not in VIEWS or len(node.outputs) != 1 or not node.inputs or not node.inputs[0]:
        return False
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    return x.dtype == out.dtype and math.prod(x.shape) == math.prod(out.shape)


def joined(steps: Sequence[HostStep], outputs: Sequence[str]) -> list[HostStep]:
    """The steps, those that fit joined with what reads them."""
    made: list[HostStep | None] = list(steps)
    writer = {name: k for k, step in enumerate(steps) for name in step.writes}
    readers: dict[str, set[int]] = {}
    for k, step in enumerate(steps):
        for name in step.reads:
            readers.setdefault(name, set()).add(k)
    for i in range(len(made)):
        again = True
        while again:
            again = False
            second = made[i]
            assert second is not None
            for name in second.reads:
                first = made[writer[name]] if name in writer else None
                if first is None or writer[name] == i:
                    continue
                later = {k for n in first.writes for k in readers.get(n, ())} - {i}
                if any(k < i for k in later):
                    continue
                kept = name in outputs or bool(readers[name] - {i})
                one = _pair(first, second, name, kept)
                if one is None:
                    continue
                j = writer[name]
                made[j], made[i] = None, one
                for n in first.reads:
                    readers[n] = (readers[n] - {j}) | {i}
                if not kept:
                    readers[name] = set()
                for n in first.writes:
                    writer[n] = i
                again = True
                break
    return [step for step in made if step is not None]


def _pair(first: HostStep, second: HostStep, name: str, kept: bool) -> HostStep | None:
    """Both steps as one; the second reads ``name`` from the first."""
    if first.nest is None or second.nest is None or first.scratch or second.scratch:
        return None
    if all(b.name != name for b in second.nest.buffers):
        return None  # it reads it under another shape
    nest = fused(first.nest, second.nest, name, kept)
    if nest is None:
        return None
    buffers = {b.name for b in nest.buffers}
    constants = {**first.constants, **second.constants}
    reads = dict.fromkeys(n for n in (*first.reads, *second.reads) if n not in first.writes)
    writes = tuple(n for n in (*first.writes, *second.writes) if n in buffers)
    return HostStep(
        (*first.nodes, *second.nodes), tuple(reads), writes, nest,
        {n: a for n, a in constants.items() if n in buffers}, (),
    )  # fmt: skip
