"""``weft hw show`` and ``weft hw diff``: what a configuration amounts to."""

from __future__ import annotations

import argparse
from typing import Any

from ...isa.config import AcceleratorConfig
from ...isa.errors import ConfigError
from ...isa.instructions import InstructionSet
from ...isa.spec import spec_hash
from ..hardware import hardware
from .options import add_hardware, chosen_hardware, print_json

ACTIONS = ("show", "diff")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument(
        "configs", nargs="*", metavar="PRESET|FILE.toml", help="one to show, two to compare"
    )
    parser.add_argument(
        "--cost", action="store_true", help="also registers, adders and so on, unit by unit"
    )
    add_hardware(parser)


def main(options: argparse.Namespace) -> int:
    """Print one configuration, or what differs between two."""
    named = [hardware(name) for name in options.configs]
    if options.action == "diff":
        if len(named) != 2:
            raise ConfigError(f"weft hw diff takes two configurations, not {len(named)}")
        return _diff(named[0], named[1], options)
    if len(named) > 1:
        raise ConfigError(f"weft hw show takes one configuration, not {len(named)}")
    config = chosen_hardware(options, named[0] if named else AcceleratorConfig.preset("base"))
    assert config is not None
    facts = describe(config)
    if options.cost:
        from ...hw.cost import cost

        facts["cost"] = {
            unit: "  ".join(f"{kind} {count:,}" for kind, count in counts.items() if count)
            if not options.json
            else counts
            for unit, counts in cost(config).items()
        }
    if options.json:
        print_json(facts)
        return 0
    for section, values in facts.items():
        if not isinstance(values, dict):
            print(f"{section:16} {values}")
            continue
        print(f"\n{section}")
        for key, value in values.items():
            print(f"  {key:22} {value}")
    return 0


def describe(config: AcceleratorConfig) -> dict[str, Any]:
    """Everything worth knowing about a configuration, as plain data."""
    instructions = InstructionSet(config)
    scratchpads = ("uop", "inp", "wgt", "acc") + (("qnt",) if config.requantize else ())
    return {
        "spec_hash": spec_hash(config),
        "peak": f"{config.peak_macs} MACs a cycle, {config.bus_bytes} bus bytes a cycle",
        "config": config.to_mapping(),
        "scratchpads": {
            name: (
                f"{getattr(config, f'{name}_bytes') // 1024} KiB = "
                f"{getattr(config, f'{name}_depth')} x "
                f"{getattr(config, f'{name}_element_bytes')} bytes"
            )
            for name in scratchpads
        },
        "operations": {
            name: f"{operation.engine.value}: {operation.summary}"
            for name, operation in instructions.operations.items()
        },
        "encodings": {
            layout.name: " ".join(f"{s.name}[{s.lsb}+{s.width}]" for s in layout.slots)
            for layout in instructions.layouts.values()
        },
    }


def _diff(a: AcceleratorConfig, b: AcceleratorConfig, options: argparse.Namespace) -> int:
    left, right = _flat(describe(a)), _flat(describe(b))
    rows = {
        key: [left.get(key), right.get(key)]
        for key in {**left, **right}
        if left.get(key) != right.get(key)
    }
    if options.json:
        print_json(rows)
        return 0
    first, second = options.configs
    for key, (before, after) in rows.items():
        print(f"{key}\n  {first}: {before}\n  {second}: {after}")
    if not rows:
        print("no difference")
    return 0


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, values in facts.items():
        if isinstance(values, dict):
            flat.update({f"{section}.{key}": value for key, value in values.items()})
        else:
            flat[section] = values
    return flat
