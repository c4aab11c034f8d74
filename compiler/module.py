"""A network on its way through the pipeline: what every pass takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..isa.config import AcceleratorConfig
from .allocate import Constants
from .artifact import CompiledModel, DramTensor, Origin, Step
from .effort import Effort
from .graph import Graph
from .operators import Kernel, Operator, lowered
from .partition import Placement

Where = Literal["auto", "cpu"]
Level = Literal["graph", "nests", "schedule", "stream"]
LEVELS: tuple[Level, ...] = ("graph", "nests", "schedule", "stream")
"""From the network to the instructions; each has a text, see :mod:`.levels`."""
Nests = Mapping[str, Operator | Kernel]
"""What each node computes, by the node's name."""


@dataclass(frozen=True, eq=False)
class Module:
    """A network on its way; every pass fills in more.

    Attributes
    ----------
    graph : Graph
        The network; from the level ``schedule`` on with nodes that change nothing as copies.
    config : AcceleratorConfig
        The hardware.
    placement : str
        ``auto``, or ``cpu`` for everything on the host.
    on_host : frozenset of str
        Nodes that run on the host in any case.
    origin : Origin
        The file that it comes from.
    level : str
        How far it is.
    nests : mapping or None
        From ``nests`` on.
    groups : tuple
        At ``schedule`` and after: steps to be, in order, one node on the accelerator or
        neighbours on the host. Empty for a stream that was read.
    tensors, constants : mapping and Constants, or None
        Where activations and constants lie in DRAM, once they have addresses.
    steps : tuple of Step
        At ``stream``.
    effort : str
        How long to search for schedules.
    """

    graph: Graph
    config: AcceleratorConfig
    placement: Where = "auto"
    on_host: frozenset[str] = frozenset()
    origin: Origin = field(default_factory=Origin)
    level: Level = "graph"
    nests: Nests | None = None
    groups: tuple[tuple[Placement, ...], ...] = ()
    tensors: Mapping[str, DramTensor] | None = None
    constants: Constants | None = None
    steps: tuple[Step, ...] = ()
    effort: Effort = "default"

    @property
    def model(self) -> CompiledModel:
        """What a runtime executes; there is one at the level ``stream``."""
        assert self.tensors is not None
        assert self.constants is not None
        segments = tuple(self.constants.segments)
        return CompiledModel(
            self.graph, self.config, self.steps, self.tensors, segments, self.constants.at
        )


Pass = Callable[[Module], Module]


class Lowered(Mapping[str, Operator | Kernel]):
    """The nests of a graph, each made when somebody asks for it."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._made: dict[str, Operator | Kernel] = {}

    def __getitem__(self, name: str) -> Operator | Kernel:
        if name not in self._made:
            self._made[name] = lowered(self._graph, self._nodes[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def grouped(placements: tuple[Placement, ...]) -> tuple[tuple[Placement, ...], ...]:
    """Placements as steps to be: neighbours on the host together, every other one alone."""
    groups: list[tuple[Placement, ...]] = []
    for placed in placements:
        if placed.job is None and groups and groups[-1][0].job is None:
            groups[-1] = (*groups[-1], placed)
        else:
            groups.append((placed,))
    return tuple(groups)
