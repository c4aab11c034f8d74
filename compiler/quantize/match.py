"""Which tensors of two forms of one network are the same, and how they lie.

Tensors are the same if they have the same name but for what is added where something is rounded
(``_quantized`` here, ``_QuantizeLinear_Output`` elsewhere) or laid out (``/nhwc``). Images are
channels-first around ONNX's operators and channels-last around TFLite's, and keep that through
operators whose tensors have one shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...isa.nest import I8
from ..graph import (
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    MaxPool2D,
    Node,
    Tensor,
    op_name,
)

SUFFIXES = (
    "/nhwc", "/nchw", "_quantized", "_dequantized", "_QuantizeLinear_Output",
    "_DequantizeLinear_Output",
)  # fmt: skip
LAYOUTS = frozenset(("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"))
"""Operators whose output lies otherwise than their input."""
FIRST = frozenset(
    (
        "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "QLinearConv",
        "BatchNormalization", "ConvTranspose",
    )
)  # fmt: skip
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Pair:
    """Tensors of two graphs that should be equal."""

    name: str
    node: Node
    """Of the first graph, which writes it."""
    first: Tensor
    second: Tensor
    perm: tuple[int, ...]
    """How the second is transposed to lie as the first."""

    @property
    def op(self) -> str:
        """What writes it."""
        return op_name(self.node.op)

    def reals(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The real values of both in the layout of the first; equal where the bits are."""
        return real(self.first, first), real(self.second, second.transpose(self.perm))


def real(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    """The real values of a tensor."""
    if tensor.quant is None or tensor.quant.axis is not None:
        return value
    scale, zero = tensor.quant.scale[0], tensor.quant.zero_point[0]
    return (value.astype(np.int64) - zero) * np.float64(scale)


def key_of(name: str) -> str:
    """A name without what was added to it."""
    for suffix in SUFFIXES * 3:
        name = name.removesuffix(suffix) or name
    return name


def pairs(first: Graph, second: Graph) -> list[Pair]:
    """The tensors that both graphs compute, in the first one's order; each but once."""
    layouts = layouts_of(first), layouts_of(second)
    others: dict[str, list[Tensor]] = {}
    exact: dict[str, Tensor] = {}
    for node in second.nodes:
        for name in node.outputs:
            exact[name] = second.tensors[name]
            others.setdefault(key_of(name), []).append(second.tensors[name])
    found: list[Pair] = []
    met: set[str] = set()
    for node in first.nodes:
        for name in node.outputs:
            tensor, key = first.tensors[name], key_of(name)
            wanted = [exact[name]] if name in exact else [] if key in met else others.get(key, [])
            for other in wanted:
                perm = _lying(tensor, other, *layouts)
                if perm is None or not _comparable(tensor, other):
                    continue
                found.append(Pair(name, node, tensor, other, perm))
                met.add(key)
                break
    return found


def _comparable(first: Tensor, second: Tensor) -> bool:
    """Whether the values of both mean the same: bytes without quantization are no numbers."""
    if first.quant == second.quant:
        return first.dtype == second.dtype
    return not any(t.dtype == I8 and t.quant is None for t in (first, second))


def _lying(
    first: Tensor, second: Tensor, firsts: Mapping[str, Layout], seconds: Mapping[str, Layout]
) -> tuple[int, ...] | None:
    """The permutation from the second to the first; None if none fits."""
    a, b = firsts.get(first.name), seconds.get(second.name)
    moves = [tuple(range(len(second.shape)))]
    if len(second.shape) == 4:
        if a is None or b is None:
            moves += [TO_NCHW, TO_NHWC]
        elif a != b:
            moves = [TO_NCHW if a == "nchw" else TO_NHWC]
    shapes = {perm: tuple(second.shape[k] for k in perm) for perm in moves}
    return next((perm for perm, shape in shapes.items() if shape == first.shape), None)


def layouts_of(graph: Graph) -> dict[str, Layout]:
    """How those tensors of rank 4 lie that are known to be images."""
    known = dict[str, Layout]()
    last = (Conv2D, DepthwiseConv2D, AveragePool2D, MaxPool2D)
    for node in graph.nodes:
        for name in (*node.inputs[:1], *node.outputs):
            if name and len(graph.tensors[name].shape) == 4:
                if isinstance(node.op, last):
                    known[name] = "nhwc"
                elif isinstance(node.op, Call) and node.op.kind in FIRST:
                    known[name] = "nchw"
                elif name.endswith("/nhwc"):
                    known.setdefault(name, "nhwc")
                elif name.endswith("/nchw"):
                    known.setdefault(name, "nchw")
    changed = True
    while changed:
        changed = False
        for node in graph.nodes:
            if op_name(node.op) in LAYOUTS or not node.outputs:
                continue
            shape = graph.tensors[node.outputs[0]].shape
            same = [
                name
                for name in (*node.inputs, *node.outputs)
                if name and len(shape) == 4 and graph.tensors[name].shape == shape
            ]
            layout: Layout | None = next((known[n] for n in same if n in known), None)
            if layout is None:
                continue
            for name in same:
                changed = changed or name not in known
                known.setdefault(name, layout)
    return known
