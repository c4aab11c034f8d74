"""Legal programs with one thing wrong, which every executor must find.

The kinds of wrong follow from the instruction set: encodings that select nothing, the rules of
:data:`weft.isa.faults.ZERO_RULES`, indices beyond a scratchpad, addresses beyond DRAM, flags that
nobody answers, streams that end elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ...isa.config import AcceleratorConfig
from ...isa.faults import ZERO_RULES
from ...isa.formats import FLAGS
from ...isa.instructions import Instruction, InstructionSet
from ...isa.memories import Engine
from ...isa.operations import Operation, params_of
from ...isa.ordering import DISPATCHED
from .choices import Choices
from .footprint import instruction_set, reach
from .program import POISONED, POISONED_END, Program, program_of

Words = list[int]


def illegal_program(program: Program, choices: Choices) -> Program:
    """``program`` with something wrong; now and then it is legal all the same."""
    words = list(program.words)
    instructions = instruction_set(program.config)
    WRONGS[choices.one_of(sorted(WRONGS))](words, instructions, choices)
    return program.with_words(words)


def token_program(config: AcceleratorConfig, choices: Choices) -> Program:
    """Instructions that only take and send tokens, right or wrong, some in rows about as long as
    what may wait at an engine; in the end there may be something illegal."""
    instructions = instruction_set(config)
    words: list[int] = []
    rows = (0, 0, 0, DISPATCHED - 2, DISPATCHED - 1, DISPATCHED)
    for _ in range(choices.integer(1, 8)):
        engine = choices.one_of(list(Engine))
        name = next(o.name for o in instructions.operations.values()
                    if o.engine is engine and "x_size" in params_of(o.format, config))  # fmt: skip
        absent = {Engine.LOAD: "prev", Engine.STORE: "next"}.get(engine, "none")
        flags = {f: True for f in FLAGS if not f.endswith(absent) and choices.yes()}
        words.append(instructions.encode(replace(Instruction(name), **flags)))
        words += [instructions.encode(Instruction(name))] * choices.one_of(rows)
    end = choices.one_of(("finish", "finish", "illegal", "none"))
    if end != "none":
        finish = instructions.encode(Instruction("finish"))
        words.append(finish if end == "finish" else (1 << 128) - 1)
    return program_of(config, words)


def poisoned_program(program: Program, choices: Choices) -> Program:
    """``program`` with one of its moves led across memory that answers errors, or near it; or
    with errors in its own stream."""
    if choices.rarely(4):
        first = choices.integer(program.address - 64, program.address + 16 * program.count)
        return program.with_words(program.words, (first, first + choices.integer(1, 40)))
    instructions = instruction_set(program.config)
    words = list(program.words)
    places = [
        (at, memory.element_bytes(program.config), reach(instructions.decode(word).operands))
        for at, word in enumerate(words)
        if (operation := instructions.operation_of(word)) is not None
        and (memory := operation.moved) is not None
    ]
    places = [place for place in places if place[2]]
    first = choices.integer(POISONED + 64, POISONED_END - 64)
    bad = first, first + choices.integer(1, 40)
    if places:
        at, size, count = choices.one_of(places)
        lowest, highest = -(-POISONED // size), POISONED_END // size - count
        near = [max(lowest, min(highest, p // size - choices.integer(0, count))) for p in bad]
        if lowest <= highest:
            decoded = instructions.decode(words[at])
            moved_there = {**decoded.operands, "dram_base": choices.one_of(near)}
            words[at] = instructions.encode(replace(decoded, operands=moved_there))
    return program.with_words(words, bad)


def _reserved(words: Words, instructions: InstructionSet, choices: Choices) -> None:
    """A word that selects no operation, among the others."""
    for _ in range(64):
        opcode = choices.integer(0, 7)
        layout = instructions.layouts.get(opcode)
        word = opcode
        for slot in () if layout is None else layout.slots[1:]:
            greatest = (1 << slot.width) - 1
            word |= choices.integer(0, greatest if choices.yes() else 0) << slot.lsb
        if instructions.operation_of(word) is None:
            words.insert(choices.integer(0, len(words) - 1), word)
            return


def _forbidden(words: Words, instructions: InstructionSet, choices: Choices) -> None:
    """A field that must be 0 and is not: padding of a store, a flag to nobody."""
    rule = choices.one_of(ZERO_RULES)
    able = [o for o in instructions.operations.values() if rule.applies(o)]
    operation = choices.one_of(sorted(able, key=lambda o: o.name))
    layout = instructions.layouts[operation.format.opcode]
    field = choices.one_of(rule.fields)
    word = layout.encode({**operation.fixed, "opcode": operation.format.opcode})
    width = layout.by_name[field].width
    word |= choices.integer(1, (1 << width) - 1) << layout.by_name[field].lsb
    words.insert(choices.integer(0, len(words) - 1), word)


def _operand(
    pick: Callable[[Operation, str], bool],
) -> Callable[[Words, InstructionSet, Choices], None]:
    """One operand of an instruction takes a large value, where ``pick`` allows it."""

    def change(words: Words, instructions: InstructionSet, choices: Choices) -> None:
        places: list[tuple[int, str]] = []
        for at, word in enumerate(words):
            operation = instructions.operation_of(word)
            if operation is not None:
                params = params_of(operation.format, instructions.config)
                places += [(at, param) for param in params if pick(operation, param)]
        if not places:
            return
        at, param = choices.one_of(places)
        decoded = instructions.decode(words[at])
        operation = instructions.operations[decoded.operation]
        greatest = instructions.layouts[operation.format.opcode].by_name[param].greatest
        near = choices.integer(0, min(greatest, 40))
        value = greatest - near if choices.yes() else choices.integer(0, greatest)
        operands = {**decoded.operands, param: value}
        words[at] = instructions.encode(replace(decoded, operands=operands))

    return change


def _flag(words: Words, instructions: InstructionSet, choices: Choices) -> None:
    """One dependence flag more or less."""
    at = choices.integer(0, len(words) - 1)
    operation = instructions.operation_of(words[at])
    if operation is not None:
        decoded = instructions.decode(words[at])
        flag = choices.one_of(FLAGS)
        words[at] = instructions.encode(replace(decoded, **{flag: not getattr(decoded, flag)}))


def _cut(words: Words, instructions: InstructionSet, choices: Choices) -> None:
    """The stream ends early, with or without FINISH."""
    finish = words[-1]
    del words[choices.integer(0, len(words) - 1) :]
    if choices.yes():
        words.append(finish)


def _follow(words: Words, instructions: InstructionSet, choices: Choices) -> None:
    """Something stands after FINISH; nothing of it may be executed."""
    words += [choices.integer(0, (1 << 128) - 1) for _ in range(choices.integer(1, 3))]


def _swap(words: Words, instructions: InstructionSet, choices: Choices) -> None:
    """Two instructions change places; most often one of the orders is as good as the other."""
    a, b = (choices.integer(0, len(words) - 1) for _ in range(2))
    words[a], words[b] = words[b], words[a]


WRONGS: Mapping[str, Callable[[Words, InstructionSet, Choices], None]] = {
    "cut": _cut,
    "flag": _flag,
    "follow": _follow,
    "forbidden": _forbidden,
    "index": _operand(
        lambda o, p: (
            p in ("sram_base", "qnt_base", "uop_end")
            or "_factor_" in p
            or (p == "dram_base" and o.moved is None)
        )
    ),
    "far": _operand(lambda o, p: p == "dram_base" and o.moved is not None),
    "reserved": _reserved,
    "swap": _swap,
}
"""What may go wrong."""
