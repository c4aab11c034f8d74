"""The level ``nests``: what every node computes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...isa.errors import ModelError, ProgramError
from ...isa.nest import BOOL, U8, Nest
from ...isa.nest_text import format_nest, parse_nest
from ..graph import Graph, Node
from ..module import Module, Nests
from ..operators import Kernel, Operator, lowered
from .arrays import array_lines, dtype_of_array, parse_array
from .check_nest import check_nest
from .document import HEADING, Fields, Section, field_lines, quoted, shifted

FUNCTION = "function"
"""Stands for a node that is no nest: a function of the catalog."""


def nest_lines(module: Module) -> Iterator[str]:
    """A section for every node, and behind it the arrays that its lowering made."""
    assert module.nests is not None
    for node in module.graph.nodes:
        operator = module.nests[node.name]
        yield f"{HEADING}node {quoted(node.name)}"
        if isinstance(operator, Kernel):
            yield FUNCTION
            continue
        if operator.scratch:
            yield from field_lines({"scratch": list(operator.scratch)})
        yield from format_nest(operator.nest).splitlines()
        for name, array in operator.constants.items():
            yield from array_lines(node.name, name, array)


def parse_nests(module: Module, sections: Sequence[Section]) -> Module:
    """``module`` with what stands in ``sections``.

    Raises
    ------
    ModelError
        With the line.
    """
    graph = module.graph
    nodes = {node.name: node for node in graph.nodes}
    arrays = arrays_of(sections)
    nests: dict[str, Operator | Kernel] = {}
    for section in sections:
        if section.kind == "array":
            continue
        node = node_of(section, nodes, "node")
        if node.name in nests:
            section.fail(f"node {node.name!r} is given twice")
        nests[node.name] = _operator(section, graph, node, arrays.pop(node.name, {}))
    for name in nodes:
        if name not in nests:
            raise ModelError(f"expected a section of node {name!r}; there is none")
    check_owners(arrays, sections)
    return replace(module, level="nests", nests=nests)


def _operator(
    section: Section, graph: Graph, node: Node, arrays: dict[str, np.ndarray]
) -> Operator | Kernel:
    if any(line == FUNCTION for _, line in section.lines):
        made = lowered(graph, node)
        if not isinstance(made, Kernel):
            section.fail(f"expected the nest of {node.name!r}; it is no function")
        return made
    nest = parsed_nest(section)
    fields = Fields(head(section), section.number)
    scratch = fields.texts("scratch") if fields.has("scratch") else ()
    fields.end("scratch")
    ends = {name: graph.tensors[name] for name in (*node.inputs, *node.outputs) if name}
    for buffer in nest.buffers:
        if buffer.name in arrays:
            fit(section, buffer.name, nest, arrays[buffer.name])
        elif buffer.name in ends:
            tensor = ends[buffer.name]
            own = U8 if tensor.dtype == BOOL and buffer.dtype == U8 else tensor.dtype
            if buffer.dtype != own or math.prod(buffer.shape) != math.prod(tensor.shape):
                section.fail(
                    f"buffer {buffer.name!r} is {buffer.dtype}{list(buffer.shape)}; the tensor is "
                    f"{tensor.dtype}{list(tensor.shape)}"
                )
        elif buffer.name not in scratch:
            section.fail(f"buffer {buffer.name!r} is no tensor of the node, array or scratch")
    try:
        check_nest(nest, {*node.outputs, *scratch})
    except ModelError as error:
        section.fail(f"{node.name!r}: {error}")
    return Operator(nest, arrays, scratch)


# --- what the schedule's sections have in common with these --------------------------------------


def arrays_of(sections: Sequence[Section]) -> dict[str, dict[str, np.ndarray]]:
    """All arrays, by owner and name."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for section in sections:
        if section.kind == "array":
            owner, name, array = parse_array(section)
            if name in arrays.setdefault(owner, {}):
                section.fail(f"{owner!r} has an array {name!r} already")
            arrays[owner][name] = array
    return arrays


def node_of(section: Section, nodes: Mapping[str, Node], *kinds: str) -> Node:
    """The node that a heading names."""
    if section.kind not in kinds:
        section.fail(f"expected a section {', '.join(kinds)} or array, not {section.kind!r}")
    name = section.heading.name()
    section.heading.expect("")
    if name not in nodes:
        section.fail(f"the graph has no node {name!r}")
    return nodes[name]


def parsed_nest(section: Section) -> Nest:
    """The nest of a section."""
    number, text = section.text("nest ")
    if not text:
        section.fail("expected a nest")
    try:
        return parse_nest(text)
    except ProgramError as error:
        raise shifted(error, number - 1) from None
    except (ValueError, RecursionError) as error:
        section.fail(f"a nest that cannot be read ({error})")


def head(section: Section) -> list[tuple[int, str]]:
    """The lines before the nest."""
    number, _ = section.text("nest ")
    return [(at, line) for at, line in section.lines if at < number]


def fit(section: Section, name: str, nest: Nest, array: np.ndarray) -> None:
    """Refuse an array that is not what its buffer says."""
    buffer = nest.buffer(name)
    if buffer.dtype != dtype_of_array(array) or buffer.shape != array.shape:
        section.fail(
            f"buffer {name!r} is {buffer.dtype}{list(buffer.shape)}; the array is "
            f"{dtype_of_array(array)}{list(array.shape)}"
        )


def check_owners(left: Mapping[str, object], sections: Sequence[Section]) -> None:
    """Refuse arrays that belong to nobody."""
    for section in sections:
        if section.kind != "array":
            continue
        token = section.heading.tokens[1]
        if (json.loads(token) if token.startswith('"') else token) in left:
            section.fail("an array of nobody's")


def equal(a: Operator | Kernel, b: Operator | Kernel) -> bool:
    """Whether two nests are the same; functions are."""
    if isinstance(a, Kernel) or isinstance(b, Kernel):
        return isinstance(a, Kernel) and isinstance(b, Kernel)
    return (
        a.nest == b.nest
        and a.scratch == b.scratch
        and a.constants.keys() == b.constants.keys()
        and all(np.array_equal(array, b.constants[name]) for name, array in a.constants.items())
    )


def check_host(graph: Graph, node: Node, nests: Nests) -> None:
    """Refuse a nest of a node on the host that is not the graph's: host code is made from the
    graph, when a package is loaded.

    Raises
    ------
    ModelError
        Naming the node.
    """
    if not equal(nests[node.name], lowered(graph, node)):
        raise ModelError(
            f"node {node.name!r} runs on the host, which makes its code from the graph; its nest "
            "cannot be another one"
        )
