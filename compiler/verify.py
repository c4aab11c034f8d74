"""What is legal in a tensor graph, as code.

:func:`verify` derives every shape and type again and compares. Whatever holds here need not be
checked by those who take a graph: names are unique and without whitespace, every tensor has
exactly one origin (input, constant or node) and is written before it is read, quantized tensors
have sane parameters, windows cover their inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from ..isa.errors import ModelError
from ..isa.nest import F32, I8, I16, I32, I64, U8, DType
from .catalog import CATALOG, Site, ValueNeeded
from .graph import (
    Add,
    AveragePool2D,
    Call,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    MaxPool2D,
    Mul,
    Node,
    Op,
    Opaque,
    Reshape,
    Softmax,
    Sub,
    Tensor,
    Window,
    element_dtype,
    op_name,
)

TENSOR_BYTES_LIMIT = 1 << 31
"""No tensor is larger."""
RANK_LIMIT = 8
WINDOW_LIMIT = 1 << 16
"""Sizes, strides, dilations and pads are below it."""

ELEMENT_BITS: Mapping[str, tuple[int, ...]] = {
    "i": (2, 4, 8, 16, 32, 64),
    "u": (1, 2, 4, 8, 16, 32, 64),
    "f": (16, 32, 64),
}
QUANTIZED = (I8, U8, I16)
"""Activations of these types are quantized; of others they are plain numbers."""
WEIGHTS: Mapping[DType, tuple[tuple[DType, ...], tuple[DType, ...]]] = {
    I8: ((I8,), (I32,)),
    U8: ((U8,), (I32,)),
    I16: ((I8,), (I32, I64)),
    F32: ((F32, I8, U8), (F32,)),
}
"""For the type of a convolution's input: the types of its weights and of its bias."""


def verify(graph: Graph) -> None:
    """Return if ``graph`` is legal.

    Raises
    ------
    ModelError
        One line: the node or tensor, what was expected, and what is there.
    """
    plain = {
        name
        for node in graph.nodes
        if not isinstance(node.op, Call)
        for name in (*node.inputs, *node.outputs)
    }
    for key, tensor in graph.tensors.items():
        if key != tensor.name:
            raise ModelError(f"{graph.name}: tensor {tensor.name!r} stands under the name {key!r}")
        _check_tensor(graph, tensor, 0 if graph.nodes and key not in plain else 1)
    available = _check_inputs(graph)
    names: set[str] = set()
    for node in graph.nodes:
        use = _Use(graph, node)
        _check_name(graph, "node", node.name)
        if node.name in names:
            use.fail("another node has the same name")
        names.add(node.name)
        for name in node.inputs:
            if name and name not in graph.tensors:
                use.fail(f"it reads {name!r}, which does not exist")
            if name and name not in available:
                use.fail(f"it reads {name!r} before anything has written it")
        for name in node.outputs:
            if name not in graph.tensors:
                use.fail(f"it writes {name!r}, which does not exist")
            if name in available:
                use.fail(f"it writes {name!r}, which has a value already")
            available.add(name)
        CHECKS[type(node.op)](use)
    _check_carried(graph)
    for name in graph.outputs:
        if name not in available:
            raise ModelError(f"{graph.name}: output {name!r} has no value")
    for name in graph.tensors:
        if name not in available:
            raise ModelError(f"{graph.name}: nothing writes tensor {name!r}")


def _check_name(graph: Graph, what: str, name: str) -> None:
    if not name or any(character.isspace() for character in name):
        raise ModelError(f"{graph.name}: {what} name {name!r} is empty or has whitespace")


def _check_inputs(graph: Graph) -> set[str]:
    """The graph's inputs and constants: what has a value before the first node."""
    constants = {t.name for t in graph.tensors.values() if t.data is not None}
    inputs: set[str] = set()
    for name in graph.inputs:
        if name not in graph.tensors:
            raise ModelError(f"{graph.name}: input {name!r} does not exist")
        if name in constants or name in inputs:
            raise ModelError(f"{graph.name}: input {name!r} is a constant or stands twice")
        inputs.add(name)
    return inputs | constants


def _check_carried(graph: Graph) -> None:
    """Values that go from one inference to the next; only operators that do not build a constant
    into their code may read them."""
    readers = {
        name: node
        for node in graph.nodes
        if not isinstance(node.op, Call | Reshape)
        for name in node.inputs
    }
    made = {name for node in graph.nodes for name in node.outputs}
    for name, source in graph.carried.items():
        tensor, other = graph.tensors.get(name), graph.tensors.get(source)
        if tensor is None or other is None or tensor.data is None or source not in made:
            raise ModelError(
                f"{graph.name}: {name!r} is carried over from {source!r}; a constant and the output"
                " of a node are expected"
            )
        if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
            raise ModelError(
                f"{graph.name}: {name!r} is {tensor.dtype}{list(tensor.shape)}, {source!r} that is "
                f"carried over is {other.dtype}{list(other.shape)}"
            )
        if name in readers:
            raise ModelError(
                f"{graph.name}: node {readers[name].name!r} cannot read {name!r}, which is carried "
                "over from one inference to the next"
            )


def _check_tensor(graph: Graph, tensor: Tensor, least: int) -> None:
    """Refuse a tensor that nobody can hold, or with an extent less than ``least``."""
    _check_name(graph, "tensor", tensor.name)

    def fail(message: str) -> NoReturn:
        raise ModelError(f"{graph.name}: tensor {tensor.name!r}: {message}")

    dtype, shape = tensor.dtype, tensor.shape
    if dtype.bits not in ELEMENT_BITS.get(dtype.kind, ()):
        fail(f"elements of type {dtype}")
    if len(shape) > RANK_LIMIT or any(extent < least for extent in shape):
        fail(f"shape {list(shape)}; at most {RANK_LIMIT} positive extents are expected")
    if math.prod(shape) * dtype.bits // 8 > TENSOR_BYTES_LIMIT:
        fail(f"shape {list(shape)} takes more than {TENSOR_BYTES_LIMIT >> 30} GiB")
    if tensor.data is not None:
        expected = element_dtype(dtype)
        if tensor.data.dtype != expected or tensor.data.shape != shape:
            fail(
                f"a constant of {tensor.data.dtype}{list(tensor.data.shape)}, "
                f"not {expected}{list(shape)}"
            )
        if not tensor.data.flags.c_contiguous:
            fail("its data is not C-contiguous")
    quant = tensor.quant
    if quant is None:
        return
    if quant.axis is not None and not 0 <= quant.axis < len(shape):
        fail(f"quantized along axis {quant.axis} of {len(shape)}")
    count = 1 if quant.axis is None else shape[quant.axis]
    if len(quant.scale) != count or len(quant.zero_point) != count:
        fail(f"{len(quant.scale)} scales and {len(quant.zero_point)} zero points, not {count}")
    for scale in quant.scale:
        if not (math.isfinite(scale) and scale > 0):
            fail(f"scale {scale} is not a positive number")
    if dtype.kind != "f":
        for zero_point in quant.zero_point:
            if not dtype.min <= zero_point <= dtype.max:
                fail(f"zero point {zero_point} is not within {dtype}")


# --- one function an operator ------------------------------------------------------------------


@dataclass(frozen=True)
class _Use:
    """A node in its graph, for the checks."""

    graph: Graph
    node: Node

    def fail(self, message: str) -> NoReturn:
        """Refuse the graph because of this node."""
        op = op_name(self.node.op)
        raise ModelError(f"{self.graph.name}: node {self.node.name!r} ({op}): {message}")

    def tensors(self, least: int, most: int | None = None) -> tuple[list[Tensor | None], Tensor]:
        """The inputs, ``least`` of them present, absent ones up to ``most`` as None; the output."""
        most = least if most is None else most
        names = self.node.inputs
        if not least <= len(names) <= most or not all(names[:least]):
            self.fail(f"it has inputs {list(names)}; {least} to {most} are expected")
        if len(self.node.outputs) != 1:
            self.fail(f"it has {len(self.node.outputs)} outputs, not 1")
        padded = (*names, *[""] * (most - len(names)))
        inputs = [self.graph.tensors[name] if name else None for name in padded]
        return inputs, self.graph.tensors[self.node.outputs[0]]

    def expect_shape(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        """Refuse another shape than ``shape``."""
        if tensor.shape != shape:
            self.fail(f"{tensor.name!r} has shape {list(tensor.shape)}, not {list(shape)}")

    def expect_rank(self, tensor: Tensor, rank: int) -> None:
        """Refuse another rank than ``rank``."""
        if len(tensor.shape) != rank:
            self.fail(f"{tensor.name!r} has shape {list(tensor.shape)}, not of rank {rank}")

    def expect_activations(self, *tensors: Tensor) -> None:
        """Refuse tensors of different types, and quantized ones without their parameters."""
        dtype = tensors[0].dtype
        for tensor in tensors:
            if tensor.dtype != dtype:
                self.fail(f"{tensor.name!r} is {tensor.dtype}, {tensors[0].name!r} is {dtype}")
            if dtype in QUANTIZED and (tensor.quant is None or tensor.quant.axis is not None):
                self.fail(f"{tensor.name!r} has no quantization of the whole tensor")

    def expect_filter(
        self, x: Tensor, weights: Tensor, bias: Tensor | None, axis: int, channels: int
    ) -> None:
        """Refuse weights and bias that do not suit ``x`` or ``channels`` outputs."""
        if x.dtype not in WEIGHTS:
            self.fail(f"{x.name!r} is {x.dtype}; {', '.join(map(str, WEIGHTS))} are expected")
        of_weights, of_bias = WEIGHTS[x.dtype]
        for tensor, types in ((weights, of_weights), (bias, of_bias)):
            if tensor is not None and tensor.dtype not in types:
                self.fail(
                    f"{tensor.name!r} is {tensor.dtype} where {x.name!r} is {x.dtype}; "
                    f"{', '.join(map(str, types))} is expected"
                )
        if weights.dtype in QUANTIZED:
            if weights.quant is None:
                self.fail(f"{weights.name!r} has no quantization")
            if weights.quant.axis not in (None, axis):
                self.fail(f"{weights.name!r} is quantized along {weights.quant.axis}, not {axis}")
        if bias is not None and math.prod(bias.shape) != channels:
            self.fail(f"{bias.name!r} has shape {list(bias.shape)}, not [{channels}]")

    def windows(self, x: Tensor, window: Window) -> tuple[int, int]:
        """How many windows fit, vertically and horizontally."""
        numbers = (*window.size, *window.strides, *window.dilations)
        if not all(0 < number < WINDOW_LIMIT for number in numbers):
            self.fail(f"sizes, strides and dilations in [1, {WINDOW_LIMIT}) are expected: {window}")
        counts: list[int] = []
        for axis in (0, 1):
            reach = (window.size[axis] - 1) * window.dilations[axis] + 1
            pads = window.pads[2 * axis : 2 * axis + 2]
            if not all(0 <= pad < reach for pad in pads):
                self.fail(f"pads {list(pads)} of a window that reaches over {reach}")
            space = x.shape[1 + axis] + sum(pads) - reach
            if space < 0:
                self.fail(
                    f"the window reaches over {reach}, {x.name!r} with its pads has "
                    f"{x.shape[1 + axis] + sum(pads)}"
                )
            counts.append(space // window.strides[axis] + 1)
        return counts[0], counts[1]


def _conv2d(use: _Use) -> None:
    op = use.node.op
    assert isinstance(op, Conv2D)
    (x, weights, bias), out = use.tensors(2, 3)
    assert x is not None
    assert weights is not None
    use.expect_rank(x, 4)
    use.expect_rank(weights, 4)
    use.expect_activations(x, out)
    use.expect_shape(weights, (weights.shape[0], *op.window.size, x.shape[3]))
    use.expect_filter(x, weights, bias, 0, weights.shape[0])
    use.expect_shape(out, (x.shape[0], *use.windows(x, op.window), weights.shape[0]))


def _depthwise(use: _Use) -> None:
    op = use.node.op
    assert isinstance(op, DepthwiseConv2D)
    (x, weights, bias), out = use.tensors(2, 3)
    assert x is not None
    assert weights is not None
    use.expect_rank(x, 4)
    use.expect_activations(x, out)
    channels = x.shape[3] * op.multiplier
    if op.multiplier < 1:
        use.fail(f"the depth multiplier is {op.multiplier}")
    use.expect_shape(weights, (1, *op.window.size, channels))
    use.expect_filter(x, weights, bias, 3, channels)
    use.expect_shape(out, (x.shape[0], *use.windows(x, op.window), channels))


def _fully_connected(use: _Use) -> None:
    (x, weights, bias), out = use.tensors(2, 3)
    assert x is not None
    assert weights is not None
    use.expect_rank(weights, 2)
    use.expect_activations(x, out)
    channels, depth = weights.shape
    use.expect_filter(x, weights, bias, 0, channels)
    rows, rest = divmod(math.prod(x.shape), depth)
    if rest:
        use.fail(f"{x.name!r} has shape {list(x.shape)}, not a multiple of {depth} elements")
    if out.shape[-1:] != (channels,) or math.prod(out.shape) != rows * channels:
        use.fail(f"{out.name!r} has shape {list(out.shape)}, not [{rows}, {channels}]")


def _pairwise(use: _Use) -> None:
    (a, b), out = use.tensors(2)
    assert a is not None
    assert b is not None
    use.expect_activations(a, b, out)
    rank = max(len(a.shape), len(b.shape))
    left, right = ((1,) * (rank - len(t.shape)) + t.shape for t in (a, b))
    if any(m != n and 1 not in (m, n) for m, n in zip(left, right, strict=True)):
        use.fail(f"shapes {list(a.shape)} and {list(b.shape)} do not broadcast")
    use.expect_shape(out, tuple(map(max, left, right)))


def _pool(use: _Use) -> None:
    op = use.node.op
    assert isinstance(op, AveragePool2D | MaxPool2D)
    (x,), out = use.tensors(1)
    assert x is not None
    use.expect_rank(x, 4)
    use.expect_activations(x, out)
    if op.window.dilations != (1, 1):
        use.fail(f"dilations {list(op.window.dilations)}; a pool has none")
    if x.quant != out.quant:
        use.fail(f"it cannot change the quantization from {x.quant} to {out.quant}")
    use.expect_shape(out, (x.shape[0], *use.windows(x, op.window), x.shape[3]))


def _reshape(use: _Use) -> None:
    (x,), out = use.tensors(1)
    assert x is not None
    if x.dtype != out.dtype or math.prod(x.shape) != math.prod(out.shape):
        use.fail(f"{x.dtype}{list(x.shape)} cannot become {out.dtype}{list(out.shape)}")


def _softmax(use: _Use) -> None:
    op = use.node.op
    assert isinstance(op, Softmax)
    (x,), out = use.tensors(1)
    assert x is not None
    use.expect_activations(x, out)
    if not x.shape:
        use.fail(f"{x.name!r} has no axis")
    if not (math.isfinite(op.beta) and op.beta > 0):
        use.fail(f"beta {op.beta} is not a positive number")
    use.expect_shape(out, x.shape)


def _call(use: _Use) -> None:
    op = use.node.op
    assert isinstance(op, Call)
    definition = CATALOG.get(op.kind)
    if definition is None:
        use.fail("the catalog has no such operator")
    if not use.node.outputs:
        use.fail("it has no outputs")
    site = replace(Site.of(use.graph, use.node), outputs=())
    try:
        types = definition.types(site)
    except ValueNeeded as needed:
        use.fail(f"input {needed.position} is computed; a constant is expected")
    if len(types) != len(use.node.outputs):
        use.fail(f"it has {len(use.node.outputs)} outputs, not {len(types)}")
    for name, (dtype, shape) in zip(use.node.outputs, types, strict=True):
        tensor = use.graph.tensors[name]
        if tensor.dtype != dtype or tensor.shape != tuple(shape):
            use.fail(f"{name!r} is {tensor.dtype}{list(tensor.shape)}, not {dtype}{list(shape)}")


def _opaque(use: _Use) -> None:
    op = use.node.op
    assert isinstance(op, Opaque)
    if not op.kind:
        use.fail("it has no kind")


CHECKS: Mapping[type[Op], Callable[[_Use], None]] = {
    Conv2D: _conv2d,
    DepthwiseConv2D: _depthwise,
    FullyConnected: _fully_connected,
    Add: _pairwise,
    Sub: _pairwise,
    Mul: _pairwise,
    AveragePool2D: _pool,
    MaxPool2D: _pool,
    Reshape: _reshape,
    Softmax: _softmax,
    Call: _call,
    Opaque: _opaque,
}
"""What each operator expects of its tensors."""
