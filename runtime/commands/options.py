"""Options that several verbs share, and how they talk to a terminal."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...compiler.effort import EFFORTS
from ...isa.config import PRESETS, AcceleratorConfig
from ...isa.errors import ConfigError
from ..hardware import hardware


def add_hardware(parser: argparse.ArgumentParser) -> None:
    """``--hw`` and ``--set``."""
    parser.add_argument(
        "--hw",
        metavar="PRESET|FILE.toml",
        help=f"the hardware: {', '.join(PRESETS)} or a TOML file (default base)",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one hardware parameter; may be repeated",
    )


def add_effort(parser: argparse.ArgumentParser) -> None:
    """``--effort``."""
    parser.add_argument(
        "--effort", choices=EFFORTS, default="default",
        help="how long to search for schedules (default default)",
    )  # fmt: skip


def add_crashes(parser: argparse.ArgumentParser) -> None:
    """``--crash-dir``."""
    parser.add_argument(
        "--crash-dir", metavar="DIR", type=Path, default=Path(),
        help="where a crash of the compiler leaves what reproduces it (default here)",
    )  # fmt: skip


def chosen_hardware(
    arguments: argparse.Namespace, default: AcceleratorConfig | None = None
) -> AcceleratorConfig | None:
    """What ``--hw`` and ``--set`` say; ``default`` if they are absent."""
    config = default if arguments.hw is None else hardware(arguments.hw)
    if not arguments.set:
        return config
    values: dict[str, Any] = {}
    for assignment in arguments.set:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set takes KEY=VALUE, not {assignment!r}")
        try:
            values[key] = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            raise ConfigError(
                f"--set {key}: {text!r} is neither a number nor true or false"
            ) from None
    base = config or AcceleratorConfig.preset("base")
    return AcceleratorConfig.from_mapping({**base.to_mapping(), **values}, where="--set")


def print_json(value: Any) -> None:
    """``value`` to standard output, indented, keys in their order."""
    print(json.dumps(value, indent=2))


@contextmanager
def progress_bars() -> Iterator[tuple[Callable[..., None] | None, Callable[..., None] | None]]:
    """Two callbacks, for the RTL's build and for samples; None where nobody watches.

    The first is called with (phase, fraction from 0 to 1), the second with (done, in all).
    """
    if not sys.stderr.isatty():
        yield None, None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, Any] = {}

    def build(phase: str, fraction: float) -> None:
        if "build" not in tasks:
            tasks["build"] = bars.add_task("", total=1.0)
        bars.update(
            tasks["build"], completed=fraction, description=f"building the RTL, once: {phase}"
        )

    def samples(done: int, total: int) -> None:
        if "samples" not in tasks:
            tasks["samples"] = bars.add_task("running", total=total)
        bars.update(tasks["samples"], completed=done)

    with bars:
        yield build, samples
