"""Session after session until the time is over: counts, and what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ...isa.config import AcceleratorConfig
from ..coverage import Coverage
from ..library import library
from ..rtl import RtlDevice
from .choices import RandomChoices
from .executors import COMPARED
from .outcome import Outcome
from .program import DRAM_BYTES, Program
from .reproduce import write_test
from .session import Finding, Session, play
from .sessions import picked_numbers, pooled_config, random_session
from .shrink import shrink

MOST_FINDINGS = 5
"""After which it is time to mend rather than to search on."""


@dataclass
class Report:
    """What a campaign has done.

    ``steps`` are those of GEMM, MATMUL and ALU in programs that came to FINISH; ``endings`` count
    how programs ended; ``files`` are the tests of what was found.
    """

    seed: int
    configs: list[int]
    sessions: int = 0
    programs: int = 0
    instructions: int = 0
    steps: int = 0
    seconds: float = 0.0
    endings: dict[str, int] = field(default_factory=dict[str, int])
    findings: list[str] = field(default_factory=list[str])
    files: list[str] = field(default_factory=list[str])

    def count(self, program: Program, outcome: Outcome) -> None:
        """Take a program into the counts."""
        self.programs += 1
        self.instructions += program.count
        counters = outcome.counters or {}
        self.steps += counters.get("gemm_steps", 0) + counters.get("alu_steps", 0)
        ending = "FINISH" if outcome.fault is None else outcome.fault[0].name
        self.endings[ending] = self.endings.get(ending, 0) + 1


@dataclass(frozen=True)
class Campaign:
    """How to search: the same ``seed`` finds the same things, in as far as there is time."""

    seed: int
    minutes: float | None = None
    steps: int | None = None
    configs: int = 4
    on: Sequence[str] = COMPARED
    config: AcceleratorConfig | None = None
    """The only one to search on; else ``configs`` of the pool are."""
    output: Path = Path()
    shrink_seconds: float = 60.0
    coverage: Coverage | None = None
    """Takes what the RTL executes; it is that of ``config``."""

    def run(
        self,
        progress: Callable[[Report], None] | None = None,
        build: Callable[[str, float], None] | None = None,
    ) -> Report:
        """Search until time or steps are over, or enough was found.

        Building the RTL does not count as time. ``progress`` is told after every session,
        ``build`` of the phases of a build.
        """
        numbers: list[int] = []
        if self.config is None:
            numbers = picked_numbers(self.configs, RandomChoices(f"configs {self.seed}"))
        configs = [self.config] if self.config else [pooled_config(n) for n in numbers]
        report = Report(self.seed, numbers)
        for config in configs:  # which is not yet searching
            if "rtl" in self.on:
                library(config, coverage=self.coverage is not None, progress=build)
            if "circuit" in self.on:
                library(config, form="synthesis", progress=build)
        with ExitStack() as stack:
            devices = counted_devices(self.coverage, stack) if self.coverage is not None else {}
            self._search(report, configs, devices, progress)
        return report

    def _search(
        self,
        report: Report,
        configs: Sequence[AcceleratorConfig],
        devices: Mapping[bool, RtlDevice],
        progress: Callable[[Report], None] | None,
    ) -> None:
        longest = 1 if "golden" in self.on else 2  # it takes a third of a millisecond a step
        started = time.monotonic()
        while not self._over(report):
            config = configs[report.sessions % len(configs)]
            choices = RandomChoices(f"{self.seed} {report.sessions}")
            session = random_session(config, choices, longest)
            device = devices.get(session.stall_seed is not None)
            finding = play(session, self.on, report.count, device)
            report.sessions += 1
            if finding is not None:
                self._found(session, finding, report)
            report.seconds = time.monotonic() - started
            if progress is not None:
                progress(report)

    def _over(self, report: Report) -> bool:
        return (
            len(report.findings) >= MOST_FINDINGS
            or (self.minutes is not None and report.seconds >= 60 * self.minutes)
            or (self.steps is not None and report.steps >= self.steps)
        )

    def _found(self, session: Session, finding: Finding, report: Report) -> None:
        small = shrink(
            session,
            lambda candidate: play(candidate, self.on) is not None,
            self.shrink_seconds,
        )
        finding = play(small, self.on) or finding
        name = f"fuzz_{self.seed}_{report.sessions}"
        path = write_test(self.output, name, small, finding, self.on)
        report.findings.append(f"{path}: {finding}")
        report.files.append(str(path))


def counted_devices(coverage: Coverage, stack: ExitStack) -> dict[bool, RtlDevice]:
    """Devices whose execution counts, by whether their memory stalls.

    Reading the counts takes a second, so that these live as long as ``stack``.
    """
    devices: dict[bool, RtlDevice] = {}
    for latency, stall_seed in ((1, None), (40, 1)):
        device = RtlDevice(
            coverage.config, dram_bytes=DRAM_BYTES, dram_latency=latency,
            stall_seed=stall_seed, coverage=coverage,
        )  # fmt: skip
        stack.callback(device.close)
        devices[stall_seed is not None] = device
    return devices
