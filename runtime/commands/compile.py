"""``weft compile``: a network into a package that ``weft run`` takes."""

from __future__ import annotations

import argparse

from .. import package
from ..jit import jit
from ..network import load
from .options import add_effort, add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx file")
    parser.add_argument("-o", "--output", metavar="FILE.weft", required=True)
    add_hardware(parser)
    add_effort(parser)


def main(options: argparse.Namespace) -> int:
    """Compile and write the package."""
    network = load(options.model)
    model = jit(network, chosen_hardware(options), "functional", effort=options.effort).compile()
    package.save(model, options.output, {"name": network.name, "sha256": network.sha256})
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
