"""Compiled networks as files: a zip of JSON, text and plain arrays, stored as they are.

``manifest.json`` says for which spec hash the package was made, and everything of a
:class:`weft.compiler.artifact.CompiledModel` but bytes; ``graph.txt`` is the tensor graph;
``segments.bin`` holds the constant segments one after another. Nothing in a package is code that
the CPU runs: the host's nodes are compiled from the graph when the package is loaded.
"""

from __future__ import annotations

import io
import json
import os
import struct
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.artifact import CompiledModel
from ..compiler.graph import Graph
from ..isa.config import AcceleratorConfig
from ..isa.errors import PackageError, WeftError
from ..isa.spec import spec_hash
from . import manifest

FORMAT = 3
"""Of the package's layout."""
MANIFEST, GRAPH, SEGMENTS = "manifest.json", "graph.txt", "segments.bin"
ENCRYPTED = 1
"""Bit of a part's flags."""


def save(model: CompiledModel, path: str | Path, extra: dict[str, Any]) -> None:
    """Write ``model`` to ``path``, whole or not at all; ``extra`` goes into the manifest.

    The same model makes the same bytes: nothing in a package tells the time.

    Raises
    ------
    PackageError
        If the file cannot be written.
    """
    from ..compiler.graph_text import format_graph

    path = Path(path)
    header = {
        "format": FORMAT,
        "spec_hash": spec_hash(model.config),
        "config": model.config.to_mapping(),
        "extra": extra,
    }

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "x") as archive:
            records = json.dumps(header | manifest.records_of(model))
            archive.writestr(zipfile.ZipInfo(MANIFEST), records)
            archive.writestr(zipfile.ZipInfo(GRAPH), format_graph(model.graph))
            with archive.open(zipfile.ZipInfo(SEGMENTS), "w", force_zip64=True) as part:
                for segment in model.segments:
                    part.write(segment.data.tobytes())

    _whole(path, write)


def copy(source: Path, path: str | Path) -> None:
    """Write the package that is at ``source`` to ``path``, whole or not at all.

    Raises
    ------
    PackageError
        If one cannot be read or the other not be written.
    """
    _whole(Path(path), lambda partial: partial.write_bytes(source.read_bytes()))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """What ``write`` makes of a file beside ``path``, and then there."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None


def load(
    path: str | Path, config: AcceleratorConfig | None = None, graph: Graph | None = None
) -> tuple[CompiledModel, dict[str, Any]]:
    """The model in the package of that path; see :func:`parse`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    return parse(data, str(path), config, graph)


def parse(
    data: bytes,
    where: str,
    config: AcceleratorConfig | None = None,
    graph: Graph | None = None,
) -> tuple[CompiledModel, dict[str, Any]]:
    """The model in a package, and what :func:`save` was given as ``extra``.

    Parameters
    ----------
    data : bytes
        The package.
    where : str
        Stands before a message: the file's name.
    config : AcceleratorConfig or None
        The hardware that it shall run on; None takes the package's own.
    graph : Graph or None
        Of a package that this Weft has written itself: what it was compiled from. Then the graph
        is not read, and the instructions are decoded when somebody looks at them.

    Raises
    ------
    PackageError
        If the package is damaged, or was made for other hardware than ``config`` or by an
        instruction set other than this one.
    """
    try:
        return _parse(data, config, graph)
    except WeftError as error:
        raise PackageError(f"{where}: {error}") from None
    except (
        zipfile.BadZipFile, struct.error, ValueError, KeyError, IndexError, EOFError, OSError,
        OverflowError, NotImplementedError, RuntimeError, RecursionError,
    ) as error:  # fmt: skip  # what zipfile and json raise for damaged data
        raise PackageError(f"{where}: damaged package ({error})") from None


def _parse(
    data: bytes, config: AcceleratorConfig | None, own_graph: Graph | None
) -> tuple[CompiledModel, dict[str, Any]]:  # fmt: skip
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for part in archive.infolist():
            # As they are written: what is unpacked is then never larger than the file.
            if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & ENCRYPTED:
                raise PackageError(f"its part {part.filename!r} is compressed or encrypted")
        header = json.loads(archive.read(MANIFEST))
        own = _own_config(header, config)
        graph = own_graph or _graph(archive.read(GRAPH).decode())
        blob = np.frombuffer(archive.read(SEGMENTS), np.uint8)
    model = manifest.model_of(header, graph, own, blob, own_graph is not None)
    extra = header.get("extra")
    if not isinstance(extra, dict):
        raise PackageError(f"extra must be a mapping, not {extra!r:.60}")
    return model, extra


def _graph(text: str) -> Graph:
    from ..compiler.graph_text import parse_graph

    return parse_graph(text)


def _own_config(header: Any, config: AcceleratorConfig | None) -> AcceleratorConfig:
    """What the package was made for, if that is this instruction set and ``config``."""
    if not isinstance(header, dict):
        raise PackageError(f"its manifest is no mapping: {header!r:.60}")
    if header.get("format") != FORMAT:
        raise PackageError(f"package format {header.get('format')!r:.60}; this Weft reads {FORMAT}")
    if not isinstance(header.get("config"), dict):
        raise PackageError("its manifest has no configuration")
    own = AcceleratorConfig.from_mapping(header["config"], where="its configuration")
    for made, whose in (
        (own, "this Weft's instruction set gives its configuration"),
        (config, "the hardware has"),
    ):
        if made is not None and spec_hash(made) != header.get("spec_hash"):
            raise PackageError(
                f"made for spec {header.get('spec_hash')!r:.60}, but {whose} {spec_hash(made)!r}"
            )
    return own
