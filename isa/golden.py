"""The whole machine from the meanings, slowly and plainly: what a program does to memory.

Nothing here knows what an instruction does; :func:`weft.isa.interpret.interpret` runs the
meanings. There is no time: every engine executes its instructions in program order, and when
several could go on, the caller chooses which one does. A correct program does not depend on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import QNT_LANE_BYTES, AcceleratorConfig
from .faults import FaultCode, device_fault, static_fault
from .formats import FLAG_BITS, INSTRUCTION_BYTES
from .instructions import InstructionSet
from .interpret import AccessError, interpret
from .memories import MEMORIES, lane_fields, qnt_views
from .nest import Load
from .operations import Operation
from .ordering import ENGINES, POPS, PUSHES, QUEUE_OF, Ordering, Step, Stop
from .storage import numpy_dtype
from .traverse import walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Sequence[str] | int
"""Which ready engine goes first: engines' names, the first in front, or a seed for any of them."""


def scratchpads(config: AcceleratorConfig) -> dict[str, NDArray[Any]]:
    """Every scratchpad, zero, by the buffers' names in the meanings; ``qnt.bias`` and so on share
    the memory of ``qnt``."""
    arrays: dict[str, NDArray[Any]] = {}
    for memory in MEMORIES.values():
        buffer = memory.sram(config)
        if buffer.name not in arrays:
            arrays[buffer.name] = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
    return arrays | qnt_fields(config, arrays["qnt"])


def qnt_fields(config: AcceleratorConfig, qnt: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The fields of the parameter scratchpad as views of its bytes."""
    lanes = qnt.reshape(config.qnt_depth, config.block, QNT_LANE_BYTES)
    fields: dict[str, NDArray[Any]] = {}
    for view, record in zip(qnt_views(config), lane_fields(config), strict=True):
        size = record.dtype.bits // 8
        field = lanes[..., record.offset : record.offset + size]
        fields[view.name] = field.view(numpy_dtype(record.dtype))[..., 0]
    return fields


def stepped(instructions: InstructionSet, words: Sequence[int]) -> tuple[list[Step], int | None]:
    """What the order of a stream follows from, and where an illegal instruction stands.

    The steps end with FINISH or before the first illegal instruction; nothing beyond them is
    ever dispatched.
    """
    steps: list[Step] = []
    for index, word in enumerate(words):
        operation, code = static_fault(instructions, word)
        if operation is None or code is not FaultCode.NONE:
            return steps, index
        step = step_of(index, operation, word)
        steps.append(step)
        if step.finish:
            break
    return steps, None


def illegal_stop(operation: Operation | None, code: FaultCode, index: int) -> Stop:
    """Why the machine stops at an instruction that may not be executed."""
    return Stop(code, "fetch" if operation is None else operation.engine.value, index)


def unread_stop(index: int) -> Stop:
    """Why the machine stops at an instruction that could not be read.

    It does so even if FINISH is before it: the whole stream is read.
    """
    return Stop(FaultCode.BUS_READ, "fetch", index)


def step_of(index: int, operation: Operation, word: int) -> Step:
    """One instruction, from the dependence flags in the low bits of its word."""
    engine = operation.engine.value
    queues = {
        flag: queue
        for flag, bit in FLAG_BITS.items()
        if word & bit and (queue := QUEUE_OF[engine, flag]) is not None
    }
    pops = tuple(queues[f] for f in POPS if f in queues)
    pushes = tuple(queues[f] for f in PUSHES if f in queues)
    return Step(index, ENGINES.index(engine), pops, pushes, operation.name == "finish")


class GoldenModel:
    """An accelerator with its DRAM.

    Parameters
    ----------
    config : AcceleratorConfig
        What it is.
    dram_bytes : int
        Size of DRAM, addresses from 0.

    Attributes
    ----------
    dram : array
        ``uint8``.
    arrays : dict
        The scratchpads, by the names of the meanings' buffers.
    bad : pair of int
        Bytes of DRAM, from the first to before the second, in whose beats the bus answers
        errors; none to begin with.
    """

    def __init__(self, config: AcceleratorConfig, dram_bytes: int = 1 << 24):
        self.config = config
        self.bad: tuple[int, int] = (0, 0)
        self.instructions = InstructionSet(config)
        self.dram = np.zeros(dram_bytes, np.uint8)
        self.arrays: dict[str, NDArray[Any]] = {}
        self.reset()

    def reset(self) -> None:
        """Scratchpads to zero; DRAM keeps its contents."""
        self.arrays = scratchpads(self.config)
        for memory in MEMORIES.values():
            self.arrays[memory.dram(self.config).name] = self.dram

    def run(self, address: int, count: int, order: Order = ENGINES) -> Mapping[str, int]:
        """Execute ``count`` instructions at a byte address until FINISH.

        Returns
        -------
        mapping
            The counters of :data:`weft.isa.registers.COUNTERS` that do not depend on time.

        Raises
        ------
        DeviceFault
            As the hardware would. An illegal instruction counts when everything before it has
            been executed or waits. The memory of a faulted machine is not defined.
        """
        words = stream_words(self.dram, address, count)
        read = readable(self.config, address, count, self.bad)
        steps, illegal = stepped(self.instructions, words[:read])
        choose = _chooser(order)
        ordering = Ordering(steps, self.config.token_depth)
        counters: dict[str, int] = dict.fromkeys(TIMELESS_COUNTERS, 0)
        counters["read_bytes"] = beats(self.config, address, count * INSTRUCTION_BYTES)
        while ready := ordering.ready():
            engine = choose(ready)
            self._execute(ordering.next(engine).index, words, counters)
            ordering.complete(engine)
        if ordering.finished and read == count:
            return counters
        fault = None
        if illegal is not None:
            fault = illegal_stop(*static_fault(self.instructions, words[illegal]), illegal)
        elif read < count:
            fault = unread_stop(read)
        raise ordering.stopped(count, fault).fault()

    def _execute(self, index: int, words: Sequence[int], counters: dict[str, int]) -> None:
        instruction = self.instructions.decode(words[index])
        operation = self.instructions.operations[instruction.operation]
        nest = self.instructions.meaning(operation.name)
        try:
            interpret(nest, instruction.operands, self.arrays)
        except AccessError as error:
            code = access_fault(operation, error.buffer)
            raise device_fault(code, operation.engine.value, index) from None
        for first, size in rows(self.config, operation, instruction.operands):
            if beats_meet(self.config, first, size, self.bad):
                code = access_fault(operation, "dram.")
                raise device_fault(code, operation.engine.value, index)
        for name, value in counts(self.config, operation, instruction.operands).items():
            counters[name] += value


def _chooser(order: Order) -> Callable[[Sequence[int]], int]:
    if isinstance(order, int):
        return random.Random(order).choice
    rank = {ENGINES.index(name): place for place, name in enumerate(order)}
    return lambda ready: min(ready, key=rank.__getitem__)


def stream_words(dram: NDArray[np.uint8], address: int, count: int) -> list[int]:
    """The 128-bit words of an instruction stream."""
    data = dram[address : address + count * INSTRUCTION_BYTES].tobytes()
    return [
        int.from_bytes(data[at : at + INSTRUCTION_BYTES], "little")
        for at in range(0, len(data), INSTRUCTION_BYTES)
    ]


def access_fault(operation: Operation, buffer: str) -> FaultCode:
    """The fault of an operation that would have left a buffer."""
    if not buffer.startswith("dram."):
        return FaultCode.SRAM_RANGE
    return FaultCode.BUS_WRITE if "STORE" in operation.format.name else FaultCode.BUS_READ


TIMELESS_COUNTERS = ("instructions", "gemm_steps", "alu_steps", "read_bytes", "write_bytes")
"""The counters that every executor agrees on."""


@lru_cache(maxsize=256)
def multiplies(name: str, config: AcceleratorConfig) -> bool:
    """Whether an operation's steps read inputs: those count as steps of GEMM."""
    nest = InstructionSet(config).meaning(name)
    return any(isinstance(node, Load) and node.buffer == "inp" for node in walk(nest.body))


def counts(
    config: AcceleratorConfig, operation: Operation, operands: Mapping[str, int]
) -> dict[str, int]:
    """What an executed instruction adds to the counters that do not depend on time."""
    found = {"instructions": 1}
    if "iter_out" in operands:
        micro_ops = max(0, operands["uop_end"] - operands["uop_bgn"])
        steps = operands["iter_out"] * operands["iter_in"] * micro_ops
        if multiplies(operation.name, config):
            found["gemm_steps"] = steps
        elif operation.format.name == "ALU":
            found["alu_steps"] = steps
    elif "STORE" in operation.format.name:
        found["write_bytes"] = sum(size for _, size in rows(config, operation, operands))
    else:
        moved = rows(config, operation, operands)
        found["read_bytes"] = sum(beats(config, first, size) for first, size in moved)
    return found


def rows(
    config: AcceleratorConfig, operation: Operation, operands: Mapping[str, int]
) -> list[tuple[int, int]]:
    """The rows of DRAM that an instruction moves: address and bytes of each."""
    memory = operation.moved
    if memory is None or not operands.get("x_size"):
        return []
    size = memory.element_bytes(config)
    first, stride = operands["dram_base"] * size, operands["x_stride"] * size
    row = operands["x_size"] * size
    return [(first + y * stride, row) for y in range(operands["y_size"])]


def beats_meet(config: AcceleratorConfig, address: int, size: int, bad: tuple[int, int]) -> bool:
    """Whether a beat that ``size`` bytes at ``address`` touch has bytes of ``bad``."""
    bus, (first, end) = config.bus_bytes, bad
    return first < end and address // bus * bus < end and first < -(-(address + size) // bus) * bus


def readable(config: AcceleratorConfig, address: int, count: int, bad: tuple[int, int]) -> int:
    """How many of the ``count`` instructions at ``address`` come before one that the bus answers
    with an error."""
    if not beats_meet(config, address, count * INSTRUCTION_BYTES, bad):
        return count
    at = (address + index * INSTRUCTION_BYTES for index in range(count))
    hits = (beats_meet(config, first, INSTRUCTION_BYTES, bad) for first in at)
    return next(index for index, hit in enumerate(hits) if hit)


def beats(config: AcceleratorConfig, address: int, size: int) -> int:
    """Bytes of the whole bus beats that ``size`` bytes at ``address`` touch."""
    bus = config.bus_bytes
    return (-(-(address + size) // bus) - address // bus) * bus if size else 0
