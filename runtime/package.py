"""Compiled networks as files: a zip of JSON, text and plain arrays.

``manifest.json`` says for which spec hash the package was made, and everything of a
:class:`weft.compiler.artifact.CompiledModel` but bytes; ``graph.txt`` is the tensor graph;
``segments.bin`` holds the constant segments one after another. Nothing in a package is code that
runs: the host's nodes are compiled from the graph when the package is loaded.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.artifact import (
    AcceleratorStep,
    CompiledModel,
    DramTensor,
    HostStep,
    Segment,
    Step,
)
from ..compiler.graph_text import format_graph, parse_graph
from ..isa.config import AcceleratorConfig
from ..isa.errors import PackageError, WeftError
from ..isa.formats import INSTRUCTION_BYTES
from ..isa.instructions import InstructionSet
from ..isa.spec import spec_hash

FORMAT = 1
"""Of the package's layout."""
PACKAGE_BYTES_LIMIT = 1 << 32
"""A package whose parts are larger when unpacked is refused."""


def save(model: CompiledModel, path: str | Path, extra: dict[str, Any]) -> None:
    """Write ``model`` to ``path``, whole or not at all; ``extra`` goes into the manifest."""
    manifest = {
        "format": FORMAT,
        "spec_hash": spec_hash(model.config),
        "config": model.config.to_mapping(),
        "dram_bytes": model.dram_bytes,
        "steps": [_step_record(step) for step in model.steps],
        "tensors": [[t.name, t.address, list(t.shape), t.fill] for t in model.tensors.values()],
        "segments": [[s.name, s.address, s.data.nbytes] for s in model.segments],
        "extra": extra,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr("manifest.json", json.dumps(manifest), zipfile.ZIP_DEFLATED)
            archive.writestr("graph.txt", format_graph(model.graph))
            with archive.open("segments.bin", "w", force_zip64=True) as part:
                for segment in model.segments:
                    part.write(segment.data.tobytes())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def load(
    path: str | Path, config: AcceleratorConfig | None = None
) -> tuple[CompiledModel, dict[str, Any]]:
    """The model in a package, and what ``save`` was given as ``extra``.

    Parameters
    ----------
    path : path
        The package.
    config : AcceleratorConfig or None
        The hardware that it shall run on; None takes the package's own.

    Raises
    ------
    PackageError
        If the package is damaged, or was made for other hardware than ``config`` or by an
        instruction set other than this one.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    try:
        return _load(data, str(path), config)
    except PackageError:
        raise
    except WeftError as error:
        raise PackageError(f"{path}: {error}") from None
    except (
        zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, EOFError, OverflowError,
        NotImplementedError, RuntimeError, RecursionError, AttributeError,
    ) as error:  # fmt: skip  # what zipfile and json raise for damaged data
        raise PackageError(f"{path}: damaged package ({error})") from None


def _load(
    data: bytes, where: str, config: AcceleratorConfig | None
) -> tuple[CompiledModel, dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > PACKAGE_BYTES_LIMIT:
            raise PackageError(f"{where}: its parts are larger than 4 GiB")
        manifest = json.loads(archive.read("manifest.json"))
        if manifest["format"] != FORMAT:
            raise PackageError(
                f"{where}: package format {manifest['format']}, this Weft reads {FORMAT}"
            )
        own = AcceleratorConfig.from_mapping(manifest["config"], where=where)
        for made, here in (
            (own, "this Weft's hash of its configuration"),
            (config, "the hardware"),
        ):
            if made is not None and spec_hash(made) != manifest["spec_hash"]:
                raise PackageError(
                    f"{where}: made for spec {manifest['spec_hash']}, but {here} has "
                    f"{spec_hash(made)}"
                )
        graph = parse_graph(archive.read("graph.txt").decode())
        blob = np.frombuffer(archive.read("segments.bin"), np.uint8)
    segments: list[Segment] = []
    at = 0
    for name, address, size in manifest["segments"]:
        if size < 0 or address < 0 or at + size > len(blob):
            raise PackageError(f"{where}: segment {name!r} is truncated")
        segments.append(Segment(name, address, blob[at : at + size]))
        at += size
    tensors = {
        name: DramTensor(name, address, tuple(shape), fill)
        for name, address, shape, fill in manifest["tensors"]
    }
    by_address = {segment.address: segment for segment in segments}
    instructions = InstructionSet(own)
    steps = tuple(_step(record, by_address, instructions) for record in manifest["steps"])
    model = CompiledModel(graph, own, steps, tensors, tuple(segments), manifest["dram_bytes"])
    _check(model, where)
    return model, manifest["extra"]


def _check(model: CompiledModel, where: str) -> None:
    """Names refer to something, and everything lies within ``dram_bytes``."""
    nodes = {node.name for node in model.graph.nodes}
    for step in model.steps:
        for name in (*step.inputs, *step.outputs):
            if name not in model.graph.tensors:
                raise PackageError(f"{where}: step {step.name!r} names no tensor {name!r}")
        if not nodes.issuperset(step.nodes):
            raise PackageError(f"{where}: step {step.name!r} names a node that does not exist")
        if isinstance(step, AcceleratorStep):
            for name in (*step.inputs, *step.outputs):
                if name not in model.tensors:
                    raise PackageError(f"{where}: tensor {name!r} has no place in DRAM")
    for segment in model.segments:
        if segment.address + segment.data.nbytes > model.dram_bytes:
            raise PackageError(f"{where}: segment {segment.name!r} lies beyond DRAM")


def _step_record(step: Step) -> dict[str, Any]:
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
    return record | {
        "address": step.address,
        "count": step.count,
        "compulsory_bytes": step.compulsory_bytes,
        "choices": dict(step.choices),
    }


def _step(
    record: dict[str, Any], segments: dict[int, Segment], instructions: InstructionSet
) -> Step:
    common = {key: record[key] for key in ("name", "op", "macs")} | {
        key: tuple(record[key]) for key in ("nodes", "inputs", "outputs")
    }
    if "reason" in record:
        return HostStep(**common, reason=record["reason"])
    size = record["count"] * INSTRUCTION_BYTES
    words = segments[record["address"]].data[:size].tobytes()
    if len(words) != size:
        raise PackageError(f"the program of step {record['name']!r} is truncated")
    return AcceleratorStep(
        **common,
        address=record["address"],
        instructions=tuple(
            instructions.decode(int.from_bytes(words[i : i + INSTRUCTION_BYTES], "little"))
            for i in range(0, size, INSTRUCTION_BYTES)
        ),
        compulsory_bytes=record["compulsory_bytes"],
        choices=record["choices"],
    )
