"""From a parsed ONNX model to a tensor graph: shapes, constants, functions, names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...isa.errors import ModelError, UnsupportedError
from ...isa.nest import BOOL, DType
from ..catalog import CATALOG, Site, ValueNeeded
from ..catalog.site import Types
from ..graph import Attribute, Call, Graph, Node, Tensor, element_dtype
from ..tflite.names import Names
from ..verify import verify
from .fold import evaluate
from .functions import Body, body_of
from .simplify import simplified
from .source import CHANGED, array_of, attribute_of, onnx, opsets

if TYPE_CHECKING:
    from .model import Model

FOLD_LIMIT = 1 << 22
"""Elements of a constant that is computed while a graph is built."""
NODE_LIMIT = 100_000
"""Of a graph, with everything that functions are composed of and every step of loops."""
STEP_LIMIT = 1024
"""Of a loop that is written out."""
SCAN_OPSET = 9
"""Before it a Scan had a batch."""
DEPTH_LIMIT = 32
"""Of functions in functions."""
UNSEEN = frozenset(("Shape", "Size", "EyeLike"))
"""Operators that look at the shape of their input alone."""
KEPT = frozenset(("DequantizeLinear",))
"""Operators that stay when their inputs are constants: quantized weights are found by them."""
NONE: frozenset[str] = frozenset()

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
    return _Builder(model).graph(shapes, values)


class _Builder:
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
        self.functions = {(f.domain, f.name): f for f in model.proto.functions}

    def graph(
        self, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]
    ) -> Graph:
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
        self.tensors[tensor.name] = tensor
        self.origins[tensor.name] = origins
        return tensor.name

    def constant(self, proto: Any, name: str) -> str | None:
        try:
            data = array_of(proto, self.model.folder, f"{self.where}: constant {name!r}")
        except UnsupportedError as error:
            self.lose(str(error).removeprefix(f"{self.where}: "))
            return None
        return self.known(data, name)

    def known(self, data: np.ndarray, wish: str, origins: frozenset[str] = NONE) -> str:
        """A tensor that is an array."""
        dtype = BOOL if data.dtype == bool else DType.parse(f"{data.dtype.kind}{data.itemsize * 8}")
        return self.add(Tensor(self.fresh(wish), dtype, data.shape, None, _plain(data)), origins)

    def lose(self, why: str) -> None:
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
        if domain:
            raise UnsupportedError(f"{self.label(node)}: no operator of the domain {domain!r}")
        version = scope.opsets.get("")
        if version is None:
            raise ModelError(f"{self.label(node)}: the model names no opset")
        schema = self.schema(node, version)
        protos = self.attributes(node, schema, scope)
        if kind == "Constant":
            return [self.literal(node, protos)]
        if kind == "If":
            return self.branch(node, inputs, protos, scope)
        if kind == "Scan":
            return self.scan(node, inputs, protos, scope)
        if kind == "Loop":
            return self.loop(node, inputs, protos, scope)
        if kind in CATALOG:
            if schema.since_version < min(CHANGED.get(kind, 0), 13) or (
                version < CHANGED.get(kind, 0)
            ):
                raise UnsupportedError(
                    f"{self.label(node)}: as opset {version} has it; "
                    f"opset {CHANGED[kind]} or newer is expected"
                )
            return self.call(node, inputs, protos, scope)
        body = body_of(schema, version, node, protos, [self.tensors.get(n) for n in inputs])
        if body is None:
            raise UnsupportedError(f"{self.label(node)}: Weft has no such operator")
        return self.inline(body, node, inputs, scope)

    def schema(self, node: Any, version: int) -> Any:
        defs = onnx().defs
        try:
            schema = defs.get_schema(node.op_type, version, "")
        except defs.SchemaError:
            raise UnsupportedError(
                f"{self.label(node)}: opset {version} has no such operator"
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

    # --- operators

    def call(
        self, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
    ) -> Sequence[str | None]:
        """The outputs of an operator of the catalog: constants where they can be computed."""
        plain: dict[str, Attribute] = {}
        given = list(inputs)
        for name, proto in protos.items():
            if node.op_type == "ConstantOfShape" and name == "value":
                value = array_of(proto.t, self.model.folder, self.label(node))
                given.append(self.known(value, f"{node.output[0]}/value"))
                continue
            value = attribute_of(proto, self.label(node))
            if value is None:
                raise UnsupportedError(f"{self.label(node)}: attribute {name!r} of its kind")
            plain[name] = value
        while given and not given[-1]:
            given.pop()
        asked = list(node.output)
        while asked and not asked[-1]:
            asked.pop()
        label = node.name or next(filter(None, asked), node.op_type)
        name = self.node_names.unique(
            "".join("_" if c.isspace() else c for c in scope.prefix + label)
        )
        tensors = tuple(self.tensors[n] if n else None for n in given)
        site = Site(name, node.op_type, plain, tensors, len(asked))
        site, types = self.inferred(site, given)
        wishes = [f"{scope.prefix}{output}" if output else f"{name}/unused" for output in asked]
        values = self.folded(site, types)
        origins = (
            NONE if site.kind in UNSEEN else NONE.union(*(self.origins[n] for n in given if n))
        )
        if values is not None:
            return [self.known(v, w, origins) for v, w in zip(values, wishes, strict=True)]
        outputs = tuple(
            self.add(Tensor(self.fresh(wish), dtype, tuple(shape)), origins)
            for wish, (dtype, shape) in zip(wishes, types, strict=True)
        )
        made = Node(name, Call(site.kind, tuple(sorted(plain.items()))), tuple(given), outputs)
        # What inference needed is a constant by now, even where its node stays.
        made = replace(made, inputs=tuple(t.name if t else "" for t in site.inputs))
        if site.kind in KEPT and all(t is None or t.data is not None for t in site.inputs):
            self.makers.update(dict.fromkeys(outputs, made))
        self.nodes.append(made)
        return outputs

    def inferred(self, site: Site, names: Sequence[str]) -> tuple[Site, Types]:
        """The types of the outputs, with values found for those inputs that shapes depend on."""
        from .model import Unbound

        while True:
            try:
                types = CATALOG[site.kind].types(site)[: site.count]
            except ValueNeeded as needed:
                name = names[needed.position]
                if name in self.makers:
                    maker = Site.of(self._so_far(), self.makers[name])
                    arrays = [t.data if t else None for t in maker.inputs]
                    (value, *_) = evaluate(maker, arrays)
                    inputs = list(site.inputs)
                    inputs[needed.position] = self.tensors[self.known(value, f"{name}/value")]
                    site = replace(site, inputs=tuple(inputs))
                    continue
                origins = self.origins[name]
                raise Unbound(
                    f"{self.where}: node {site.name!r} ({site.kind}): the shape of its output "
                    f"depends on the values of {', '.join(map(repr, sorted(origins)))}",
                    origins,
                ) from None
            except (ModelError, UnsupportedError) as error:
                raise type(error)(f"{self.where}: {error}") from None
            if len(types) != site.count:
                raise ModelError(
                    f"{self.where}: node {site.name!r} ({site.kind}): {site.count} outputs"
                )
            return site, types

    def _so_far(self) -> Graph:
        return Graph(self.where, self.tensors, (), (), ())

    def folded(self, site: Site, types: Types) -> Sequence[np.ndarray] | None:
        """The outputs as arrays, where all inputs are known."""
        if site.kind in KEPT or sum(math.prod(shape) for _, shape in types) > FOLD_LIMIT:
            return None
        arrays = [t.data if t else None for t in site.inputs]
        if site.kind in UNSEEN:
            arrays = [np.broadcast_to(np.zeros((), element_dtype(site.x.dtype)), site.x.shape)]
        elif any(t is not None and t.data is None for t in site.inputs):
            return None
        if sum(a.size for a in arrays if a is not None) > FOLD_LIMIT and site.kind not in UNSEEN:
            return None
        outputs = tuple(
            Tensor(f"{site.name} out{i}", dtype, tuple(shape))
            for i, (dtype, shape) in enumerate(types)
        )
        return evaluate(replace(site, outputs=outputs), arrays)

    # --- functions and branches

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
        prefix = f"{scope.prefix}{node.name or node.output[0]}/"
        inner = Scope(names, {**scope.opsets, **body.opsets}, given, prefix, scope.depth + 1)
        self.run(body.nodes, inner)
        for name, wanted in zip(body.outputs, node.output, strict=False):
            if wanted and name not in names:
                raise ModelError(f"{self.label(node)}: nothing computes its output {name!r}")
        return [names.get(name) for name in body.outputs]

    def branch(
        self, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
    ) -> Sequence[str | None]:
        """The outputs of the branch that a constant condition chooses."""
        from .model import Unbound

        condition = self.tensors[inputs[0]]
        if condition.data is None:
            raise Unbound(
                f"{self.label(node)}: its condition depends on the values of "
                f"{', '.join(map(repr, sorted(self.origins[inputs[0]])))}",
                self.origins[inputs[0]],
            )
        if condition.data.size != 1:
            raise ModelError(f"{self.label(node)}: one condition is expected")
        chosen = protos["then_branch" if condition.data.reshape(-1)[0] else "else_branch"].g
        outputs = self.body(node, chosen, (), scope, "")
        if len(outputs) != len(node.output):
            raise ModelError(f"{self.label(node)}: its branch does not compute its outputs")
        return outputs

    def body(
        self, node: Any, graph: Any, inputs: Sequence[str | None], scope: Scope, step: str
    ) -> list[str | None]:
        """The outputs of a graph within a node, in which the names around it are known."""
        if scope.depth >= DEPTH_LIMIT:
            raise ModelError(f"{self.label(node)}: graphs in graphs, {DEPTH_LIMIT} deep")
        inner = replace(
            scope, names=dict(scope.names), prefix=f"{scope.prefix}{node.output[0]}{step}/",
            depth=scope.depth + 1,
        )  # fmt: skip
        if len(graph.input) != len(inputs):
            raise ModelError(f"{self.label(node)}: its graph has {len(graph.input)} inputs")
        inner.names.update(zip((i.name for i in graph.input), inputs, strict=True))
        for constant in graph.initializer:
            inner.names[constant.name] = self.constant(constant, constant.name)
        self.run(graph.node, inner)
        missing = [o.name for o in graph.output if o.name not in inner.names]
        if missing:
            raise ModelError(f"{self.label(node)}: nothing computes {missing[0]!r} of its graph")
        return [inner.names[o.name] for o in graph.output]

    def made(
        self, kind: str, inputs: Sequence[str], wish: str, scope: Scope, **attributes: Any
    ) -> str | None:
        """The output of an operator that a loop needs around its steps."""
        helper = onnx().helper
        node = helper.make_node(kind, list(inputs), [wish], **attributes)
        protos = {proto.name: proto for proto in node.attribute}
        return self.call(node, inputs, protos, scope)[0]

    def stacked(
        self, node: Any, parts: Sequence[str | None], axis: int, wish: str, scope: Scope
    ) -> str | None:
        """What every step gave, one after another along a new axis."""
        if None in parts:
            return None
        if not parts:
            raise UnsupportedError(f"{self.label(node)}: a loop without steps")
        wide: list[str] = []
        for part in parts:
            assert part is not None
            rank = len(self.tensors[part].shape) + 1
            at = self.known(np.array([axis % rank], np.int64), f"{wish}/axis")
            made = self.made("Unsqueeze", (part, at), f"{wish}/step", scope)
            assert made is not None
            wide.append(made)
        return self.made("Concat", wide, wish, scope, axis=axis)

    def scan(
        self, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
    ) -> Sequence[str | None]:
        """A loop over slices of inputs, written out."""
        if scope.opsets[""] < SCAN_OPSET:
            raise UnsupportedError(f"{self.label(node)}: as opset {scope.opsets['']} has it")
        graph, count = protos["body"].g, int(protos["num_scan_inputs"].i)
        states = len(inputs) - count
        if count < 1 or states < 0:
            raise ModelError(f"{self.label(node)}: {count} inputs to scan")

        def listed(name: str, length: int) -> list[int]:
            values = list(protos[name].ints) if name in protos else [0] * length
            if len(values) != length:
                raise ModelError(f"{self.label(node)}: {name} has {len(values)} values")
            return values

        outer = len(node.output) - states
        axes, backward = (listed(f"scan_input_{k}", count) for k in ("axes", "directions"))
        axes_out, reverse = (listed(f"scan_output_{k}", outer) for k in ("axes", "directions"))
        steps = set()
        for name, axis in zip(inputs[states:], axes, strict=True):
            shape = self.tensors[name].shape
            if not -len(shape) <= axis < len(shape):
                raise ModelError(f"{self.label(node)}: axis {axis} of {list(shape)}")
            steps.add(shape[axis])
        if len(steps) != 1 or max(steps) > STEP_LIMIT:
            raise UnsupportedError(f"{self.label(node)}: {sorted(steps)} steps")
        carried: list[str | None] = list(inputs[:states])
        given: list[list[str | None]] = [[] for _ in range(outer)]
        total = steps.pop()
        for step in range(total):
            slices: list[str | None] = []
            for name, axis, back in zip(inputs[states:], axes, backward, strict=True):
                place = total - 1 - step if back else step
                at = self.known(np.array(place, np.int64), f"{name}/step")
                slices.append(self.made("Gather", (name, at), f"{name}/{step}", scope, axis=axis))
            results = self.body(node, graph, [*carried, *slices], scope, f"/{step}")
            if len(results) != states + outer:
                raise ModelError(f"{self.label(node)}: its graph has {len(results)} outputs")
            carried = results[:states]
            for parts, result in zip(given, results[states:], strict=True):
                parts.append(result)
        ends = [
            self.stacked(node, parts[::-1] if back else parts, axis, name, scope)
            for parts, back, axis, name in zip(
                given, reverse, axes_out, node.output[states:], strict=True
            )
        ]
        return [*carried, *ends]

    def loop(
        self, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
    ) -> Sequence[str | None]:
        """A loop whose steps are known when shapes are, written out."""
        graph = protos["body"].g
        padded = [*inputs, *[""] * (2 - len(inputs))]
        limit = self.certain(node, padded[0]) if padded[0] else STEP_LIMIT + 1
        going = bool(self.certain(node, padded[1])) if padded[1] else True
        carried: list[str | None] = list(padded[2:])
        states = len(carried)
        given: list[list[str | None]] = [[] for _ in range(len(node.output) - states)]
        step = 0
        while going and step < limit:
            if step >= STEP_LIMIT:
                raise UnsupportedError(f"{self.label(node)}: more than {STEP_LIMIT} steps")
            number = self.known(np.array(step, np.int64), f"{node.output[0]}/number")
            always = self.known(np.array(True), f"{node.output[0]}/going")
            results = self.body(node, graph, [number, always, *carried], scope, f"/{step}")
            if len(results) != 1 + states + len(given):
                raise ModelError(f"{self.label(node)}: its graph has {len(results)} outputs")
            carried = results[1 : 1 + states]
            for parts, result in zip(given, results[1 + states :], strict=True):
                parts.append(result)
            step += 1
            if results[0] is None:
                return (None,) * len(node.output)
            going = bool(self.certain(node, results[0]))
        ends = [
            self.stacked(node, parts, 0, name, scope)
            for parts, name in zip(given, node.output[states:], strict=True)
        ]
        return [*carried, *ends]

    def certain(self, node: Any, name: str) -> int:
        """The one value of a tensor that must be known."""
        from .model import Unbound

        data = self.tensors[name].data
        if data is None:
            origins = self.origins[name]
            raise Unbound(
                f"{self.label(node)}: its steps depend on the values of "
                f"{', '.join(map(repr, sorted(origins)))}",
                origins,
            )
        if data.size != 1:
            raise ModelError(f"{self.label(node)}: {name!r} has {data.size} values, not 1")
        return int(data.reshape(-1)[0])


def _plain(data: np.ndarray) -> np.ndarray:
    """An array as a graph holds it."""
    return np.require(data, data.dtype.newbyteorder("="), ("C", "ALIGNED")).reshape(data.shape)
