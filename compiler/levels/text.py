"""A module as text, whatever its level, and back."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...isa.config import AcceleratorConfig
from ...isa.errors import ConfigError, ModelError
from ..artifact import Origin
from ..effort import EFFORTS
from ..graph import Graph
from ..graph_text import format_graph, parse_graph
from ..module import LEVELS, Level, Module
from .document import HEADING, Fields, Section, field_lines, sections
from .nests import nest_lines, parse_nests
from .schedule import parse_schedule, schedule_lines
from .stream import parse_stream, stream_lines

FORMAT = 1
"""The version of these texts."""
MARK = "weft "
"""What they start with."""


def _nothing_more(module: Module, rest: Sequence[Section]) -> Module:
    for section in rest:
        section.fail(f"expected hardware, graph or constants, not {section.kind!r}")
    return module


WRITERS: Mapping[Level, Callable[[Module], Iterator[str]]] = {
    "graph": lambda _: iter(()),
    "nests": nest_lines,
    "schedule": schedule_lines,
    "stream": stream_lines,
}
READERS: Mapping[Level, Callable[[Module, Sequence[Section]], Module]] = {
    "graph": _nothing_more,
    "nests": parse_nests,
    "schedule": parse_schedule,
    "stream": parse_stream,
}


def is_level(data: bytes) -> bool:
    """Whether a file holds the text of a level, by its beginning."""
    return data.startswith(MARK.encode())


def format_module(module: Module) -> str:
    """``module`` as text that :func:`parse_module` reads back; it ends with a line's end."""
    return "\n".join(_lines(module)) + "\n"


def _lines(module: Module) -> Iterator[str]:
    yield f"{MARK}{module.level} {FORMAT}"
    yield from field_lines(
        {
            "network": module.origin.name,
            "sha256": module.origin.sha256,
            "placement": module.placement,
            "on_host": sorted(module.on_host),
            "effort": module.effort,
        }
    )
    yield f"{HEADING}hardware"
    yield from module.config.to_toml().splitlines()
    graph = format_graph(module.graph).splitlines()
    first = next((i for i, line in enumerate(graph) if line.startswith("constant ")), len(graph))
    yield f"{HEADING}graph"
    yield from graph[:first]
    yield from WRITERS[module.level](module)
    if graph[first:]:
        yield f"{HEADING}constants"
        yield from graph[first:]


def parse_module(text: str) -> Module:
    """The module of a text.

    Raises
    ------
    ModelError
        If it is malformed, with the line and what was expected; or if it is not legal.
    """
    level = _level(text)
    head, found = sections(text)
    by_kind = {section.kind: section for section in found}
    for kind in ("hardware", "graph"):
        if kind not in by_kind:
            raise ModelError(f"line 1: expected a section {HEADING}{kind}; there is none")
    fields = Fields(head[1:], 1)
    origin = Origin(fields.text("network"), fields.text("sha256"))
    placement = fields.text("placement")
    if placement not in ("auto", "cpu"):
        raise ModelError(f"line {fields.number}: expected auto or cpu, not {placement!r:.40}")
    effort = fields.text("effort")
    if effort not in EFFORTS:
        raise ModelError(f"line {fields.number}: expected {', '.join(EFFORTS)}, not {effort!r:.40}")
    on_host = frozenset(fields.texts("on_host"))
    fields.end("network", "sha256", "placement", "on_host", "effort")
    graph = _graph(text, [by_kind[kind] for kind in ("graph", "constants") if kind in by_kind])
    unknown = on_host - {node.name for node in graph.nodes}
    if unknown:
        raise ModelError(f"line {fields.number}: the graph has no node {min(unknown)!r}")
    config = _hardware(by_kind["hardware"])
    # Placement and effort are words of their types.
    module = Module(graph, config, placement, on_host, origin, effort=effort)  # type: ignore[arg-type]
    rest = [s for s in found if s.kind not in ("hardware", "graph", "constants")]
    return READERS[level](module, rest)


def _level(text: str) -> Level:
    first = text.partition("\n")[0].rstrip()
    words = first.split(" ")
    if len(words) != 3 or words[0] != MARK.strip() or words[1] not in LEVELS:
        raise ModelError(
            f"line 1: expected '{MARK}LEVEL {FORMAT}' with one of {', '.join(LEVELS)}, "
            f"not {first[:40]!r}"
        )
    if words[2] != str(FORMAT):
        raise ModelError(f"line 1: version {words[2]!r:.40}; this Weft reads {FORMAT}")
    return next(level for level in LEVELS if level == words[1])


def _graph(text: str, parts: Sequence[Section]) -> Graph:
    """The graph, parsed where it stands, so that complaints name the right line."""
    lines = [""] * (len(text.splitlines()) + 1)
    for part in parts:
        part.heading.expect("")
        for number, line in part.lines:
            lines[number] = line
    return parse_graph("\n".join(lines[1:]))


def _hardware(section: Section) -> AcceleratorConfig:
    where = f"line {section.number}: hardware"
    section.heading.expect("")
    try:
        values = tomllib.loads("".join(f"{line}\n" for _, line in section.lines))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: not TOML: {error}") from None
    try:
        return AcceleratorConfig.from_mapping(values, where=where)
    except ConfigError as error:
        raise ModelError(str(error)) from None
