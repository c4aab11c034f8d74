"""``weft fuzz``: random programs on every executor, until the time is over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ...isa.config import AcceleratorConfig
from ...isa.errors import DataError, InputError
from ...sim.coverage import Coverage
from ...sim.fuzz import COMPARED, EXECUTORS, Campaign, Report
from .options import add_hardware, chosen_hardware, print_json

MISMATCH = 1
DEFAULT_MINUTES = 1.0
EVERY = 60.0
"""Seconds between lines of a search that no terminal shows."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("--minutes", type=float, metavar="N", help="how long (default 1)")
    parser.add_argument("--steps", type=int, metavar="N", help="stop after that many steps")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    parser.add_argument(
        "--configs", type=int, default=4, metavar="N",
        help="how many configurations; each is built once, in some ten seconds (default 4)",
    )  # fmt: skip
    parser.add_argument(
        "--on", default=",".join(COMPARED), metavar="A,B",
        help=f"which to compare, the first being right: of {', '.join(EXECUTORS)}, the last of"
        f" which is the RTL as it is synthesized (default {','.join(COMPARED)})",
    )  # fmt: skip
    parser.add_argument(
        "--output", default=".", metavar="DIR", help="where a test of what is found is written"
    )
    parser.add_argument(
        "--coverage", action="store_true",
        help="also say which lines of hw/ the RTL executed; one configuration, tiny by default",
    )  # fmt: skip
    add_hardware(parser)


def main(options: argparse.Namespace) -> int:
    """Search, print what was done; exit code 1 if executors differ."""
    on = tuple(options.on.split(","))
    for name in on:
        if name not in EXECUTORS:
            raise InputError(f"--on takes some of {', '.join(EXECUTORS)}, not {name!r}")
    if len(set(on)) < 2:
        raise InputError(f"--on takes two or more to compare, not {options.on!r}")
    for name in ("minutes", "steps", "configs"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name} takes more than 0, not {value}")
    if Path(options.output).exists() and not Path(options.output).is_dir():
        raise DataError(f"--output takes a folder, and {options.output} is none")
    minutes = options.minutes
    if minutes is None and options.steps is None:
        minutes = DEFAULT_MINUTES
    config, coverage = chosen_hardware(options), None
    if options.coverage:
        config = config or AcceleratorConfig.preset("tiny")
        coverage = Coverage(config)
    campaign = Campaign(
        options.seed,
        minutes=minutes,
        steps=options.steps,
        configs=options.configs,
        on=on,
        config=config,
        output=Path(options.output),
        coverage=coverage,
    )
    with _progress(campaign) as (progress, build):
        report = campaign.run(progress, build)
    if options.json:
        covered = {} if coverage is None else {"coverage": coverage.to_mapping()}
        print_json(asdict(report) | covered)
    else:
        _print(report)
        if coverage is not None:
            _print_coverage(coverage)
    return MISMATCH if report.findings else 0


def _print(report: Report) -> None:
    configs = f"configurations {report.configs}" if report.configs else "one configuration"
    print(
        f"seed {report.seed}, {configs}: {report.programs} programs, "
        f"{report.instructions} instructions, {report.steps} steps in {report.seconds:.0f} s"
    )
    endings = ", ".join(f"{name} {count}" for name, count in sorted(report.endings.items()))
    print(f"endings: {endings}")
    for finding in report.findings:
        print(f"different: {finding}")
    if not report.findings:
        print("no difference")


def _print_coverage(coverage: Coverage) -> None:
    print(f"\n{'unit':18} {'lines':>11} {'':6} {'bits':>15}")
    for unit, share in coverage.shares().items():
        print(
            f"{unit or 'all':18} {share.covered_lines:5}/{share.lines:5} {share.of_lines:6.1%} "
            f"{share.covered_bits:7}/{share.bits:7} {share.of_bits:6.1%}"
        )
    print("\nnot executed:")
    for line in coverage.missed():
        print(f"{line} ({line.reason or 'not yet'})")


@contextmanager
def _progress(
    campaign: Campaign,
) -> Iterator[tuple[Callable[[Report], None], Callable[[str, float], None] | None]]:
    """A line on the terminal, for the search and for the builds before; elsewhere one now and
    then, of what was searched."""
    if not sys.stderr.isatty():
        yield Log().say, None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bars.add_task("building", total=1.0)

    def show(report: Report) -> None:
        parts = [0.0]
        if campaign.minutes is not None:
            parts.append(report.seconds / (60 * campaign.minutes))
        if campaign.steps is not None:
            parts.append(report.steps / campaign.steps)
        bars.update(task, completed=max(parts), description=_so_far(report))

    def build(phase: str, fraction: float) -> None:
        bars.update(task, completed=fraction, description=f"building the RTL: {phase}")

    with bars:
        yield show, build


class Log:
    """Lines about a search, for a log that nobody may be watching: not more than one a minute."""

    def __init__(self):
        self._next = EVERY

    def say(self, report: Report) -> None:
        """To be told after every session."""
        if report.seconds >= self._next:
            self._next = report.seconds + EVERY
            print(f"{report.seconds:.0f} s: {_so_far(report)}", file=sys.stderr, flush=True)


def _so_far(report: Report) -> str:
    return f"{report.programs} programs, {report.steps} steps, {len(report.findings)} found"
