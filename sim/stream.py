"""An instruction stream decoded at once, with numpy: fields, faults, order and counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.faults import ZERO_RULES, FaultCode, static_fault
from ..isa.formats import FLAGS, WORD_BITS, Layout, Slot
from ..isa.golden import (
    TIMELESS_COUNTERS,
    beats,
    illegal_stop,
    multiplies,
    step_of,
    unread_stop,
)
from ..isa.instructions import InstructionSet
from ..isa.operations import SELECTORS, Operation
from ..isa.ordering import Ordering, Step, Stop

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPCODE_MASK = 7


@dataclass(frozen=True)
class Group:
    """The instructions of one operation that a program executes.

    Attributes
    ----------
    operation : Operation
        Which one.
    at : array
        Their positions in the stream.
    fields : mapping
        Every field of their format, an array each.
    """

    operation: Operation
    at: NDArray[np.int64]
    fields: Mapping[str, NDArray[np.int64]]


class Stream:
    """What a stream says.

    Parameters
    ----------
    instructions : InstructionSet
        How to read it.
    data : bytes
        The stream itself.
    readable : int, optional
        Instructions before the first that the bus does not give; all when left out.

    Attributes
    ----------
    count : int
        Instructions in it.
    end : int
        Instructions that are dispatched: up to FINISH, or before the first that is illegal or
        cannot be read.
    """

    def __init__(self, instructions: InstructionSet, data: bytes, readable: int | None = None):
        self.instructions, self.config = instructions, instructions.config
        words = np.frombuffer(data, np.dtype("<u8")).reshape(-1, 2)
        self.count, self._words = len(words), words[:readable]
        self._classify()

    def _classify(self) -> None:
        """Find the operation of every instruction, looking at each kind of word once."""
        masks = np.zeros((8, 2), np.uint64)
        for opcode, layout in self.instructions.layouts.items():
            masks[opcode] = _deciding_bits(layout)
        masks[:, 0] |= np.uint64(OPCODE_MASK)
        opcodes = self._words[:, 0] & np.uint64(OPCODE_MASK)
        kinds, which = np.unique(self._words & masks[opcodes], axis=0, return_inverse=True)
        self._which = which.reshape(-1)
        self._kinds: list[tuple[Operation | None, FaultCode, Step | None]] = []
        ends = np.zeros(len(kinds), bool)
        for k, (low, high) in enumerate(kinds.tolist()):
            operation, code = static_fault(self.instructions, low | high << WORD_BITS)
            step = None
            if operation is not None and code is FaultCode.NONE:
                step = step_of(0, operation, low)
            self._kinds.append((operation, code, step))
            ends[k] = step is None or step.finish
        stops = np.flatnonzero(ends[self._which])
        self.end, self._illegal = len(self._words), False
        if stops.size:
            self._illegal = self._kinds[self._which[stops[0]]][2] is None
            self.end = int(stops[0]) + (not self._illegal)

    # --- order

    @cached_property
    def ordered(self) -> tuple[NDArray[np.int64], Stop | None]:
        """The dispatched instructions in a legal order, and why the machine stops after them.

        Without a reason FINISH is the last.
        """
        kinds = [step for _, _, step in self._kinds]
        steps: list[Step] = []
        for index, k in enumerate(self._which[: self.end].tolist()):
            kind = kinds[k]
            assert kind is not None
            steps.append(Step(index, kind.engine, kind.pops, kind.pushes, kind.finish))
        ordering = Ordering(steps, self.config.token_depth)
        order = np.fromiter((step.index for step in ordering.run()), np.int64)
        read = len(self._words)
        if ordering.finished and read == self.count:
            return order, None
        fault = unread_stop(read) if read < self.count else None
        if self._illegal:
            operation, code, _ = self._kinds[self._which[self.end]]
            fault = illegal_stop(operation, code, self.end)
        return order, ordering.stopped(self.count, fault)

    # --- fields

    def operation(self, index: int) -> Operation:
        """The operation of a dispatched instruction."""
        found = self._kinds[self._which[index]][0]
        assert found is not None
        return found

    def operands(self, index: int) -> Mapping[str, int]:
        """The operands of a dispatched instruction."""
        low, high = self._words[index].tolist()
        return self.instructions.decode(low | high << WORD_BITS).operands

    @cached_property
    def groups(self) -> list[Group]:
        """The dispatched instructions by operation."""
        names = ["" if operation is None else operation.name for operation, _, _ in self._kinds]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        of_kind = np.array([numbers[name] for name in names], np.int64)
        operations = of_kind[self._which[: self.end]]
        groups: list[Group] = []
        for name, number in numbers.items():
            at = np.flatnonzero(operations == number)
            if at.size:
                operation = self.instructions.operations[name]
                layout = self.instructions.layouts[operation.format.opcode]
                fields = {slot.name: _field(self._words[at], slot) for slot in layout.slots}
                groups.append(Group(operation, at, fields))
        return groups

    @cached_property
    def steps(self) -> int:
        """Steps of GEMM, MATMUL and ALU, each of which takes a cycle on any device."""
        return sum(_steps(group) for group in self.groups if "iter_out" in group.fields)

    @cached_property
    def counters(self) -> dict[str, int]:
        """The counters that do not depend on time, of a stream that comes to FINISH."""
        found: dict[str, int] = dict.fromkeys(TIMELESS_COUNTERS, 0)
        found["instructions"] = self.end
        for group in self.groups:
            name, value = _counted(self.config, group)
            if name:
                found[name] += value
        return found


def _deciding_bits(layout: Layout) -> tuple[int, int]:
    """The bits of a format that decide about operation, legality and order, as two words."""
    names = {"opcode", *FLAGS, "reserved", *SELECTORS.get(layout.name, ())}
    names |= {name for rule in ZERO_RULES for name in rule.fields}
    bits = 0
    for slot in layout.slots:
        if slot.name in names:
            bits |= ((1 << slot.width) - 1) << slot.lsb
    return bits & (1 << WORD_BITS) - 1, bits >> WORD_BITS


def _field(words: NDArray[np.uint64], slot: Slot) -> NDArray[np.int64]:
    """A field of many instructions; none crosses the middle of an instruction."""
    word, lsb = divmod(slot.lsb, WORD_BITS)
    value = words[:, word] << np.uint64(WORD_BITS - slot.width - lsb)
    kind = np.int64 if slot.signed else np.uint64
    return (value.view(kind) >> kind(WORD_BITS - slot.width)).astype(np.int64)


def _steps(group: Group) -> int:
    fields = group.fields
    micro_ops = np.maximum(0, fields["uop_end"] - fields["uop_bgn"])
    return int((fields["iter_out"] * fields["iter_in"] * micro_ops).sum())


def _counted(config: AcceleratorConfig, group: Group) -> tuple[str, int]:
    """The counter that a group of instructions adds to, and how much."""
    operation, fields = group.operation, group.fields
    if "iter_out" in fields:
        steps = _steps(group)
        if multiplies(operation.name, config):
            return "gemm_steps", steps
        return ("alu_steps" if operation.format.name == "ALU" else "", steps)
    memory = operation.moved
    if memory is None:
        return "", 0
    size = memory.element_bytes(config)
    rows, row = fields["y_size"], fields["x_size"] * size
    if "STORE" in operation.format.name:
        return "write_bytes", int((rows * row).sum())
    first, stride = fields["dram_base"] * size, fields["x_stride"] * size
    total = 0
    for start, step, length, count in zip(
        first.tolist(), stride.tolist(), row.tolist(), rows.tolist(), strict=True
    ):
        if step % config.bus_bytes == 0:
            total += count * beats(config, start, length)
        else:
            total += sum(beats(config, start + y * step, length) for y in range(count))
    return "read_bytes", total
