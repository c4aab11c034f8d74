"""The whole machine from the meanings, slowly and plainly: what a program does to memory.

Nothing here knows what an instruction does; :func:`weft.isa.interpret.interpret` runs the
meanings. There is no time: every engine executes its instructions in program order, and when
several could go on, the caller chooses which one does. A correct program does not depend on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import QNT_LANE_BYTES, AcceleratorConfig
from .faults import FaultCode, device_fault, static_fault
from .formats import FLAGS, INSTRUCTION_BYTES
from .instructions import InstructionSet, Operation
from .interpret import AccessError, interpret
from .memories import MEMORIES, QNT_LANE, qnt_views
from .ordering import ENGINES, POPS, PUSHES, QUEUE_OF, Ordering, Step, Stop
from .storage import numpy_dtype

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
    for view, record in zip(qnt_views(config), QNT_LANE, strict=True):
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
        step = step_of(index, operation, word >> 3 & 15)
        steps.append(step)
        if step.finish:
            break
    return steps, None


def illegal_stop(operation: Operation | None, code: FaultCode, index: int) -> Stop:
    """Why the machine stops at an instruction that may not be executed."""
    return Stop(code, "fetch" if operation is None else operation.engine.value, index)


def step_of(index: int, operation: Operation, flags: int) -> Step:
    """One instruction, from its four dependence flags in the order of their bits."""
    engine = operation.engine.value
    queues = {
        flag: queue
        for bit, flag in enumerate(FLAGS)
        if flags >> bit & 1 and (queue := QUEUE_OF[engine, flag]) is not None
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
    """

    def __init__(self, config: AcceleratorConfig, dram_bytes: int = 1 << 24):
        self.config = config
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
        steps, illegal = stepped(self.instructions, words)
        choose = _chooser(order)
        ordering = Ordering(steps, self.config.token_depth)
        counters: dict[str, int] = dict.fromkeys(TIMELESS_COUNTERS, 0)
        counters["read_bytes"] = beats(self.config, address, count * INSTRUCTION_BYTES)
        while ready := ordering.ready():
            engine = choose(ready)
            self._execute(ordering.next(engine).index, words, counters)
            ordering.complete(engine)
        if ordering.finished:
            return counters
        fault = None
        if illegal is not None:
            fault = illegal_stop(*static_fault(self.instructions, words[illegal]), illegal)
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

MULTIPLIES = ("gemm", "matmul.set", "depthwise.set", "depthwise.add")
"""The operations whose steps count as steps of GEMM."""


def counts(
    config: AcceleratorConfig, operation: Operation, operands: Mapping[str, int]
) -> dict[str, int]:
    """What an executed instruction adds to the counters that do not depend on time."""
    found = {"instructions": 1}
    if "iter_out" in operands:
        micro_ops = max(0, operands["uop_end"] - operands["uop_bgn"])
        steps = operands["iter_out"] * operands["iter_in"] * micro_ops
        if operation.name in MULTIPLIES:
            found["gemm_steps"] = steps
        elif operation.format.name == "ALU":
            found["alu_steps"] = steps
    elif "x_size" in operands and operation.name != "store.nop":
        memory = MEMORIES[operation.fixed["memory_type"]]  # type: ignore[index]
        size = memory.element_bytes(config)
        row = operands["x_size"] * size
        if "STORE" in operation.format.name:
            found["write_bytes"] = operands["y_size"] * row
        else:
            first, stride = operands["dram_base"] * size, operands["x_stride"] * size
            found["read_bytes"] = sum(
                beats(config, first + y * stride, row) for y in range(operands["y_size"])
            )
    return found


def beats(config: AcceleratorConfig, address: int, size: int) -> int:
    """Bytes of the whole bus beats that ``size`` bytes at ``address`` touch."""
    bus = config.bus_bytes
    return (-(-(address + size) // bus) - address // bus) * bus if size else 0
