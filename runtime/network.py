"""Reading a network from a file, whatever its format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..compiler.artifact import CompiledModel, Origin
from ..compiler.graph import Graph, Tensor
from ..isa.errors import InputError, ModelError

if TYPE_CHECKING:
    from ..compiler.module import Module
    from ..compiler.onnx import Model as OnnxModel
    from ..compiler.onnx import Unbound

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
    model: OnnxModel | None = None
    """For an ONNX file: what graphs are made of. ``graph`` is that with 1 for every symbol."""
    unbound: Unbound | None = None
    """Why there is no such graph before a call, as shapes depend on the values of inputs; then
    ``graph`` has inputs alone."""

    module: Module | None = None
    """For the text of a level: what it holds. Compilation goes on from there."""

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return Origin(self.name, self.sha256)

    @property
    def open(self) -> bool:
        """Whether a graph is made for every new size of the inputs."""
        return self.model is not None and (bool(self.model.symbols) or self.unbound is not None)


def load(path: str | Path) -> Network:
    """The network in a model file.

    Parameters
    ----------
    path : path
        A TFLite file (``.tflite``), an ONNX file (whose name ends in ``.onnx``), or a package
        (``.weft``) or the text of a level, both of ``weft compile``.

    Raises
    ------
    ModelError
        If the file cannot be read, is not of a known format, or is malformed.
    UnsupportedError
        If an ONNX model holds operators that Weft does not run; it lists them all.
    MissingToolError
        If the package that reads ONNX files is not installed.
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
    elif _is_level(data):
        return _from_text(data, path)
    elif path.suffix == ".onnx":
        return _from_onnx(data, path)
    else:
        raise ModelError(
            f"{path}: neither a TFLite file (identifier TFL3) nor an .onnx file nor a package or "
            "text of weft compile"
        )
    return Network(path.stem, graph, hashlib.sha256(data).hexdigest())


def _is_level(data: bytes) -> bool:
    from ..compiler.levels import is_level  # much to import, seldom of use

    return is_level(data)


def _from_text(data: bytes, path: Path) -> Network:
    """The module of a level's text, with the file's name before complaints."""
    from ..compiler.levels import parse_module
    from .manifest import check_model

    try:
        module = parse_module(data.decode())
        if module.level == "stream":
            check_model(module.model)
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 at byte {error.start}") from None
    except InputError as error:
        raise ModelError(f"{path}: {error}") from None
    if not module.origin.name:
        origin = Origin(path.stem, hashlib.sha256(data).hexdigest())
        module = replace(module, origin=origin)
    return Network(module.origin.name, module.graph, module.origin.sha256, module=module)


def _from_onnx(data: bytes, path: Path) -> Network:
    from ..compiler import onnx

    model = onnx.read(data, path.stem, path.parent)
    return of_model(model, hashlib.sha256(data).hexdigest())


def of_model(model: OnnxModel, sha256: str) -> Network:
    """The network of an ONNX model; see :func:`load`."""
    from ..compiler.onnx import Unbound

    shapes = model.shapes({})
    try:
        return Network(model.name, model.graph(shapes), sha256, model=model)
    except Unbound as unbound:
        tensors = {i.name: Tensor(i.name, i.dtype, shapes[i.name]) for i in model.inputs}
        graph = Graph(model.name, tensors, (), tuple(tensors), ())
        return Network(model.name, graph, sha256, model=model, unbound=unbound)


def read_file(path: Path) -> bytes:
    """The bytes of a file; :class:`ModelError` in one line if that fails."""
    try:
        if path.stat().st_size > MODEL_BYTES_LIMIT:
            raise ModelError(f"{path}: larger than {MODEL_BYTES_LIMIT >> 30} GiB")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
