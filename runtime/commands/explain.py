"""``weft explain``: where every node runs, and why."""

from __future__ import annotations

import argparse

from ...compiler.artifact import AcceleratorStep
from ..jit import jit
from ..network import load
from .options import add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx file or a .weft package")
    add_hardware(parser)


def main(options: argparse.Namespace) -> int:
    """Compile, and say what was decided."""
    model = jit(load(options.model), chosen_hardware(options), "functional").compile()
    rows = [
        {
            "step": step.name,
            "nodes": list(step.nodes),
            "op": step.op,
            "where": "accelerator" if isinstance(step, AcceleratorStep) else "cpu",
            "why": _choices(step) if isinstance(step, AcceleratorStep) else step.reason,
        }
        for step in model.steps
    ]
    if options.json:
        print_json(rows)
        return 0
    width = max(len(row["step"]) for row in rows)
    for row in rows:
        print(f"{row['step']:{width}}  {row['op']:18} {row['where']:12} {row['why']}")
    return 0


def _choices(step: AcceleratorStep) -> str:
    return ", ".join(f"{key} {value}" for key, value in step.choices.items())
