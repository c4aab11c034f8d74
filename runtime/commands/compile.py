"""``weft compile``: a network into a package that ``weft run`` takes, or into the text of a level.

A text goes in, too: compilation goes on from its level, to the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from ...compiler.artifact import CompiledModel
from ...compiler.levels import format_module
from ...compiler.module import LEVELS, Module
from ...compiler.pipeline import PASSES, run
from ...isa.errors import DataError, InputError
from .. import package
from ..jit import first_module, hardware_of, jit
from ..network import load
from .options import add_crashes, add_effort, add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .tflite or .onnx file, or the text of a level"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the package, or the text (default: to the terminal)"
    )
    parser.add_argument(
        "--stop-after", choices=LEVELS, metavar="LEVEL",
        help=f"go no further than {', '.join(LEVELS)}, and write that as text",
    )  # fmt: skip
    parser.add_argument(
        "--emit", choices=("package", "text"),
        help="what to write (default: a package, or text with --stop-after)",
    )  # fmt: skip
    names = [step.name for step in PASSES]
    parser.add_argument(
        "--print-after", choices=[*names, "all"], metavar="PASS", action="append", default=[],
        help=f"print the level after {', '.join(names)} or all, to standard error",
    )  # fmt: skip
    parser.add_argument("--time-passes", action="store_true", help="CPU seconds of each pass")
    add_hardware(parser)
    add_effort(parser)
    add_crashes(parser)


def main(options: argparse.Namespace) -> int:
    """Compile and write what was asked for."""
    emit = options.emit or ("text" if options.stop_after else "package")
    if emit == "package" and options.stop_after not in (None, LEVELS[-1]):
        raise InputError(f"a package needs all passes; --stop-after {options.stop_after} is text")
    if emit == "package" and options.output is None:
        raise InputError("a package needs a file to go to: -o FILE.weft")
    network = load(options.model)
    if network.unbound is not None:
        raise network.unbound
    config = hardware_of(network, chosen_hardware(options))
    if network.compiled is not None:
        raise InputError(f"{options.model} is a package: it is compiled already")
    if emit == "package" and not options.print_after and not options.time_passes:
        compiled = jit(
            network, config, "functional", effort=options.effort, crashes=options.crash_dir
        )
        compiled.save(options.output)
        return _sum_up(compiled.compile(), options)
    watch = _Watch(options)
    start = first_module(network, config, effort=options.effort)
    module = run(start, options.stop_after or LEVELS[-1], watch=watch, crashes=options.crash_dir)
    if options.time_passes:
        watch.print_times()
    if emit == "text":
        return _write_text(module, options.output)
    package.save(module.model, options.output, asdict(module.origin))
    return _sum_up(module.model, options)


def _sum_up(model: CompiledModel, options: argparse.Namespace) -> int:
    programs = [steps[0].program for steps in model.programs]
    summary = {
        "package": options.output,
        "programs": len(programs),
        "instructions": sum(program.count for program in programs),
        "dram_bytes": model.dram_bytes,
    }
    if options.json:
        print_json(summary)
    else:
        print(
            f"{options.output}: {summary['programs']} programs, {summary['instructions']} "
            f"instructions, {model.dram_bytes / 1024:,.1f} KiB of DRAM"
        )
    return 0


def _write_text(module: Module, path: str | None) -> int:
    text = format_module(module)
    if path is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return 0


class _Watch:
    """Prints levels and takes times between passes."""

    def __init__(self, options: argparse.Namespace):
        self._after = set(options.print_after)
        self._last = time.process_time()
        self._seconds: dict[str, float] = {}

    def __call__(self, name: str, module: Module) -> None:
        self._seconds[name] = time.process_time() - self._last
        if self._after & {name, "all"}:
            print(f"# after {name}\n{format_module(module)}", file=sys.stderr)
        self._last = time.process_time()

    def print_times(self) -> None:
        """A line a pass."""
        for name, seconds in self._seconds.items():
            print(f"{seconds:8.3f} s  {name}", file=sys.stderr)
