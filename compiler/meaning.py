"""Whether a program computes what its layers mean, without running it.

Every layer's marks (:mod:`.marks`) are computed twice: by the program's instructions, one after
another, and from the layer as a whole, which knows no tiles, scratchpads or micro-ops. Each element
that the program stores must have the mark that the layer gives it, and every one must be stored,
once. What stands for a step is the same in both; that steps do what an operator asks is proven
where they are chosen (:mod:`.tensorize`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import ProgramError
from ..isa.nest import Expr
from .artifact import DramTensor, Program, Segment
from .image import Image, Walk
from .jobs import ContractionJob, ElementwiseJob, Job
from .layout import packed_shape
from .machine import Machine
from .marks import (
    CONSTANT,
    GRANULE,
    PAD,
    STEP,
    STORED,
    Marks,
    addend,
    alu,
    combined,
    forms,
    mark,
    run_marks,
    weight_marks,
)
from .partition import Placement
from .schedule import Range
from .work import Act, Elementwise, Pool


@dataclass(frozen=True)
class Meaning:
    """A layer: its name, its job, and whether its output is stored in DRAM."""

    name: str
    job: Job
    stored: bool = True

    @classmethod
    def of(cls, placed: Placement) -> Meaning:
        """That of a node on the accelerator."""
        assert placed.job is not None
        return cls(placed.node.name, placed.job, placed.stay is None or placed.stay.stored)


def check_meaning(
    program: Program,
    order: Sequence[int],
    layers: Sequence[Meaning],
    tensors: Mapping[str, DramTensor],
    segments: Sequence[Segment],
    config: AcceleratorConfig,
) -> None:
    """Return if ``program`` computes ``layers``.

    Parameters
    ----------
    program : Program
        Its instructions, and the layer of each.
    order : sequence of int
        Positions in an order in which the instructions may run; any will do if there are no races
        (:func:`.check.check` returns one).
    layers : sequence of Meaning
        What it shall compute, in order.
    tensors : mapping
        Where activations lie.
    segments : sequence of Segment
        Constant DRAM.
    config : AcceleratorConfig
        The hardware.

    Raises
    ------
    ProgramError
        With the instruction that stores something else than its layer's value, or elsewhere, or
        the layer that lacks a value.
    """
    expected = _References(layers, tensors, segments, config).all()
    end = max(base + len(values) * config.out_element_bytes for base, values in expected)
    instructions = [program.instructions[position] for position in order]
    stored = Machine(config, segments, end).run(instructions)
    # All layers' outputs one after another, and where in them each stored element belongs.
    bases, sizes = (np.array(c) for c in zip(*((b, len(v)) for b, v in expected), strict=True))
    first, values = np.cumsum([0, *sizes]), np.concatenate([v for _, v in expected])
    event = np.repeat(np.arange(len(order)), np.diff(stored.first))
    layer = np.array(program.owners)[np.array(order)][event]
    index = (stored.addresses - bases[layer]) // config.out_element_bytes
    outside = (index < 0) | (index >= sizes[layer])
    at = np.where(outside, 0, first[layer] + index)
    wrong = outside | (values[at] != stored.marks)
    if wrong.any():
        element = int(np.argmax(wrong))
        here = event == event[element]
        position = order[event[element]]
        where = f"instruction {position} ({program.instructions[position].operation}) of "
        where += repr(layers[layer[element]].name)
        if (outside & here).any():
            raise ProgramError(f"{where} stores outside of the layer's output")
        raise ProgramError(
            f"{where} stores another value than the layer's to {int((wrong & here).sum())} "
            f"elements, first to DRAM {int(stored.addresses[element]):#x}"
        )
    seen = np.split(np.bincount(at, minlength=len(values)), first[1:-1])
    for layer, counts in zip(layers, seen, strict=True):
        if (counts != 1).any():
            raise ProgramError(
                f"{layer.name!r}: {int((counts == 0).sum())} elements of its output are never "
                f"stored, {int((counts > 1).sum())} more than once"
            )


class _References:
    """The marks of every layer's output, from the layers alone."""

    def __init__(
        self,
        layers: Sequence[Meaning],
        tensors: Mapping[str, DramTensor],
        segments: Sequence[Segment],
        config: AcceleratorConfig,
    ):
        self.layers, self.tensors, self.config = layers, tensors, config
        self.addresses = {segment.name: segment.address for segment in segments}
        self.values: dict[str, Marks] = {}

    def all(self) -> list[tuple[int, Marks]]:
        """For each layer the address of its output, and its marks in the order of addresses."""
        found: list[tuple[int, Marks]] = []
        for layer in self.layers:
            made = self._of(layer).reshape(-1)
            self.values[layer.job.output] = made
            shown = made if layer.stored else made[:0]  # what stays on chip is seen by who reads it
            found.append((self.tensors[layer.job.output].address, shown))
        return found

    def _of(self, layer: Meaning) -> Marks:
        if isinstance(layer.job, ContractionJob):
            return self._contraction(layer.name, layer.job)
        assert isinstance(layer.job, ElementwiseJob)
        return self._elementwise(layer.name, layer.job)

    def _tensor(self, name: str) -> Marks:
        """Marks of an activation, in the order of addresses."""
        if name in self.values:
            return self.values[name]
        tensor = self.tensors[name]
        count = int(np.prod(packed_shape(tensor, self.config)[:4]))
        return mark(GRANULE, tensor.address + np.arange(count) * self.config.inp_element_bytes)

    def _records(self, name: str, index: np.ndarray) -> Marks:
        base = self.addresses.get(f"{name}.qnt", 0)
        return mark(CONSTANT, base + index * self.config.qnt_element_bytes)

    def _contraction(self, name: str, job: ContractionJob) -> Marks:
        layer, image, tail = job.layer, job.layer.image, job.work.tail
        form = forms(self.config)[job.work.add]
        x = self._tensor(image.tensor).reshape(layer.batches, -1, *image.plane)
        if layer.columns.lanes > 1:
            x = run_marks(x, np.arange(layer.columns.extent), layer.columns.lanes)
        of = layer.weights
        rows = weight_marks(of.data, self.addresses[f"{name}.wgt"], of.dtype.bits)
        weights = rows if form.by_rows else combined(rows)
        weights = weights if form.taps else weights[..., None]
        shape = (layer.outputs, layer.depth, layer.rows.taps, layer.column_steps)
        weights = np.broadcast_to(weights, (*shape, weights.shape[-1]))
        y = np.zeros(
            (layer.batches, layer.outputs, layer.rows.positions, layer.columns.positions), np.uint64
        )
        if layer.starts:
            at = self.addresses[f"{name}.acc"]
            each = np.arange(layer.outputs) * self.config.acc_element_bytes
            y += mark(CONSTANT, at + each)[None, :, None, None]
        blocks, outputs = np.array(layer.weights.inputs), np.arange(layer.outputs)
        per_block = (len(job.records) - len(job.parameters)) // layer.variants
        of_all = np.zeros((), np.uint64)
        taps = min(layer.tap_lanes, weights.shape[-1])
        for zone in layer.zones:
            target = (..., _slice(zone.rows), _slice(zone.columns))
            counts = zone.taps.count, zone.steps.count
            for row, column, t in np.ndindex(*counts, taps):
                ky, s = row + zone.taps.start, column + zone.steps.start
                weight = weights[:, :, ky, s, t]
                if not weight.any():
                    continue
                kx = s * layer.tap_lanes + t
                seen = _under(x, image, (zone.rows, zone.columns), (ky, kx))
                flat = seen.reshape(*seen.shape[:2], -1)
                if layer.dense:
                    made = weight @ flat[:, blocks[0]]
                else:
                    made = np.zeros((layer.batches, layer.outputs, flat.shape[2]), np.uint64)
                    for d in range(layer.depth):
                        made += flat[:, blocks[:, d]] * weight[None, :, d, None]
                y[target] += made.reshape(*made.shape[:2], *seen.shape[2:])
            record = zone.record * per_block + (outputs if per_block > 1 else 0 * outputs)
            of_qnt = np.zeros((), np.uint64)
            if len(job.records):
                of_qnt = self._records(name, record)[None, :, None, None]
            if job.work.pool is not None:
                of_all = of_qnt  # zones have no records of their own
            elif tail is None:
                y[target] = mark(STORED, y[target], of_qnt)
            else:
                y[target] = alu(job.work.ending.operation, y[target], of_qnt)
        if job.work.pool is not None:
            return mark(STORED, _greatest(y, job.work.pool), of_all)
        return y if tail is None else self._tail(name, job, tail, y)

    def _tail(self, name: str, job: ContractionJob, tail: Elementwise, sums: Marks) -> Marks:
        assert tail.sums is not None
        values: dict[int, Marks] = {
            region: self._tensor(image.tensor).reshape(sums.shape)
            for region, image in tail.images.items()
        }
        values[tail.sums] = sums
        for act in tail.acts:
            self._act(name, job, act, values, sums.shape)
        return mark(STORED, values[tail.result], self._record(name, job, tail.ending.record))

    def _elementwise(self, name: str, job: ElementwiseJob) -> Marks:
        plan, work = job.plan, job.plan.work
        whole = (Range(0, plan.positions[0]), Range(0, plan.positions[1]))
        inputs: dict[int, Marks] = {
            region: self._tensor(image.tensor).reshape(plan.planes, *image.shape[1:3])
            for region, image in plan.images.items()
        }
        values = dict(inputs)
        for act in work.acts:
            if not act.taps:
                self._act(name, job, act, values, (plan.planes, *plan.positions))
                continue
            assert act.src is not None
            image = plan.images[act.src]
            for tap in np.ndindex(image.rows.taps, image.columns.taps):
                seen = _under(inputs[act.src][None], image, whole, tap)[0]
                values[act.dst] = values[act.dst] + addend(act.operation, seen)
        return mark(STORED, values[work.result], self._record(name, job, work.ending.record))

    def _act(
        self, name: str, job: Job, act: Act, values: dict[int, Marks], shape: tuple[int, ...]
    ) -> None:
        """Change the marks of regions of ``shape`` as an act without taps does."""
        if act.operation == "gemm.reset":
            values[act.dst] = np.zeros(shape, np.uint64)
        elif act.imm is not None:
            values[act.dst] = alu(act.operation, values[act.dst], mark(STEP, act.imm))
        else:
            source = self._record(name, job, act.record) if act.src is None else values[act.src]
            values[act.dst] = alu(act.operation, values[act.dst], source)

    def _record(self, name: str, job: Job, fields: Mapping[str, Expr] | None) -> Marks:
        """The mark of parameters for all channels; 0 of none."""
        if not fields:
            return np.zeros((), np.uint64)
        first = len(job.records) - len(job.parameters)
        return self._records(name, np.array(first + job.parameters.index(fields)))


def _greatest(sums: Marks, pool: Pool) -> Marks:
    """The marks of the greatest ones of windows of ``sums`` [..., rows, columns]."""
    high, wide = pool.window
    first, *others = (sums[..., y::high, x::wide] for y, x in np.ndindex(high, wide))
    for other in others:
        first = first + addend(pool.operation, other)
    return first


def _under(x: Marks, image: Image, positions: tuple[Range, Range], taps: tuple[int, ...]) -> Marks:
    """The elements of ``x`` [..., rows, columns] that meet one tap of each position; outside is
    padding."""
    y, in_rows = _met(image.rows, positions[0], taps[0])
    column, in_columns = _met(image.columns, positions[1], taps[1])
    inside = in_rows[:, None] & in_columns
    return np.where(inside, x[..., y[:, None], column], mark(PAD, image.pad))


def _met(walk: Walk, positions: Range, tap: int) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(positions.start, positions.stop) * walk.stride
    at = starts + tap * walk.dilation + walk.origin
    inside = (at >= 0) & (at < walk.extent)
    return np.where(inside, at, 0), inside


def _slice(positions: Range) -> slice:
    return slice(positions.start, positions.stop)
