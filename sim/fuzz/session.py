"""Several programs one after another on the same machine, and whether all executors agree."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...isa.assembly import assemble, disassemble
from ...isa.config import AcceleratorConfig
from ...isa.errors import DeviceError, DeviceTimeout
from ..rtl import RtlDevice
from .defined import Defined, defined
from .executors import EXECUTORS, Executor, Setup
from .outcome import Outcome, difference
from .program import Program, program_of

Start = Literal["keep", "reset", "break off"]


@dataclass(frozen=True)
class Run:
    """A program and the state that it finds.

    ``keep``: what the program before it left, unless that ended with a fault; ``reset``: after a
    reset; ``break off``: this program is not compared, but ended by ``rst`` after ``cycles``.
    """

    program: Program
    start: Start = "keep"
    cycles: int = 0


@dataclass(frozen=True)
class Session:
    """What happens to a machine from power-up on, with its memory's latency and stalls."""

    config: AcceleratorConfig
    runs: tuple[Run, ...]
    latency: int = 1
    stall_seed: int | None = None

    def to_toml(self) -> str:
        """All of it as text."""
        lines = [f"latency = {self.latency}"]
        if self.stall_seed is not None:
            lines.append(f"stall_seed = {self.stall_seed}")
        lines += ["", "[config]", *self.config.to_toml().splitlines()]
        for run in self.runs:
            program = run.program
            lines += ["", "[[runs]]", f"start = {json.dumps(run.start)}"]
            lines += [f"cycles = {run.cycles}"] if run.cycles else []
            lines += [f"seed = {program.seed}"] if program.seed is not None else []
            lines += [f"bad = {list(program.bad)}"] if program.bad != (0, 0) else []
            lines += ['program = """', disassemble(program.words, self.config) + '"""']
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Session:
        """What :meth:`to_toml` wrote."""
        values = tomllib.loads(text)
        config = AcceleratorConfig.from_mapping(values["config"])
        runs = tuple(
            Run(
                program_of(
                    config,
                    assemble(run["program"], config),
                    seed=run.get("seed"),
                    bad=tuple(run.get("bad", (0, 0))),
                ),
                run["start"],
                run.get("cycles", 0),
            )
            for run in values["runs"]
        )
        return cls(config, runs, values["latency"], values.get("stall_seed"))


@dataclass(frozen=True)
class Finding:
    """A disagreement: at which run, of which executor with which oracle, and about what."""

    run: int
    executor: str
    oracle: str
    text: str

    def __str__(self) -> str:
        return f"{self.executor} against {self.oracle}, program {self.run}: {self.text}"


Watch = Callable[[Program, Outcome], None]
"""Told of every program that was compared and what the oracle made of it."""


def play(
    session: Session,
    on: Sequence[str],
    watch: Watch | None = None,
    device: RtlDevice | None = None,
) -> Finding | None:
    """The first disagreement among the executors ``on``; None if they do the same.

    ``device`` is the RTL's, if it is not to be a new one with the session's latency and stalls.

    Raises
    ------
    MissingToolError
        If an executor cannot be had here.
    """
    with ExitStack() as stack:
        executors: dict[str, Executor] = {}
        setup = Setup(session.config, session.latency, session.stall_seed, device)
        for name in on:
            executors[name] = EXECUTORS[name](setup)
            stack.callback(executors[name].close)
        uops = np.zeros(session.config.uop_depth, np.uint32)
        faulted = False
        for number, run in enumerate(session.runs):
            if run.start == "reset" or (faulted and run.start == "keep"):
                for executor in executors.values():
                    executor.reset()
            if run.start != "keep" or faulted:
                uops[:] = 0
            if run.start == "break off":
                faulted = False
                found = _broken_off(executors, run, number)
            else:
                kind = defined(run.program, uops)
                found, outcome = _compared(executors, run.program, kind, number)
                faulted = outcome is None or outcome.fault is not None
                faulted |= kind is not Defined.MEMORY
                if watch is not None and outcome is not None:
                    watch(run.program, outcome)
            if found is not None:
                return found
    return None


def _broken_off(executors: Mapping[str, Executor], run: Run, number: int) -> Finding | None:
    for name, executor in executors.items():
        try:
            executor.break_off(run.program, run.cycles)
        except DeviceError as error:
            return Finding(number, name, "its contract", f"after a reset: {error}")
    return None


def _compared(
    executors: Mapping[str, Executor], program: Program, kind: Defined, number: int
) -> tuple[Finding | None, Outcome | None]:
    oracle: tuple[str, Outcome] | None = None
    for name, executor in executors.items():
        try:
            outcome = executor.run(program)
        except (DeviceError, DeviceTimeout) as error:  # no fault: a broken rule, or it hangs
            return Finding(number, name, "its contract", str(error)), None
        if oracle is None:
            oracle = name, outcome
            continue
        text = difference(outcome, oracle[1], kind)
        if text is not None:
            return Finding(number, name, oracle[0], text), None
    return None, oracle[1] if oracle else None
