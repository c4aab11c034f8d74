"""Bounded access to a flatbuffer: every read of a model file goes through here.

The generated accessors of ``tflite`` follow whatever offsets the file holds. Here their answers
are checked, their exceptions become :class:`ModelError`, and every element that is read is paid
for from a budget of the file's own size, so that a file whose tables refer to one another many
times costs no more than an honest one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ...isa.errors import ModelError

T = TypeVar("T")

BUDGET_FACTOR = 4
"""Bytes that may be read for each byte of the file; an honest file reads nothing twice."""
OFFSET_BYTES = 4
"""Of a reference to a table."""


class Source:
    """A model file's bytes.

    Parameters
    ----------
    data : bytes
        The file.
    name : str
        What messages call it.
    """

    def __init__(self, data: bytes, name: str):
        self.data = data
        self.name = name
        self._budget = BUDGET_FACTOR * len(data)

    def error(self, message: str) -> ModelError:
        """What to raise: ``message`` with the file's name before it."""
        return ModelError(f"{self.name}: {message}")

    def access(self, read: Callable[..., T], *arguments: Any) -> T:
        """``read(*arguments)``, of a generated accessor."""
        try:
            return read(*arguments)
        except (struct.error, TypeError, ValueError, IndexError, OverflowError):
            raise self.error(
                f"not a TFLite file, or damaged: {_subject(read)} points outside of its "
                f"{len(self.data)} bytes"
            ) from None

    def length(self, table: Any, field: str, element_bytes: int) -> int:
        """How many elements the vector ``field`` has; the whole of it fits into the file."""
        count = self.access(getattr(table, f"{field}Length"))
        if count * element_bytes > len(self.data):
            raise self.error(
                f"damaged TFLite file: {field} claims {count} elements, more than its "
                f"{len(self.data)} bytes can hold"
            )
        self._pay(count * element_bytes)
        return count

    def tables(self, table: Any, field: str) -> list[Any]:
        """The tables of a vector of tables."""
        count = self.length(table, field, OFFSET_BYTES)
        get = getattr(table, field)
        return [self.access(get, i) for i in range(count)]

    def vector(self, table: Any, field: str, element_bytes: int) -> np.ndarray:
        """A vector of numbers, a view into the file; empty where the field is absent."""
        if self.length(table, field, element_bytes) == 0:
            return np.empty(0, np.int32)
        return self.access(getattr(table, f"{field}AsNumpy"))

    def integers(self, table: Any, field: str, element_bytes: int = 4) -> tuple[int, ...]:
        """A vector of integers as Python's."""
        return tuple(int(value) for value in self.vector(table, field, element_bytes))

    def text(self, read: Callable[[], bytes | None]) -> str:
        """A string on one line; empty where the field is absent, odd characters replaced."""
        value = self.access(read) or b""
        self._pay(len(value))
        return "".join(c if c.isprintable() else "_" for c in value.decode("utf-8", "replace"))

    def _pay(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise self.error("damaged TFLite file: its tables refer to one another too often")


def _subject(read: Callable[..., object]) -> str:
    """The name of an accessor, as ``Tensor.Shape``."""
    owner = getattr(read, "__self__", None)
    name = getattr(read, "__name__", "a field")
    return name if owner is None else f"{type(owner).__name__}.{name}"
