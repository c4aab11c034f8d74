"""Instruction streams as text, and back.

Text
----
::

    ; a comment
       0: load.inp     sram_base=0 dram_base=0x400 y_size=14 x_size=14 x_stride=14 | push_next
       1: gemm         uop_end=9 iter_out=14 iter_in=14 dst_factor_in=1 | pop_prev
       2: finish
       3: .word        0x00000000000000000000000000000047

One instruction a line: its position (printed, and ignored when read), the operation, operands
that are not 0, and after a bar the dependence flags. Numbers are decimal or hexadecimal. ``.word``
stands for 128 bits that no operation of the configuration prints, reserved encodings among them,
so that any stream survives the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from .config import AcceleratorConfig
from .errors import ProgramError
from .formats import FLAGS, INSTRUCTION_BITS
from .instructions import Instruction, InstructionSet
from .operations import params_of

RAW = ".word"
HEXADECIMAL = ("dram_base",)
"""Operands that are printed as addresses."""
_POSITION = re.compile(r"^\d+:")
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]+|[0-9]+)")


def disassemble(words: Iterable[int], config: AcceleratorConfig) -> str:
    """The text of a stream, a line for each of its 128-bit words."""
    instructions = InstructionSet(config)
    lines = [f"{i:4}: {_text(word, instructions)}".rstrip() for i, word in enumerate(words)]
    return "".join(f"{line}\n" for line in lines)


def _text(word: int, instructions: InstructionSet) -> str:
    operation = instructions.operation_of(word)
    decoded = None if operation is None else instructions.decode(word)
    if decoded is None or instructions.encode(decoded) != word:
        return f"{RAW:<15} {word:#034x}"
    return format_instruction(decoded)


def format_instruction(instruction: Instruction) -> str:
    """One instruction as text, without its position."""
    operands = [
        f"{name}={value:#x}" if name in HEXADECIMAL else f"{name}={value}"
        for name, value in instruction.operands.items()
        if value
    ]
    flags = [flag for flag in FLAGS if getattr(instruction, flag)]
    parts = [f"{instruction.operation:<15}", *operands, *(["|", *flags] if flags else [])]
    return " ".join(parts).rstrip()


def assemble(text: str, config: AcceleratorConfig) -> list[int]:
    """The 128-bit words of a text.

    Raises
    ------
    ProgramError
        For the first line that is malformed or that the configuration cannot encode, with its
        number.
    """
    instructions = InstructionSet(config)
    words: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition(";")[0].strip()
        if code:
            try:
                words.append(_word(code, instructions))
            except ProgramError as error:
                raise ProgramError(f"line {number}: {error}") from None
    return words


def _word(code: str, instructions: InstructionSet) -> int:
    code, _, after_bar = _POSITION.sub("", code, count=1).partition("|")
    name, *operands = code.split() or [""]
    if not name:
        raise ProgramError("expected an operation")
    if name == RAW:
        return _raw(operands)
    operation = instructions.operations.get(name)
    if operation is None:
        raise ProgramError(
            f"this configuration has no operation {name!r}{_hint(name, instructions.operations)}"
        )
    known = params_of(operation.format, instructions.config)
    values: dict[str, int] = {}
    for operand in operands:
        key, equals, value = operand.partition("=")
        if not equals or not _NUMBER.fullmatch(value):
            raise ProgramError(f"expected name=number, not {operand!r}")
        if key not in known:
            raise ProgramError(f"{name} has no operand {key!r}{_hint(key, known)}")
        if key in values:
            raise ProgramError(f"{key} is given twice")
        values[key] = int(value, 0) if "x" in value.lower() else int(value)
    flags = after_bar.split()
    for flag in flags:
        if flag not in FLAGS:
            raise ProgramError(f"expected one of {', '.join(FLAGS)} after the bar, not {flag!r}")
    given = {flag: flag in flags for flag in FLAGS}
    return instructions.encode(Instruction(name, values, **given))


def _raw(operands: list[str]) -> int:
    if len(operands) != 1 or not re.fullmatch(r"0[xX][0-9a-fA-F]+", operands[0]):
        raise ProgramError(f"{RAW} takes one hexadecimal number")
    word = int(operands[0], 16)
    if word >> INSTRUCTION_BITS:
        raise ProgramError(f"{RAW} has {INSTRUCTION_BITS} bits, not {word.bit_length()}")
    return word


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]!r}?" if close else ""
