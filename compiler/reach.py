"""Which elements the instructions of a program touch; follows the loads of micro-ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import ProgramError
from ..isa.formats import UOP_BYTES, uop_layout
from ..isa.instructions import Instruction, InstructionSet
from ..isa.nest import Binary, Const, Expr, Index, Load
from ..isa.traverse import walk
from .affine import affine
from .artifact import Segment
from .dram import Box, Boxes, granule, scratchpads
from .patterns import Pattern, patterns_of
from .touches import Touches


@dataclass
class _Steps:
    """The instructions of one operation with micro-ops."""

    events: list[int] = field(default_factory=list[int])
    positions: list[int] = field(default_factory=list[int])
    operands: list[Mapping[str, int]] = field(default_factory=list[Mapping[str, int]])
    words: list[np.ndarray] = field(default_factory=list[np.ndarray])


class _Move(NamedTuple):
    """What an operation that moves boxes touches."""

    run: str
    """The scratchpad whose elements it moves one after another, from ``sram_base`` on."""
    fills: bool
    """Whether it writes those."""
    kept: str | None
    """The scratchpad whose elements it writes from ``dram_base`` on; None where that is DRAM."""
    requantizes: bool


def _move_of(pattern: Pattern) -> _Move:
    loads = [n for n in walk(pattern.value) if isinstance(n, Load)]

    def buffer(operand: str) -> str | None:
        named = (n.buffer for n in (pattern.target, *loads) if Index(operand) in walk(n.indices[0]))
        return next(named, None)

    run, there = buffer("sram_base"), buffer("dram_base")
    assert run is not None
    assert there is not None
    kept = None if there.startswith("dram.") else there
    return _Move(run, pattern.target.buffer == run, kept, buffer("qnt_base") is not None)


class Reach:
    """What a program's instructions touch, given one after another.

    Parameters
    ----------
    config : AcceleratorConfig
        The hardware.
    segments : sequence of Segment
        Constant DRAM; the micro-ops that the program loads must lie there.
    stored : int
        Where in DRAM the last byte ends that the program writes; beyond it nothing counts.
    """

    def __init__(self, config: AcceleratorConfig, segments: Sequence[Segment], stored: int):
        self.config, self.segments = config, segments
        self.granule, self.boxes = granule(config), Boxes(config)
        self._moves = {
            name: _move_of(pattern)
            for name, operation in InstructionSet(config).operations.items()
            if "memory_type" in operation.fixed
            and (pattern := next(patterns_of(operation, config), None)) is not None
        }
        self.depths = scratchpads(config) | {"dram": -(-stored // self.granule)}
        self.events = 0
        """How many instructions there have been that stay within their scratchpads."""
        self._touches = Touches(self.depths)
        self._uops = np.zeros(self.depths["uop"], np.uint32)
        self._steps: dict[str, _Steps] = {}
        self._complaints: list[tuple[int, ProgramError]] = []
        self._entered = False

    def add(self, instruction: Instruction, position: int) -> None:
        """The next instruction, at ``position`` of the program.

        Raises
        ------
        ProgramError
            If it leaves a scratchpad, or loads micro-ops from where there are none; but see
            :meth:`beyond`.
        """
        operands = instruction.operands
        move = self._moves.get(instruction.operation)
        if move is not None:
            get, scratchpad = operands.get, move.run
            rows = get("y_pad_0", 0) + get("y_size", 0) + get("y_pad_1", 0)
            columns = get("x_pad_0", 0) + get("x_size", 0) + get("x_pad_1", 0)
            count = rows * columns if get("x_size", 0) else 0
            first = get("sram_base", 0)
            self._run(scratchpad, first, count, position, move.fills)
            if move.requantizes and columns:
                read = 1 + (rows - 1) * get("qnt_step", 0) if rows else 0
                self._run("qnt", get("qnt_base", 0), read, position, False)
            if scratchpad == "uop" and count:
                self._load_uops(slice(first, first + count), operands["dram_base"], position)
            if move.kept is not None and count:
                self._keep(move.kept, operands, position)
            for box, write in zip(self.boxes.of(instruction.operation, operands), (False, True),
                                  strict=True):  # fmt: skip
                if box is not None:
                    self._touches.box(self.events, "dram", box, self.granule, write)
        elif "uop_bgn" in operands or "iter_out" in operands:
            bgn, end = operands.get("uop_bgn", 0), operands.get("uop_end", 0)
            self._run("uop", bgn, end - bgn, position, None)
            if operands.get("iter_out", 0) * operands.get("iter_in", 0) and bgn < end:
                self._run("uop", bgn, end - bgn, position, False)
                steps = self._steps.setdefault(instruction.operation, _Steps())
                steps.events.append(self.events)
                steps.positions.append(position)
                steps.operands.append(operands)
                steps.words.append(self._uops[bgn:end].copy())
        self.events += 1

    def beyond(self) -> ProgramError | None:
        """What is wrong with the first instruction whose steps leave a scratchpad, if there is one.

        Then only the events before it count.
        """
        self._enter_steps()
        if not self._complaints:
            return None
        self.events, complaint = min(self._complaints, key=lambda found: found[0])
        return complaint

    def touches(self) -> Touches:
        """All that was touched."""
        self._enter_steps()
        return self._touches

    def place(self, element: int) -> str:
        """One of the elements of :meth:`touches`, in words."""
        name = max((n for n in self.depths if self._touches.bases[n] <= element),
                   key=lambda n: (self._touches.bases[n], self.depths[n]))  # fmt: skip
        index = element - self._touches.bases[name]
        return f"DRAM {index * self.granule:#x}" if name == "dram" else f"{name}[{index}]"

    def _run(self, name: str, start: int, count: int, position: int, write: bool | None) -> None:
        """Elements one after another; with ``write`` None they must be there, but are not used."""
        if count > 0 and start + count > self.depths[name]:
            raise _beyond(position, name, start + count - 1, self.depths[name])
        if write is not None:
            self._touches.run(self.events, name, start, count, write)

    def _keep(self, name: str, operands: Mapping[str, int], position: int) -> None:
        """A box of elements that a store leaves in a scratchpad."""
        base, rows, columns, stride = (
            operands.get(n, 0) for n in ("dram_base", "y_size", "x_size", "x_stride")
        )
        box = Box(base, rows, columns, stride)
        if box.end > self.depths[name]:
            raise _beyond(position, name, box.end - 1, self.depths[name])
        self._touches.box(self.events, name, box, 1, True)

    def _load_uops(self, to: slice, dram_base: int, position: int) -> None:
        address = dram_base * UOP_BYTES
        for segment in self.segments:
            first = address - segment.address
            last = first + (to.stop - to.start) * UOP_BYTES
            if first >= 0 and last <= segment.data.nbytes:
                self._uops[to] = segment.data[first:last].view(np.uint32)
                return
        raise ProgramError(f"instruction {position} loads micro-ops from where there are none")

    def _enter_steps(self) -> None:
        if self._entered:
            return
        self._entered = True
        for name, steps in self._steps.items():
            counts = np.array([len(words) for words in steps.words])
            owner = np.repeat(np.arange(len(counts)), counts)
            words = np.concatenate(steps.words).astype(np.int64)
            for number, access in enumerate(accesses(name, self.config)):
                scratchpad, operand, offsets, lanes = access
                loops, starts = self._walk(steps, owner, words, operand, lanes)
                # One after another of the same element is one.
                fresh = np.ones(len(owner), bool)
                fresh[1:] = (owner[1:] != owner[:-1]) | (starts[1:] != starts[:-1])
                which, starts, loops = owner[fresh], starts[fresh], loops[owner[fresh]]
                events = np.array(steps.events)[which]
                depth = self.depths[scratchpad]
                for taps, first in _progressions(offsets):
                    walk = (scratchpad, events, starts + first, loops, taps, lanes)
                    last = self._touches.walks(*walk, write=False)
                    if number == 0:
                        self._touches.walks(*walk, write=True)
                    if last.max() >= depth:
                        at = int(which[np.argmax(last >= depth)])
                        most = int(last[which == at].max())
                        error = _beyond(steps.positions[at], scratchpad, most, depth)
                        self._complaints.append((steps.events[at], error))

    def _walk(
        self, steps: _Steps, owner: np.ndarray, words: np.ndarray, operand: str, lanes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The loops of each instruction, and where each micro-op begins: in ``lanes`` of an
        element, by which the inner loop goes."""
        slot = uop_layout(self.config).by_name[operand]
        starts = ((words >> slot.lsb) & ((1 << slot.width) - 1)) * lanes
        columns: list[np.ndarray] = []
        for loop, unit in (("out", lanes), ("in", 1)):
            factor = [o.get(f"{operand}_factor_{loop}", 0) * unit for o in steps.operands]
            trips = [o.get(f"iter_{loop}", 0) if f else 1 for o, f in
                     zip(steps.operands, factor, strict=True)]  # fmt: skip
            columns += [np.array(trips), np.array(factor)]
        return np.stack(columns, axis=1), starts


def _beyond(position: int, name: str, last: int, depth: int) -> ProgramError:
    return ProgramError(f"instruction {position} touches {name}[{last}]; there are {depth}")


def _progressions(offsets: np.ndarray) -> list[tuple[tuple[int, int], int]]:
    """Offsets as (count and distance, first)."""
    steps = np.diff(offsets)
    if (steps == steps[:1]).all():
        return [((len(offsets), int(steps[0]) if len(steps) else 0), int(offsets[0]))]
    return [((1, 0), int(offset)) for offset in offsets]


@lru_cache(maxsize=1024)
def accesses(name: str, config: AcceleratorConfig) -> tuple[tuple[str, str, np.ndarray, int], ...]:
    """(scratchpad, operand, offsets from its index, lanes that these count in) of what a step
    reads, its target first."""
    pattern = next(patterns_of(InstructionSet(config).operations[name], config))
    found: dict[tuple[str, Expr], tuple[str, str, np.ndarray, int]] = {}
    for load in (pattern.target, *(n for n in walk(pattern.value) if isinstance(n, Load))):
        index, lanes = load.indices[0], 1
        match index:  # elements and lanes beyond them
            case Binary("add", element, Binary("div", beyond, Const(value=int(lanes)))):
                form, start = affine(beyond), affine(element)
            case _:
                form = start = affine(index)
        assert form is not None
        assert start is not None
        (operand,) = start.indices - pattern.lanes.keys()
        offsets = np.zeros(1, np.int64)
        for lane in form.indices & pattern.lanes.keys():
            along = np.arange(pattern.lanes[lane]) * form.coefficient(lane)
            offsets = np.unique(offsets[:, None] + along)
        scratchpad = load.buffer.split(".")[0]
        found.setdefault((scratchpad, index), (scratchpad, operand, offsets, lanes))
    return tuple(found.values())
