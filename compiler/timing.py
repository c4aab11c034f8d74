"""What instructions cost, roughly: the engines' throughput and the latencies between them."""

from __future__ import annotations

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import MEMORIES, Engine, MemoryType
from ..isa.operations import RESCALING, Operation
from .emit import Action

LOAD_LATENCY = 56
"""From a token to the first step that uses what a load brings, but for the load itself."""
STORE_LATENCY = 44
"""From the last step of a tile to the response to its store, but for the store itself."""
KEEP_LATENCY = 20
"""From the last step of a tile to the first one that reads its results in ``inp``, but for the
store itself."""
START_CYCLES = 10
"""What an instruction costs besides its steps or beats where nothing hides it, roughly."""
ACT_CYCLES = 4
"""What an instruction on accumulators costs besides its steps, where others stand around it."""
BRANCH_CYCLES = 2
"""What a row of a store, or the steps of another zone, cost besides."""


def step_cycles(operation: Operation, config: AcceleratorConfig) -> int:
    """Cycles that a step of an operation keeps the compute engine busy."""
    return config.rescale_cycles if operation.fixed.get("alu_opcode") in RESCALING else 1


def store_cycles(config: AcceleratorConfig) -> float:
    """Cycles that an element of a long row keeps the store engine busy: beats, or the turns of the
    lanes that requantize."""
    beats = config.out_element_bytes / config.bus_bytes
    return max(1.0, beats, config.rescale_cycles * min(1.0, beats))


class Costs:
    """Cycles of actions on one configuration."""

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        self._operations = InstructionSet(config).operations

    def of(self, action: Action) -> int:
        """Cycles that an action keeps its engine busy."""
        operands = action.operands
        if "iter_out" in operands:
            bgn, end = action.part
            steps = operands["iter_out"] * operands["iter_in"] * (end - bgn)
            return steps * step_cycles(self._operations[action.operation], self._config)
        if not operands.get("x_size", 0):
            return 1
        if action.writes and action.reads:  # from one scratchpad to another
            elements = operands["y_size"] * operands["x_size"]
            return elements * self._config.rescale_cycles + 2
        if not operands["y_size"] and action.writes:  # padding around nothing
            return operands["x_size"] * operands["y_pad_0"] + 2
        operation = self._operations[action.operation]
        fixed = operation.fixed
        size = MEMORIES[MemoryType(fixed["memory_type"])].element_bytes(self._config)
        bus = self._config.bus_bytes
        rows = sum(operands.get(n, 0) for n in ("y_pad_0", "y_size", "y_pad_1"))
        columns = sum(operands.get(n, 0) for n in ("x_pad_0", "x_size", "x_pad_1"))
        beats = -(-operands["x_size"] * size // bus)
        if operation.engine is Engine.STORE:
            beats *= max(self._config.rescale_cycles // max(1, size // bus), 1)
        return rows * max(beats, columns if 2 * size > bus else 0) + 2
