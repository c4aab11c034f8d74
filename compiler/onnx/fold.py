"""Operators of the catalog on constants: what a graph need not compute again at every call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...isa.interpret import interpret
from ...isa.nest import Const, Expr, For, Stmt, Sum
from ...isa.storage import numpy_dtype
from ...isa.traverse import children
from ..catalog import CATALOG, Code, Kernel, Site
from ..graph import element_dtype

STEP_LIMIT = 1 << 24
"""Of one node; beyond that the network's own code is faster."""
ALL_STEPS = 1 << 27
"""Of all nodes of a graph."""


@dataclass
class Budget:
    """What may still be computed while a graph is built: a small file can ask for very much."""

    left: int = field(default_factory=lambda: ALL_STEPS)

    def pays(self, steps: int) -> bool:
        """Whether so many steps are left; then they are taken."""
        if steps > min(self.left, STEP_LIMIT):
            return False
        self.left -= steps
        return True


def evaluate(
    site: Site, inputs: Sequence[np.ndarray | None], budget: Budget | None = None
) -> list[np.ndarray] | None:
    """The outputs of an operator, by its own definition.

    Parameters
    ----------
    site : Site
        With its outputs.
    inputs : sequence
        Their values, None for absent ones.
    budget : Budget or None
        What it may take.

    Returns
    -------
    list or None
        None if ``budget`` does not suffice.
    """
    outputs = [np.zeros(t.shape, element_dtype(t.dtype)) for t in site.outputs]
    if not any(output.size for output in outputs):
        return outputs
    made = CATALOG[site.kind].code(site)
    if budget is not None and not budget.pays(_steps(made, site)):
        return None
    if isinstance(made, Kernel):
        results = made(site.name, inputs)
        return [
            np.array(np.broadcast_to(value, o.shape), o.dtype, order="C")
            for value, o in zip(results, outputs, strict=True)
        ]
    arrays: dict[str, np.ndarray] = dict(made.constants)
    for tensor, value in (*zip(site.inputs, inputs, strict=True),
                          *zip(site.outputs, outputs, strict=True)):  # fmt: skip
        if tensor is not None and value is not None:
            arrays[tensor.name] = value.view(np.uint8) if value.dtype == bool else value
    shaped: dict[str, np.ndarray] = {}
    for buffer in made.nest.buffers:
        if buffer.name in made.scratch:
            shaped[buffer.name] = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
        else:
            shaped[buffer.name] = arrays[buffer.name].reshape(buffer.shape)
    interpret(made.nest, {}, shaped)
    return outputs


def _steps(made: Code | Kernel, site: Site) -> int:
    """About how much there is to do."""
    if isinstance(made, Code):
        return _trips(made.nest.body)
    return sum(math.prod(tensor.shape) for tensor in (*site.present(), *site.outputs))


def _trips(node: Stmt | Expr) -> int:
    """How often what is innermost is done, where loops have literal ends."""
    within = sum(map(_trips, children(node)))
    if isinstance(node, Sum):
        return math.prod(extent for _, extent in node.axes) * max(1, within)
    if isinstance(node, For):
        ends = node.start, node.stop
        if all(isinstance(end, Const) for end in ends):
            first, last = (int(end.value) for end in ends if isinstance(end, Const))
            return max(0, last - first) * max(1, within)
    return within
