"""How the operators of a network round on given hardware.

A model file says how its sums are to be rounded. Hardware without the extension ``to_even`` comes
as near to ONNX's rounding as it can: in TensorFlow Lite's way, with a finer first rounding. What
runs on the host does the same then, so that a network's results do not depend on where its parts
run.
"""

from __future__ import annotations

from dataclasses import replace

from ..isa.config import AcceleratorConfig
from .graph import Graph, Node, Rounded, Rounding


def rounded_for(graph: Graph, config: AcceleratorConfig) -> Graph:
    """``graph`` without a rounding that ``config`` does not have."""
    if config.to_even:
        return graph
    return replace(
        graph,
        nodes=tuple(
            rounding(node, "fine")
            if isinstance(node.op, Rounded) and node.op.rounding == "even"
            else node
            for node in graph.nodes
        ),
    )


def rounding(node: Node, way: Rounding) -> Node:
    """``node``, rounding in this way if it rounds."""
    if not isinstance(node.op, Rounded):
        return node
    return replace(node, op=replace(node.op, rounding=way))
