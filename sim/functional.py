"""The instructions' meanings, compiled, as a device: what a program does, and no time at all."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError, DeviceError, DeviceTimeout
from ..isa.formats import INSTRUCTION_BYTES
from ..isa.golden import access_fault, beats, beats_meet, readable, rows, scratchpads
from ..isa.instructions import InstructionSet
from ..isa.memories import MEMORIES, Engine
from ..isa.native import NativeCode
from ..isa.nest import I16, Buffer, Expr, Index, Load, Nest, Node, Stmt, Store, Sum
from ..isa.ordering import Stop
from ..isa.storage import bound_array
from ..isa.traverse import rewrite, substitute, walk
from .device import (
    DEFAULT_DRAM_BYTES,
    DEFAULT_DRAM_LATENCY,
    DEFAULT_TIMEOUT_CYCLES,
    Device,
    Mark,
    RunResult,
    check_options,
    empty_dram,
)
from .paths import cache_directory
from .stream import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_STREAMS = 64
"""Decoded streams that a device remembers."""


def laid_out(nest: Nest, config: AcceleratorConfig) -> Nest:
    """``nest`` over the scratchpads as this simulator keeps them, which only it can see.

    Inputs are widened, so that two of them are one lane of a product. A weight element
    [out][in] is kept as [in // 2][out][in % 2]: the pairs that those two meet lie side by side,
    one output's after another's.
    """

    def in_pairs(node: Node) -> Node | None:
        match node:
            case Sum(((name, extent),), body) if _sums_inputs(body, name) and extent % 2 == 0:
                halves = {name: 2 * Index(name) + Index("odd")}
                spread = substitute(body, halves)
                inner = rewrite(spread, lambda n: _weight_at(n, Index(name), Index("odd")))
                assert isinstance(inner, Expr)
                return Sum(((name, extent // 2), ("odd", 2)), inner)
        return None

    def placed(node: Node) -> Node | None:
        match node:
            case Store("wgt", (index, out, lane), value):
                return Store("wgt", (index, lane // 2, out, lane % 2), value)
            case Load("wgt", (_, _, lane)):
                return _weight_at(node, lane // 2, lane % 2)
        return None

    def changed(buffer: Buffer) -> Buffer:
        if buffer.name == "wgt":
            shape = (config.wgt_depth, config.block // 2, config.block, 2)
            return replace(buffer, shape=shape)
        return replace(buffer, dtype=I16) if buffer.name == "inp" else buffer

    body = rewrite(rewrite(nest.body, in_pairs), placed)
    assert isinstance(body, Stmt)
    return replace(nest, buffers=tuple(changed(b) for b in nest.buffers), body=body)


def _sums_inputs(body: Expr, name: str) -> bool:
    """Whether ``name`` runs along the input lanes of every weight in ``body``."""
    weights = [n for n in walk(body) if isinstance(n, Load) and n.buffer == "wgt"]
    return bool(weights) and all(w.indices[-1] == Index(name) for w in weights)


def _weight_at(node: Node, pair: Expr, odd: Expr) -> Node | None:
    """A load of weights [index][out][in], from its place [index][in // 2][out][in % 2]."""
    match node:
        case Load("wgt", (index, out, _)):
            return Load("wgt", (index, pair, out, odd))
    return None


@lru_cache(maxsize=16)
def _code(config: AcceleratorConfig) -> NativeCode:
    """The compiled meanings of a configuration; on disk for the next process."""
    instructions = InstructionSet(config)
    nests = [laid_out(instructions.meaning(name), config) for name in instructions.operations]
    nests = [nest for nest in nests if nest.buffers]
    names = {buffer.name for nest in nests for buffer in nest.buffers}
    return NativeCode(nests, names, cache=cache_directory() / "functional")


@dataclass(frozen=True)
class _Program:
    """A decoded stream ready to run: a row of addresses for each call, with what they point to."""

    stream: Stream
    calls: NDArray[np.int64]
    rows: NDArray[np.int64]
    completed: NDArray[np.int64]
    """Before each call, and at the end: instructions that the compute engine has completed."""
    keep: list[NDArray[np.int64]]


class FunctionalDevice(Device):
    """Executes programs by the instructions' meanings.

    Engines take turns as the dependence tokens allow; a program with a race between engines does
    one of the things that hardware may do. Accesses beyond DRAM are bus errors, those beyond a
    scratchpad are faults, as in hardware.

    Parameters
    ----------
    config : AcceleratorConfig
        What to simulate. Its meanings are compiled when it is first met, in about a second, and
        kept on disk.
    dram_bytes : int
        Rounded up to whole pages of 4096 bytes; at most 4 GiB. What is never touched costs
        nothing.
    dram_latency, stall_seed
        Checked, and of no use here: there is no time.
    timeout_cycles : int
        A program with more steps than that, which take a cycle each on any device, is refused
        with :class:`DeviceTimeout` before it starts.
    progress : callable, optional
        Told of the compilation: name, fraction.
    wave : None
        There are no waves.

    Raises
    ------
    ConfigError
        If an option is out of range, or ``wave`` is given.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        dram_bytes: int = DEFAULT_DRAM_BYTES,
        dram_latency: int = DEFAULT_DRAM_LATENCY,
        stall_seed: int | None = None,
        timeout_cycles: int = DEFAULT_TIMEOUT_CYCLES,
        progress: Callable[[str, float], None] | None = None,
        wave: str | PathLike[str] | None = None,
    ):
        check_options(dram_bytes, dram_latency, timeout_cycles)
        if wave is not None:
            raise ConfigError("the functional simulator has no waves; use rtl for them")
        self.config, self.timeout_cycles = config, timeout_cycles
        self.instructions = InstructionSet(config)
        self.dram = empty_dram(dram_bytes)
        if progress is not None:
            progress("compiling the instructions", 0.0)
        self._code = _code(config)
        if progress is not None:
            progress("compiling the instructions", 1.0)
        self._programs: OrderedDict[tuple[bytes, int], _Program] = OrderedDict()
        self._bad = 0, 0
        self._stopped: str | None = None
        self._memory = _memory(config)
        self._tables = self._bind()

    def _bind(self) -> Mapping[str, NDArray[np.int64]]:
        """The buffers of every operation, as its code takes them."""
        arrays = dict(self._memory)
        for memory in MEMORIES.values():
            arrays[memory.dram(self.config).name] = self.dram
        tables: dict[str, NDArray[np.int64]] = {}
        for name, nest in self._code.nests.items():
            bound = {b.name: bound_array(b, arrays[b.name]) for b in nest.buffers}
            tables[name] = self._code.prepare(name, bound).buffers
        return tables

    def _run(self, address: int, count: int, marks: tuple[int, ...]) -> RunResult:
        if self._stopped is not None:
            raise DeviceError(f"{self._stopped}; only reset() makes it run again")
        data = self.dram[address : address + count * INSTRUCTION_BYTES].tobytes()
        program = self._program(data, readable(self.config, address, count, self._bad))
        if program.stream.steps > self.timeout_cycles:
            raise DeviceTimeout(
                f"{program.stream.steps} steps of GEMM and ALU take more than "
                f"{self.timeout_cycles} cycles ({count} instructions at {address:#x})"
            )
        started = time.perf_counter()
        failed, made, at = None, list[Mark](), 0
        broken = self._broken(program)
        last = len(program.calls) if broken is None else broken[0] + 1
        for end in (*np.searchsorted(program.completed, marks), last):
            failed = self._code.sequence(program.calls[at : min(end, last)])
            if failed is not None:
                failed = at + failed[0], failed[1]
                break
            made.append(Mark({}, time.perf_counter() - started))
            at = end
        _, stop = program.stream.ordered
        failed = failed or broken
        if failed is not None:
            row, number = failed
            index = int(program.rows[row])
            operation = program.stream.operation(index)
            buffer = self._code.nests[operation.name].buffers[number].name
            stop = Stop(access_fault(operation, buffer), operation.engine.value, index)
        if stop is not None:
            fault = stop.fault()
            self._stopped = f"the device stopped with a fault: {fault}"
            raise fault
        counters = dict(program.stream.counters)
        counters["read_bytes"] += beats(self.config, address, count * INSTRUCTION_BYTES)
        return RunResult(0, counters, tuple(made[:-1]), time.perf_counter() - started)

    def _broken(self, program: _Program) -> tuple[int, int] | None:
        """The first call that the bus answers with an error, and its buffer that is DRAM's."""
        first, end = self._bad
        for row, index in enumerate(program.rows) if first < end else ():
            operation = program.stream.operation(index)
            for start, size in rows(self.config, operation, program.stream.operands(index)):
                if beats_meet(self.config, start, size, self._bad):
                    buffers = [buffer.name for buffer in self._code.nests[operation.name].buffers]
                    (dram,) = (n for n, name in enumerate(buffers) if name.startswith("dram."))
                    return row, dram
        return None

    def _program(self, data: bytes, read: int) -> _Program:
        """The stream decoded as far as it can be ``read``, or remembered."""
        program = self._programs.get((data, read))
        if program is None:
            program = self._programs[data, read] = self._decoded(data, read)
            if len(self._programs) > KEPT_STREAMS:
                self._programs.popitem(last=False)
        return program

    def _decoded(self, data: bytes, read: int) -> _Program:
        stream = Stream(self.instructions, data, read)
        called = np.zeros((stream.end, 3), np.int64)
        executes, computes = np.zeros(stream.end, bool), np.zeros(stream.end, bool)
        keep: list[NDArray[np.int64]] = []
        for group in stream.groups:
            name = group.operation.name
            computes[group.at] = group.operation.engine is Engine.COMPUTE
            if name not in self._code.nests:
                continue
            columns = [group.fields[param] for param in self._code.nests[name].params]
            params = np.ascontiguousarray(np.stack(columns, axis=1), np.int64)
            keep.append(params)
            executes[group.at] = True
            called[group.at, 0] = self._code.address(name)
            called[group.at, 1] = params.ctypes.data + params.strides[0] * np.arange(len(params))
            called[group.at, 2] = self._tables[name].ctypes.data
        order = self._order(stream)
        completed = np.concatenate([[0], np.cumsum(computes[order])])[:-1]
        calls = executes[order]
        order = order[calls]
        return _Program(stream, np.ascontiguousarray(called[order]), order, completed[calls], keep)

    def _order(self, stream: Stream) -> NDArray[np.int64]:
        """Positions of a stream's instructions in the order in which they are executed."""
        return stream.ordered[0]

    def reset(self) -> None:
        """Scratchpads to zero, queues empty, faults cleared; DRAM keeps its contents."""
        for array in self._memory.values():
            array[...] = 0
        self._stopped = None

    def break_down(self, first: int, end: int) -> None:
        """Let the bus answer errors there; see :meth:`Device.break_down`."""
        self._bad = first, end

    def close(self) -> None:
        """Forget the decoded streams; may be called twice."""
        self._programs.clear()
        self._stopped = "the device is closed"


def _memory(config: AcceleratorConfig) -> dict[str, Any]:
    """The scratchpads as :func:`laid_out` has them."""
    arrays = scratchpads(config)
    arrays["inp"] = arrays["inp"].astype(np.int16)
    arrays["wgt"] = arrays["wgt"].reshape(-1, config.block // 2, config.block, 2)
    return arrays
