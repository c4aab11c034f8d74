"""Instructions of one engine, drawn at random, and what memories hold after them.

The oracle are the meanings, one instruction after another. No other engine runs: what others
would have put into a scratchpad stands there from the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.programs import DRAM_BYTES
from weft.isa import PRESETS, Instruction, InstructionSet
from weft.isa.config import QNT_LANE_BYTES
from weft.isa.golden import GoldenModel, rows
from weft.isa.interpret import interpret
from weft.isa.memories import MemoryType
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.footprint import Footprints
from weft.sim.fuzz.legal import legal_program
from weft.sim.fuzz.program import DATA, image_for, region

CONFIG = replace(
    PRESETS["tiny"], uop_bytes=512, inp_bytes=256, wgt_bytes=512, acc_bytes=1024, qnt_bytes=1024
)
"""64 accumulators, of which a beat of ACC8 holds two; small, so that programs meet the ends."""
SCRATCHPADS = ("inp", "wgt", "uop", "acc", "qnt")
BESIDE = {"acc": 48, "qnt": 12}
"""The compute engine's elements from these on are filled by another while it works on the rest."""
ENGINES = ("fetch", "load", "compute", "store")


@dataclass
class Stretch:
    """Instructions in a row, and the memories when they are complete.

    Attributes
    ----------
    words : list of int
        What the engine gets.
    arrays : dict
        The scratchpads, by name, an ``int`` for each element.
    dram : array
        Memory.
    fault : int or None
        The place of the instruction that the bus refuses. The memories are those before it then.
    unsure : dict
        By scratchpad or ``dram``, which elements are left open, because what does not complete
        may have written them.
    """

    words: list[int]
    arrays: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    dram: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    fault: int | None = None
    unsure: dict[str, NDArray[np.bool_]] = field(default_factory=dict[str, NDArray[np.bool_]])


@dataclass(frozen=True)
class Course:
    """Stretches of instructions of ``engine``, each of which goes on from where the last ended.

    Attributes
    ----------
    engine : str
        Whose instructions they are.
    start : dict
        The scratchpads in the beginning, as in :class:`Stretch`.
    image : array
        Memory in the beginning.
    stretches : tuple of Stretch
        What is to be done.
    """

    engine: str
    start: dict[str, list[int]]
    image: NDArray[np.uint8]
    stretches: tuple[Stretch, ...]


@cache
def course(engine: str, seed: int, *counts: int, refused: bool = False) -> Course:
    """A stretch for each of ``counts``, of about so many instructions.

    With ``refused`` the bus answers an error to one in the second half of the last stretch.
    """
    maker = _Maker(engine, seed)
    start = maker.elements()
    bad = [False] * (len(counts) - 1) + [refused]
    stretches = [maker.draw(count, last) for count, last in zip(counts, bad, strict=True)]
    return Course(engine, start, maker.image, tuple(stretches))


class _Maker:
    """Draws instructions, and carries them out."""

    def __init__(self, engine: str, seed: int):
        self.engine, self._seed = engine, seed
        self._instructions = InstructionSet(CONFIG)
        self._drawn = 0
        self.image = image_for(CONFIG, seed)
        self._model = GoldenModel(CONFIG, DRAM_BYTES)
        self._model.dram[:] = self.image
        if engine != "load":
            self._fill(np.random.default_rng(seed))
        uops = self._model.arrays["uop"].copy()
        self._footprints = Footprints(CONFIG, self.image, uops)

    def draw(self, count: int, refused: bool) -> Stretch:
        """``count`` instructions or a few more, one of which is refused if that is asked for."""
        stretch = Stretch([])
        while len(stretch.words) < count or (refused and stretch.fault is None):
            for instruction in self._some():
                late = len(stretch.words) >= count // 2
                if refused and late and stretch.fault is None and self._can_be_refused(instruction):
                    self._stop(stretch)
                    self._append(stretch, self._refused(instruction))
                else:
                    self._append(stretch, instruction)
        if not refused:
            self._end(stretch)
        return stretch

    def _end(self, stretch: Stretch) -> None:
        stretch.arrays, stretch.dram = self.elements(), self._model.dram.copy()

    def _stop(self, stretch: Stretch) -> None:
        """What follows changes nothing that is known."""
        self._end(stretch)
        stretch.fault = len(stretch.words)
        sizes = {**{name: len(rows) for name, rows in stretch.arrays.items()}, "dram": DRAM_BYTES}
        stretch.unsure = {name: np.zeros(size, bool) for name, size in sizes.items()}

    def _append(self, stretch: Stretch, instruction: Instruction) -> None:
        touches = self._footprints.of(instruction)
        if stretch.fault is None:
            if not self._fits(instruction):
                return
            self._footprints.execute(instruction)
            nest = self._instructions.meaning(instruction.operation)
            operands = {p: instruction.operands.get(p, 0) for p in nest.params}
            interpret(nest, operands, self._model.arrays)
        # Nothing is written after a fault, but stores that have been requested are delivered.
        elif self.engine == "store" or len(stretch.words) == stretch.fault:
            for touch in touches:
                if touch.writes:
                    stretch.unsure[touch.memory][touch.first : touch.end] = True
        stretch.words.append(self._instructions.encode(instruction))

    def _some(self) -> list[Instruction]:
        """The engine's part of a program, without its tokens."""
        self._drawn += 1
        choices = RandomChoices(f"{self.engine} {self._seed} {self._drawn}")
        found = map(self._instructions.decode, legal_program(CONFIG, choices, 24, long=1).words)
        return [
            Instruction(i.operation, i.operands)
            for i in found
            if self._instructions.operations[i.operation].engine.value == self.engine
            and i.operation != "finish"
        ]

    def _fits(self, instruction: Instruction) -> bool:
        """Into the memories, and beside what another fills."""
        touches = self._footprints.of(instruction)
        ends = BESIDE if self.engine == "compute" else {}
        shared = [t for t in touches if t.end > ends.get(t.memory, t.end)]
        return not shared and not self._footprints.beyond(touches)

    def _can_be_refused(self, instruction: Instruction) -> bool:
        operation = self._instructions.operations[instruction.operation]
        memory = operation.moved
        moves = memory is not None and bool(rows(CONFIG, operation, instruction.operands))
        return moves and self._fits(instruction)

    def _refused(self, instruction: Instruction) -> Instruction:
        """From, or to, beyond the end of memory."""
        memory = self._instructions.operations[instruction.operation].moved
        assert memory is not None
        beyond = {"dram_base": DRAM_BYTES // memory.element_bytes(CONFIG)}
        return Instruction(instruction.operation, {**instruction.operands, **beyond})

    def _fill(self, random: np.random.Generator) -> None:
        arrays = self._model.arrays
        for name in ("inp", "wgt", "acc"):
            info = np.iinfo(arrays[name].dtype)
            values = random.integers(info.min, info.max + 1, arrays[name].shape)
            arrays[name][:] = values.astype(arrays[name].dtype)
        first, _ = region(MemoryType.UOP)
        arrays["uop"][:] = self.image[first : first + 4 * CONFIG.uop_depth].view("<u4")
        size = CONFIG.block * QNT_LANE_BYTES
        arrays["qnt"][:] = self.image[DATA : DATA + CONFIG.qnt_depth * size].reshape(-1, size)

    def elements(self) -> dict[str, list[int]]:
        """The scratchpads."""
        return {
            name: [int.from_bytes(row.tobytes(), "little") for row in self._model.arrays[name]]
            for name in SCRATCHPADS
        }
