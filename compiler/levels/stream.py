"""The level ``stream``: instructions, constants, and where everything lies in DRAM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ...isa.assembly import assemble, disassemble
from ...isa.config import AcceleratorConfig
from ...isa.errors import ModelError, ProgramError
from ...isa.instructions import InstructionSet
from ..allocate import DRAM_LIMIT, Constants
from ..artifact import (
    AcceleratorStep,
    CompiledModel,
    DramTensor,
    HostStep,
    Program,
    Segment,
    Step,
    Unfold,
)
from ..module import Module
from ..text_line import Line
from .arrays import array_lines
from .document import HEADING, Fields, Section, field_lines, quoted, search_of, shifted
from .nests import arrays_of, check_owners

BYTES = "bytes"
"""The array of a segment."""
PAIRS = ("origin", "steps", "patch", "dilations", "extents")


def stream_lines(module: Module) -> Iterator[str]:
    """Sections of tensors, steps, programs and other constants."""
    model = module.model
    yield f"{HEADING}dram"
    yield from field_lines({"bytes": model.dram_bytes})
    for tensor in model.tensors.values():
        yield f"{HEADING}tensor {quoted(tensor.name)}"
        fields: dict[str, Any] = {"address": tensor.address, "shape": list(tensor.shape)}
        fields["fill"] = tensor.fill
        if tensor.unfold is not None:
            fields["unfold"] = asdict(tensor.unfold)
        yield from field_lines(fields)
    for step in model.steps:
        yield from _step_lines(step)
    programs = {steps[0].program.name: steps for steps in model.programs}
    for segment in model.segments:
        steps = programs.get(segment.name)
        if steps is None:
            yield f"{HEADING}segment {quoted(segment.name)}"
            yield from field_lines({"address": segment.address})
        else:
            yield from _program_lines(model, steps)
    for segment in model.segments:
        if segment.name not in programs:
            yield from array_lines(segment.name, BYTES, segment.data)


def _step_lines(step: Step) -> Iterator[str]:
    on_host = isinstance(step, HostStep)
    yield f"{HEADING}{'host' if on_host else 'layer'} {quoted(step.name)}"
    fields: dict[str, Any] = {"op": step.op, "nodes": step.nodes}
    fields |= {"inputs": step.inputs, "outputs": step.outputs, "macs": step.macs}
    if isinstance(step, HostStep):
        fields["reason"] = step.reason
    else:
        fields |= {
            "needed_macs": step.needed_macs,
            "compulsory_bytes": step.compulsory_bytes,
            "fused_bytes": step.fused_bytes,
            "choices": dict(step.choices),
            "program": step.program.name,
        }
        if step.search is not None:
            fields["search"] = asdict(step.search)
    yield from field_lines(fields)


def _program_lines(model: CompiledModel, steps: Sequence[AcceleratorStep]) -> Iterator[str]:
    """The instructions; those of a layer stand below its name."""
    program = steps[0].program
    yield f"{HEADING}program {quoted(program.name)}"
    yield from field_lines({"address": program.address})
    instructions = InstructionSet(model.config)
    words = [instructions.encode(i) for i in program.instructions]
    last = None
    lines = disassemble(words, model.config).splitlines()
    for owner, line in zip(program.owners, lines, strict=True):
        if owner != last:
            yield f"of {quoted(steps[owner].name)}"
        last = owner
        yield line


# --- reading -------------------------------------------------------------------------------------


def parse_stream(module: Module, sections: Sequence[Section]) -> Module:
    """``module`` with what stands in ``sections``.

    That names, addresses and the order of steps fit together is for whoever executes it to check,
    as for any package.

    Raises
    ------
    ModelError
        With the line.
    """
    data = {
        owner: arrays[BYTES] for owner, arrays in arrays_of(sections).items() if BYTES in arrays
    }
    layers: dict[str, list[str]] = {}
    tensors: dict[str, DramTensor] = {}
    segments: list[Segment] = []
    programs: dict[str, Program] = {}
    steps: list[tuple[Section, str]] = []
    end = 0
    for section in sections:
        if section.kind == "array":
            continue
        if section.kind == "dram":
            end = _dram(section)
            continue
        name = section.heading.name()
        section.heading.expect("")
        match section.kind:
            case "tensor":
                if name in tensors:
                    section.fail(f"tensor {name!r} is given twice")
                tensors[name] = _tensor(section, name)
            case "segment":
                segments.append(_segment(section, name, data.pop(name, None)))
            case "program":
                if name in programs:
                    section.fail(f"program {name!r} is given twice")
                programs[name] = _program(section, name, layers.get(name, []), module.config)
                segments.append(_words(programs[name], module.config))
            case "host":
                steps.append((section, name))
            case "layer":
                steps.append((section, name))
                own = _program_of(section)
                layers.setdefault(own, []).append(name)
            case kind:
                section.fail(
                    f"expected dram, tensor, layer, host, segment, program or array, not {kind!r}"
                )
    check_owners(data, sections)
    made = tuple(_step(section, name, programs, layers) for section, name in steps)
    return replace(
        module, level="stream", steps=made, tensors=tensors, constants=Constants(end, segments)
    )


def _dram(section: Section) -> int:
    fields = Fields(section.lines, section.number)
    size = fields.integer("bytes", least=0, most=DRAM_LIMIT)
    fields.end("bytes")
    return size


def _address(fields: Fields) -> int:
    return fields.integer("address", least=0, most=DRAM_LIMIT)


def _tensor(section: Section, name: str) -> DramTensor:
    fields = Fields(section.lines, section.number)
    address, fill = _address(fields), fields.integer("fill")
    n, h, w, c = fields.integers("shape", 4, least=1)
    unfold = None
    if fields.has("unfold"):
        own = Fields.of(fields.mapping("unfold"), fields.number)
        pairs = [own.integers(key, 2) for key in PAIRS]
        unfold = Unfold(*pairs, own.truth("flat"))  # type: ignore[arg-type]  # two each
        own.end(*PAIRS, "flat")
    fields.end("address", "shape", "fill", "unfold")
    return DramTensor(name, address, (n, h, w, c), fill, unfold)


def _segment(section: Section, name: str, data: np.ndarray | None) -> Segment:
    fields = Fields(section.lines, section.number)
    address = _address(fields)
    fields.end("address")
    if data is None or data.dtype != np.uint8 or data.ndim != 1:
        section.fail(f"expected an array of bytes of segment {name!r}")
    return Segment(name, address, data)


def _program_of(section: Section) -> str:
    return Fields(section.lines, section.number).text("program")


def _program(
    section: Section, name: str, layers: Sequence[str], config: AcceleratorConfig
) -> Program:
    """Its instructions, assembled line by line."""
    fields, code = [], list[tuple[int, str]]()
    for number, text in section.lines:
        (fields if text.startswith("address ") else code).append((number, text))
    head = Fields(fields, section.number)
    address = _address(head)
    owner, owners, words = None, list[int](), list[int]()
    for number, text in code:
        if text.startswith("of "):
            line = Line(number, text.removeprefix("of "))
            layer = line.name()
            line.expect("")
            if layer not in layers:
                line.fail(f"program {name!r} has no layer {layer!r}")
            owner = layers.index(layer)
            continue
        try:
            made = assemble(text, config)
        except ProgramError as error:
            raise shifted(error, number - 1) from None
        if made and owner is None:
            raise ModelError(f"line {number}: expected 'of' and a layer before its instructions")
        words += made
        owners += [owner or 0] * len(made)
    instructions = InstructionSet(config)
    try:
        decoded = tuple(instructions.decode(word) for word in words)
    except ProgramError as error:
        section.fail(str(error))
    return Program(name, address, decoded, tuple(owners))


def _words(program: Program, config: AcceleratorConfig) -> Segment:
    words = InstructionSet(config).encode_all(program.instructions)
    return Segment(program.name, program.address, np.frombuffer(words, np.uint8))


def _step(
    section: Section,
    name: str,
    programs: Mapping[str, Program],
    layers: Mapping[str, Sequence[str]],
) -> Step:
    fields = Fields(section.lines, section.number)
    op, nodes = fields.text("op"), fields.texts("nodes")
    inputs, outputs = fields.texts("inputs"), fields.texts("outputs")
    macs = fields.integer("macs", least=0)
    if section.kind == "host":
        reason = fields.text("reason")
        fields.end("op", "nodes", "inputs", "outputs", "macs", "reason")
        return HostStep(name, op, nodes, inputs, outputs, reason, macs)
    own = fields.text("program")
    if own not in programs:
        section.fail(f"there is no program {own!r}")
    choices = fields.mapping("choices")
    for key, value in choices.items():
        if isinstance(value, bool) or not isinstance(value, int | str):
            section.fail(f"choice {key!r} is {value!r:.40}")
    search = search_of(section, fields)
    needed, least = fields.integer("needed_macs", 0), fields.integer("compulsory_bytes", 0)
    fused = fields.integer("fused_bytes", 0)
    fields.end(
        "op", "nodes", "inputs", "outputs", "macs", "needed_macs", "compulsory_bytes",
        "fused_bytes", "choices", "program", "search",
    )  # fmt: skip
    return AcceleratorStep(
        name, op, nodes, inputs, outputs, programs[own], layers[own].index(name), macs, needed,
        least, fused, choices, search,
    )  # fmt: skip
