"""An ONNX model as it was read: its ends, and the graph for every way to bind what is open.

Extents may be symbols, and shapes may depend on values of inputs (a ``Reshape`` to a shape that
is an input, say). Both are bound when the network is called: :meth:`Model.graph` makes the graph
for given shapes and values. Who calls it need not know which values matter:
:class:`.unbound.Unbound` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...isa.errors import DataError, ModelError
from ...isa.nest import DType
from ..graph import Graph
from .build import build
from .source import parse, type_of_value

Extent = int | str


@dataclass(frozen=True)
class Input:
    """An input of the model; a text among its extents is a symbol."""

    name: str
    dtype: DType
    extents: tuple[Extent, ...]


class Model:
    """A model file, parsed.

    Parameters
    ----------
    proto : ModelProto
        What protobuf made of the file.
    name : str
        Of the graphs, and of the file in messages.
    folder : Path or None
        Where the model's other files lie.
    """

    def __init__(self, proto: Any, name: str, folder: Path | None):
        self.proto, self.name, self.folder = proto, name, folder
        constants = {tensor.name for tensor in proto.graph.initializer}
        self.inputs: tuple[Input, ...] = tuple(
            Input(info.name, *type_of_value(info, name))
            for info in proto.graph.input
            if info.name not in constants
        )
        if len({i.name for i in self.inputs}) != len(self.inputs):
            raise ModelError(f"{name}: two inputs have the same name")

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of all inputs, in their order."""
        found = (e for i in self.inputs for e in i.extents if isinstance(e, str))
        return tuple(dict.fromkeys(found))

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The inputs' shapes with these sizes for the symbols, and 1 for others."""
        return {
            i.name: tuple(sizes.get(e, 1) if isinstance(e, str) else e for e in i.extents)
            for i in self.inputs
        }

    def fit(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """The symbols' sizes in shapes of the inputs.

        Raises
        ------
        DataError
            If they do not fit the model.
        """
        sizes: dict[str, int] = {}
        for one in self.inputs:
            shape = shapes[one.name]
            wanted = ", ".join(map(str, one.extents))
            if len(shape) != len(one.extents):
                raise DataError(f"input {one.name!r} takes shape ({wanted}), not {shape}")
            for extent, size in zip(one.extents, shape, strict=True):
                known = sizes.setdefault(extent, size) if isinstance(extent, str) else extent
                if known != size:
                    known_as = f" with {extent} = {known}" if isinstance(extent, str) else ""
                    raise DataError(
                        f"input {one.name!r} takes shape ({wanted}){known_as}, not {shape}"
                    )
        return sizes

    def graph(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        values: Mapping[str, np.ndarray] | None = None,
    ) -> Graph:
        """The graph for inputs of these shapes.

        Parameters
        ----------
        shapes : mapping
            Of every input.
        values : mapping or None
            Of inputs that are the same at every call; they are constants in the graph, which still
            takes them.

        Raises
        ------
        Unbound
            If shapes depend on values of inputs that are not given.
        UnsupportedError
            If operators are left that Weft does not run; it lists them all.
        ModelError
            If the model is malformed.
        """
        self.fit(shapes)
        return build(self, shapes, values or {})


def read(data: bytes, name: str, folder: Path | None = None) -> Model:
    """The model in an ONNX file.

    Parameters
    ----------
    data : bytes
        The file.
    name : str
        Of the network, and of the file in messages.
    folder : Path or None
        Where files lie that the model refers to; it is the only place where they may.

    Raises
    ------
    ModelError
        If the file is malformed or truncated.
    UnsupportedError
        If an input is of a kind that a graph does not hold.
    MissingToolError
        If the package ``onnx`` is not installed.
    """
    return Model(parse(data, name), name, folder)
