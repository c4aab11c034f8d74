"""A node of an operator of the catalog: constants where they can be computed, or a node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...isa.errors import ModelError, UnsupportedError
from ..catalog import CATALOG, Site, ValueNeeded
from ..catalog.site import Types
from ..graph import Attribute, Call, Graph, Node, Tensor, element_dtype
from .fold import evaluate
from .source import array_of, attribute_of
from .unbound import Unbound

if TYPE_CHECKING:
    from .build import Builder, Scope

FOLD_LIMIT = 1 << 22
"""Elements of a constant that is computed while a graph is built."""
UNSEEN = frozenset(("Shape", "Size", "EyeLike"))
"""Operators that look at the shape of their input alone."""
KEPT = frozenset(("DequantizeLinear",))
"""Operators that stay when their inputs are constants: quantized weights are found by them."""
NONE: frozenset[str] = frozenset()


def call(
    builder: Builder, node: Any, inputs: Sequence[str], protos: Mapping[str, Any], scope: Scope
) -> Sequence[str | None]:
    """The outputs of an operator of the catalog: constants where they can be computed."""
    plain: dict[str, Attribute] = {}
    given = list(inputs)
    for name, proto in protos.items():
        if node.op_type == "ConstantOfShape" and name == "value":
            value = array_of(proto.t, builder.model.folder, builder.label(node))
            given.append(builder.known(value, f"{node.output[0]}/value"))
            continue
        value = attribute_of(proto, builder.label(node))
        if value is None:
            raise UnsupportedError(f"{builder.label(node)}: attribute {name!r} of its kind")
        plain[name] = value
    while given and not given[-1]:
        given.pop()
    asked = list(node.output)
    while asked and not asked[-1]:
        asked.pop()
    label = node.name or next(filter(None, asked), node.op_type)
    name = builder.node_names.unique(
        "".join("_" if c.isspace() else c for c in scope.prefix + label)
    )
    tensors = tuple(builder.tensors[n] if n else None for n in given)
    site = Site(name, node.op_type, plain, tensors, len(asked))
    site, types = inferred(builder, site, given)
    wishes = [f"{scope.prefix}{output}" if output else f"{name}/unused" for output in asked]
    values = folded(builder, site, types)
    origins = NONE if site.kind in UNSEEN else NONE.union(*(builder.origins[n] for n in given if n))
    if values is not None:
        return [
            builder.known(value, wish, origins, dtype)
            for value, wish, (dtype, _) in zip(values, wishes, types, strict=True)
        ]
    outputs = tuple(
        builder.add(Tensor(builder.fresh(wish), dtype, tuple(shape)), origins)
        for wish, (dtype, shape) in zip(wishes, types, strict=True)
    )
    made = Node(name, Call(site.kind, tuple(sorted(plain.items()))), tuple(given), outputs)
    # What inference needed is a constant by now, even where its node stays.
    made = replace(made, inputs=tuple(t.name if t else "" for t in site.inputs))
    if site.kind in KEPT and all(t is None or t.data is not None for t in site.inputs):
        builder.makers.update(dict.fromkeys(outputs, made))
    builder.nodes.append(made)
    return outputs


def inferred(builder: Builder, site: Site, names: Sequence[str]) -> tuple[Site, Types]:
    """The types of the outputs, with values found for those inputs that shapes depend on."""
    while True:
        try:
            types = CATALOG[site.kind].types(site)[: site.count]
        except ValueNeeded as needed:
            name = names[needed.position]
            if name in builder.makers:
                maker = Site.of(
                    Graph(builder.where, builder.tensors, (), (), ()), builder.makers[name]
                )
                arrays = [t.data if t else None for t in maker.inputs]
                values = evaluate(maker, arrays, builder.budget)
                if values is not None:
                    inputs = list(site.inputs)
                    known = builder.known(values[0], f"{name}/value")
                    inputs[needed.position] = builder.tensors[known]
                    site = replace(site, inputs=tuple(inputs))
                    continue
            origins = builder.origins[name]
            raise Unbound(
                f"{builder.where}: node {site.name!r} ({site.kind}): the shape of its output "
                f"depends on the values of {', '.join(map(repr, sorted(origins)))}",
                origins,
            ) from None
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"{builder.where}: {error}") from None
        if len(types) != site.count:
            raise ModelError(
                f"{builder.where}: node {site.name!r} ({site.kind}): {site.count} outputs"
            )
        return site, types


def folded(builder: Builder, site: Site, types: Types) -> Sequence[np.ndarray] | None:
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
        Tensor(f"{site.name} out{i}", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(types)
    )
    return evaluate(replace(site, outputs=outputs), arrays, builder.budget)
