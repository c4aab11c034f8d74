"""The instruction set as a C header, for drivers and hand-written programs.

Positions of fields, words of operations, registers and codes are macros; two inline functions
put a field into an instruction and take it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields

from .config import AcceleratorConfig
from .faults import FaultCode
from .formats import WORD_BITS, uop_layout
from .instructions import InstructionSet
from .memories import MEMORIES, QNT_LANE, MemoryType
from .operations import AluOpcode
from .registers import IDENTITY, REGISTERS, VERSION
from .spec import spec_hash

ACCESS = """\
/* An instruction: two 64-bit words, the low one first, little-endian in memory. */
typedef struct { uint64_t word[2]; } weft_instruction;

/* Puts the low bits of a value into a field. */
static inline void weft_put(weft_instruction *i, unsigned lsb, unsigned width, int64_t value) {
  uint64_t mask = (width < 64 ? (UINT64_C(1) << width) : 0) - 1;
  uint64_t *word = &i->word[lsb / 64];
  *word = (*word & ~(mask << lsb % 64)) | (((uint64_t)value & mask) << lsb % 64);
}

/* A field, zero-extended. */
static inline uint64_t weft_get(const weft_instruction *i, unsigned lsb, unsigned width) {
  uint64_t mask = (width < 64 ? (UINT64_C(1) << width) : 0) - 1;
  return i->word[lsb / 64] >> lsb % 64 & mask;
}

/* WEFT_PUT(&i, LOAD_X_SIZE, 14) and WEFT_GET(&i, LOAD_X_SIZE) */
#define WEFT_PUT(i, field, value) weft_put(i, WEFT_##field##_LSB, WEFT_##field##_WIDTH, value)
#define WEFT_GET(i, field) weft_get(i, WEFT_##field##_LSB, WEFT_##field##_WIDTH)

/* The 32 bits of a micro-op. */
#define WEFT_UOP(dst, src, wgt) \\
  ((uint32_t)(dst) << WEFT_UOP_DST_LSB | (uint32_t)(src) << WEFT_UOP_SRC_LSB \\
   | (uint32_t)(wgt) << WEFT_UOP_WGT_LSB)
"""


def c_header(config: AcceleratorConfig) -> str:
    """The header of a configuration: C99, no dependencies but ``stdint.h``."""
    sections = (
        ("Configuration", _configuration(config)),
        ("Fields: position and width", _fields(config)),
        ("Operations: a word with the fields set that select them", _operations(config)),
        ("Memories", _memories(config)),
        ("ALU opcodes", [_define(f"ALU_{o.name}", int(o)) for o in AluOpcode]),
        ("Registers: byte offsets", _registers()),
        ("Fault codes", [_define(f"FAULT_{c.name}", int(c)) for c in FaultCode]),
    )
    text = [
        "/* Weft's instruction set; made from its description, do not edit. */",
        "#ifndef WEFT_ISA_H",
        "#define WEFT_ISA_H",
        "",
        "#include <stdint.h>",
    ]
    for title, lines in sections:
        text += ["", f"/* {title} */", *lines]
    return "\n".join([*text, "", ACCESS, "#endif", ""])


def _define(name: str, value: int | str) -> str:
    return f"#define WEFT_{re.sub(r'[^A-Z0-9]', '_', name.upper())} {value}"


def _configuration(config: AcceleratorConfig) -> Iterable[str]:
    yield _define("SPEC_HASH", f"UINT64_C(0x{spec_hash(config)})")
    for field in fields(config):
        yield _define(field.name, int(getattr(config, field.name)))


def _fields(config: AcceleratorConfig) -> Iterable[str]:
    layouts = [*InstructionSet(config).layouts.values(), uop_layout(config)]
    for layout in layouts:
        for slot in layout.slots:
            yield _define(f"{layout.name}_{slot.name}_LSB", slot.lsb)
            yield _define(f"{layout.name}_{slot.name}_WIDTH", slot.width)


def _operations(config: AcceleratorConfig) -> Iterable[str]:
    instructions = InstructionSet(config)
    for operation in instructions.operations.values():
        opcode = operation.format.opcode
        word = instructions.layouts[opcode].encode({**operation.fixed, "opcode": opcode})
        low, high = word & (1 << WORD_BITS) - 1, word >> WORD_BITS
        words = f"{{{{UINT64_C({low:#x}), UINT64_C({high:#x})}}}}"
        yield _define(f"OP_{operation.name}", words)


def _memories(config: AcceleratorConfig) -> Iterable[str]:
    for kind in MemoryType:
        memory = MEMORIES[kind]
        yield _define(f"MEMORY_{kind.name}", int(kind))
        yield _define(f"{kind.name}_ELEMENT_BYTES", memory.element_bytes(config))
        yield _define(f"{kind.name}_DEPTH", memory.depth(config))
    for record in QNT_LANE:
        yield _define(f"QNT_{record.name}_OFFSET", record.offset)


def _registers() -> Iterable[str]:
    yield _define("ID_VALUE", f"{IDENTITY:#x}")
    yield _define("VERSION_VALUE", VERSION)
    for register in REGISTERS:
        yield _define(f"REG_{register.name}", f"{register.offset:#05x}")
