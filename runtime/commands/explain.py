"""``weft explain``: where every node runs, and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from ..explanation import explain
from ..jit import jit
from ..network import load
from .options import add_crashes, add_effort, add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx file or a .weft package")
    add_hardware(parser)
    add_effort(parser)
    add_crashes(parser)


def main(options: argparse.Namespace) -> int:
    """Compile, and say what was decided."""
    network, hw = load(options.model), chosen_hardware(options)
    model = jit(
        network, hw, "functional", effort=options.effort, crashes=options.crash_dir
    ).compile()
    rows = explain(model)
    if options.json:
        print_json(rows)
        return 0
    width = max(len(row["step"]) for row in rows)
    for row in rows:
        print(f"{row['step']:{width}}  {row['op']:18} {row['where']:12} {row['why']}")
        for line in _details(row):
            print(f"{'':{width}}    {line}")
    return 0


def _details(row: Mapping[str, Any]) -> Iterator[str]:
    if row["where"] == "cpu":
        for node, change in row["remedy"].items():
            yield f"{node}: to run on the accelerator: {change}"
        return
    yield ", ".join(f"{count} {name}" for name, count in row["instructions"].items())
    search = row["search"]
    if search is not None:
        yield f"the best of {search['considered']:,} schedules, effort {search['effort']}"
        for other in search["others"]:
            yield "  not " + ", ".join(f"{key} {value}" for key, value in other.items())
    unfused = row["dram_compulsory_bytes"]
    yield (
        f"bound by {row['bound_by']}: array {row['array_cycles']:,} cycles, bus "
        f"{row['bus_cycles']:,}; {row['dram_bytes']:,} bytes moved, "
        f"{row['dram_fused_bytes']:,} compulsory"
        + (f", {unfused:,} if nothing stayed on chip" if unfused != row["dram_fused_bytes"] else "")
    )
