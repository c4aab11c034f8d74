"""How much of ``hw/`` the simulations execute, unit by unit: ``python -m tests.coverage``.

The same programs every time, on every configuration of :data:`CONFIGS`: every fault that the
instruction set's tables admit; VTA's own programs and a network where they fit; random sessions
of legal and illegal programs, with errors of the bus and resets; tokens in long rows. A fast
memory and one that stalls take turns. Each program does what the golden model says. Exit code 1
if a configuration's lines are covered less than :data:`LEAST`, or if a line was not executed and
has no reason in :data:`weft.sim.unreached.REASONS`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, product

import numpy as np

from tests.networks import every_operator, random_inputs
from tests.shared import SHARED
from tests.sim import conformance
from tests.sim.illegal import CASES
from tests.sim.test_fault_tables import at_the_edge, forbidden_words, reserved_words
from weft.hw.fetch import REQUEST_BEATS_BITS
from weft.isa import PRESETS, AcceleratorConfig, FaultCode, Instruction, InstructionSet
from weft.isa.assembly import assemble
from weft.isa.formats import INSTRUCTION_BYTES
from weft.isa.registers import REGISTERS
from weft.runtime.jit import jit
from weft.runtime.network import Network
from weft.sim.coverage import Coverage, Share
from weft.sim.fuzz.campaign import counted_devices
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.executors import RtlExecutor
from weft.sim.fuzz.illegal import token_program
from weft.sim.fuzz.outcome import golden, on_device
from weft.sim.fuzz.program import DRAM_BYTES, STREAM, Program, program_of
from weft.sim.fuzz.session import play
from weft.sim.fuzz.sessions import random_session
from weft.sim.rtl import CLEAR, FAULT, LAUNCH, RtlDevice

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "vta": AcceleratorConfig(
        block=8, bus_bytes=8, uop_bytes=1 << 14, inp_bytes=1 << 14, wgt_bytes=1 << 14,
        acc_bytes=1 << 15, requantize=False, pad_value=False, overwrite=False,
    ),
    "batch": replace(TINY, batch=2, inp_width=4, wgt_width=4, bus_bytes=16, token_depth=2),
    "wide": replace(TINY, bus_bytes=32),
}  # fmt: skip
"""The smallest preset; VTA without extensions; two rows of nibbles; a bus of many elements."""
LEAST = 0.95
"""Of the lines of each configuration."""
SESSIONS, TOKENS = 24, 40
RELIEF = (
    "gemm | pop_prev\n" * 2 + "gemm | pop_next\n" * 2
    + "load.inp | pop_next\n" * 2 + "store.nop | pop_prev\n" * 2 + "finish\n"
)  # fmt: skip
"""Takes two tokens from every queue."""


def measured(config: AcceleratorConfig, sessions: int = SESSIONS) -> Coverage:
    """What all the programs execute of the RTL of a configuration."""
    coverage = Coverage(config)
    with ExitStack() as stack:
        devices = counted_devices(coverage, stack)
        for number in range(sessions):
            session = random_session(config, RandomChoices(f"coverage {number}"), 0)
            finding = play(session, ("golden", "rtl"), device=devices[number % 2 == 1])
            assert finding is None, str(finding)
        for device in devices.values():
            RtlExecutor(device, kept=True).reset()
        for program, device in product(_waiting(config), devices.values()):
            _play(program, device)
        for program, device in zip(_programs(config), cycle(devices.values()), strict=False):
            _play(program, device)
        for device in devices.values():
            _conformance(config, device)
            _commands(config, device)
    _long_stream(config, coverage)
    if config.requantize:
        _network(config, coverage)
    return coverage


def _play(program: Program, device: RtlDevice) -> None:
    """A program, of which the device says what the golden model does."""
    # Faults do not depend on data but micro-ops, so that scratchpads need not be zeroed.
    device.break_off(0, 0, 0)
    found = on_device(program, device, reset=False).fault
    assert found == golden(program).fault, (found, program)


def _waiting(config: AcceleratorConfig) -> Iterator[Program]:
    """What comes early waits for what takes long, in every queue that has room for much."""
    tokens = min(30, config.token_depth)
    load, store = "load.inp y_size=1 x_size=60", "store.out dram_base=0x3000 y_size=1 x_size=60"
    texts = [  # tokens are there long before they are wanted
        (
            "gemm | push_prev push_next\n" * tokens
            + f"{load} | pop_next\n" * tokens
            + f"{store} | pop_prev\n" * tokens
        )
        * (60 // tokens),
        ("gemm | push_next\n" * tokens + f"{store} | pop_prev\n" * tokens) * (120 // tokens),
    ]
    for name, depth in (("inp", config.inp_depth), ("acc", config.acc_depth)):
        # More beats than wait while padding is written, and more boxes than wait in the reader.
        box, rows = f"load.{name} y_size=1 x_size=60", min(14, depth // 60 - 1)
        padded = f"{box} y_pad_0={rows // 2} y_pad_1={rows - rows // 2}\n"
        texts.append(padded * 20 + f"{box}\n" * 280)
        # Rows that follow one another in DRAM, which are merged; columns of padding alone.
        texts.append(f"load.{name} y_size=30 x_size=2 x_stride=2\nload.{name} x_pad_1=1\n" * 20)
    if config.keeping:  # two engines write inp
        texts.append(f"{load} sram_base=100\nstorex.inp dram_base=8 y_size=1 x_size=60\n" * 40)
    for text in texts:
        yield program_of(config, assemble(f"{text}finish", config))


def _programs(config: AcceleratorConfig) -> Iterator[Program]:
    """The faults of the tables, padding alone, and tokens; last what leaves micro-ops."""
    instructions = InstructionSet(config)
    finish = instructions.encode(Instruction("finish"))
    for case in CASES.values():
        if case.config == config:
            yield case.program
    yield program_of(config, [finish], bad=(STREAM, STREAM + 1))
    for pads in ("y_pad_1=2", "y_pad_0=1 y_pad_1=1", ""):  # no rows but those of padding
        boxes = f"load.inp x_size=1 {pads}\nload.acc x_size=1 {pads}\nfinish"
        yield program_of(config, assemble(boxes, config))
    for flagged in ("load.inp | push_next", "gemm | push_prev push_next", "store.nop | push_prev"):
        full = f"{flagged}\n" * (config.token_depth + 2)
        yield program_of(config, assemble(full, config))
        yield program_of(config, assemble(full + RELIEF, config))
    for seed in range(TOKENS):
        yield token_program(config, RandomChoices(f"coverage {seed}"))
    words = [*reserved_words(config), *(word for _, _, word in forbidden_words(config))]
    for operation in sorted(instructions.operations.values(), key=lambda o: o.name.endswith("uop")):
        edges = at_the_edge(config, operation, instructions)
        words += [instructions.encode(edge) for edge in edges]
    for word in dict.fromkeys(words):
        yield program_of(config, [word, finish])


def _conformance(config: AcceleratorConfig, device: RtlDevice) -> None:
    """VTA's programs for this configuration, if they are at hand."""
    for index in range(conformance.COUNT if SHARED else 0):
        program = conformance.program(index)
        if program.config == config and program.address + 16 * program.count <= DRAM_BYTES:
            device.break_off(0, 0, 0)
            device.write(0, np.zeros(DRAM_BYTES, np.uint8))
            device.write(conformance.IMAGE_ADDRESS, program.before)
            device.run(program.address, program.count)
            after = device.read(conformance.IMAGE_ADDRESS, program.after.size)
            assert np.array_equal(after, program.after), program.name


def _commands(config: AcceleratorConfig, device: RtlDevice) -> None:
    """What no program needs of the registers: all are read and written; launches come at the
    wrong time, while a program runs and after a fault."""
    program = program_of(config, assemble("gemm\n" * 40, config))  # without FINISH
    device.break_off(0, 0, 0)
    for value in (0xFFFF_FFFF, 0):
        for register in REGISTERS:
            for word in range(register.words):
                offset = register.offset + 4 * word
                if register.access == "read-write":
                    device._driver.write_register(offset, value)
                found = device._driver.read_register(offset)
                assert found == value or register.access != "read-write", register.name
    device.write(0, program.image)
    for control in (LAUNCH, CLEAR | LAUNCH):
        device._launch(program.address, program.count)
        device._write("CONTROL", LAUNCH)
        device._driver.run(5000)
        device._write("CONTROL", control)
        assert device._read("STATUS") == FAULT
        assert device._read("FAULT") == FaultCode.NO_FINISH
        device.break_off(0, 0, 0)


def _long_stream(config: AcceleratorConfig, coverage: Coverage) -> None:
    """A program that fetch does not request at once."""
    count = (config.bus_bytes << REQUEST_BEATS_BITS) // INSTRUCTION_BYTES + 2
    words = [Instruction("load.inp")] * (count - 1) + [Instruction("finish")]
    instructions = InstructionSet(config)
    stream = b"".join(instructions.encode(w).to_bytes(INSTRUCTION_BYTES, "little") for w in words)
    with RtlDevice(config, dram_bytes=1 << 22, dram_latency=1, coverage=coverage) as device:
        device.write(0, stream)
        assert device.run(0, count).counters["instructions"] == count


def _network(config: AcceleratorConfig, coverage: Coverage) -> None:
    """A network with every operator, bit for bit what the host makes of it."""
    graph = every_operator()
    network = Network(graph.name, graph, f"sha of {graph.name}")
    (inputs,) = random_inputs(graph).values()
    results = []
    for on, options in (("rtl", {"coverage": coverage, "dram_bytes": 1 << 24}), ("cpu", {})):
        with jit(network, config, on, **options) as run:
            results.append(run(inputs))
    assert np.array_equal(*results)


def problems(coverages: Mapping[str, Coverage]) -> list[str]:
    """What is wrong with the coverage; empty if nothing is."""
    found: list[str] = []
    for name, coverage in coverages.items():
        share = coverage.shares()[""]
        if not share.lines or share.of_lines < LEAST:
            found.append(f"{name}: {share.of_lines:.2%} of {share.lines} lines, not {LEAST:.0%}")
        found += [f"{name}: no reason for {line}" for line in coverage.missed() if not line.reason]
    return found


def table(coverages: Mapping[str, Coverage]) -> str:
    """Lines and bits of every unit, over all configurations, as Markdown."""
    units: dict[str, Share] = {}
    for coverage in coverages.values():
        for unit, share in coverage.shares().items():
            units.setdefault(unit, Share()).add(share)
    rows = [(unit or "**all**", share) for unit, share in sorted(units.items())]
    rows += [(f"*{name}*", coverage.shares()[""]) for name, coverage in coverages.items()]
    text = "| unit | lines | | bits that changed | |\n| --- | --- | --- | --- | --- |\n"
    for name, share in rows:
        text += f"| {name} | {share.covered_lines} / {share.lines} | {share.of_lines:.1%} "
        text += f"| {share.covered_bits} / {share.bits} | {share.of_bits:.1%} |\n"
    return text


def missed_table(coverages: Mapping[str, Coverage]) -> str:
    """The lines that were not executed, by place and reason, as Markdown."""
    lines: Counter[tuple[str, str, str]] = Counter()
    for coverage in coverages.values():
        lines.update((m.unit, m.source, m.reason or "**none**") for m in coverage.missed())
    text = "| unit | source | lines | why it is not executed |\n| --- | --- | --- | --- |\n"
    for (unit, source, why), count in sorted(lines.items()):
        text += f"| {unit} | {source} | {count} | {why} |\n"
    return text


def main(arguments: Sequence[str]) -> int:
    """Measure, print both tables, say what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage")
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=f"of {', '.join(CONFIGS)}")
    names = parser.parse_args(arguments).configs or list(CONFIGS)
    if unknown := set(names) - set(CONFIGS):
        parser.error(f"no configuration {min(unknown)!r}; there are {', '.join(CONFIGS)}")
    coverages: dict[str, Coverage] = {}
    for name in names:
        sys.stderr.write(f"{name} ...\n")
        coverages[name] = measured(CONFIGS[name])
    print(f"{table(coverages)}\n{missed_table(coverages)}")
    wrong = problems(coverages)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
