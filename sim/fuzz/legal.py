"""Random legal programs that mean one thing only, for any configuration.

Which operations there are, which operands they take, what they touch and when that is legal all
come from the instruction set: an operation that joins the table is generated without a word here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...isa.config import AcceleratorConfig
from ...isa.formats import UOP_BYTES
from ...isa.instructions import Instruction
from ...isa.memories import MEMORIES, Engine, MemoryType
from ...isa.operations import Operation, params_of
from ...isa.ordering import DISPATCHED
from .choices import Choices
from .footprint import PADS, Footprints, instruction_set, reach
from .program import (
    DATA,
    STORED,
    TABLES,
    ZERO_UOP,
    Program,
    image_for,
    program_of,
    region,
)
from .tokens import ENGINES, Planned, Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS, COLUMNS = (1, 2, 3, 4, 1, 2, 3, 0), (1, 2, 3, 4, 5, 6, 1, 2, 3, 0)
TRIPS = (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 0)
"""Zero is possible everywhere, and rare."""
LONG_TRIPS = (TRIPS, (*TRIPS, 9, 17, 30), (*TRIPS, 9, 17, 30, 61, 200))
"""By how long a program may take."""
LONG_ROWS = (8, 16, 31, 64, 130)
MICRO_OPS = (1, 2, 3, 4, 1, 2, 3, 4, 0)
REVEALED = 8
"""Accumulators of which all bits are stored at the end."""


def legal_program(
    config: AcceleratorConfig,
    choices: Choices,
    most: int = 16,
    *,
    long: int = 0,
    uops: NDArray[np.uint32] | None = None,
) -> Program:
    """A legal program of up to ``most`` instructions, not counting those that only wait.

    Its engines' streams are merged at random, for the order of the stream means nothing between
    engines. ``long``, up to 2, makes loops longer. ``uops`` are the micro-ops that are there
    before.
    """
    maker = _Maker(config, choices, long, uops)
    if choices.yes():
        maker.fill()
    for _ in range(choices.integer(1, most)):
        maker.step()
    if choices.yes():
        maker.reveal()
    return maker.program()


def box_size(box: dict[str, int]) -> int:
    """Elements of the scratchpad that a box fills."""
    if not box.get("x_size"):
        return 0
    y_0, y_1, x_0, x_1 = (box.get(pad, 0) for pad in PADS)
    return (box["y_size"] + y_0 + y_1) * (box["x_size"] + x_0 + x_1)


class _Maker:
    """Draws instructions and keeps track of what they touch."""

    def __init__(
        self,
        config: AcceleratorConfig,
        choices: Choices,
        long: int,
        uops: NDArray[np.uint32] | None,
    ):
        self.config, self.choices = config, choices
        self.trips, self.long = LONG_TRIPS[long], long
        self.instructions = instruction_set(config)
        self.tokens = Tokens(config.token_depth, self.carrier)
        self.seed = choices.integer(0, 1 << 16)
        image = image_for(config, self.seed)
        self.footprints = Footprints(config, image, None if uops is None else uops.copy())
        self.kinds: dict[str, list[Operation]] = {}
        for operation in self.instructions.operations.values():
            if operation.name != "finish":
                kind = operation.name.partition(".")[0]
                self.kinds.setdefault(kind, []).append(operation)

    def step(self) -> None:
        """One more instruction, and now and then a token that orders nothing."""
        operation = self.choices.one_of(self.kinds[self.choices.one_of(sorted(self.kinds))])
        self.plan(self.instruction(operation))
        if self.choices.rarely(4):
            first, then = self.choices.one_of(sorted(self.tokens.pending, key=str))
            if self.choices.yes():
                self.tokens.push(first, then)
            elif self.tokens.pending[first, then]:
                self.tokens.pop(first, then)

    def plan(self, instruction: Instruction | None) -> None:
        """Append it, ordered after what it depends on; nothing if it would not be legal."""
        if instruction is None:
            return
        touches = self.footprints.of(instruction)
        if self.footprints.beyond(touches):
            return
        self.footprints.execute(instruction)
        engine = self.instructions.operations[instruction.operation].engine
        self.tokens.add(Planned(engine, instruction, touches))

    def program(self) -> Program:
        """What has been planned, in an order that the stream might have."""
        self.tokens.fold()
        streams = {engine: deque(planned) for engine, planned in self.tokens.streams.items()}
        merged: list[Instruction] = []
        while left := [e for e in ENGINES if streams[e]]:
            # What waits for an instruction that is not dispatched must not fill a queue.
            last = min(streams[e][0].order for e in left) + DISPATCHED - 2
            near = [e for e in left if streams[e][0].order <= last]
            merged.append(streams[self.choices.one_of(near)].popleft().instruction)
        merged.append(Instruction("finish"))
        words = [self.instructions.encode(i) for i in merged]
        return program_of(self.config, words, seed=self.seed)

    def carrier(self, engine: Engine) -> Instruction:
        """An instruction of an engine that does nothing."""
        able = [
            o.name
            for kind in self.kinds.values()
            for o in kind
            if o.engine is engine and {"x_size", "iter_out"} & set(params_of(o.format, self.config))
        ]
        return Instruction(self.choices.one_of(able))

    # --- parts of every second program

    def fill(self) -> None:
        """Put something into the beginning of every scratchpad."""
        filled: set[str] = set()
        for operation in self.instructions.operations.values():
            memory = operation.moved
            if memory is None or memory.type is MemoryType.OUT or memory.scratchpad in filled:
                continue
            filled.add(memory.scratchpad)
            size = memory.element_bytes(self.config)
            start = TABLES if memory.type is MemoryType.UOP else DATA
            count = min(memory.depth(self.config), 16, (STORED - DATA) // size)
            box = {"x_size": count, "y_size": 1, "x_stride": count, "dram_base": -(-start // size)}
            self.plan(Instruction(operation.name, box))

    def reveal(self) -> None:
        """Store all bits of the first accumulators, not only the low ones."""
        names = self.instructions.operations
        loads_uop = next(
            name for name in names
            if name.startswith("load") and name.endswith(".uop")
        )  # fmt: skip
        size, count = self.config.out_element_bytes, min(REVEALED, self.config.acc_depth)
        zero = {"dram_base": ZERO_UOP // UOP_BYTES, "y_size": 1, "x_size": 1}
        self.plan(Instruction(loads_uop, zero))
        shift = {"uop_end": 1, "iter_out": count, "iter_in": 1, "dst_factor_out": 1}
        shift["imm"] = self.config.out_width
        start, end = region(MemoryType.OUT)
        for part in range(32 // self.config.out_width):
            box = {"y_size": 1, "x_size": count, "dram_base": -(-start // size) + part * count}
            if (box["dram_base"] + count) * size > end:
                return
            self.plan(Instruction("store.out", box))
            self.plan(Instruction("alu.shr.imm", shift))

    # --- instructions

    def instruction(self, operation: Operation) -> Instruction | None:
        """A random instruction; None if no legal one was found."""
        params = params_of(operation.format, self.config)
        if operation.name == "store.nop":
            rest = [p for p in params if p not in (*PADS, "x_size")]
            return Instruction(operation.name, {p: self.any(operation, p) for p in rest})
        if operation.moved is not None or "sram_base" in params:
            return self.box(operation, params)
        return self.nest(operation, params) if "iter_out" in params else None

    def any(self, operation: Operation, param: str) -> int:
        """Any value that a field holds, small ones more often."""
        slot = self.slot(operation, param)
        near = self.choices.yes()
        return self.choices.integer(
            max(slot.least, -40) if near else slot.least,
            min(slot.greatest, 40) if near else slot.greatest,
        )

    def slot(self, operation: Operation, param: str):
        """Where an operand stands."""
        return self.instructions.layouts[operation.format.opcode].by_name[param]

    def box(self, operation: Operation, params: Sequence[str]) -> Instruction | None:
        """A move between DRAM and a scratchpad, or from the accumulators to another."""
        choices, kept = self.choices, operation.moved is None
        memory = operation.moved or MEMORIES[MemoryType.OUT]
        depth, size = memory.depth(self.config), memory.element_bytes(self.config)
        box = {"y_size": choices.one_of(ROWS), "x_size": choices.one_of(COLUMNS)}
        box["x_stride"] = choices.integer(0, 12)
        stores = memory.type is MemoryType.OUT
        if not stores and choices.rarely(3):
            box |= {pad: choices.integer(0, 2) for pad in PADS if pad in params}
        if self.long and choices.rarely(4):
            box["x_size"] = choices.one_of(LONG_ROWS)
        while box_size(box) > depth:
            box = {key: value // 2 for key, value in box.items()}
        if stores and not kept:  # rows of one store do not overlap
            box["x_stride"] = max(box["x_stride"], box["x_size"])
        start, end = region(memory.type)
        first, end = -(-start // size), end // size
        if kept:
            there = MEMORIES[MemoryType(operation.fixed["memory_type"])]
            first, end = 0, there.depth(self.config)
        while first + reach(box) > end:
            box["y_size"] //= 2
        box["dram_base"] = choices.low(first, first + 8, end - reach(box))
        last = min(depth - box_size(box), self.slot(operation, "sram_base").greatest)
        box["sram_base"] = choices.low(0, 12, last)
        rest = [p for p in params if p not in (*box, *PADS)]
        return self.completed(operation, box, rest)

    def completed(
        self, operation: Operation, operands: dict[str, int], rest: Sequence[str]
    ) -> Instruction | None:
        """With the remaining operands, the plainest if no others are found to be legal."""
        for attempt in range(4):
            values = {p: self.any(operation, p) if attempt < 3 else 0 for p in rest}
            instruction = Instruction(operation.name, {**operands, **values})
            if not self.footprints.beyond(self.footprints.of(instruction)):
                return instruction
        return None

    def nest(self, operation: Operation, params: Sequence[str]) -> Instruction | None:
        """Steps of the matrix unit or of the ALU."""
        choices, depth = self.choices, self.config.uop_depth
        first = choices.low(0, 12, depth - 1)
        count = min(choices.one_of(MICRO_OPS), depth - first)
        operands = {
            "uop_bgn": first, "uop_end": first + count,
            "iter_out": choices.one_of(self.trips), "iter_in": choices.one_of(self.trips),
        }  # fmt: skip
        factors = [p for p in params if "_factor_" in p]
        rest = [p for p in params if p not in (*operands, *factors)]
        operands |= {p: self.any(operation, p) for p in rest}
        if self.footprints.beyond(self.touches(operation, operands)):
            return None
        for factor in factors:
            most = min(
                self.room(operation, operands, factor), self.slot(operation, factor).greatest
            )
            operands[factor] = choices.low(0, 4, most)
        return Instruction(operation.name, operands)

    def touches(self, operation: Operation, operands: dict[str, int]):
        """What those operands make it touch."""
        return self.footprints.of(Instruction(operation.name, operands))

    def room(self, operation: Operation, operands: dict[str, int], factor: str) -> int:
        """How large a factor may be before an index leaves its memory."""
        most = 1 << 16
        before = self.touches(operation, operands)
        after = self.touches(operation, {**operands, factor: 1})
        for touch, grown in zip(before, after, strict=True):
            growth = grown.end - touch.end
            if growth > 0:
                left = self.footprints.size(touch.memory) - touch.end
                most = min(most, left // growth)
        return most
