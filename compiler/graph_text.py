"""A tensor graph as text: for people, for golden tests, and for packages.

::

    graph small
    input x: i8[1,4,4,2] scale 0.5 zero -1
    node conv: Conv2D(x, conv/weights, -) size=3x3 strides=2x2 pads=0,1,0,1 activation=relu
      conv: i8[1,2,2,4] scale 0.25 zero 3
    output conv
    constant conv/weights: i8[4,3,3,2] scale 0.1, 0.2, 0.1, 0.3 zero 0 along 0
      AAECAwQF...

A node's line has its inputs (``-`` for an absent one) and those of its attributes that differ from
the defaults; its outputs follow, one a line, indented. Constants stand at the end, their bytes,
little-endian, as base64. ``carry state from cell`` says that a constant takes another tensor's
value after each inference. Names that are not plain are quoted as in JSON. Lines that are empty or
start with ``#`` mean nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import get_args

import numpy as np

from ..isa.errors import ModelError
from ..isa.nest import BOOL, DType
from .graph import (
    Activation,
    Attribute,
    Graph,
    Node,
    Op,
    Quant,
    Rounding,
    Tensor,
    Ties,
    Window,
    element_dtype,
)
from .text_line import DECIMAL, PLAIN, Line
from .verify import RANK_LIMIT, TENSOR_BYTES_LIMIT, verify

LINE_BYTES = 72
"""Of a constant in one line of text: 96 characters."""
OPERATORS: Mapping[str, type[Op]] = {op.__name__: op for op in get_args(Op)}
WORDS = {"activation": Activation, "rounding": Rounding, "ties": Ties}
"""Attributes that are one of some words."""


# --- writing -----------------------------------------------------------------------------------


def format_graph(graph: Graph) -> str:
    """``graph`` as text that :func:`parse_graph` reads back, floats and constants exactly.

    Tensors stand where they get their value, constants in the order of their first use, whatever
    their order in ``graph.tensors``.
    """
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield f"graph {_name(graph.name)}"
    for name in graph.inputs:
        yield f"input {_tensor(graph.tensors[name])}"
    for node in graph.nodes:
        inputs = ", ".join(_name(name) if name else "-" for name in node.inputs)
        head = f"node {_name(node.name)}: {type(node.op).__name__}({inputs})"
        yield " ".join((head, *_attributes(node.op)))
        for name in node.outputs:
            yield f"  {_tensor(graph.tensors[name])}"
    for name in graph.outputs:
        yield f"output {_name(name)}"
    for name, source in graph.carried.items():
        yield f"carry {_name(name)} from {_name(source)}"
    used = dict.fromkeys(name for node in graph.nodes for name in node.inputs if name)
    for name in used | dict.fromkeys(graph.tensors):
        data = graph.tensors[name].data
        if data is None:
            continue
        yield f"constant {_tensor(graph.tensors[name])}"
        raw = data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
        for i in range(0, len(raw), LINE_BYTES):
            yield "  " + base64.b64encode(raw[i : i + LINE_BYTES]).decode()


def _name(name: str) -> str:
    return name if PLAIN.fullmatch(name) else json.dumps(name)


def _tensor(tensor: Tensor) -> str:
    text = f"{_name(tensor.name)}: {tensor.dtype}[{','.join(map(str, tensor.shape))}]"
    quant = tensor.quant
    if quant is None:
        return text
    zeros = quant.zero_point[:1] if len(set(quant.zero_point)) == 1 else quant.zero_point
    text += (
        f" scale {', '.join(repr(float(s)) for s in quant.scale)} zero {', '.join(map(str, zeros))}"
    )
    return text if quant.axis is None else f"{text} along {quant.axis}"


def _attributes(op: Op) -> Iterator[str]:
    for field in fields(op):
        value = getattr(op, field.name)
        if field.name == "window":
            yield from (
                f"{f.name}={_numbers(getattr(value, f.name))}"
                for f in fields(Window)
                if getattr(value, f.name) != f.default
            )
        elif value != field.default:
            yield f"{field.name}={_value(field.name, value)}"


def _value(name: str, value: object) -> str:
    match name:
        case "kind":
            return _name(str(value))
        case "attributes":
            return _name(json.dumps(dict(value)))  # type: ignore[call-overload]  # pairs
    return str(value)


def _numbers(values: tuple[int, ...]) -> str:
    return ("x" if len(values) == 2 else ",").join(map(str, values))


# --- reading -----------------------------------------------------------------------------------


def parse_graph(text: str) -> Graph:
    """The graph that ``text`` describes.

    Raises
    ------
    ModelError
        If the text is malformed, with the line; or if the graph is not legal.
    """
    graph = _Parser(text).graph()
    verify(graph)
    return graph


class _Parser:
    def __init__(self, text: str):
        self.lines = [
            (number, line)
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.startswith("#")
        ]
        self.at = 0
        self.tensors: dict[str, Tensor] = {}

    def graph(self) -> Graph:
        head = self.line()
        if head.indented:
            head.fail("expected 'graph' at the start of the line")
        head.expect("graph")
        name = head.name()
        head.expect("")
        inputs: list[str] = []
        nodes: list[Node] = []
        outputs: list[str] = []
        carried: dict[str, str] = {}
        while self.at < len(self.lines):
            line = self.line()
            if line.indented:
                line.fail("an indented line without a node or constant above it")
            keyword = line.take()
            match keyword:
                case "input":
                    inputs.append(self.tensor(line).name)
                case "node":
                    nodes.append(self.node(line))
                case "output":
                    outputs.append(line.name())
                    line.expect("")
                case "carry":
                    name_, _, source = line.name(), line.expect("from"), line.name()
                    line.expect("")
                    carried[name_] = source
                case "constant":
                    self.tensor(line, constant=True)
                case _:
                    line.fail(f"expected input, node, output, carry or constant, not {keyword!r}")
        return Graph(name, self.tensors, tuple(nodes), tuple(inputs), tuple(outputs), carried)

    def line(self) -> Line:
        if self.at >= len(self.lines):
            raise ModelError("line 1: expected 'graph', not the end of the text")
        self.at += 1
        return Line(*self.lines[self.at - 1])

    def below(self) -> Iterator[tuple[int, str]]:
        """The indented lines that follow."""
        while self.at < len(self.lines) and self.lines[self.at][1][:1].isspace():
            self.at += 1
            yield self.lines[self.at - 1]

    def tensor(self, line: Line, constant: bool = False) -> Tensor:
        """A tensor's name, type, shape and quantization, and the data below a constant."""
        name = line.name()
        if name in self.tensors:
            line.fail(f"there is a tensor {name!r} already")
        line.expect(":")
        try:
            dtype = DType.parse(line.take())
        except ValueError as error:
            line.fail(str(error))
        line.expect("[")
        shape = line.several(line.integer, end="]")
        line.expect("]")
        quant = self.quant(line, shape) if line.skip("scale") else None
        line.expect("")
        data = self.data(line, dtype, shape) if constant else None
        self.tensors[name] = Tensor(name, dtype, shape, quant, data)
        return self.tensors[name]

    def quant(self, line: Line, shape: tuple[int, ...]) -> Quant:
        scale = line.several(line.real)
        line.expect("zero")
        zeros = line.several(line.integer)
        axis = line.integer() if line.skip("along") else None
        if len(zeros) == 1:
            zeros *= len(scale)
        return Quant(scale, zeros, axis)

    def data(self, line: Line, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        if (dtype.bits not in (8, 16, 32, 64) and dtype != BOOL) or (
            dtype.kind == "f" and dtype.bits == 8
        ):
            line.fail(f"a constant of type {dtype}")
        if len(shape) > RANK_LIMIT or any(extent < 0 for extent in shape):
            line.fail(f"a constant of shape {list(shape)}")
        kind = element_dtype(dtype)
        expected = math.prod(shape) * kind.itemsize
        if expected > TENSOR_BYTES_LIMIT:
            line.fail(f"a constant of {expected} bytes")
        try:
            raw = base64.b64decode("".join(text.strip() for _, text in self.below()), validate=True)
        except (binascii.Error, ValueError):
            line.fail("the data of this constant is not base64")
        if len(raw) != expected:
            line.fail(f"this constant needs {expected} bytes of data; {len(raw)} follow")
        if dtype == BOOL:
            return np.frombuffer(raw, np.uint8).astype(bool).reshape(shape)
        return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind, copy=False).reshape(shape)

    def node(self, line: Line) -> Node:
        name = line.name()
        line.expect(":")
        kind = line.take()
        op = OPERATORS.get(kind)
        if op is None:
            line.fail(f"expected one of {', '.join(OPERATORS)}, not {kind!r}")
        line.expect("(")
        inputs = line.several(lambda: "" if line.skip("-") else line.name(), end=")")
        line.expect(")")
        made = self.attributes(line, op)
        outputs: list[str] = []
        for number, text in self.below():
            outputs.append(self.tensor(Line(number, text)).name)
        return Node(name, made, inputs, tuple(outputs))

    def attributes(self, line: Line, op: type[Op]) -> Op:
        """The operator with the attributes on the rest of the line."""
        own = {field.name: field for field in fields(op)}
        of_window = {f.name: f for f in fields(Window)} if own.pop("window", None) else {}
        values: dict[str, object] = {}
        while line.next:
            name = line.take()
            if name in values:
                line.fail(f"{name!r} is given twice")
            line.expect("=")
            if name in of_window:
                values[name] = _parse_numbers(line, 4 if name == "pads" else 2)
            elif name in own:
                values[name] = _parse_attribute(line, name)
            else:
                known = ", ".join((*of_window, *own)) or "no attributes"
                line.fail(f"{op.__name__} has {known}, not {name!r}")
        _require(line, (*own.values(), *of_window.values()), values)
        window = {name: values.pop(name) for name in of_window if name in values}
        if of_window:
            values["window"] = Window(**window)  # type: ignore[arg-type]  # read by field
        return op(**values)  # type: ignore[arg-type]


def _parse_numbers(line: Line, count: int) -> tuple[int, ...]:
    """``3x3``, or four numbers with commas between them."""
    if count == 4:
        numbers = line.several(line.integer)
    else:
        token = line.take()
        parts = token.split("x")
        if not all(DECIMAL.fullmatch(part) for part in parts):
            line.fail(f"expected two numbers such as 3x3, not {token!r}")
        numbers = tuple(map(int, parts))
    if len(numbers) != count:
        line.fail(f"expected {count} numbers, not {len(numbers)}")
    return numbers


def _parse_attribute(line: Line, name: str) -> object:
    match name:
        case _ if name in WORDS:
            value, known = line.take(), get_args(WORDS[name])
            if value not in known:
                line.fail(f"expected one of {', '.join(known)}, not {value!r}")
            return value
        case "beta":
            return line.real()
        case "kind":
            return line.name()
        case "attributes":
            return _parse_attributes(line)
    return line.integer()


def _parse_attributes(line: Line) -> tuple[tuple[str, Attribute], ...]:
    """A call's attributes: a mapping in JSON, in which lists hold numbers or texts."""
    try:
        found = json.loads(line.name())
    except (json.JSONDecodeError, RecursionError):
        line.fail("the attributes are not JSON")
    if not isinstance(found, dict):
        line.fail("the attributes are no mapping")
    result: list[tuple[str, Attribute]] = []
    for name, value in sorted(found.items()):
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int | float | str) for item in items):
            line.fail(f"attribute {name!r} is {value!r:.40}")
        result.append((name, tuple(value) if isinstance(value, list) else value))
    return tuple(result)


def _require(line: Line, known: Iterable[Field], values: Mapping[str, object]) -> None:
    for field in known:
        if field.default is MISSING and field.name not in values:
            line.fail(f"{field.name}= is missing")
