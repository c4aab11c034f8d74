"""Reading a network from a file, whatever its format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..compiler.artifact import CompiledModel
from ..compiler.graph import Graph
from ..isa.errors import ModelError

MODEL_BYTES_LIMIT = 1 << 31
"""A model file larger than this is refused before it is read."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network as it was read.

    Attributes
    ----------
    name : str
        The file's name without its suffix.
    graph : Graph
        Its tensors and nodes.
    sha256 : str
        Of the model file, in hexadecimal.
    """

    name: str
    graph: Graph
    sha256: str
    compiled: CompiledModel | None = None
    """For a package: what it holds. Such a network runs on the hardware of its configuration."""


def load(path: str | Path) -> Network:
    """The network in a model file.

    Parameters
    ----------
    path : path
        A TFLite file (``.tflite``) or a package of ``weft compile`` (``.weft``).

    Raises
    ------
    ModelError
        If the file cannot be read, is not of a known format, or is malformed.
    PackageError
        If a package is damaged or was made by another instruction set.
    """
    path = Path(path)
    data = read_file(path)
    if data[4:8] == b"TFL3":
        from ..compiler import tflite

        graph = tflite.read(data, path.stem)
    elif data[:4] == b"PK\x03\x04":
        from . import package

        model, extra = package.parse(data, str(path))
        return Network(
            str(extra.get("name", path.stem)), model.graph, str(extra.get("sha256", "")), model
        )
    else:
        raise ModelError(
            f"{path}: neither a TFLite file (identifier TFL3) nor a package of weft compile"
        )
    return Network(path.stem, graph, hashlib.sha256(data).hexdigest())


def read_file(path: Path) -> bytes:
    """The bytes of a file; :class:`ModelError` in one line if that fails."""
    try:
        if path.stat().st_size > MODEL_BYTES_LIMIT:
            raise ModelError(f"{path}: larger than {MODEL_BYTES_LIMIT >> 30} GiB")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
