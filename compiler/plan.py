"""Which loop nests the host runs for some nodes, and on memory that lies how."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..isa.nest import Nest
from .flatten import flattened
from .fuse import fused
from .graph import Call, Graph, Node
from .hoist import hoist
from .lying import lying, placed
from .operators import Kernel, Operator, lowered
from .pack import Packed, packed

CONVOLUTIONS = frozenset(("Conv", "ConvInteger", "QLinearConv"))
"""Operators that are fastest on images with channels last, but have others."""


@dataclass(frozen=True, eq=False)
class HostStep:
    """Nodes that become one loop nest, or one function of numpy's arrays.

    ``reads`` and ``writes`` are tensors; for a function they stand as the node has them.
    """

    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nest: Nest | None
    constants: Mapping[str, np.ndarray]
    scratch: tuple[str, ...]
    kernel: Kernel | None = None

    def ready(self, constant: Callable[[str], np.ndarray | None]) -> Packed:
        """The nest as the code generator takes it best, with arrays that were made for it."""
        assert self.nest is not None

        def known(name: str) -> np.ndarray | None:
            return self.constants[name] if name in self.constants else constant(name)

        made = packed(self.nest, known) or Packed(hoist(self.nest))
        made.nest = flattened(made.nest)
        made.constants.update(self.constants)
        made.scratch = (*made.scratch, *self.scratch)
        return made


def planned(
    graph: Graph, nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]
) -> list[HostStep]:
    """The steps for some nodes, in their order, of which ``outputs`` are asked for."""
    steps: list[HostStep] = []
    for node in nodes:
        written = [name for name in node.outputs if name]
        if not any(math.prod(graph.tensors[name].shape) for name in written):
            continue
        made = lowered(graph, node)
        if isinstance(made, Operator):
            reads = tuple(
                b.name for b in made.nest.buffers if b.name in graph.tensors
                and b.name not in node.outputs and b.name not in made.constants
            )  # fmt: skip
            steps.append(
                HostStep(
                    (node.name,), reads, tuple(written), made.nest, made.constants, made.scratch
                )
            )
        else:
            steps.append(HostStep((node.name,), node.inputs, node.outputs, None, {}, (), made))
    kinds = {node.name: node.op.kind for node in nodes if isinstance(node.op, Call)}
    seeds = [
        name for step in steps if kinds.get(step.nodes[0]) in CONVOLUTIONS
        for name in (*step.reads, *step.writes)
    ]  # fmt: skip
    fixed = {*inputs, *outputs, *(n for n, t in graph.tensors.items() if t.data is not None)}
    shapes = {n: graph.tensors[n].shape for s in steps for n in (*s.reads, *s.writes) if n}
    strides = lying(
        [(s.nest, [n for n in (*s.reads, *s.writes) if n]) for s in steps], seeds, shapes, fixed
    )
    steps = [replace(s, nest=placed(s.nest, strides)) if s.nest is not None else s for s in steps]
    return joined(steps, outputs)


def joined(steps: Sequence[HostStep], outputs: Sequence[str]) -> list[HostStep]:
    """The steps, those that fit joined with what reads them."""
    made = list(steps)
    i = 0
    while i < len(made):
        for name in made[i].reads:
            j = next((k for k in range(i) if name in made[k].writes), None)
            one = None if j is None else _pair(made, j, i, name, outputs)
            if one is not None:
                assert j is not None
                made[i] = one
                del made[j]
                i -= 2
                break
        i += 1
        i = max(i, 0)
    return made


def _pair(
    steps: Sequence[HostStep], j: int, i: int, name: str, outputs: Sequence[str]
) -> HostStep | None:
    """Step ``j`` moved into step ``i``, which reads ``name`` from it."""
    first, second = steps[j], steps[i]
    if first.nest is None or second.nest is None:
        return None
    readers = [k for k, s in enumerate(steps) if k != i and any(n in first.writes for n in s.reads)]
    if any(k < i for k in readers) or first.scratch or second.scratch:
        return None
    others = any(name in steps[k].reads for k in readers)
    nest = fused(first.nest, second.nest, name, kept=others or name in outputs)
    if nest is None:
        return None
    buffers = {b.name for b in nest.buffers}
    constants = {**first.constants, **second.constants}
    reads = dict.fromkeys(
        n for n in (*first.reads, *second.reads) if n in buffers and n not in first.writes
    )
    writes = tuple(n for n in (*first.writes, *second.writes) if n in buffers)
    return HostStep(
        (*first.nodes, *second.nodes), tuple(reads), writes, nest,
        {n: a for n, a in constants.items() if n in buffers}, (),
    )  # fmt: skip
