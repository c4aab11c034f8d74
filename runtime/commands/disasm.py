"""``weft disasm``: instruction streams as text, joined to the layers that they do."""

from __future__ import annotations

import argparse

from ...compiler.artifact import AcceleratorStep
from ...isa.assembly import disassemble
from ...isa.errors import DataError
from ...isa.instructions import InstructionSet
from ...isa.spec import spec_hash
from ..jit import jit
from ..network import load
from .options import add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "model", metavar="FILE", help="a .weft package or a model, which is compiled"
    )
    parser.add_argument("--layer", help="only this layer")
    add_hardware(parser)


def main(options: argparse.Namespace) -> int:
    """Print every program."""
    model = jit(load(options.model), chosen_hardware(options), "functional").compile()
    instructions = InstructionSet(model.config)
    programs = [
        (step, disassemble([instructions.encode(i) for i in step.instructions], model.config))
        for step in model.steps
        if isinstance(step, AcceleratorStep) and options.layer in (None, step.name)
    ]
    if options.layer is not None and not programs:
        there = [step.name for step in model.steps if isinstance(step, AcceleratorStep)]
        raise DataError(f"there is no program {options.layer!r}; there are {', '.join(there)}")
    if options.json:
        print_json({step.name: text.splitlines() for step, text in programs})
        return 0
    print(f"; spec {spec_hash(model.config)}")
    for step, text in programs:
        print(f"\n; {step.name}: {step.op}, {step.count} instructions at {step.address:#x}")
        print(text.rstrip())
    return 0
