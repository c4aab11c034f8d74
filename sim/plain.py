"""Two devices that are not for speed: the golden model, and one without engines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.golden import GoldenModel
from .device import DEFAULT_DRAM_BYTES, Device, Mark, RunResult, empty_dram
from .functional import FunctionalDevice
from .stream import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray


class GoldenDevice(Device):
    """:class:`weft.isa.golden.GoldenModel` as a device: the meanings, run by numpy.

    A third of a millisecond a step; nothing is compiled.
    """

    def __init__(self, config: AcceleratorConfig, *, dram_bytes: int = DEFAULT_DRAM_BYTES):
        self.config = config
        self._model = GoldenModel(config, empty_dram(dram_bytes).size)
        self.dram = self._model.dram

    def _run(self, address: int, count: int, marks: tuple[int, ...]) -> RunResult:
        started = time.perf_counter()
        counters = self._model.run(address, count)
        seconds = time.perf_counter() - started
        return RunResult(0, counters, tuple(Mark({}, seconds) for _ in marks), seconds)

    def reset(self) -> None:
        """Scratchpads to zero; DRAM keeps its contents."""
        self._model.reset()

    def break_down(self, first: int, end: int) -> None:
        """Let the bus answer errors there; see :meth:`Device.break_down`."""
        self._model.bad = first, end

    def close(self) -> None:
        """There is nothing to give back."""


class SerialDevice(FunctionalDevice):
    """A functional device without engines: one instruction after another, as they stand there.

    For schedules before tokens are derived from them; a stream must not have any.
    """

    def _order(self, stream: Stream) -> NDArray[np.int64]:
        return np.arange(stream.end)
