"""What the host needs to run some nodes, found again on disk: calls, arrays, and where memory lies.

A file holds a header in JSON and then the arrays as they lie in memory, from one line of the cache
to the next, so that it is mapped and not read. The compiled functions are in a file of their own
(:mod:`weft.isa.native`), which other networks share. What is damaged is as good as absent.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..isa.kept import keep, used
from ..isa.native import Processor, this_processor
from ..isa.paths import sources_hash
from .graph import Graph, Node
from .memory import whole_lines

Place = tuple[Literal["array", "scratch", "tensor"], int | str]
"""Where a buffer begins: which array, which byte of the scratch memory, or which tensor."""

DIGEST = 32
"""Bytes of the SHA-256 of a header, which a file begins with; its length in 8 follows."""


@dataclass(frozen=True)
class Called:
    """A compiled function's calls: for how many values of its parameter, 0 where it has none, and
    place and first extent of each buffer."""

    function: int
    items: int
    buffers: tuple[tuple[Place, int], ...]


@dataclass(frozen=True)
class Step:
    """Some nodes: calls one after another, or, if there are none, a function of numpy's arrays with
    its arguments and results."""

    nodes: tuple[str, ...]
    calls: tuple[Called, ...] = ()
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


@dataclass(eq=False)
class Prepared:
    """Steps and what they refer to.

    Attributes
    ----------
    code : str
        The key of the compiled functions; empty without any.
    functions : int
        How many there are.
    steps : list of Step
        In their order.
    views : dict
        Tensors that are others under another shape.
    scratch : int
        Bytes that every step may use for itself.
    arrays : list of ndarray
        What was packed.
    """

    code: str = ""
    functions: int = 0
    steps: list[Step] = field(default_factory=list[Step])
    views: dict[str, str] = field(default_factory=dict[str, str])
    scratch: int = 0
    arrays: list[np.ndarray] = field(default_factory=list[np.ndarray])

    def names(self) -> list[str]:
        """The functions' names."""
        return [f"nest{i}" for i in range(self.functions)]

    def save(self, path: Path) -> None:
        """Write it, all at once for whoever looks for it."""
        lie: list[tuple[str, list[int], int]] = []
        size = 0
        for array in self.arrays:
            lie.append((array.dtype.str, list(array.shape), size))
            size += whole_lines(array.nbytes)
        flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in self.arrays]
        header = json.dumps(
            {
                "code": self.code, "functions": self.functions, "views": self.views,
                "scratch": self.scratch, "arrays": lie, "size": size,
                "sum": sum(map(_sum, flat)) % (1 << 64),
                "steps": [
                    [s.nodes, [[c.function, c.items, c.buffers] for c in s.calls], s.arguments,
                     s.results]
                    for s in self.steps
                ],
            }
        ).encode()  # fmt: skip
        head = hashlib.sha256(header).digest() + len(header).to_bytes(8, "little") + header
        parts: list[bytes | memoryview] = [head.ljust(whole_lines(len(head)), b"\0")]
        for array in flat:
            parts += [array.data, bytes(whole_lines(array.nbytes) - array.nbytes)]
        keep(path, parts)

    @classmethod
    def load(cls, path: Path) -> Prepared | None:
        """What was saved there, its arrays in the file's own memory; None if there is nothing."""
        try:
            with path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        length = int.from_bytes(memory[DIGEST : DIGEST + 8], "little")
        start = DIGEST + 8 + length
        if length > len(memory) or hashlib.sha256(
            memoryview(memory)[DIGEST + 8 : start]
        ).digest() != memory[:DIGEST]:  # fmt: skip
            return None
        header: dict[str, Any] = json.loads(memory[DIGEST + 8 : start])
        start = whole_lines(start)
        if len(memory) != start + header["size"]:
            return None
        data = np.frombuffer(memory, np.uint8, header["size"], start)
        if _sum(data) != header["sum"]:
            return None
        made = cls(header["code"], header["functions"], [], header["views"], header["scratch"])
        for kind, shape, at in header["arrays"]:
            dtype = np.dtype(kind)
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            made.arrays.append(data[at : at + size].view(dtype).reshape(shape))
        for nodes, calls, arguments, results in header["steps"]:
            own = tuple(
                Called(f, items, tuple(((k, at), e) for (k, at), e in buffers))
                for f, items, buffers in calls
            )
            made.steps.append(Step(tuple(nodes), own, tuple(arguments), tuple(results)))
        used(path)
        return made


def _sum(data: np.ndarray) -> int:
    """Of bytes as numbers of eight: what disks damage differs in it."""
    whole = len(data) // 8 * 8
    words = np.add.reduce(data[:whole].view(np.uint64), initial=np.uint64(0))
    return (int(words) + int.from_bytes(data[whole:].tobytes(), "little")) % (1 << 64)


def key_of(
    graph: Graph, nodes: Sequence[Node], outputs: Sequence[str], processor: Processor | None
) -> str:
    """What a file is called: it differs where anything may that is in it."""
    digest = hashlib.sha256(sources_hash("isa", "compiler").encode())
    digest.update(
        repr((np.__version__, processor or this_processor(), tuple(nodes), tuple(outputs))).encode()
    )
    for name in dict.fromkeys(n for node in nodes for n in (*node.inputs, *node.outputs) if n):
        tensor = graph.tensors[name]
        digest.update(repr((tensor, tensor.data is None)).encode())
        if tensor.data is not None:
            digest.update(np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]
