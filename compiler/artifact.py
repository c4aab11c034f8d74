"""What compilation leaves behind: plain data that a runtime executes or writes to a file.

A compiled network is a list of steps in the order of execution. An accelerator step is a layer;
neighbours share one program in DRAM, which is launched once for all of them. A host step is a set
of nodes that the CPU runs. Tensors that cross steps live in DRAM when an accelerator step touches
them, each in its :class:`DramTensor` layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.instructions import Instruction
from .graph import Graph


@dataclass(frozen=True)
class Unfold:
    """Elements that hold a patch of pixels each, so that few channels fill the lanes.

    Element (y, x), of ``extents``, holds in lane ``(j * patch[1] + i) * C + c`` channel ``c`` of
    the pixel in row ``y * steps[0] + j * dilations[0] + origin[0]`` and column
    ``x * steps[1] + i * dilations[1] + origin[1]``, and ``fill`` where that is outside. Lanes
    beyond a block are those of the next block of channels.

    If ``flat``, the patches of a row follow one another without a gap instead: they are the lanes
    of as many elements as hold them and ``block - 1`` lanes more, so that a step that begins at any
    patch stays within the row.
    """

    origin: tuple[int, int]
    steps: tuple[int, int]
    patch: tuple[int, int]
    dilations: tuple[int, int]
    extents: tuple[int, int]
    flat: bool = False


@dataclass(frozen=True)
class DramTensor:
    """An activation in DRAM, channel-blocked.

    Element ``[n // batch][c // block][y][x]`` of ``element_bytes`` holds lanes
    ``[n % batch][c % block]``; a tensor of rank 2 ([N, C]) has y = x = 1. Lanes beyond N and C
    hold ``fill``. One that only the host writes may be unfolded.

    Attributes
    ----------
    name : str
        The graph's tensor.
    address : int
        First byte; a multiple of the element's size.
    shape : tuple of int
        (N, H, W, C).
    fill : int
        What the ragged lanes hold when the host writes the tensor.
    unfold : Unfold or None
        How its elements hold patches of pixels; None where each holds a pixel.
    """

    name: str
    address: int
    shape: tuple[int, int, int, int]
    fill: int
    unfold: Unfold | None = None


@dataclass(frozen=True, eq=False)
class Segment:
    """Constant bytes at a DRAM address: weights, parameters, micro-ops, instruction streams."""

    name: str
    address: int
    data: np.ndarray


@dataclass(frozen=True)
class Program:
    """An instruction stream in DRAM that does one layer after another, overlapping.

    Attributes
    ----------
    name : str
        Of its segment.
    address : int
        Where it lies.
    instructions : sequence of Instruction
        Ending in FINISH.
    owners : tuple of int
        For each instruction the layer that it belongs to, by position among the program's steps.
    """

    name: str
    address: int
    instructions: Sequence[Instruction]
    owners: tuple[int, ...]

    @property
    def count(self) -> int:
        """Instructions, FINISH included."""
        return len(self.instructions)


@dataclass(frozen=True)
class Origin:
    """The model file: what a package says of where it comes from."""

    name: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Search:
    """How a layer's schedule was found.

    Attributes
    ----------
    effort : str
        How long was searched.
    considered : int
        Schedules that were estimated.
    others : tuple of mapping
        The best of those that were not chosen, like ``choices``, each with its ``estimate`` of
        cycles, and with ``rehearsal`` if there was one.
    rehearsal : int or None
        When the layer and its neighbours ended, if that was rehearsed.
    """

    effort: str
    considered: int
    others: tuple[Mapping[str, str | int], ...]
    rehearsal: int | None = None

    @classmethod
    def of(cls, record: object) -> Search:
        """What was written as a mapping of its fields; :class:`ValueError` if it is not that."""
        if not isinstance(record, dict) or record.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"a search is {', '.join(field.name for field in fields(cls))}")
        effort, considered = record["effort"], record["considered"]
        others, rehearsal = record["others"], record["rehearsal"]
        numbers = [considered, 0 if rehearsal is None else rehearsal]
        if not isinstance(effort, str) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a search has an effort and counts")
        if not isinstance(others, list | tuple) or not all(
            isinstance(other, dict) and all(type(v) in (str, int) for v in other.values())
            for other in others
        ):
            raise ValueError("the others of a search map texts to texts or integers")
        return cls(effort, considered, tuple(others), rehearsal)


@dataclass(frozen=True)
class AcceleratorStep:
    """A layer: the instructions of ``program`` that belong to ``layer`` do what ``nodes`` say.

    ``macs`` is mathematical, without padding of channels; ``needed_macs`` are those of them that
    multiply no padding of the image either. ``compulsory_bytes`` is what any schedule must
    move over the bus: every input, weight and parameter read once, every output written once.
    ``fused_bytes`` are those of them that remain where some of these tensors stay on chip.
    ``choices`` are the schedule's decisions, for the report, and ``search`` is what they were
    preferred to; None where nothing was searched.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: Program
    layer: int
    macs: int
    needed_macs: int
    compulsory_bytes: int
    fused_bytes: int
    choices: Mapping[str, str | int]
    search: Search | None = None

    @property
    def positions(self) -> tuple[int, ...]:
        """Where its instructions stand in the program."""
        return tuple(i for i, owner in enumerate(self.program.owners) if owner == self.layer)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """Its own, in order; FINISH is the last layer's."""
        return tuple(self.program.instructions[i] for i in self.positions)


@dataclass(frozen=True)
class HostStep:
    """Nodes that the CPU runs, and why each is not on the accelerator."""

    name: str
    op: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reason: str
    macs: int


Step = AcceleratorStep | HostStep


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A network compiled for one configuration.

    Attributes
    ----------
    graph : Graph
        The network, for the host's nodes and the names and types of its ends.
    config : AcceleratorConfig
        What it was compiled for.
    steps : tuple of Step
        In the order of execution.
    tensors : mapping
        Every activation that an accelerator step reads or writes, by the graph's name.
    segments : tuple of Segment
        What DRAM holds before the first inference, programs included; disjoint.
    dram_bytes : int
        The least DRAM that it needs, from address 0.
    """

    graph: Graph
    config: AcceleratorConfig
    steps: tuple[Step, ...]
    tensors: Mapping[str, DramTensor]
    segments: tuple[Segment, ...]
    dram_bytes: int

    @property
    def programs(self) -> tuple[tuple[AcceleratorStep, ...], ...]:
        """For each program its steps, in order."""
        runs: list[list[AcceleratorStep]] = []
        for step in self.steps:
            if isinstance(step, AcceleratorStep):
                if step.layer == 0:
                    runs.append([])
                runs[-1].append(step)
        return tuple(map(tuple, runs))
