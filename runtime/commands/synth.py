"""``weft synth``: the accelerator on a device, by open tools."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...hw.fpga import BLOCK_RAM, DEVICES, SPARE, Placed, place
from ...isa.config import AcceleratorConfig
from ...isa.errors import ConfigError
from ...isa.spec import spec_hash
from .options import add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("--device", choices=sorted(DEVICES), default="ecp5-85k")
    parser.add_argument(
        "--speed", help="the device's speed grade, 6, 7 or 8 (default: its slowest)"
    )
    parser.add_argument(
        "--mhz", type=float, default=80, help="the clock to aim at (default 80); not a condition"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N",
        help="places from N seeds and routes the best placement (default 1): with the highest "
        f"clock or, if several have {SPARE - 1:.0%}".replace("%", "%%")
        + " to spare, the least crowded of these",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True,
        help="for Verilog, netlist, bitstream configuration, logs and synth.json",
    )  # fmt: skip
    add_hardware(parser)


def main(options: argparse.Namespace) -> int:
    """Synthesize, place, route, and print what came of it."""
    config = chosen_hardware(options, AcceleratorConfig.preset("edge"))
    assert config is not None
    directory = Path(options.output)
    try:
        placed = place(
            config,
            options.device,
            directory,
            options.mhz,
            options.speed,
            options.seeds,
            lambda line: _say(f"weft: {line} ..."),
        )
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    facts = {"spec_hash": spec_hash(config), "hw": config.to_mapping(), **placed.as_mapping()}
    (directory / "synth.json").write_text(json.dumps(facts, indent=2) + "\n")
    if options.json:
        print_json(facts)
    else:
        print("\n".join(_lines(placed)))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _lines(placed: Placed) -> list[str]:
    used = "  ".join(f"{name} {count:,}" for name, count in placed.cells.items())
    elsewhere = [name for name, kind in placed.scratchpads.items() if kind not in BLOCK_RAM]
    blocks = placed.cells["dsp"]
    short = "" if blocks >= placed.products else ", too few"
    minutes = ", ".join(f"{tool} {time:g} min" for tool, time in placed.minutes.items())
    memories = f"not in block RAM: {', '.join(elsewhere)}" if elsewhere else "all in block RAM"
    full = sorted(
        ((100 * used // all_, name) for name, (used, all_) in placed.utilization.items() if used),
        reverse=True,
    )
    expected = ", ".join(
        f"{found.megahertz:g} MHz, {found.crowding:,} wires in crowds (seed {seed})"
        for seed, found in placed.seeds.items()
    )
    return [
        f"cells        {used}",
        f"fullest      {', '.join(f'{name} {percent} %' for percent, name in full[:4])}",
        f"scratchpads  {memories}",
        f"multipliers  {blocks} blocks for {placed.products} products a cycle and rescaling{short}",
        f"placement    {expected}",
        f"clock        {placed.megahertz} MHz on {placed.device}, speed grade"
        f" {placed.speed}"
        f" (asked for {placed.asked_megahertz:g}), seed {placed.seed}",
        f"took         {minutes}",
        "critical path",
        *(f"  {s.nanoseconds:6.2f} ns  {s.cells:3} cells  {s.unit}" for s in placed.critical_path),
    ]
