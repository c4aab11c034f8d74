"""``weft verilog``: the accelerator as files that other tools take."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ...hw.verilog import generate, lint_waivers
from ...isa.config import AcceleratorConfig
from ...isa.errors import ConfigError
from ...isa.header import c_header
from ...isa.registers import REGISTERS
from ...isa.spec import spec_hash
from .options import add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True,
        help="for the Verilog, the register map and the C header",
    )  # fmt: skip
    parser.add_argument(
        "--form", choices=("synthesis", "simulation"), default="synthesis",
        help="how the array is written: for multiplier blocks, or for a fast simulation; "
        "both do the same in every cycle (default synthesis)",
    )  # fmt: skip
    add_hardware(parser)


def main(options: argparse.Namespace) -> int:
    """Write Verilog, the linter's waivers, register map, C header and the configuration."""
    config = chosen_hardware(options, AcceleratorConfig.preset("base"))
    assert config is not None
    texts = {
        "weft.v": generate(config, form=options.form),
        "weft.vlt": lint_waivers(),
        "registers.md": register_map(config),
        "registers.json": json.dumps(register_records(config), indent=2) + "\n",
        "weft_isa.h": c_header(config),
        "config.toml": config.to_toml(),
    }
    directory = Path(options.output)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(text)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    if options.json:
        print_json({"spec_hash": spec_hash(config), "files": [str(directory / n) for n in texts]})
    else:
        for name, text in texts.items():
            print(f"{directory / name}  {len(text.splitlines()):,} lines")
    return 0


def register_records(config: AcceleratorConfig) -> dict[str, object]:
    """The register map as plain data."""
    return {
        "spec_hash": spec_hash(config),
        "registers": [
            {
                "name": r.name, "offset": r.offset, "bytes": 4 * r.words,
                "access": r.access, "doc": r.doc,
            }
            for r in REGISTERS
        ],
    }  # fmt: skip


def register_map(config: AcceleratorConfig) -> str:
    """The register map as Markdown."""
    lines = [
        "# Registers",
        "",
        f"AXI4-Lite, 32-bit accesses; spec {spec_hash(config)}.",
        "",
        "| offset | name | bytes | access | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| 0x{r.offset:03x} | {r.name} | {4 * r.words} | {r.access} | {r.doc} |" for r in REGISTERS
    ]
    return "\n".join(lines) + "\n"
