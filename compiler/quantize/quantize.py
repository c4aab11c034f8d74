"""The whole way from a float graph and samples to integers, and what was lost on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...isa.errors import ConfigError, UnsupportedError
from ...isa.nest import F32
from ..graph import Graph, Node, Quant, op_name
from ..host import HostCode, reason_against
from ..onnx.qdq import MOVES, integers
from ..onnx.simplify import simplified
from ..verify import verify
from .calls import called
from .correct import corrections
from .fold import folded
from .insert import inserted
from .noise import Noise, real_values
from .observers import METHODS, Histogram, Method, Range, Span, quant_of
from .plan import Plan, plan
from .samples import Samples

Progress = Callable[[str, int, int], None]
"""Told of a phase, how many samples are done and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may differ between two ways to quantize one network."""

    method: Method = "minmax"
    """How ranges are chosen; see :mod:`.observers`."""

    percentile: float = 99.99
    """How many of a hundred values the range of ``percentile`` leaves below its upper end, and
    above its lower end."""

    per_channel: bool = True
    """Whether weights have a scale for each output channel."""

    bias_correction: bool = True
    """Whether biases take back the mean error of their channel."""

    skip: frozenset[str] = frozenset()
    """Names of nodes that stay on floats."""

    cache: Path | None = field(default=None, compare=False)
    """A directory for compiled objects."""

    def __post_init__(self) -> None:
        if self.method != "minmax" and self.method not in METHODS:
            known = ", ".join(("minmax", *METHODS))
            raise ConfigError(f"ranges are chosen by {known}, not by {self.method!r}")
        if not 50 < self.percentile <= 100:
            raise ConfigError(f"a percentile above 50, at most 100, not {self.percentile}")


@dataclass(frozen=True)
class Layer:
    """What quantization did to the output of one operator."""

    name: str
    op: str
    tensor: str
    range: Range
    quant: Quant
    noise: Noise


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network of integers.

    Attributes
    ----------
    qdq : Graph
        Of catalog operators, with QuantizeLinear and DequantizeLinear where something is rounded.
    graph : Graph
        The same with the accelerator's operators.
    layers : tuple of Layer
        One for every operator of integers that computes something, in order.
    outputs : mapping
        The noise of each output of the graph.
    floats : tuple of Node
        What stays on floats.
    samples : int
        How many were seen.
    """

    qdq: Graph
    graph: Graph
    layers: tuple[Layer, ...]
    outputs: Mapping[str, Noise]
    floats: tuple[Node, ...]
    samples: int


def prepared(graph: Graph) -> Graph:
    """``graph`` as what is quantized: catalog operators on floats, as few as possible.

    Raises
    ------
    UnsupportedError
        If it holds operators that do not run, or integers already.
    """
    quantized = [
        node.name
        for node in graph.nodes
        if op_name(node.op) in ("QuantizeLinear", "QLinearConv", "QLinearMatMul")
        or any(graph.tensors[name].quant is not None for name in node.outputs)
    ]
    if quantized:
        raise UnsupportedError(
            f"{graph.name}: it is quantized already (node {quantized[0]!r}); a float network is "
            "expected"
        )
    simple = folded(called(graph))
    against = {node.name: reason_against(simple, node) for node in simple.nodes}
    reasons = [f"node {name!r}: {reason}" for name, reason in against.items() if reason]
    if reasons:
        raise UnsupportedError(f"{graph.name}: {'; '.join(reasons)}")
    verify(simple)
    return simple


def quantize(
    graph: Graph,
    arrays: Mapping[str, np.ndarray],
    options: Options | None = None,
    *,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """A float network as integers.

    Parameters
    ----------
    graph : Graph
        As it was read.
    arrays : mapping
        Calibration data: an array for each input, samples on the first axis.
    options : Options or None
        How.
    samples : int or None
        At most so many of them.
    progress : callable or None
        Told how far it is.

    Raises
    ------
    DataError
        If the data do not fit the inputs, or make a tensor infinite.
    ConfigError
        If ``options.skip`` names a node that there is not.
    UnsupportedError
        If the network has nothing that could be integers, or has integers already.
    """
    options, say = options or Options(), progress or (lambda *_: None)
    data = Samples.of(graph, arrays, samples)
    unknown = options.skip - {node.name for node in graph.nodes}
    if unknown:
        raise ConfigError(f"{graph.name} has no node {min(unknown)!r} to leave on floats")
    simple = prepared(graph)
    real = HostCode(simple, simple.nodes, options.cache)
    wished = plan(simple, options.skip)
    ranges = _ranges(wished, real, data, options, say)
    decided, quants = _decided(simple, wished, ranges, options)
    biases: Mapping[str, np.ndarray] = {}
    if options.bias_correction:
        biases = corrections(
            simple, decided, quants, real, data, options.per_channel, options.cache, say
        )
    qdq = inserted(simple, decided, quants, per_channel=options.per_channel, biases=biases)
    verify(qdq)
    made = simplified(qdq)
    verify(made)
    return _measured(simple, decided, ranges, quants, qdq, made, real, data, options, say)


def _ranges(
    wished: Plan, real: HostCode, data: Samples, options: Options, say: Progress
) -> dict[str, Range]:
    """The range of every tensor of the plan."""
    spans = {name: Span() for name in wished.tensors}
    for k, values in enumerate(data):
        values.update(real.run(values))
        for name, span in spans.items():
            span.see(name, values[name])
        say("ranges", k + 1, len(data))
    if options.method == "minmax":
        return {name: (span.low, span.high) for name, span in spans.items()}
    histograms = {name: Histogram(span) for name, span in spans.items()}
    for k, values in enumerate(data):
        values.update(real.run(values))
        for name, histogram in histograms.items():
            histogram.see(values[name])
        say("distributions", k + 1, len(data))
    choose = METHODS[options.method]
    return {name: choose(histogram, options.percentile) for name, histogram in histograms.items()}


def _decided(
    simple: Graph, wished: Plan, ranges: Mapping[str, Range], options: Options
) -> tuple[Plan, dict[str, Quant]]:
    """The plan without what does not become an integer operator, and the quantizations."""
    skip = set(options.skip)
    while True:
        quants = _quants(wished, ranges)
        made = integers(inserted(simple, wished, quants, per_channel=options.per_channel))
        nodes = {node.name: node for node in made.nodes}
        lost = [
            name
            for name in wished.units
            if any(made.tensors[t].dtype == F32 for t in nodes[name].outputs)
        ]
        if not lost:
            break
        skip.update(lost)
        wished = plan(simple, skip)
    if not wished.units:
        raise UnsupportedError(f"{simple.name}: it has no operator that could be on integers")
    return wished, quants


def _quants(wished: Plan, ranges: Mapping[str, Range]) -> dict[str, Quant]:
    """The quantization of every tensor: that of all values of its group."""
    whole: dict[str, Range] = {}
    for name, root in wished.groups.items():
        (low, high), (least, most) = ranges[name], whole.get(root, (0.0, 0.0))
        whole[root] = (min(low, least), max(high, most))
    return {name: quant_of(whole[root]) for name, root in wished.groups.items()}


def _measured(
    simple: Graph, decided: Plan, ranges: Mapping[str, Range], quants: Mapping[str, Quant],
    qdq: Graph, made: Graph, real: HostCode, data: Samples, options: Options, say: Progress,
) -> Quantized:  # fmt: skip
    """What the integers are beside the reals, on all samples."""
    code = HostCode(made, made.nodes, options.cache)
    written = {unit.output: unit for unit in decided.units.values()}
    noise = {name: Noise() for name in (*written, *simple.outputs)}
    for k, values in enumerate(data):
        integer = code.run(values)
        reals = real.run(values)
        for name, one in noise.items():
            got = real_values(made, integer, name)
            if got is not None:
                one.see(reals[name], got)
        say("measuring", k + 1, len(data))
    layers = tuple(
        Layer(unit.node.name, unit.kind, name, ranges[name], quants[name], noise[name])
        for name, unit in written.items()
        if unit.kind not in MOVES
    )
    quantizing = ("QuantizeLinear", "DequantizeLinear")
    floats = tuple(
        node
        for node in made.nodes
        if op_name(node.op) not in quantizing
        and any(made.tensors[name].dtype == F32 for name in node.outputs)
    )
    outputs = {name: noise[name] for name in simple.outputs}
    return Quantized(qdq, made, layers, outputs, floats, len(data))
