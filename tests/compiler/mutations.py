"""Programs with one thing changed, and what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tests.compiler.compiled import outputs_of
from tests.networks import random_inputs
from weft.compiler.artifact import AcceleratorStep, CompiledModel, Program
from weft.compiler.check import check
from weft.compiler.graph import Graph
from weft.compiler.meaning import Meaning, check_meaning
from weft.compiler.pipeline import Module, compile_graph
from weft.isa import AcceleratorConfig, DeviceError, Instruction, InstructionSet, ProgramError

FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")
ADDRESSES = ("sram_base", "dram_base", "uop_bgn", "uop_end", "qnt_base")
KINDS = ("token removed", "address moved", "instructions swapped")


@dataclass(frozen=True)
class Mutant:
    """A changed program, and in words how."""

    kind: str
    text: str
    program: Program


class Subject:
    """A network with one program that is changed.

    Parameters
    ----------
    graph, config : Graph, AcceleratorConfig
        What is compiled.
    seed : int
        Of the mutants and of the inputs.
    """

    def __init__(self, graph: Graph, config: AcceleratorConfig, seed: int):
        modules: list[Module] = []
        self.model = compile_graph(graph, config, watch=lambda _, module: modules.append(module))
        self.steps = max(self.model.programs, key=len)
        self.program = self.steps[0].program
        placed = {p.node.name: p for group in modules[-1].groups for p in group if p.job}
        self.layers = [Meaning.of(placed[step.name]) for step in self.steps]
        self.rng = np.random.default_rng(seed)
        self.inputs = random_inputs(graph, seed)
        self.expected = outputs_of(self.model, self.inputs)

    def mutant(self, kind: str) -> Mutant:
        """One of that kind, at random."""
        instructions, owners = list(self.program.instructions), list(self.program.owners)
        if kind == "token removed":
            places = [(i, f) for i, n in enumerate(instructions) for f in FLAGS if getattr(n, f)]
            at, flag = places[self.rng.integers(len(places))]
            instructions[at] = replace(instructions[at], **{flag: False})
            text = f"{at} without {flag}"
        elif kind == "address moved":
            places = [(i, f) for i, n in enumerate(instructions) for f in ADDRESSES
                      if f in n.operands]  # fmt: skip
            at, name = places[self.rng.integers(len(places))]
            text = f"{at}: {name} {instructions[at].operands[name]}"
            instructions[at] = self._moved(instructions[at], name)
            text += f" -> {instructions[at].operands[name]}"
        else:
            while True:
                at = int(self.rng.integers(len(instructions) - 1))
                other = min(len(instructions) - 1, at + int(self.rng.integers(1, 5)))
                if instructions[at] != instructions[other]:
                    break
            for row in (instructions, owners):
                row[at], row[other] = row[other], row[at]
            text = f"{at} and {other}"
        made = replace(self.program, instructions=tuple(instructions), owners=tuple(owners))
        return Mutant(kind, text, made)

    def _moved(self, instruction: Instruction, name: str) -> Instruction:
        known = InstructionSet(self.model.config)
        layout = known.layouts[known.operations[instruction.operation].format.opcode]
        old = instruction.operands[name]
        while True:
            step = int(self.rng.integers(1, 9)) * (1 if self.rng.integers(2) else -1)
            new = old + step * (1 if self.rng.integers(2) else 16)
            if 0 <= new <= layout.by_name[name].greatest:
                return replace(instruction, operands={**instruction.operands, name: new})

    def outcome(self, mutant: Mutant) -> str:
        """``reported`` by the checkers, ``harmless``, or else what went wrong unseen."""
        model = self.model
        try:
            order = check(mutant.program.instructions, model.config, model.segments)
        except ProgramError:
            return "reported: tokens, races, bounds"
        try:
            check_meaning(
                mutant.program, order, self.layers, model.tensors, model.segments, model.config
            )
        except ProgramError:
            return "reported: meaning"
        try:
            outputs = outputs_of(_with(model, self.program, mutant.program), self.inputs)
        except DeviceError as error:
            return f"unseen: {error}"
        same = all(np.array_equal(outputs[name], self.expected[name]) for name in self.expected)
        return "harmless" if same else "unseen: another result"


def outcomes(subjects: list[Subject], count: int) -> tuple[Mapping[str, Counter[str]], list[str]]:
    """``count`` mutants, kind after kind: how many of each ended how, and those that went wrong."""
    table: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    holes: list[str] = []
    for number in range(count):
        subject, kind = subjects[number % len(subjects)], KINDS[number % len(KINDS)]
        mutant = subject.mutant(kind)
        outcome = subject.outcome(mutant)
        table[kind][outcome] += 1
        if outcome.startswith("unseen"):
            holes.append(f"{subject.program.name}, {kind}: {mutant.text}: {outcome}")
    return table, holes


def _with(model: CompiledModel, old: Program, new: Program) -> CompiledModel:
    known = InstructionSet(model.config)
    words = b"".join(known.encode(i).to_bytes(16, "little") for i in new.instructions)
    data = np.frombuffer(words, np.uint8)
    segments = tuple(
        replace(s, data=data) if s.address == old.address else s for s in model.segments
    )
    steps = tuple(
        replace(s, program=new) if isinstance(s, AcceleratorStep) and s.program is old else s
        for s in model.steps
    )
    return replace(model, segments=segments, steps=steps)
