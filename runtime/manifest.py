"""A compiled network but for its bytes as plain data for JSON, and back with every check.

What comes back from a file may have been written by anybody: :func:`model_of` looks at the type
and range of every field, and that names, addresses and the order of steps fit together, so that
the executor need not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from functools import cached_property
from typing import Any, overload

import numpy as np

from ..compiler import layout
from ..compiler.artifact import (
    AcceleratorStep,
    CompiledModel,
    DramTensor,
    HostStep,
    Program,
    Search,
    Segment,
    Step,
    Unfold,
)
from ..compiler.graph import Graph
from ..isa.config import AcceleratorConfig
from ..isa.errors import PackageError
from ..isa.formats import INSTRUCTION_BYTES
from ..isa.instructions import Instruction, InstructionSet

DRAM_BYTES_LIMIT = 1 << 32
"""What 32 address bits reach."""
MACS_LIMIT = 1 << 62
UNFOLD_LIMIT = 1 << 24
"""No distance or extent of an unfolded tensor reaches it."""


def records_of(model: CompiledModel) -> dict[str, Any]:
    """Everything of ``model`` but its graph, its configuration and its segments' bytes."""
    programs = [steps[0].program for steps in model.programs]
    return {
        "dram_bytes": model.dram_bytes,
        "programs": [[p.name, p.address, p.count, list(p.owners)] for p in programs],
        "steps": _step_records(model),
        "tensors": [
            [t.name, t.address, list(t.shape), t.fill, _unfold_record(t.unfold)]
            for t in model.tensors.values()
        ],
        "segments": [[s.name, s.address, s.data.nbytes] for s in model.segments],
    }


def model_of(
    records: Mapping[str, Any],
    graph: Graph,
    config: AcceleratorConfig,
    blob: np.ndarray,
    own: bool = False,
) -> CompiledModel:
    """The model that :func:`records_of` described.

    Parameters
    ----------
    records : mapping
        What JSON holds; nothing about it is trusted.
    graph : Graph
        Verified.
    config : AcceleratorConfig
        Checked against the spec hash.
    blob : ndarray
        The segments' bytes, ``uint8``, one after another.
    own : bool
        Whether this Weft has written it, so that its instructions are legal.

    Raises
    ------
    PackageError
        In one line: which record, what was expected, what is there.
    """
    dram_bytes = _integer(records, "dram_bytes", "the manifest", most=DRAM_BYTES_LIMIT)
    segments = _segments(records, blob, dram_bytes)
    tensors = _tensors(records, graph, config, dram_bytes)
    by_address = {segment.address: segment for segment in segments}
    programs = _programs(records, by_address, InstructionSet(config), own)
    steps = tuple(
        _step(record, i, programs)
        for i, record in enumerate(_list(records, "steps", "the manifest"))
    )
    _check_programs(steps, programs)
    model = CompiledModel(graph, config, steps, tensors, segments, dram_bytes)
    _check_flow(model)
    return model


def check_model(model: CompiledModel) -> None:
    """Return if everything in ``model``, which somebody may have written, fits together.

    Raises
    ------
    PackageError
        As :func:`model_of`.
    """
    blob = np.concatenate([np.zeros(0, np.uint8), *(s.data for s in model.segments)])
    records = json.loads(json.dumps(records_of(model)))
    model_of(records, model.graph, model.config, blob)


def _step_records(model: CompiledModel) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    program = -1
    for step in model.steps:
        if isinstance(step, AcceleratorStep):
            program += step.layer == 0
        records.append(_step_record(step, program))
    return records


def _step_record(step: Step, program: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": step.name,
        "op": step.op,
        "nodes": step.nodes,
        "inputs": step.inputs,
        "outputs": step.outputs,
        "macs": step.macs,
    }
    if isinstance(step, HostStep):
        return record | {"reason": step.reason}
    return (
        record
        | {
            "program": program,
            "layer": step.layer,
            "needed_macs": step.needed_macs,
            "compulsory_bytes": step.compulsory_bytes,
            "fused_bytes": step.fused_bytes,
            "choices": dict(step.choices),
        }
        | ({} if step.search is None else {"search": asdict(step.search)})
    )


def _programs(
    records: Mapping[str, Any],
    segments: Mapping[int, Segment],
    instructions: InstructionSet,
    own: bool,
) -> list[Program]:
    programs: list[Program] = []
    for row in _rows(records, "programs", ("name", "address", "count", "owners")):
        name = _text(row, "name", "a program")
        where = f"program {name!r}"
        address, count = _integer(row, "address", where), _integer(row, "count", where)
        size = count * INSTRUCTION_BYTES
        segment = segments.get(address)
        if segment is None or segment.data.nbytes < size:
            raise PackageError(
                f"{where}: no segment at {address:#x} holds its {count} instructions"
            )
        owners = _list(row, "owners", where)
        if len(owners) != count or not all(type(o) is int and o >= 0 for o in owners):
            raise PackageError(f"{where}: owners must be {count} numbers of layers")
        decoded: Sequence[Instruction] = _Decoded(segment.data[:size].tobytes(), instructions)
        if not own:
            decoded = tuple(decoded)
        programs.append(Program(name, address, decoded, tuple(owners)))
    return programs


class _Decoded(Sequence[Instruction]):
    """Instructions that are decoded when somebody looks at them."""

    def __init__(self, words: bytes, instructions: InstructionSet):
        self._words, self._instructions = words, instructions

    @cached_property
    def _all(self) -> tuple[Instruction, ...]:
        size = INSTRUCTION_BYTES
        words = (self._words[i : i + size] for i in range(0, len(self._words), size))
        return tuple(self._instructions.decode(int.from_bytes(word, "little")) for word in words)

    def __len__(self) -> int:
        return len(self._words) // INSTRUCTION_BYTES

    @overload
    def __getitem__(self, index: int) -> Instruction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Instruction]: ...
    def __getitem__(self, index: int | slice) -> Instruction | Sequence[Instruction]:
        return self._all[index]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == tuple(other)

    def __hash__(self) -> int:
        return hash(self._words)


def _check_programs(steps: Sequence[Step], programs: Sequence[Program]) -> None:
    """Every program is that of neighbouring steps, which are its layers from 0 on."""
    expected: AcceleratorStep | None = None
    seen: list[Program] = []
    for step in steps:
        if isinstance(step, HostStep):
            expected = None
            continue
        if step.layer == 0:
            seen.append(step.program)
        elif expected is None or not (
            step.program is expected.program and step.layer == expected.layer + 1
        ):
            raise PackageError(f"step {step.name!r}: layer {step.layer} follows no other one")
        expected = step
    if len(seen) != len(programs) or any(a is not b for a, b in zip(seen, programs, strict=True)):
        raise PackageError("the programs are not those of the steps, in order")
    for program in programs:
        layers = sum(isinstance(s, AcceleratorStep) and s.program is program for s in steps)
        if max(program.owners, default=0) >= layers:
            raise PackageError(
                f"program {program.name!r}: an owner that is none of its {layers} layers"
            )


def _step(record: Any, position: int, programs: Sequence[Program]) -> Step:
    where = f"step {position}"
    if not isinstance(record, dict):
        raise PackageError(f"{where}: a mapping is expected, not {record!r:.60}")
    name, op = _text(record, "name", where), _text(record, "op", where)
    where = f"step {name!r}"
    nodes, inputs, outputs = (_texts(record, key, where) for key in ("nodes", "inputs", "outputs"))
    macs = _integer(record, "macs", where, most=MACS_LIMIT)
    if "reason" in record:
        return HostStep(name, op, nodes, inputs, outputs, _text(record, "reason", where), macs)
    program = _integer(record, "program", where)
    if program >= len(programs):
        raise PackageError(f"{where}: there is no program {program}")
    choices = _choices(record.get("choices"), where)
    return AcceleratorStep(
        name,
        op,
        nodes,
        inputs,
        outputs,
        programs[program],
        _integer(record, "layer", where),
        macs,
        _integer(record, "needed_macs", where, most=MACS_LIMIT),
        _integer(record, "compulsory_bytes", where, most=MACS_LIMIT),
        _integer(record, "fused_bytes", where, most=MACS_LIMIT),
        choices,
        _search(record.get("search"), where),
    )


def _choices(record: Any, where: str) -> dict[str, str | int]:
    if not isinstance(record, dict) or not all(isinstance(v, str | int) for v in record.values()):
        raise PackageError(f"{where}: choices must map texts to texts or integers")
    return record


def _search(record: Any, where: str) -> Search | None:
    try:
        return None if record is None else Search.of(record)
    except ValueError as error:
        raise PackageError(f"{where}: {error}") from None


def _segments(records: Mapping[str, Any], blob: np.ndarray, dram_bytes: int) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    at = 0
    for row in _rows(records, "segments", ("name", "address", "bytes")):
        name = _text(row, "name", "a segment")
        where = f"segment {name!r}"
        address, size = _integer(row, "address", where), _integer(row, "bytes", where)
        if at + size > len(blob):
            raise PackageError(f"{where}: it has {size} bytes, {len(blob) - at} are left")
        if address + size > dram_bytes:
            raise PackageError(
                f"{where}: it ends at {address + size:#x}, beyond DRAM of {dram_bytes:#x} bytes"
            )
        segments.append(Segment(name, address, blob[at : at + size]))
        at += size
    if at != len(blob):
        raise PackageError(f"the segments have {at} bytes, the package holds {len(blob)}")
    return tuple(segments)


def _tensors(
    records: Mapping[str, Any], graph: Graph, config: AcceleratorConfig, dram_bytes: int
) -> dict[str, DramTensor]:
    tensors: dict[str, DramTensor] = {}
    for row in _rows(records, "tensors", ("name", "address", "shape", "fill", "unfold")):
        name = _text(row, "name", "a tensor")
        where = f"tensor {name!r}"
        if name not in graph.tensors or name in tensors:
            raise PackageError(f"{where}: the graph has none of that name, or it stands twice")
        if graph.tensors[name].dtype.bits != 8:
            raise PackageError(f"{where}: it is {graph.tensors[name].dtype}, not of a byte a lane")
        shape = row["shape"]
        if (
            not isinstance(shape, list)
            or len(shape) != 4
            or not all(isinstance(extent, int) and extent > 0 for extent in shape)
            or math.prod(shape) != math.prod(graph.tensors[name].shape)
        ):
            raise PackageError(
                f"{where}: shape {shape!r:.60} does not hold {list(graph.tensors[name].shape)}"
            )
        address = _integer(row, "address", where)
        fill = _integer(row, "fill", where, least=-(1 << 31), most=(1 << 31) - 1)
        n, h, w, c = shape
        tensor = DramTensor(name, address, (n, h, w, c), fill, _unfold(row, where))
        if address + layout.packed_bytes(tensor, config) > dram_bytes:
            raise PackageError(f"{where}: it ends beyond DRAM of {dram_bytes:#x} bytes")
        tensors[name] = tensor
    return tensors


def _unfold_record(unfold: Unfold | None) -> list[int] | None:
    if unfold is None:
        return None
    *pairs, flat = astuple(unfold)
    return [*(n for pair in pairs for n in pair), int(flat)]


def _unfold(row: Mapping[str, Any], where: str) -> Unfold | None:
    """Eleven integers: origin, steps, patch, dilations, extents, two each, and 1 if it is flat."""
    numbers = row["unfold"]
    if numbers is None:
        return None
    if (
        not isinstance(numbers, list)
        or len(numbers) != 2 * (len(fields(Unfold)) - 1) + 1
        or not all(isinstance(n, int) and abs(n) < UNFOLD_LIMIT for n in numbers)
        or not all(n > 0 for n in numbers[2:-1])
        or numbers[-1] not in (0, 1)
    ):
        raise PackageError(f"{where}: unfold {numbers!r:.60} is no origin, steps and extents")
    pairs = zip(numbers[:-1:2], numbers[1::2], strict=True)
    return Unfold(*pairs, flat=bool(numbers[-1]))


def _check_flow(model: CompiledModel) -> None:
    """Every step runs nodes that exist, on tensors that are there by then."""
    graph = model.graph
    nodes = {node.name: node for node in graph.nodes}
    available = {t.name for t in graph.tensors.values() if t.data is not None} | set(graph.inputs)
    names: set[str] = set()
    for step in model.steps:
        where = f"step {step.name!r}"
        if step.name in names:
            raise PackageError(f"{where}: another step has the same name")
        names.add(step.name)
        missing = [name for name in step.nodes if name not in nodes]
        if missing:
            raise PackageError(f"{where}: there is no node {missing[0]!r}")
        needed, made = set(step.inputs), set(step.outputs)
        if isinstance(step, HostStep):
            made = {name for node in step.nodes for name in nodes[node].outputs}
            read = {name for node in step.nodes for name in nodes[node].inputs if name}
            needed |= read - made
        unknown = (needed | made | set(step.outputs)) - graph.tensors.keys()
        if unknown:
            raise PackageError(f"{where}: there is no tensor {min(unknown)!r}")
        if not set(step.outputs) <= made:
            raise PackageError(f"{where}: its nodes do not make its outputs")
        if needed - available:
            raise PackageError(f"{where}: {min(needed - available)!r} has no value by then")
        if isinstance(step, AcceleratorStep) and not (needed | made) <= model.tensors.keys():
            lost = min((needed | made) - model.tensors.keys())
            raise PackageError(f"{where}: tensor {lost!r} has no place in DRAM")
        available |= made
    if not set(graph.outputs) <= available:
        raise PackageError("no step makes the outputs of the network")


# --- one field of a record ---------------------------------------------------------------------


def _integer(
    record: Mapping[str, Any],
    key: str,
    where: str,
    *,
    least: int = 0,
    most: int = DRAM_BYTES_LIMIT,
) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise PackageError(
            f"{where}: {key} must be an integer from {least} to {most}, not {value!r:.60}"
        )
    return value


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise PackageError(f"{where}: {key} must be a text, not {value!r:.60}")
    return value


def _list(record: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = record.get(key)
    if not isinstance(value, list):
        raise PackageError(f"{where}: {key} must be a list, not {value!r:.60}")
    return value


def _texts(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = _list(record, key, where)
    if not all(isinstance(value, str) for value in values):
        raise PackageError(f"{where}: {key} must be a list of texts, not {values!r:.60}")
    return tuple(values)


def _rows(records: Mapping[str, Any], key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table, which are lists as long as ``columns``, as mappings."""
    rows = _list(records, key, "the manifest")
    for row in rows:
        if not isinstance(row, list) or len(row) != len(columns):
            raise PackageError(f"{key}: a row of {', '.join(columns)} is expected: {row!r:.60}")
    return [dict(zip(columns, row, strict=True)) for row in rows]
