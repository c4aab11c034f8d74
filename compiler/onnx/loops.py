"""Graphs within nodes: branches, and loops written out step by step.

A branch is chosen, and a loop ends, by values that are known when shapes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...isa.errors import ModelError, UnsupportedError
from .call import call
from .source import onnx
from .unbound import Unbound

if TYPE_CHECKING:
    from .build import Builder, Scope

STEP_LIMIT = 1024
"""Of a loop that is written out."""
SCAN_OPSET = 9
"""Before it a Scan had a batch."""
DEPTH_LIMIT = 32
"""Of graphs in graphs."""


def branch(
    builder: Builder, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
) -> Sequence[str | None]:
    """The outputs of the branch that a constant condition chooses."""
    condition = builder.tensors.get(inputs[0])
    if condition is None:
        raise ModelError(f"{builder.label(node)}: its condition is absent")
    if condition.data is None:
        raise Unbound(
            f"{builder.label(node)}: its condition depends on the values of "
            f"{', '.join(map(repr, sorted(builder.origins[inputs[0]])))}",
            builder.origins[inputs[0]],
        )
    if condition.data.size != 1:
        raise ModelError(f"{builder.label(node)}: one condition is expected")
    chosen = protos["then_branch" if condition.data.reshape(-1)[0] else "else_branch"].g
    outputs = body(builder, node, chosen, (), scope, "")
    if len(outputs) != len(node.output):
        raise ModelError(f"{builder.label(node)}: its branch does not compute its outputs")
    return outputs


def loop(
    builder: Builder, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
) -> Sequence[str | None]:
    """A loop whose steps are known when shapes are, written out."""
    graph = protos["body"].g
    padded = [*inputs, *[""] * (2 - len(inputs))]
    limit = certain(builder, node, padded[0]) if padded[0] else STEP_LIMIT + 1
    going = bool(certain(builder, node, padded[1])) if padded[1] else True
    carried: list[str | None] = list(padded[2:])
    states = len(carried)
    given: list[list[str | None]] = [[] for _ in range(len(node.output) - states)]
    step = 0
    while going and step < limit:
        if step >= STEP_LIMIT:
            raise UnsupportedError(f"{builder.label(node)}: more than {STEP_LIMIT} steps")
        number = builder.known(np.array(step, np.int64), f"{node.output[0]}/number")
        always = builder.known(np.array(True), f"{node.output[0]}/going")
        results = body(builder, node, graph, [number, always, *carried], scope, f"/{step}")
        if len(results) != 1 + states + len(given):
            raise ModelError(f"{builder.label(node)}: its graph has {len(results)} outputs")
        carried = results[1 : 1 + states]
        for parts, result in zip(given, results[1 + states :], strict=True):
            parts.append(result)
        step += 1
        if results[0] is None:
            return (None,) * len(node.output)
        going = bool(certain(builder, node, results[0]))
    ends = [
        stacked(builder, node, parts, 0, name, scope)
        for parts, name in zip(given, node.output[states:], strict=True)
    ]
    return [*carried, *ends]


def scan(
    builder: Builder, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
) -> Sequence[str | None]:
    """A loop over slices of inputs, written out."""
    if scope.opsets[""] < SCAN_OPSET:
        raise UnsupportedError(f"{builder.label(node)}: as opset {scope.opsets['']} has it")
    graph, count = protos["body"].g, int(protos["num_scan_inputs"].i)
    states = len(inputs) - count
    if count < 1 or states < 0:
        raise ModelError(f"{builder.label(node)}: {count} inputs to scan")

    def listed(name: str, length: int) -> list[int]:
        values = list(protos[name].ints) if name in protos else [0] * length
        if len(values) != length:
            raise ModelError(f"{builder.label(node)}: {name} has {len(values)} values")
        return values

    outer = len(node.output) - states
    axes, backward = (listed(f"scan_input_{k}", count) for k in ("axes", "directions"))
    axes_out, reverse = (listed(f"scan_output_{k}", outer) for k in ("axes", "directions"))
    steps = set()
    for name, axis in zip(inputs[states:], axes, strict=True):
        if not name:
            raise ModelError(f"{builder.label(node)}: an input to scan is absent")
        shape = builder.tensors[name].shape
        if not -len(shape) <= axis < len(shape):
            raise ModelError(f"{builder.label(node)}: axis {axis} of {list(shape)}")
        steps.add(shape[axis])
    if len(steps) != 1 or max(steps) > STEP_LIMIT:
        raise UnsupportedError(f"{builder.label(node)}: {sorted(steps)} steps")
    carried: list[str | None] = list(inputs[:states])
    given: list[list[str | None]] = [[] for _ in range(outer)]
    total = steps.pop()
    for step in range(total):
        slices: list[str | None] = []
        for name, axis, back in zip(inputs[states:], axes, backward, strict=True):
            place = total - 1 - step if back else step
            at = builder.known(np.array(place, np.int64), f"{name}/step")
            slices.append(
                made_of(builder, "Gather", (name, at), f"{name}/{step}", scope, axis=axis)
            )
        results = body(builder, node, graph, [*carried, *slices], scope, f"/{step}")
        if len(results) != states + outer:
            raise ModelError(f"{builder.label(node)}: its graph has {len(results)} outputs")
        carried = results[:states]
        for parts, result in zip(given, results[states:], strict=True):
            parts.append(result)
    ends = [
        stacked(builder, node, parts[::-1] if back else parts, axis, name, scope)
        for parts, back, axis, name in zip(
            given, reverse, axes_out, node.output[states:], strict=True
        )
    ]
    return [*carried, *ends]


def body(
    builder: Builder, node: Any, graph: Any, inputs: Sequence[str | None], scope: Scope, step: str
) -> list[str | None]:
    """The outputs of a graph within a node, in which the names around it are known."""
    if scope.depth >= DEPTH_LIMIT:
        raise ModelError(f"{builder.label(node)}: graphs in graphs, {DEPTH_LIMIT} deep")
    inner = replace(
        scope, names=dict(scope.names), prefix=f"{scope.prefix}{node.output[0]}{step}/",
        depth=scope.depth + 1,
    )  # fmt: skip
    if len(graph.input) != len(inputs):
        raise ModelError(f"{builder.label(node)}: its graph has {len(graph.input)} inputs")
    inner.names.update(zip((i.name for i in graph.input), inputs, strict=True))
    for constant in graph.initializer:
        inner.names[constant.name] = builder.constant(constant, constant.name)
    builder.run(graph.node, inner)
    missing = [o.name for o in graph.output if o.name not in inner.names]
    if missing:
        raise ModelError(f"{builder.label(node)}: nothing computes {missing[0]!r} of its graph")
    return [inner.names[o.name] for o in graph.output]


def certain(builder: Builder, node: Any, name: str) -> int:
    """The one value of a tensor that must be known."""
    data = builder.tensors[name].data
    if data is None:
        origins = builder.origins[name]
        raise Unbound(
            f"{builder.label(node)}: its steps depend on the values of "
            f"{', '.join(map(repr, sorted(origins)))}",
            origins,
        )
    if data.size != 1:
        raise ModelError(f"{builder.label(node)}: {name!r} has {data.size} values, not 1")
    return int(data.reshape(-1)[0])


def stacked(
    builder: Builder, node: Any, parts: Sequence[str | None], axis: int, wish: str, scope: Scope
) -> str | None:
    """What every step gave, one after another along a new axis."""
    if None in parts:
        return None
    if not parts:
        raise UnsupportedError(f"{builder.label(node)}: a loop without steps")
    wide: list[str] = []
    for part in parts:
        assert part is not None
        rank = len(builder.tensors[part].shape) + 1
        at = builder.known(np.array([axis % rank], np.int64), f"{wish}/axis")
        made = made_of(builder, "Unsqueeze", (part, at), f"{wish}/step", scope)
        assert made is not None
        wide.append(made)
    return made_of(builder, "Concat", wide, wish, scope, axis=axis)


def made_of(
    builder: Builder, kind: str, inputs: Sequence[str], wish: str, scope: Scope, **attributes: Any
) -> str | None:
    """The output of an operator that a loop needs around its steps."""
    helper = onnx().helper
    node = helper.make_node(kind, list(inputs), [wish], **attributes)
    protos = {proto.name: proto for proto in node.attribute}
    return call(builder, node, inputs, protos, scope)[0]
