"""The command line, ``weft VERB``; ``weft --help`` lists the verbs.

Exit codes: 0 ok, 1 mismatch, 2 bad input, 3 missing tool, 4 device fault or timeout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .version import VERSION

VERBS = {
    "run": "run a network on the accelerator and print the per-layer table",
    "compile": "compile a network into a package",
    "explain": "where every node of a network runs, and why",
    "verilog": "write the accelerator's Verilog, register map and C header",
    "disasm": "print instruction streams, joined to layers",
    "hw": "show or compare configurations",
    "doctor": "check the tools that Weft needs",
}
"""The verbs; each is a module of ``runtime/commands`` with ``arguments`` and ``main``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="weft",
        description="A tensor accelerator and its compiler, designed together.",
        epilog="exit codes: 0 ok, 1 mismatch, 2 bad input, 3 missing tool, "
        "4 device fault or timeout",
    )
    parser.add_argument("--version", action="version", version=f"weft {VERSION}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=summary.capitalize() + ".")
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        if verb == chosen:  # only the chosen verb pays for its imports
            import_module(f".runtime.commands.{verb}", __package__).arguments(sub)
    arguments = parser.parse_args(argv)
    from .isa.errors import WeftError

    try:
        module = import_module(f".runtime.commands.{arguments.verb}", __package__)
        return int(module.main(arguments))
    except WeftError as error:
        _complain(error, arguments.json)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("weft: interrupted", file=sys.stderr)
        return 130


def _complain(error: Exception, as_json: bool) -> None:
    line = " ".join(str(error).split())
    if as_json:
        print(json.dumps({"error": line, "kind": type(error).__name__}))
    print(f"weft: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
