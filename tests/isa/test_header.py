"""The C header against the encoder, by a C compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from weft.isa import PRESETS, AcceleratorConfig, Instruction, InstructionSet, spec_hash
from weft.isa.formats import uop_layout
from weft.isa.header import c_header
from weft.isa.operations import params_of
from weft.isa.registers import REGISTERS

CC = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")

SMALL_UOP = AcceleratorConfig(uop_bytes=1024, requantize=False)


def run_c(source: str, config: AcceleratorConfig, tmp_path: Path) -> list[str]:
    (tmp_path / "weft_isa.h").write_text(c_header(config))
    (tmp_path / "main.c").write_text(f'#include "weft_isa.h"\n#include <stdio.h>\n{source}')
    command = [
        str(CC),
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-o",
        "main",
        "main.c",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    return subprocess.run(
        [tmp_path / "main"], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def macro(*parts: str) -> str:
    return "_".join(parts).upper().replace(".", "_")


@needs_cc
@pytest.mark.parametrize("config", [*PRESETS.values(), SMALL_UOP], ids=[*PRESETS, "small_uop"])
def test_c_encodes_every_operation_as_python_does(config: AcceleratorConfig, tmp_path: Path):
    s = InstructionSet(config)
    body, wanted = [], []
    for number, operation in enumerate(s.operations.values()):
        slots = s.layouts[operation.format.opcode].by_name
        operands = {
            name: slots[name].greatest - (number + 3 * i) % 7 % (slots[name].greatest + 1)
            for i, name in enumerate(params_of(operation.format, config))
        }
        operands = {n: -5 if slots[n].signed else v for n, v in operands.items()}
        name = operation.format.name
        body.append(f"{{ weft_instruction i = WEFT_{macro('op', operation.name)};")
        body += [f"WEFT_PUT(&i, {macro(name, n)}, {v}LL);" for n, v in operands.items()]
        body.append(f"WEFT_PUT(&i, {name}_PUSH_NEXT, 1);")
        body.append('printf("%016llx%016llx", (unsigned long long)i.word[1],')
        body.append("(unsigned long long)i.word[0]);")
        first = next(iter(operands), "pop_prev")
        body.append(f'printf(" %lld\\n", (long long)WEFT_GET(&i, {macro(name, first)})); }}')
        word = s.encode(Instruction(operation.name, operands, push_next=True))
        wanted.append(f"{word:032x} {operands.get(first, 0)}")
    source = "int main(void) {\n" + "\n".join(body) + "\nreturn 0; }\n"
    assert run_c(source, config, tmp_path) == wanted


@needs_cc
def test_c_sees_registers_sizes_and_micro_ops(tmp_path: Path):
    config = PRESETS["base"]
    names = ["BLOCK", "WGT_ELEMENT_BYTES", "QNT_DEPTH", "FAULT_DEADLOCK", "ALU_REQUANTIZE"]
    names += [f"REG_{r.name}" for r in REGISTERS]
    body = "".join(f'printf("%d\\n", (int)WEFT_{name});' for name in names)
    body += 'printf("%u\\n", (unsigned)WEFT_UOP(5, 6, 7));'
    body += 'printf("%016llx\\n", (unsigned long long)WEFT_SPEC_HASH);'
    lines = run_c(f"int main(void) {{ {body} return 0; }}\n", config, tmp_path)
    wanted = [16, 256, config.qnt_depth, 7, 6, *(r.offset for r in REGISTERS)]
    wanted.append(uop_layout(config).encode({"dst": 5, "src": 6, "wgt": 7}))
    assert lines == [*map(str, wanted), spec_hash(config)]
