"""Writes the instruction set's manual: ``python -m weft.isa.manual docs/isa.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .config import PRESETS
from .examples import section
from .faults import FAULT_TEXT, FaultCode
from .formats import HEAD, UOP_FIELDS, Field, Layout, Slot, uop_layout
from .instructions import InstructionSet
from .memories import MEMORIES, QNT_LANE, MemoryType
from .nest_text import format_nest
from .operations import AluOpcode
from .ordering import DISPATCHED
from .registers import COUNTERS, REGISTERS

PRESET = "base"
"""Whose bit positions and meanings the tables show."""

INTRODUCTION = f"""\
# The instruction set

Made from the description in `isa/` by `python -m weft.isa.manual docs/isa.md`; bit positions and
meanings are those of the `{PRESET}` preset.

An instruction has 128 bits, two little-endian 64-bit words. Its fields stand in order from bit 0;
one that would cross bit 64 moves to bit 64. Widths that are not plain numbers follow from the
scratchpads' depths: *U*, *I*, *W*, *A* and *Q* are the bits of an index into uop, inp, wgt, acc and
qnt. The first formats are VTA's, bit for bit; those that name a switch are extensions, which a
configuration may leave out.

Every instruction begins with the opcode and four dependence flags. An engine executes its
instructions in order. It takes the tokens that the pop flags name before, and sends those that the
push flags name after. `prev` and `next` are the neighbours in the order load, compute, store; load
has no `prev`, store no `next`. FINISH completes when everything before it has.

The stream is dispatched in order, and at most {DISPATCHED} instructions wait at an engine. A token
from behind the instruction for which there is no room is never sent: waiting for it is a deadlock.
"""

MEMORY_NOTE = """\
## Memories

An element in DRAM is its lanes in row-major order, little-endian, lanes below 8 bits packed from
the low bits up. `dram_base` counts elements.
"""

NESTS = """\
## Operations

The meaning of an operation is a loop nest over scratchpads and DRAM (`dram.inp` is all of DRAM,
seen as input elements). Its parameters are the fields of the format. Loops marked `parallel` may
run in any order. An index beyond its scratchpad is a fault when, and only when, the meaning
accesses it. Arithmetic is two's complement at 32 bits, or 64 where an operand has 64, and wraps;
`//` and `%` round down; `select` evaluates only the branch that it takes.
"""


def manual() -> str:
    """The whole manual as Markdown."""
    parts = [
        INTRODUCTION,
        *_formats(),
        *_memories(),
        NESTS,
        *_operations(),
        section(),
        *_registers(),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _width(field: Field) -> str:
    """A width as a number or in the letters of the introduction."""
    if isinstance(field.width, int):
        return str(field.width)
    return _WIDTHS[field.width.__name__]


_WIDTHS = {
    "_uop": "U", "_uop_end": "U + 1", "_inp": "I", "_wgt": "W", "_acc": "A", "_qnt": "Q",
    "_src": "max(A, I)", "_inp_lane": "input lane",
}  # fmt: skip


def _bits(slot: Slot) -> str:
    return f"{slot.lsb + slot.width - 1}:{slot.lsb}" if slot.width > 1 else str(slot.lsb)


def _fields(fields: Sequence[Field], layout: Layout) -> str:
    slots = layout.by_name
    return _table(
        ("bits", "field", "width", "meaning"),
        (
            (
                _bits(slots[f.name]),
                f.name,
                _width(f) + (", signed" if f.signed else ""),
                f.doc,
            )
            for f in fields
        ),
    )


def _formats() -> Iterable[str]:
    config = PRESETS[PRESET]
    instructions = InstructionSet(config)
    yield "## Formats\n\nThe head of every instruction:\n"
    yield _fields(HEAD, next(iter(instructions.layouts.values())))
    for opcode, format in instructions.formats.items():
        switch = f" Extension: `{format.extension}`." if format.extension else ""
        yield f"### {format.name}, opcode {opcode}\n\n{_sentence(format.doc)}.{switch}\n"
        if format.fields:
            yield _fields(format.fields, instructions.layouts[opcode])
    yield "### Micro-op\n\n32 bits in the uop scratchpad.\n"
    yield _fields(UOP_FIELDS, uop_layout(config))


def _memories() -> Iterable[str]:
    config = PRESETS[PRESET]
    yield MEMORY_NOTE
    yield _table(
        ("memory_type", "name", "scratchpad", "engine", "lanes", "lane in DRAM", "bytes", "depth"),
        (
            (
                int(kind),
                memory.name,
                memory.scratchpad,
                memory.engine.value,
                " x ".join(map(str, memory.lanes(config))) or "1",
                memory.dram_dtype(config),
                memory.element_bytes(config),
                memory.depth(config),
            )
            for kind, memory in ((kind, MEMORIES[kind]) for kind in MemoryType)
        ),
    )
    yield "A lane of a qnt element has 16 bytes, one output channel's parameters:\n"
    yield _table(
        ("byte", "name", "type", "meaning"),
        (
            (
                r.offset,
                r.name,
                r.dtype,
                r.doc + (f"; extension `{r.extension}`" if r.extension else ""),
            )
            for r in QNT_LANE
        ),
    )


def _operations() -> Iterable[str]:
    instructions = InstructionSet(PRESETS[PRESET])
    for operation in instructions.operations.values():
        fixed = "".join(f", {name} {int(value)}" for name, value in operation.fixed.items())
        switch = f" Extension: `{operation.extension}`." if operation.extension else ""
        encoding = f"{operation.format.name}{fixed}; {operation.engine.value} engine.{switch}"
        yield f"### {operation.name}\n\n{_sentence(operation.summary)}. {encoding}\n"
        nest = instructions.meaning(operation.name)
        if nest.buffers:
            yield f"```\n{format_nest(nest)}```\n"
    yield "ALU opcodes: " + ", ".join(f"{int(o)} {o.name}" for o in AluOpcode) + ".\n"


def _registers() -> Iterable[str]:
    yield "## Registers\n\nAXI4-Lite, 32-bit accesses; a value of 8 bytes has its low half first.\n"
    yield _table(
        ("offset", "name", "bytes", "access", "meaning"),
        ((f"0x{r.offset:03x}", r.name, 4 * r.words, r.access, r.doc) for r in REGISTERS),
    )
    yield "## Counters\n\nThose marked with an engine divide its cycles among them.\n"
    yield _table(
        ("name", "engine", "unit", "meaning"),
        ((c.name, c.group if c.partition else "", c.unit, c.doc) for c in COUNTERS),
    )
    yield "## Faults\n"
    yield _table(
        ("code", "name", "meaning"),
        ((int(c), c.name, FAULT_TEXT.get(c, "none")) for c in FaultCode),
    )


def main(arguments: Sequence[str]) -> int:
    """Write the manual to the path given."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m weft.isa.manual FILE\n")
        return 2
    path = Path(arguments[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(manual())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
