"""From a parsed ONNX model to a tensor graph: shapes, constants, functions, names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...isa.errors import ModelError, UnsupportedError
from ...isa.nest import DType
from ..catalog import CATALOG
from ..catalog.pointwise import type_of_code
from ..graph import Call, Graph, Node, Tensor
from ..tflite.names import Names
from ..verify import verify
from .call import NONE, call
from .fold import Budget
from .functions import Body, body_of
from .loops import branch, loop, scan
from .older import WORDS, Old, is_older, renewed
from .simplify import simplified
from .source import array_of, attribute_of, onnx, opsets

if TYPE_CHECKING:
    from .model import Model

NODE_LIMIT = 100_000
"""Of a graph, with everything that functions are composed of and every step of loops."""
MOST_AXES = 64
"""Of an array of numpy's."""
DEPTH_LIMIT = 32
"""Of functions in functions."""

Values = Mapping[str, str | None]
"""Names in a file to tensors of the graph; None for what could not be built."""


@dataclass(frozen=True)
class Scope:
    """Where nodes stand: the model's graph, a branch, or the body of a function."""

    names: dict[str, str | None]
    opsets: Mapping[str, int]
    attributes: Mapping[str, Any]
    prefix: str
    depth: int


def build(
    model: Model, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]
) -> Graph:
    """The graph of ``model``; see :meth:`.model.Model.graph`."""
    return Builder(model).graph(shapes, values)


class Builder:
    """A graph in the making: what is known of the tensors and nodes so far.

    Parameters
    ----------
    model : Model
        The file.
    """

    def __init__(self, model: Model):
        self.model, self.where = model, model.name
        self.names, self.node_names = Names(), Names()
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.origins: dict[str, frozenset[str]] = {}
        """Inputs on whose values a tensor depends."""
        self.makers: dict[str, Node] = {}
        """Nodes that :data:`KEPT` left in the graph, by their outputs."""
        self.lost: dict[str, None] = {}
        self.count = 0
        self.budget = Budget()
        self.functions = {(f.domain, f.name): f for f in model.proto.functions}

    def graph(
        self, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]
    ) -> Graph:
        """The graph of the whole model."""
        proto = self.model.proto
        scope = Scope({}, opsets(proto, self.where), {}, "", 0)
        inputs: list[str] = []
        for one in self.model.inputs:
            tensor = Tensor(self.fresh(one.name), one.dtype, shapes[one.name])
            inputs.append(self.add(tensor, frozenset((one.name,))))
            scope.names[one.name] = tensor.name
            if one.name in values:
                fixed = replace(
                    tensor, name=self.fresh(f"{one.name}/value"), data=_plain(values[one.name])
                )
                scope.names[one.name] = self.add(fixed, NONE)
        for constant in proto.graph.initializer:
            scope.names[constant.name] = self.constant(constant, constant.name)
        if proto.graph.sparse_initializer:
            self.lose("sparse constants")
        self.run(proto.graph.node, scope)
        outputs = [self.output(info.name, scope, inputs) for info in proto.graph.output]
        if self.lost:
            raise UnsupportedError(f"{self.where}: {'; '.join(self.lost)}")
        kept = [name for name in outputs if name is not None]
        if not kept:
            raise ModelError(f"{self.where}: the model has no outputs")
        graph = Graph(self.where, self.tensors, tuple(self.nodes), tuple(inputs), tuple(kept))
        graph = simplified(graph)
        verify(graph)
        return graph

    # --- tensors

    def fresh(self, wish: str) -> str:
        """A name that no tensor has, near to a file's."""
        return self.names.unique("".join("_" if c.isspace() else c for c in wish) or "tensor")

    def add(self, tensor: Tensor, origins: frozenset[str]) -> str:
        """Take a tensor into the graph; its name. One of more axes than numpy has is refused."""
        axes = len(tensor.shape)
        if axes > MOST_AXES:
            raise ModelError(
                f"{self.where}: {tensor.name!r} has {axes} axes; {MOST_AXES} can be held"
            )
        self.tensors[tensor.name] = tensor
        self.origins[tensor.name] = origins
        return tensor.name

    def constant(self, proto: Any, name: str) -> str | None:
        """A constant of the file, under a name near to its own; None if it cannot be held."""
        try:
            data = array_of(proto, self.model.folder, f"{self.where}: constant {name!r}")
        except UnsupportedError as error:
            self.lose(str(error).removeprefix(f"{self.where}: "))
            return None
        return self.known(data, name, dtype=type_of_code(proto.data_type))

    def known(
        self,
        data: np.ndarray,
        wish: str,
        origins: frozenset[str] = NONE,
        dtype: DType | None = None,
    ) -> str:
        """A tensor that is an array, of the array's type or of one that fits into it."""
        if dtype is None:
            width = 1 if data.dtype == bool else 8 * data.itemsize
            dtype = DType("u" if width == 1 else data.dtype.kind, width)  # type: ignore[arg-type]
        return self.add(Tensor(self.fresh(wish), dtype, data.shape, None, _plain(data)), origins)

    def lose(self, why: str) -> None:
        """Remember what cannot be run: all of it goes into one message."""
        self.lost[why] = None

    def output(self, name: str, scope: Scope, inputs: Sequence[str]) -> str | None:
        """An output of the model: what a node writes, and under its name if that is free."""
        if name not in scope.names:
            raise ModelError(f"{self.where}: nothing computes output {name!r}")
        found = scope.names[name]
        if found is None:
            return None
        if found in inputs or self.tensors[found].data is not None:
            tensor = self.tensors[found]
            made = replace(tensor, name=self.fresh(f"{name}/copy"), data=None)
            self.nodes.append(
                Node(self.node_names.unique(name), Call("Identity"), (found,), (made.name,))
            )
            return self.add(made, self.origins[found])
        return found

    # --- nodes

    def run(self, nodes: Sequence[Any], scope: Scope) -> None:
        """Build nodes one after another."""
        for node in nodes:
            self.count += 1
            if self.count > NODE_LIMIT:
                raise ModelError(f"{self.where}: more than {NODE_LIMIT} nodes")
            inputs: list[str] = []
            broken = False
            for name in node.input:
                if name and name not in scope.names:
                    raise ModelError(f"{self.label(node)}: it reads {name!r}, which has no value")
                found = scope.names[name] if name else ""
                broken |= found is None
                inputs.append(found or "")
            for name in node.output:
                if name in scope.names and scope.depth == 0 and name:
                    raise ModelError(f"{self.label(node)}: {name!r} has a value already")
            results: Sequence[str | None] = (None,) * len(node.output)
            if not broken:
                try:
                    results = self.node(node, inputs, scope)
                except UnsupportedError as error:
                    if type(error) is not UnsupportedError:
                        raise
                    self.lose(str(error).removeprefix(f"{self.where}: "))
            for name, result in zip(node.output, results, strict=False):
                if name:
                    scope.names[name] = result

    def label(self, node: Any) -> str:
        """A node for messages."""
        name = node.name or next(iter(node.output), "")
        kind = node.op_type if node.op_type.isidentifier() else repr(node.op_type)
        return f"{self.where}: node {name!r} ({kind})"

    def node(self, node: Any, inputs: Sequence[str], scope: Scope) -> Sequence[str | None]:
        """The tensors that a node writes."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        kind = node.op_type
        local = self.functions.get((node.domain, kind))
        if local is not None:
            return self.inline(Body.local(local), node, inputs, scope)
        version = scope.opsets.get(domain)
        if version is None:
            if domain:
                raise UnsupportedError(f"{self.label(node)}: no operator of the domain {domain!r}")
            raise ModelError(f"{self.label(node)}: the model names no opset")
        schema = self.schema(node, version, domain)
        protos = self.attributes(node, schema, scope)
        if kind == "Constant":
            return [self.literal(node, protos)]
        if kind in CONTROL:
            return CONTROL[kind](self, node, inputs, protos, scope)
        tensors = [self.tensors.get(n) for n in inputs]
        if domain:
            return self.composed(schema, version, node, protos, inputs, scope)
        if is_older(kind, version):
            if not tensors or tensors[0] is None:
                raise ModelError(f"{self.label(node)}: its input is absent")
            old = Old(node, version, protos, tensors[0], self.label(node))
            return self.instead(renewed(old), node, scope)
        if kind in CATALOG:
            return call(self, node, inputs, protos, scope)
        return self.composed(schema, version, node, protos, inputs, scope)

    def schema(self, node: Any, version: int, domain: str) -> Any:
        """What the opset says of a node's operator; its ends are as that wants them."""
        defs = onnx().defs
        try:
            schema = defs.get_schema(node.op_type, version, domain)
        except defs.SchemaError:
            of = f" of the domain {domain!r}" if domain else ""
            raise UnsupportedError(
                f"{self.label(node)}: opset {version}{of} has no such operator"
            ) from None
        if not schema.min_input <= len(node.input) <= schema.max_input:
            raise ModelError(f"{self.label(node)}: it has {len(node.input)} inputs")
        if not schema.min_output <= len(node.output) <= schema.max_output:
            raise ModelError(f"{self.label(node)}: it has {len(node.output)} outputs")
        return schema

    def attributes(self, node: Any, schema: Any, scope: Scope) -> dict[str, Any]:
        """The attributes that a node gives, those of the function around it filled in."""
        found: dict[str, Any] = {}
        for proto in node.attribute:
            if proto.name not in schema.attributes:
                raise ModelError(f"{self.label(node)}: it has no attribute {proto.name!r}")
            if proto.ref_attr_name:
                if proto.ref_attr_name in scope.attributes:
                    found[proto.name] = scope.attributes[proto.ref_attr_name]
                continue
            found[proto.name] = proto
        for name, wanted in schema.attributes.items():
            if name in found and found[name].type != wanted.type.value:
                raise ModelError(f"{self.label(node)}: attribute {name!r} is of another type")
            if wanted.required and name not in found:
                raise ModelError(f"{self.label(node)}: attribute {name!r} is missing")
        return found

    def literal(self, node: Any, protos: Mapping[str, Any]) -> str | None:
        """The tensor of a Constant."""
        if len(protos) != 1:
            raise ModelError(f"{self.label(node)}: it has {len(protos)} values")
        ((name, proto),) = protos.items()
        wish = node.output[0]
        if name == "value":
            return self.constant(proto.t, wish)
        value = attribute_of(proto, self.label(node))
        if value is None or name in ("value_string", "value_strings"):
            raise UnsupportedError(f"{self.label(node)}: a constant from {name!r}")
        dtype = np.float32 if name.startswith("value_float") else np.int64
        return self.known(np.array(value, dtype), wish)

    # --- nodes for nodes

    def composed(
        self, schema: Any, version: int, node: Any, protos: Mapping[str, Any],
        inputs: Sequence[str], scope: Scope,
    ) -> Sequence[str | None]:  # fmt: skip
        """The outputs of an operator that ONNX's schemas compose of others."""
        tensors = [self.tensors.get(n) for n in inputs]
        body = body_of(schema, version, node, protos, tensors)
        if body is None:
            of = f" of the domain {node.domain!r}" if node.domain else ""
            raise UnsupportedError(f"{self.label(node)}: Weft has no such operator{of}")
        return self.inline(body, node, inputs, scope)

    def inline(
        self, body: Body, node: Any, inputs: Sequence[str], scope: Scope
    ) -> Sequence[str | None]:
        """The outputs of a function's nodes."""
        if scope.depth >= DEPTH_LIMIT:
            raise ModelError(f"{self.label(node)}: functions in functions, {DEPTH_LIMIT} deep")
        given: dict[str, Any] = dict(body.defaults)
        for proto in node.attribute:
            if not proto.ref_attr_name:
                given[proto.name] = proto
            elif proto.ref_attr_name in scope.attributes:
                given[proto.name] = scope.attributes[proto.ref_attr_name]
        padded = [*inputs, *[""] * (len(body.inputs) - len(inputs))]
        names: dict[str, str | None] = dict(zip(body.inputs, padded, strict=False))
        prefix = f"{scope.prefix}{node.name or next(iter(node.output), node.op_type)}/"
        inner = Scope(names, {**scope.opsets, **body.opsets}, given, prefix, scope.depth + 1)
        self.run(body.nodes, inner)
        for name, wanted in zip(body.outputs, node.output, strict=False):
            if wanted and name not in names:
                raise ModelError(f"{self.label(node)}: nothing computes its output {name!r}")
        return [names.get(name) for name in body.outputs]

    def instead(self, nodes: Sequence[Any], node: Any, scope: Scope) -> Sequence[str | None]:
        """The outputs of a node for which others stand, that write under its names."""
        names = {name: scope.names[name] for name in node.input if name}
        opsets = {**scope.opsets, "": WORDS}
        inner = replace(scope, names=names, opsets=opsets, depth=scope.depth + 1)
        self.run(nodes, inner)
        return [inner.names.get(name) for name in node.output]


Control = Callable[[Builder, Any, Sequence[str], Mapping[str, Any], Scope], Sequence[str | None]]
CONTROL: Mapping[str, Control] = {"If": branch, "Loop": loop, "Scan": scan}
"""Operators with graphs within."""


def _plain(data: np.ndarray) -> np.ndarray:
    """An array as a graph holds it."""
    return np.require(data, data.dtype.newbyteorder("="), ("C", "ALIGNED")).reshape(data.shape)
