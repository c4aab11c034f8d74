"""``weft disasm``: instruction streams as text, joined to the layers that they do."""

from __future__ import annotations

import argparse

from ...compiler.artifact import AcceleratorStep, Program
from ...isa.assembly import disassemble
from ...isa.config import AcceleratorConfig
from ...isa.errors import DataError
from ...isa.instructions import InstructionSet
from ...isa.spec import spec_hash
from ..jit import jit
from ..network import load
from .options import add_crashes, add_hardware, chosen_hardware, print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "model", metavar="FILE", help="a .weft package or a model, which is compiled"
    )
    parser.add_argument("--layer", help="only this layer")
    add_hardware(parser)
    add_crashes(parser)


def main(options: argparse.Namespace) -> int:
    """Print every program, or one layer's part of it."""
    network, hw = load(options.model), chosen_hardware(options)
    model = jit(network, hw, "functional", crashes=options.crash_dir).compile()
    steps = [step for step in model.steps if isinstance(step, AcceleratorStep)]
    if options.layer is not None and options.layer not in {step.name for step in steps}:
        there = ", ".join(step.name for step in steps)
        raise DataError(f"there is no program {options.layer!r}; there are {there}")
    chosen = [step.name for step in steps if options.layer in (None, step.name)]
    lines = {id(s[0].program): _lines(s[0].program, model.config) for s in model.programs}
    if options.json:
        shown = [step for step in steps if step.name in chosen]
        print_json({s.name: [lines[id(s.program)][i] for i in s.positions] for s in shown})
        return 0
    print(f"; spec {spec_hash(model.config)}")
    for program_steps in model.programs:
        program = program_steps[0].program
        if not any(step.name in chosen for step in program_steps):
            continue
        print(f"\n; {program.name}: {program.count} instructions at {program.address:#x}")
        last: int | None = None
        for position, (owner, line) in enumerate(
            zip(program.owners, lines[id(program)], strict=True)
        ):
            step = program_steps[owner]
            if step.name not in chosen:
                last = None
                continue
            if owner != last:
                print(f"; {step.name}: {step.op}, from instruction {position} on")
            last = owner
            print(line)
    return 0


def _lines(program: Program, config: AcceleratorConfig) -> list[str]:
    """A program as text, a line for each instruction."""
    instructions = InstructionSet(config)
    text = disassemble([instructions.encode(i) for i in program.instructions], config)
    return text.splitlines()
