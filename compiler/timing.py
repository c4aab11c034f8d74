"""What instructions cost, roughly: the engines' throughput and the latencies between them."""

from __future__ import annotations

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import MEMORIES, MemoryType
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
            return operands["iter_out"] * operands["iter_in"] * (end - bgn)
        if not operands.get("x_size", 0):
            return 1
        if action.writes and action.reads:  # from one scratchpad to another
            return operands["y_size"] * operands["x_size"] + 2
        if not operands["y_size"] and action.writes:  # padding around nothing
            return operands["x_size"] * operands["y_pad_0"] + 2
        fixed = self._operations[action.operation].fixed
        size = MEMORIES[MemoryType(fixed["memory_type"])].element_bytes(self._config)
        bus = self._config.bus_bytes
        rows = sum(operands.get(n, 0) for n in ("y_pad_0", "y_size", "y_pad_1"))
        columns = sum(operands.get(n, 0) for n in ("x_pad_0", "x_size", "x_pad_1"))
        beats = -(-operands["x_size"] * size // bus)
        return rows * max(beats, columns if 2 * size > bus else 0) + 2
