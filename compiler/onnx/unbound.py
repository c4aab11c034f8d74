"""What is open when a file is read and must be bound before there is a graph."""

from __future__ import annotations

from ...isa.errors import UnsupportedError


class Unbound(UnsupportedError):
    """Shapes depend on the values of ``inputs``, which are not given."""

    def __init__(self, message: str, inputs: frozenset[str]):
        super().__init__(message)
        self.inputs = inputs
