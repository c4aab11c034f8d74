"""TFLite's UNIDIRECTIONAL_SEQUENCE_LSTM as nodes of the graph.

On bytes: all products with the input at once, then for each step the product with the hidden state
and a cell. Products are such that an accelerator can run them (:mod:`weft.compiler.catalog.wide`).
On floats: ONNX's operator of the catalog. The states go from one inference to the next, as those of
TFLite's do; the first one begins with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...isa.nest import F32, I8, I16, I32
from ..catalog.lstm import GATE_BITS, SCALES
from ..catalog.wide import digits_of
from ..graph import Call, Graph, Node, Quant, Reshape, Tensor
from ..scales import LEFT_LIMIT, Rescale
from .names import Names

KIND = "tfl.lstm"
"""Of the nodes that :func:`expanded` replaces; the catalog does not have it."""
ORDER = ("input", "forget", "cell", "output")
OF_INPUT, OF_HIDDEN, BIAS = 1, 5, 12
"""Positions of the first of four weights, and of four biases, among TFLite's inputs."""
ONNX_ORDER = (0, 3, 1, 2)
STEPS_LIMIT = 1024
"""Longer sequences are not unrolled."""


def expanded(graph: Graph) -> Graph:
    """``graph`` with other nodes for those of :data:`KIND`, whose tensors have been checked."""
    if not any(isinstance(node.op, Call) and node.op.kind == KIND for node in graph.nodes):
        return graph
    made = _Maker(graph)
    for node in graph.nodes:
        if isinstance(node.op, Call) and node.op.kind == KIND:
            (made.floats if graph.tensors[node.inputs[0]].dtype == F32 else made.bytes)(node)
        else:
            made.nodes.append(node)
    used = {*graph.inputs, *graph.outputs}
    used.update(name for node in made.nodes for name in (*node.inputs, *node.outputs))
    tensors = {name: tensor for name, tensor in made.tensors.items() if name in used}
    return replace(graph, tensors=tensors, nodes=tuple(made.nodes), carried=made.carried)


class _Maker:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.carried: dict[str, str] = {}
        self.names = Names()
        for name in (*graph.tensors, *(node.name for node in graph.nodes)):
            self.names.unique(name)

    def constant(self, name: str, data: np.ndarray) -> str:
        dtypes = {1: I8, 2: I16, 4: I32}
        dtype = F32 if data.dtype == np.float32 else dtypes[data.itemsize]
        name = self.names.unique(name)
        self.tensors[name] = Tensor(name, dtype, data.shape, None, np.ascontiguousarray(data))
        return name

    def node(self, name: str, op: Call | Reshape, inputs: Sequence[str], *made: Tensor) -> None:
        self.tensors |= {tensor.name: tensor for tensor in made}
        self.nodes.append(Node(name, op, tuple(inputs), tuple(t.name for t in made)))

    def data(self, node: Node, first: int, order: Sequence[int] = range(4)) -> list[np.ndarray]:
        """The values of four inputs."""
        found = [self.graph.tensors[node.inputs[first + k]].data for k in order]
        return [array for array in found if array is not None]

    # --- floats ----------------------------------------------------------------------------------

    def floats(self, node: Node) -> None:
        """ONNX's LSTM, and its output without the axis of directions."""
        x, out = self.graph.tensors[node.inputs[0]], self.graph.tensors[node.outputs[0]]
        weights, recurrent, bias = (
            np.concatenate(self.data(node, first, ONNX_ORDER))[None]
            for first in (OF_INPUT, OF_HIDDEN, BIAS)
        )
        constants = [
            self.constant(f"{node.name}/{what}", data)
            for what, data in (
                ("weights", weights),
                ("recurrent", recurrent),
                ("bias", np.concatenate((bias, np.zeros_like(bias)), 1)),
            )
        ]
        swapped = not dict(node.op.attributes)["time_major"]  # type: ignore[union-attr]  # a Call
        a, b, units = out.shape
        shape = (a, b, 1, units) if swapped else (a, 1, b, units)
        every = Tensor(self.names.unique(f"{node.name}/directions"), F32, shape)
        op = Call("LSTM", (("hidden_size", units), ("layout", int(swapped))))
        one = (a, 1, units) if swapped else (1, b, units)
        states = [
            Tensor(self.names.unique(f"{node.name}/{what}"), F32, one) for what in STATE_NAMES
        ]
        begins = [
            self.constant(f"{state.name}.first", np.zeros(one, np.float32)) for state in states
        ]
        self.node(node.name, op, (x.name, *constants, "", *begins), every, *states)
        self.carried |= dict(zip(begins, (state.name for state in states), strict=True))
        self.node(every.name, Reshape(), (every.name,), out)

    # --- bytes -----------------------------------------------------------------------------------

    def bytes(self, node: Node) -> None:
        """Products and cells, step by step."""
        attributes = dict(node.op.attributes)  # type: ignore[union-attr]  # a Call
        x, out = self.graph.tensors[node.inputs[0]], self.graph.tensors[node.outputs[0]]
        assert out.quant is not None
        batch, steps, units = out.shape
        shape, zero = (batch, 1, units), out.quant.zero_point[0]
        weights, recurrent = (
            np.concatenate(self.data(node, first)) for first in (OF_INPUT, OF_HIDDEN)
        )
        tensors = [self.graph.tensors[name] if name else None for name in node.inputs]
        scales = [
            (scale.multiplier, scale.left, scale.right)
            for scale in scales_of(tensors, out, int(attributes["power"]))  # type: ignore[arg-type]
        ]
        bias = np.concatenate(self.data(node, BIAS)) + _less_zero(weights, x)
        constants = (
            self.constant(f"{node.name}/bias", bias.astype(np.int32)),
            self.constant(f"{node.name}/offset", _less_zero(recurrent, out).astype(np.int32)),
            self.constant(f"{node.name}/scales", np.array(scales, np.int32)),
        )
        of_input = _Weights(self, f"{node.name}/weights", weights)
        of_hidden = _Weights(self, f"{node.name}/recurrent", recurrent)
        sums = of_input.product(node.name, x)
        begins = (
            self.constant(f"{node.name}/hidden", np.full(shape, zero, np.int8)),
            self.constant(f"{node.name}/state", np.zeros(shape, np.int16)),
        )
        hidden = Tensor(self.names.unique(f"{node.name}/hidden.first"), I8, shape, out.quant)
        self.node(hidden.name, Reshape(), begins[:1], hidden)
        state = begins[1]
        kept = Quant((2.0 ** float(attributes["power"]),), (0,))  # type: ignore[arg-type]
        every: list[str] = []
        for step in range(steps):
            name = f"{node.name}.{step}"
            inputs = (sums, of_hidden.product(name, hidden), state, *constants)
            options = {"clip": attributes["clip"], "power": attributes["power"]}
            options |= {"step": step, "zero": zero}
            hidden = Tensor(self.names.unique(f"{name}/hidden"), I8, shape, out.quant)
            after = Tensor(self.names.unique(f"{name}/state"), I16, shape, kept)
            op = Call("tfl.lstm_cell", tuple(sorted(options.items())))
            self.node(self.names.unique(f"{name}/cell"), op, inputs, hidden, after)
            state = after.name
            every.append(hidden.name)
        self.carried |= dict(zip(begins, (hidden.name, state), strict=True))
        self.node(node.name, Call("Concat", (("axis", 1),)), every, out)


class _Weights:
    """Weights of a product of bytes with exact sums."""

    def __init__(self, maker: _Maker, name: str, weights: np.ndarray):
        digits = digits_of(weights)
        assert digits is not None
        data, self.parts, self.shift = digits
        self.maker, self.name, self.rows = maker, maker.constant(name, data), len(data)

    def product(self, name: str, x: Tensor) -> str:
        """The tensor of the sums of ``x``'s rows."""
        maker = self.maker
        halves: list[str] = []
        for kind in ("wide.high", "wide.low"):
            half = maker.names.unique(f"{name}/{kind[5:]}")
            made = Tensor(half, I8, (*x.shape[:-1], self.rows))
            maker.node(half, Call(kind), (x.name, self.name), made)
            halves.append(half)
        whole = maker.names.unique(f"{name}/sums")
        op = Call("wide.join", (("parts", self.parts), ("shift", self.shift)))
        maker.node(whole, op, halves, Tensor(whole, I32, (*x.shape[:-1], self.rows // self.parts)))
        return whole


def _less_zero(weights: np.ndarray, x: Tensor) -> np.ndarray:
    """What the zero point of ``x`` adds to each sum, times -1."""
    assert x.quant is not None
    return -x.quant.zero_point[0] * weights.sum(1, dtype=np.int64)


def scales_of(tensors: Sequence[Tensor | None], out: Tensor, power: int) -> list[Rescale]:
    """Every rescaling in a cell whose state has the scale ``2**power``, as ``tfl.lstm_cell`` takes
    them."""

    def scale(tensor: Tensor | None) -> float:
        assert tensor is not None
        assert tensor.quant is not None
        return tensor.quant.scale[0]

    factors: list[float] = []
    with np.errstate(over="ignore"):
        for x, first in ((tensors[0], OF_INPUT), (out, OF_HIDDEN)):
            for weights in tensors[first : first + len(ORDER)]:
                joint = float(np.float32(scale(x)) * np.float32(scale(weights)))
                factors.append(joint * 2.0**GATE_BITS)
    factors += [2.0**-15, 2.0**-30 / 2.0**power, 2.0**-30 / scale(out)]
    assert len(factors) == SCALES
    return [Rescale.of(factor) for factor in factors]


def refusal(graph_inputs: Sequence[Tensor | None], out: Tensor, time_major: bool) -> str | None:
    """Why a layer is not one of :func:`expanded`'s; None if it is.

    Parameters
    ----------
    graph_inputs : sequence of Tensor or None
        TFLite's inputs; absent ones are None.
    out : Tensor
        Its output.
    time_major : bool
        Whether steps come before the batch.
    """
    x, of_input, of_hidden, bias = (
        graph_inputs[0],
        graph_inputs[OF_INPUT : OF_INPUT + 4],
        graph_inputs[OF_HIDDEN : OF_HIDDEN + 4],
        graph_inputs[BIAS : BIAS + 4],
    )
    known = (0, *range(OF_INPUT, OF_HIDDEN + 4), *range(BIAS, BIAS + 4), *STATES)
    if any(t is not None for k, t in enumerate(graph_inputs) if k not in known):
        return "PEEPHOLE_OR_PROJECTION"
    if x is None or any(t is None for t in (*of_input, *of_hidden, *bias)):
        return "COUPLED"
    if x.dtype not in (I8, F32) or len(x.shape) != 3 or len(out.shape) != 3:
        return str(x.dtype)
    floats = x.dtype == F32
    units = out.shape[2]
    wanted = [
        *[(t, (units, x.shape[2]), x.dtype) for t in of_input],
        *[(t, (units, units), x.dtype) for t in of_hidden],
        *[(t, (units,), F32 if floats else I32) for t in bias],
    ]
    for tensor, shape, dtype in wanted:
        if tensor is None or tensor.data is None or (tensor.shape, tensor.dtype) != (shape, dtype):
            return "ODD_WEIGHTS"
        if not floats and len(tensor.shape) == 2 and not _symmetric(tensor):
            return "ODD_SCALES"
    if out.shape[:2] != x.shape[:2] or out.dtype != x.dtype:
        return "ODD_OUTPUT"
    if floats:
        return None
    power = _power(graph_inputs[STATES[1]])
    if power is None:
        return "STATE"
    if time_major or out.shape[1] > STEPS_LIMIT or x.quant is None or out.quant is None:
        return "TIME_MAJOR" if time_major else "LONG"
    if x.quant.axis is not None or out.quant.axis is not None:
        return "ODD_SCALES"
    quants = [t.quant for t in (x, out, *of_input, *of_hidden) if t is not None]
    if not all(q is not None and 0 < q.scale[0] < math.inf for q in quants):
        return "ODD_SCALES"
    if any(scale.left > LEFT_LIMIT for scale in scales_of(graph_inputs, out, power)):
        return "ODD_SCALES"
    for four in (of_input, of_hidden):
        data = [t.data for t in four if t is not None and t.data is not None]
        if digits_of(np.concatenate(data)) is None:
            return "WIDE"
    return None


def attributes(
    tensors: Sequence[Tensor | None], time_major: bool, clip: float
) -> tuple[tuple[str, int], ...]:
    """What :func:`expanded` must know of a layer beside its tensors; ``clip`` is 0 for none."""
    power = _power(tensors[STATES[1]]) or 0
    steps = min(int(clip / 2.0**power), I16.max)
    return ("clip", steps), ("power", power), ("time_major", int(time_major))


def _power(state: Tensor | None) -> int | None:
    """The logarithm of the cell state's scale; None if it has no such scale as is expected."""
    if state is None or state.quant is None or state.dtype != I16 or any(state.quant.zero_point):
        return None
    powers = [power for power in range(-15, 1) if state.quant.scale == (2.0**power,)]
    return powers[0] if powers else None


STATE_NAMES = ("hidden", "state")
STATES = (18, 19)
"""Positions of the hidden and the cell state, which keep their values between inferences."""


def _symmetric(tensor: Tensor) -> bool:
    """Whether it has one scale and the zero point 0."""
    return tensor.quant is not None and tensor.quant.zero_point == (0,)
