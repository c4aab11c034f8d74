"""Nodes ready for the accelerator: what they need in DRAM, how they are cut, what they emit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.nest import Expr
from .affine import is_index
from .artifact import Search, Unfold
from .constants import pack_records, pack_weights, varies, with_starts
from .contraction import ContractionSchedule
from .effort import Effort
from .elementwise import ElementwiseSchedule, Plan, among_others, is_plain, plan, records_of
from .kernel import Kernel, Refusal
from .layout import blocks
from .pool import check_rises
from .schedule import Bases, Rings, Stage
from .search import choose, estimate
from .tensorize import tensorize_with, ways_to
from .tiling import Layer, Tail, Tile, extents
from .timing import step_cycles
from .work import Contraction, Elementwise, Ending, Tensorized
from .zones import Zone, zone_records, zones_of


@dataclass(frozen=True)
class Decision:
    """What was found by searching, so that nobody need search again.

    Attributes
    ----------
    operations : tuple of str
        The instructions, all that are used.
    tile : Tile, or tuple of int
        How a contraction is cut; planes, rows and columns of an elementwise operator.
    zones : (bool, bool)
        Whether a contraction has zones along the upper and lower borders, and along the others.
    on_chip : bool
        Whether its input is in ``inp`` as a whole.
    """

    operations: tuple[str, ...]
    tile: Tile | tuple[int, int, int]
    zones: tuple[bool, bool] = (False, False)
    on_chip: bool = False


class Job(ABC):
    """One node as work for the accelerator.

    Attributes
    ----------
    kernel : Kernel
        The form that the instructions match.
    ending : Ending
        How its output is stored.
    decision : Decision
        What the job was made from, or what was found.
    inputs : tuple of str
        The activations that it reads, each once; that of products first.
    loaded : tuple of str
        Those of them that it loads into accumulators, and never finds on chip.
    parameters : list
        The records of instructions on accumulators, each of one element for all channels; they are
        the last ones of ``records``.
    output : str
        The one that it writes.
    weights, records, starts : ndarray
        Constant elements of WGT, QNT and ACC, as DRAM holds them; empty if it has none.
    weight_bytes : int
        Of an element of WGT in DRAM.
    choices : mapping
        The schedule's decisions, for people.
    """

    kernel: Kernel
    ending: Ending
    decision: Decision
    inputs: tuple[str, ...]
    loaded: tuple[str, ...]
    parameters: list[Mapping[str, Expr]]
    output: str
    weights: np.ndarray
    records: np.ndarray
    starts: np.ndarray = np.zeros(0, np.int32)
    weight_bytes: int
    choices: Mapping[str, str | int]
    rivals: tuple[Mapping[str, str | int], ...] = ()
    """What other instructions would have made of it, like :attr:`choices`."""
    search: Search | None = None
    """What they were preferred to; None if all was decided."""
    _searched: Effort | None
    """With how much effort; None if all was decided."""
    read_bytes: int
    """What any schedule must read of its inputs."""
    met: Fraction = Fraction(1)
    """The part of its multiplications that are not with padding."""
    unfold: Mapping[str, Unfold] = {}
    """How its inputs lie, those that do not lie as usual."""

    @property
    def decided(self) -> bool:
        """Whether nothing was searched."""
        return self._searched is None

    @property
    def on_chip(self) -> bool:
        """Whether it reads its input where an earlier layer left it in ``inp``."""
        return False

    @property
    def estimate(self) -> int:
        """Of its cycles."""
        return int(self.choices["estimate"])

    @property
    @abstractmethod
    def ways(self) -> int:
        """How many ways to do it were kept, the one with the least estimate first."""

    @abstractmethod
    def take(self, number: int, rehearsals: Sequence[int] = ()) -> None:
        """Do it in one of the :attr:`ways`; ``rehearsals`` are the cycles that each took."""

    def _tell(
        self,
        told: Sequence[dict[str, str | int]],
        number: int,
        considered: int,
        rehearsals: Sequence[int],
    ) -> None:
        """Say which of the ways that are ``told`` was taken, and what it was preferred to."""
        self.choices = told[number]
        if self._searched is None:
            return
        ends: list[dict[str, str | int]] = [{"rehearsal": cycles} for cycles in rehearsals]
        ends += [{}] * (len(told) - len(ends))
        others = [way | end for way, end in zip(told, ends, strict=True)]
        del others[number]
        rehearsal = rehearsals[number] if rehearsals else None
        self.search = Search(self._searched, considered, (*others, *self.rivals), rehearsal)

    def settle(self, on_chip: bool, taken: int, in_turn: int = 0) -> None:
        """Find the ways anew, given whether its input is in ``inp``, how many elements of ``inp``
        tensors that stay there take, and of how many rows its tiles must be because it takes turns
        with another layer; 0 if it does not.

        Raises
        ------
        Refusal
            If there is no room; then all is as before.
        """
        if on_chip:
            raise Refusal("it loads its inputs into accumulators")

    def room(self) -> dict[str, int]:
        """Elements of scratchpads that it has at once where it takes turns with another layer."""
        return {}

    @abstractmethod
    def stages(self, bases: Bases, rings: Rings) -> list[Stage]:
        """Its actions, given where everything lies and where in the scratchpads there is room."""


def job_of(
    kernel: Kernel,
    config: AcceleratorConfig,
    decided: Decision | None = None,
    effort: Effort = "default",
) -> Job:
    """``kernel`` as work for the accelerator; :class:`.kernel.Refusal` if it cannot be.

    If all is ``decided``, ``kernel`` is the form that instructions match as it stands.
    """
    if decided is not None:
        return _job(tensorize_with(kernel, config, decided.operations), config, decided, effort)
    jobs: list[Job] = []
    refused: Refusal | None = None
    for work in ways_to(kernel, config):
        try:
            jobs.append(_job(work, config, None, effort))
        except Refusal as refusal:
            refused = refused or refusal
    if not jobs:
        assert refused is not None
        raise refused
    best = min(jobs, key=lambda job: job.estimate)
    best.rivals = tuple(
        {"instructions": ", ".join(job.decision.operations), **job.choices}
        for job in jobs
        if job is not best
    )
    if best.rivals:
        best.take(0)
    return best


def _job(
    work: Tensorized, config: AcceleratorConfig, decided: Decision | None, effort: Effort
) -> Job:
    if isinstance(work, Contraction):
        return ContractionJob(work, config, decided, effort)
    return ElementwiseJob(work, config, decided, effort)


class ContractionJob(Job):
    """A sum of products."""

    def __init__(
        self,
        work: Contraction,
        config: AcceleratorConfig,
        decided: Decision | None = None,
        effort: Effort = "default",
    ):
        kernel = self.kernel = work.kernel
        packed = pack_weights(work, config)
        record = work.ending.record
        channel = work.channel if varies(record, work.channel) else None
        n, _, _, c = kernel.shapes[kernel.output]
        self.work, self.config, self.ending = work, config, work.storing
        images = () if work.tail is None else work.tail.images.values()
        shape = kernel.shapes[kernel.output]
        if any(image.shape != shape or not is_plain(image) for image in images):
            raise Refusal("its sums go on with another position than their own")
        self.loaded = tuple(dict.fromkeys(image.tensor for image in images))
        self.inputs = tuple(dict.fromkeys((work.image.tensor, *self.loaded)))
        self.output = kernel.output
        by_tensor = {image.tensor: image.touched_bytes for image in images}
        self.products_bytes, self.met = work.image.touched_bytes, work.image.met
        self.read_bytes = self.products_bytes + sum(by_tensor.values())
        self.weights = packed.in_dram()
        self.records = np.zeros((0, config.qnt_element_bytes), np.uint8)
        if record:
            self.records = pack_records(kernel, record, channel, config)
        batches = blocks(n, config.batch)
        if batches * work.image.rows.positions * work.image.columns.positions == 1:
            split = with_starts(self.records, c, config)
            if split is not None:
                self.records, self.starts = split
        self.parameters, self._more_records = [], self.records[:0]
        tail = Tail()
        if work.tail is not None:
            self.parameters = records_of(work.tail, work.channel)
            rows = [pack_records(kernel, more, None, config) for more in self.parameters]
            self._more_records = np.concatenate([self.records[:0], *rows])
            tail = tail_of(work.tail, len(work.tail.images), len(self.parameters), config)
        whole = Layer(
            work.image,
            packed,
            batches,
            blocks(c, config.block),
            len(self.records),
            zones_of(work.image, work.tap_lanes, False, False),
            work.tap_lanes,
            len(self.starts),
            tail=tail,
            window=work.window,
        )
        if work.pool is not None:
            if work.image.columns.lanes > 1 and work.window[1] > 1:
                raise Refusal("windows over positions that are lanes")
            check_rises(packed, self._channel_axis, self.records)
        self._whole, self._decided = whole, decided
        self._effort: Effort = effort
        self._whole_records = self.records
        self._settled: tuple[bool, int, int] | None = None
        self._searched = None if decided is not None else effort
        self.settle(decided is not None and decided.on_chip, 0)

    @property
    def on_chip(self) -> bool:
        """Whether it reads its input where an earlier layer left it in ``inp``."""
        return self.layer.on_chip

    @property
    def _channel_axis(self) -> int:
        """The lane axis of a weight element that runs along output channels."""
        return [loop for loop, _ in self.work.weight_lanes].index(self.work.channel)

    def settle(self, on_chip: bool, taken: int, in_turn: int = 0) -> None:
        """See :meth:`Job.settle`."""
        if (on_chip, taken, in_turn) == self._settled:
            return
        whole = replace(self._whole, on_chip=on_chip, taken=taken, in_turn=in_turn)
        if self._decided is not None:
            self._found = [_decided(whole, self._decided, self.config)]
        else:
            self._found = _searched(whole, self.config, self._effort)
        self._settled = on_chip, taken, in_turn
        self.take(0)

    def estimate_with(self, tail: Tail) -> int:
        """What the estimate would be with so much to do behind its products.

        Raises
        ------
        Refusal
            If there is no room for that.
        """
        return _searched(replace(self._whole, tail=tail), self.config, self._effort)[0].estimate

    @property
    def ways(self) -> int:
        """How many ways to do it were kept, the one with the least estimate first."""
        return min(len(self._found), REHEARSED)

    def take(self, number: int, rehearsals: Sequence[int] = ()) -> None:
        """Do it in one of the :attr:`ways`; ``rehearsals`` are the cycles that each took."""
        work = self.work
        best = self._found[number]
        self.layer, self.tile = best.layer, best.tile
        self.decision = Decision(work.operations, self.tile, best.zones, self.layer.on_chip)
        told = [_told(way, work) for way in self._found[: OTHERS + 1]]
        considered = sum(way.considered for way in self._found)
        self._tell(told, number, considered, rehearsals)
        self.weight_bytes = self.layer.weight_bytes
        records = zone_records(
            self._whole_records,
            self.layer.zones,
            self.layer.weights,
            self._channel_axis,
            work.image.pad,
            (work.image.rows.taps, work.column_steps),
        )
        self.records = np.concatenate([records, self._more_records])

    def room(self) -> dict[str, int]:
        """Elements of scratchpads that it has at once where it takes turns with another layer."""
        tile, need = self.tile, extents(self.layer, self.tile)
        weights = self.layer.weight_tiles(tile.outputs, tile.depth, tile.taps) * need.wgt
        return {"wgt": weights, "acc": 2 * need.acc, "qnt": len(self.records)}

    def stages(self, bases: Bases, rings: Rings) -> list[Stage]:
        """Its actions, given where everything lies and where in the scratchpads there is room."""
        return ContractionSchedule(
            self.work, self.layer, self.tile, len(self.records), self.parameters, bases,
            self.config, rings,
        ).stages  # fmt: skip


def tail_of(work: Elementwise, loads: int, records: int, config: AcceleratorConfig) -> Tail:
    """What a layer must know of what is done with its sums, once they are requantized."""
    operations = InstructionSet(config).operations
    cycles = sum(step_cycles(operations[act.operation], config) for act in work.acts)
    cycles += config.rescale_cycles
    return Tail(len(work.regions), len(work.acts) + 1, cycles, loads, records)


WAYS = ((False, False), (True, False), (True, True))
"""Along which borders there may be zones."""
OTHERS = 6
"""Ways that were not chosen, of which a report tells."""
REHEARSED = OTHERS + 1
"""Ways that are rehearsed with the most effort."""


@dataclass(frozen=True)
class _Way:
    """A layer with zones, a tile, what is known of its cycles, and how many it is the best of."""

    layer: Layer
    zones: tuple[bool, bool]
    tile: Tile
    estimate: int
    considered: int = 0


def _told(way: _Way, work: Contraction) -> dict[str, str | int]:
    """A way for people."""
    tile, need = way.tile, extents(way.layer, way.tile)
    return {
        "tile": f"{tile.outputs}x{tile.rows}x{tile.columns}",
        "reduction": f"{tile.depth}x{tile.taps}x{work.column_steps}",
        "outer": "weights" if tile.weights_outer else "image",
        "steps": way.layer.steps,
        "buffers": f"inp {need.inp}, wgt {need.wgt}, acc {need.acc}",
        "estimate": way.estimate,
    }


def _searched(whole: Layer, config: AcceleratorConfig, effort: Effort) -> list[_Way]:
    """Layers with and without zones, and tiles, the best one first."""
    found = list[_Way]()
    refused: Refusal | None = None
    ways: dict[tuple[Zone, ...], tuple[bool, bool]] = {}
    for way in WAYS if not (whole.taken_of > 1 and whole.image.pad) else WAYS[:1]:
        ways.setdefault(zones_of(whole.image, whole.tap_lanes, *way), way)
    for zones, way in ways.items():
        layer = _with_zones(whole, zones)
        try:
            choice = choose(layer, config, effort)
        except Refusal as refusal:
            refused = refused or refusal
            continue
        found.append(_Way(layer, way, choice.tile, choice.cycles, choice.considered))
        found += [_Way(layer, way, *other) for other in choice.others]
        if effort == "fast":
            break
    if not found:
        assert refused is not None
        raise refused
    return sorted(found, key=lambda way: way.estimate)


def _decided(whole: Layer, decided: Decision, config: AcceleratorConfig) -> _Way:
    if not isinstance(decided.tile, Tile):
        raise Refusal("a sum of products is cut along outputs, rows, columns, depth and taps")
    if whole.taken_of > 1 and whole.image.pad and any(decided.zones):
        raise Refusal("zones have records of their own, and windows reach over their borders")
    layer = _with_zones(whole, zones_of(whole.image, whole.tap_lanes, *decided.zones))
    return _Way(layer, decided.zones, decided.tile, estimate(layer, decided.tile, config))


def _with_zones(whole: Layer, zones: tuple[Zone, ...]) -> Layer:
    layer = replace(whole, zones=zones)
    if whole.image.pad and zones != whole.zones:
        return replace(layer, records=whole.outputs * layer.variants)
    return layer


class ElementwiseJob(Job):
    """Accumulators combined element by element."""

    def __init__(
        self,
        work: Elementwise,
        config: AcceleratorConfig,
        decided: Decision | None = None,
        effort: Effort = "default",
    ):
        kernel = self.kernel = work.kernel
        self.config, self.ending = config, work.ending
        self.inputs = tuple(dict.fromkeys(image.tensor for image in work.images.values()))
        self.loaded, self.output = self.inputs, kernel.output
        by_tensor = {image.tensor: image.touched_bytes for image in work.images.values()}
        self.read_bytes = sum(by_tensor.values())
        self.weights = np.zeros((0, config.wgt_element_bytes), np.uint8)
        self.weight_bytes = config.wgt_element_bytes
        self.parameters = records_of(work, is_index(kernel.element[3]))
        rows = [pack_records(kernel, record, None, config) for record in self.parameters]
        empty = np.zeros((0, config.qnt_element_bytes), np.uint8)
        self.records = np.concatenate([empty, *rows])
        own = None if decided is None else decided.tile
        if isinstance(own, Tile):
            raise Refusal("an elementwise operator is cut along planes, rows and columns")
        self.work = work
        self._found = plan(work, config, own, effort)
        self._searched = None if decided is not None else effort
        self.take(0)

    @property
    def among_others(self) -> int:
        """By how many cycles other layers end later if this one stands among them."""
        return among_others(self.plan, self.config)

    @property
    def ways(self) -> int:
        """How many ways to do it were kept, the one with the least estimate first."""
        return min(len(self._found), REHEARSED)

    def take(self, number: int, rehearsals: Sequence[int] = ()) -> None:
        """Do it in one of the :attr:`ways`; ``rehearsals`` are the cycles that each took."""
        self.plan = self._found[number][0]
        self.decision = Decision(self.work.operations, self.plan.tile)
        told = [_told_plan(*way) for way in self._found[: OTHERS + 1]]
        self._tell(told, number, len(self._found), rehearsals)

    def stages(self, bases: Bases, rings: Rings) -> list[Stage]:
        """Its actions, given where everything lies and where in the scratchpads there is room."""
        return ElementwiseSchedule(self.plan, self.parameters, bases, self.config, rings).stages


def _told_plan(p: Plan, cycles: int) -> dict[str, str | int]:
    """A plan for people."""
    return {
        "tile": "x".join(map(str, p.tile)),
        "steps": math.prod(p.positions) * p.planes * len(p.work.acts),
        "buffers": f"acc {p.total}",
        "estimate": cycles,
    }
