"""The command line, ``weft VERB``; ``weft --help`` lists the verbs.

Exit codes: 0 ok, 1 mismatch, 2 bad input, 3 missing tool, 4 device fault or timeout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from .version import VERSION

VERBS = {
    "run": "run a network on the accelerator and print the per-layer table",
    "compile": "compile a network into a package",
    "quantize": "make a float network one of 8-bit integers",
    "diff": "compare a network's tensors in two forms or on two devices",
    "explain": "where every node of a network runs, and why",
    "verilog": "write the accelerator's Verilog, register map and C header",
    "synth": "place the accelerator on an FPGA with open tools",
    "disasm": "print instruction streams, joined to layers",
    "hw": "show or compare configurations",
    "fuzz": "compare all simulators on random programs",
    "doctor": "check the tools that Weft needs",
}
"""The verbs; each is a module of ``runtime/commands`` with ``arguments`` and ``main``."""
BAD_INPUT, MISSING_TOOL, DEFECT, INTERRUPTED = 2, 3, 70, 130
"""Exit codes that no :class:`weft.WeftError` has; an exception of another kind is a defect."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    try:
        return _run(argv)
    except BrokenPipeError:  # the reader of our output has gone, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _complain("interrupted", "KeyboardInterrupt", False, INTERRUPTED)
    except Exception as error:
        return _failed(error, as_json)


def _failed(error: Exception, as_json: bool) -> int:
    """Say in one line what went wrong; what nobody foresaw comes with its traceback."""
    from .isa.errors import WeftError

    kind = type(error).__name__
    if isinstance(error, WeftError):
        return _complain(str(error), kind, as_json, error.exit_code)
    if isinstance(error, MemoryError):
        return _complain("out of memory", kind, as_json, BAD_INPUT)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return _complain(f"{error.filename}: {error.strerror}", kind, as_json, BAD_INPUT)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package not in ("", __package__):
        line = f"the package {package!r} is missing: pip install {package}"
        return _complain(line, "MissingToolError", as_json, MISSING_TOOL)
    traceback.print_exception(error)
    line = f"a defect of Weft, please report it: {kind}: {error}"
    return _complain(line, kind, as_json, DEFECT)


def _run(argv: list[str]) -> int:
    parser = _Parser(
        prog="weft",
        description="A tensor accelerator and its compiler, designed together.",
        epilog="exit codes: 0 ok, 1 mismatch, 2 bad input, 3 missing tool, "
        "4 device fault or timeout, 70 a defect of Weft",
    )
    parser.add_argument("--version", action="version", version=f"weft {VERSION}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        sentence = f"{summary[0].upper()}{summary[1:]}."
        sub = verbs.add_parser(verb, help=summary, description=sentence)
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        if verb == chosen:  # only the chosen verb pays for its imports
            import_module(f".runtime.commands.{verb}", __package__).arguments(sub)
    arguments = parser.parse_args(argv)
    module = import_module(f".runtime.commands.{arguments.verb}", __package__)
    return int(module.main(arguments))


class _Parser(argparse.ArgumentParser):
    """Complains about its arguments as the verbs complain: in one line."""

    def error(self, message: str) -> NoReturn:
        from .isa.errors import InputError

        raise InputError(f"{message} (see {self.prog} --help)")


def _complain(line: str, kind: str, as_json: bool, code: int) -> int:
    """One line to standard error and, where JSON was asked for, an object to standard output."""
    line = " ".join(line.split())
    if as_json:
        print(json.dumps({"error": line, "kind": kind}))
    print(f"weft: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
