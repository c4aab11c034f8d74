"""The level ``schedule``: where every node runs, and for those on the accelerator all decisions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from fractions import Fraction
from typing import Any

import numpy as np

from ...isa.config import AcceleratorConfig
from ...isa.errors import ModelError
from ...isa.interpret import AccessError
from ...isa.nest_text import format_nest
from ..artifact import Unfold
from ..graph import Graph, Node, Reshape
from ..jobs import WAYS, Decision, Job, job_of
from ..join import read_by_one_alone
from ..keep import kept_at
from ..kernel import Kernel, Refusal
from ..module import Module, grouped
from ..operators import reason_against
from ..partition import Placement, fills_of, kernel_for
from ..tiling import Tile
from ..unfold import unfoldings
from .arrays import array_lines
from .check_nest import check_nest
from .document import HEADING, Fields, Section, field_lines, quoted, search_of
from .kernels import kernel_of_nest, nest_of_kernel
from .nests import arrays_of, check_owners, fit, head, node_of, parsed_nest

BORDERS = ("upper and lower", "left and right")
"""Along which a contraction has zones, if it has any."""
PLANES = ("planes", "rows", "columns")
"""How an elementwise operator is cut."""


def schedule_lines(module: Module) -> Iterator[str]:
    """A section for every node that runs, in order."""
    for group in module.groups:
        for placed in group:
            if placed.job is None:
                yield f"{HEADING}host {quoted(placed.node.name)}"
                yield from field_lines({"reason": placed.reason})
            else:
                yield from _layer_lines(module.graph, placed, placed.job)


def _layer_lines(graph: Graph, placed: Placement, job: Job) -> Iterator[str]:
    name, kernel, decision = placed.node.name, job.kernel, job.decision
    yield f"{HEADING}layer {quoted(name)}"
    yield "# " + ", ".join(f"{key} {value}" for key, value in job.choices.items())
    if placed.stay is not None:
        yield f"# output {placed.stay.text}"
    fields: dict[str, Any] = {"use": list(dict.fromkeys(decision.operations))}
    if isinstance(decision.tile, Tile):
        fields["tile"] = asdict(decision.tile)
    else:
        fields["tile"] = dict(zip(PLANES, decision.tile, strict=True))
    if any(decision.zones):
        fields["zones"] = [b for b, has in zip(BORDERS, decision.zones, strict=True) if has]
    if placed.views:
        fields["views"] = [view.name for view in placed.views]
    if placed.joins:
        fields["joins"] = [node.name for node in placed.joins]
    fields |= {"read_bytes": job.read_bytes, "met": list(job.met.as_integer_ratio())}
    if job.search is not None:
        fields["search"] = asdict(job.search)
    if job.unfold:
        fields["unfold"] = {name: asdict(unfold) for name, unfold in job.unfold.items()}
    if placed.stay is not None:
        fields["stay"] = [placed.stay.start, placed.stay.window]
    if kernel.lying:
        fields["lying"] = True
    if kernel.flat:
        fields["flat"] = dict(kernel.flat)
    yield from field_lines(fields)
    yield from format_nest(nest_of_kernel(name, kernel)).splitlines()
    for own, array in kernel.constants.items():
        tensor = graph.tensors.get(own)
        if tensor is None or tensor.data is not array:
            yield from array_lines(name, own, array)


# --- reading -------------------------------------------------------------------------------------


def parse_schedule(module: Module, sections: Sequence[Section]) -> Module:
    """``module`` with what stands in ``sections``, every layer proven again.

    Raises
    ------
    ModelError
        With the line; also if the instructions do not compute a layer's nest.
    """
    graph = module.graph
    nodes = {node.name: node for node in graph.nodes}
    arrays = arrays_of(sections)
    placements: list[Placement] = []
    stays: dict[str, tuple[int, ...]] = {}
    for section in sections:
        if section.kind == "array":
            continue
        node = node_of(section, nodes, "host", "layer")
        if section.kind == "host":
            placements.append(_on_host(section, graph, node))
        else:
            own = arrays.pop(node.name, {})
            placements.append(_layer(section, module, node, own, placements, stays))
    check_owners(arrays, sections)
    seen = [node.name for placed in placements for node in (*placed.views, *placed.nodes)]
    if seen != list(nodes):
        lost = next((name for name in nodes if name not in seen), None)
        raise ModelError(
            "expected the graph's nodes, each once, in its order"
            + (f"; {lost!r} is missing" if lost else "")
        )
    module = replace(module, level="schedule", groups=grouped(tuple(placements)))
    try:
        return kept_at(module, {name: (start, window) for name, (start, window) in stays.items()})
    except Refusal as refusal:
        raise ModelError(str(refusal)) from None


def _on_host(section: Section, graph: Graph, node: Node) -> Placement:
    fields = Fields(section.lines, section.number)
    reason = fields.text("reason")
    fields.end("reason")
    against = reason_against(graph, node)
    if against is not None:
        section.fail(f"the host cannot run {node.name!r}: {against}")
    return Placement(node, None, reason)


def _layer(
    section: Section,
    module: Module,
    node: Node,
    arrays: Mapping[str, np.ndarray],
    before: Sequence[Placement],
    stays: dict[str, tuple[int, ...]],
) -> Placement:
    graph, config = module.graph, module.config
    fields = Fields(head(section), section.number)
    operations = fields.texts("use")
    tile = _tile(fields)
    borders = fields.texts("zones") if fields.has("zones") else ()
    zones = (BORDERS[0] in borders, BORDERS[1] in borders)
    if zones not in WAYS or set(borders) - set(BORDERS):
        fields.fail("zones", f"{BORDERS[0]!r}, and with it {BORDERS[1]!r}")
    joins = _joins(section, fields, graph)
    views = _views(section, fields, graph, (*joins, node)[0])
    read_bytes = fields.integer("read_bytes", least=0)
    above, below = fields.integers("met", 2, least=1)
    unfold = _unfold(fields)
    search = search_of(section, fields)
    lying = fields.truth("lying") if fields.has("lying") else False
    flat = fields.mapping("flat") if fields.has("flat") else {}
    if any(lanes != config.block for lanes in flat.values()):
        section.fail(f"flat tensors have {config.block} lanes an element")
    stay = fields.integers("stay", 2, least=0) if fields.has("stay") else None
    fields.end(
        "use", "tile", "zones", "views", "joins", "read_bytes", "met", "unfold", "lying", "flat",
        "search", "stay",
    )  # fmt: skip
    kernel = _kernel(section, graph, arrays, lying, flat)
    on_chip = any(name in stays for name in kernel.shapes if name != kernel.output)
    try:
        job = job_of(kernel, config, Decision(operations, tile, zones, on_chip))
    except Refusal as refusal:
        section.fail(f"{', '.join(operations)} do not compute layer {node.name!r}: {refusal}")
    except AccessError as error:
        section.fail(f"layer {node.name!r}: {error}")
    if set(job.decision.operations) != set(operations):
        idle = sorted(set(operations) - set(job.decision.operations))
        section.fail(f"layer {node.name!r} has no use for {', '.join(idle)}")
    job.read_bytes, job.met = read_bytes, Fraction(above, below)
    job.search = search
    if unfold:
        job.unfold = unfold
        _check_unfold(section, graph, config, (*joins, node)[0], unfold, before)
    placed = Placement(node, job, "", views, joins=joins)
    _check_ends(section, graph, placed, job)
    if stay is not None:
        stays[job.output] = stay
    return placed


def _tile(fields: Fields) -> Tile | tuple[int, int, int]:
    sizes = Fields.of(fields.mapping("tile"), fields.number)
    if sizes.has("planes"):
        planes, rows, columns = (sizes.integer(name, least=1) for name in PLANES)
        sizes.end(*PLANES)
        return planes, rows, columns
    names = ("outputs", "rows", "columns", "depth", "taps")
    values = [sizes.integer(name, least=1) for name in names]
    outer = sizes.truth("weights_outer")
    sizes.end(*names, "weights_outer")
    return Tile(*values, weights_outer=outer)


def _views(section: Section, fields: Fields, graph: Graph, node: Node) -> tuple[Node, ...]:
    names = fields.texts("views") if fields.has("views") else ()
    nodes = {node.name: node for node in graph.nodes}
    read = {*graph.outputs, *(name for other in graph.nodes for name in other.inputs)}
    for name in names:
        view = nodes.get(name)
        if view is None or not isinstance(view.op, Reshape) or view.inputs[:1] != node.inputs[:1]:
            section.fail(f"{name!r} is no node that copies what {node.name!r} reads")
        if read & set(view.outputs):
            section.fail(f"{name!r} must run: somebody reads what it copies")
    return tuple(nodes[name] for name in names)


def _joins(section: Section, fields: Fields, graph: Graph) -> tuple[Node, ...]:
    names = fields.texts("joins") if fields.has("joins") else ()
    nodes = {node.name: node for node in graph.nodes}
    for name in names:
        if name not in nodes:
            section.fail(f"there is no node {name!r}")
        for output in nodes[name].outputs:
            if not read_by_one_alone(graph, output):
                section.fail(f"{output!r} must be there: more than one read it")
    return tuple(nodes[name] for name in names)


def _unfold(fields: Fields) -> dict[str, Unfold]:
    if not fields.has("unfold"):
        return {}
    found: dict[str, Unfold] = {}
    for name, record in fields.mapping("unfold").items():
        if not isinstance(record, dict):
            fields.fail("unfold", "a mapping of mappings")
        own = Fields.of(record, fields.number)
        keys = ("origin", "steps", "patch", "dilations", "extents")
        pairs = [own.integers(key, 2) for key in keys]
        flat = own.truth("flat")
        own.end(*keys, "flat")
        found[name] = Unfold(*pairs, flat)  # type: ignore[arg-type]  # two each
    return found


def _kernel(
    section: Section,
    graph: Graph,
    arrays: Mapping[str, np.ndarray],
    lying: bool,
    flat: Mapping[str, int],
) -> Kernel:
    """The nest of a layer; its constants are the graph's or stand beside it."""
    nest = parsed_nest(section)
    constants: dict[str, np.ndarray] = {}
    for buffer in nest.buffers:
        tensor = graph.tensors.get(buffer.name)
        data = arrays.get(buffer.name, None if tensor is None else tensor.data)
        if data is not None:
            fit(section, buffer.name, nest, data)
            constants[buffer.name] = data
        elif tensor is None:
            section.fail(f"buffer {buffer.name!r} is no tensor and has no array")
    for name in arrays:
        if name not in constants:
            section.fail(f"its array {name!r} is no buffer")
    try:
        outputs = {buffer.name for buffer in nest.buffers} - constants.keys()
        check_nest(nest, outputs)
        return kernel_of_nest(nest, constants, lying, flat)
    except ModelError as error:
        section.fail(str(error))


def _check_unfold(
    section: Section,
    graph: Graph,
    config: AcceleratorConfig,
    node: Node,
    unfold: Mapping[str, Unfold],
    before: Sequence[Placement],
) -> None:
    """The patches are those of this node's window, on what the host writes for it alone."""
    try:
        known = {
            (name, astuple(way))
            for _, name, way in unfoldings(kernel_for(graph, node), fills_of(graph), config)
        }
    except Refusal as refusal:
        section.fail(f"nothing of {node.name!r} can be unfolded: {refusal}")
    for name, way in unfold.items():
        if (name, astuple(way)) not in known:
            section.fail(f"{name!r} cannot be unfolded so for {node.name!r}")
        on_host = all(placed.job is None for placed in before if name in placed.node.outputs)
        readers = [other for other in graph.nodes if name in other.inputs]
        if not on_host or readers != [node]:
            section.fail(f"{name!r} is not written by the host for {node.name!r} alone")


def _check_ends(section: Section, graph: Graph, placed: Placement, job: Job) -> None:
    """A layer reads and writes what its nodes do, of the graph's sizes."""
    if (job.output,) != placed.node.outputs:
        section.fail(f"it writes {job.output!r}, the node {', '.join(placed.node.outputs)}")
    reads = {name for node in (*placed.views, *placed.nodes) for name in node.inputs}
    if reads.isdisjoint(placed.inner) and placed.inner:
        section.fail(f"it does not go on with {', '.join(placed.inner)}")
    reads -= set(placed.inner)
    for name in job.inputs:
        if name not in reads:
            section.fail(f"it reads {name!r}, which the node does not")
    for name in (*job.inputs, job.output):
        shape, tensor = job.kernel.shapes[name], graph.tensors[name]
        fits = name in job.unfold or math.prod(shape) == math.prod(tensor.shape)
        if tensor.dtype.bits != 8 or not fits:
            section.fail(f"{name!r} is {tensor.dtype}{list(tensor.shape)} in the graph")
