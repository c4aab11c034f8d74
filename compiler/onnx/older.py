"""Operators as older opsets have them, in the words of the present one.

A rule takes a node, whose attributes are known, and gives the nodes that it stands for. They read
what it reads and write what it writes, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...isa.errors import UnsupportedError
from ..graph import Tensor
from .source import onnx

WORDS = 16
"""The opset in which rules speak."""
ALWAYS = 1 << 30
"""Since no opset: the present one has no such operator."""


@dataclass(frozen=True)
class Old:
    """A node of an older opset.

    Attributes
    ----------
    node : NodeProto
        As it stands in the file.
    version : int
        Of the opset.
    attributes : mapping
        Those that it has, as AttributeProto.
    x : Tensor
        Its first input.
    where : str
        What messages call it.
    """

    node: Any
    version: int
    attributes: Mapping[str, Any]
    x: Tensor
    where: str

    def value(self, name: str, default: Any) -> Any:
        """An attribute as Python has it."""
        proto = self.attributes.get(name)
        return default if proto is None else onnx().helper.get_attribute_value(proto)

    def inner(self, wish: str) -> str:
        """A name for what lies between the nodes."""
        return f"{self.node.output[0]}/{wish}"

    def constant(self, wish: str, values: Any, code: int) -> Any:
        """A Constant that writes :meth:`inner` of ``wish``."""
        helper = onnx().helper
        shape = [len(values)] if isinstance(values, Sequence) else []
        flat = list(values) if shape else [values]
        tensor = helper.make_tensor(wish, code, shape, flat)
        return helper.make_node("Constant", [], [self.inner(wish)], value=tensor)

    def present(
        self, kind: str, inputs: Sequence[str], without: Sequence[str], **attributes: Any
    ) -> Any:
        """The node as one of ``kind``, without some attributes and with others."""
        made = onnx().helper.make_node(kind, inputs, self.node.output, self.node.name, **attributes)
        made.attribute.extend(p for name, p in self.attributes.items() if name not in without)
        return made


Rule = Callable[[Old], Sequence[Any]]
INT64, FLOAT = 7, 1
"""ONNX's numbers of types."""


def _flattened(old: Old) -> Sequence[Any]:
    """Softmax and its like over an axis and all behind it, as if they were one."""
    make, node = onnx().helper.make_node, old.node
    axis, extents = old.value("axis", 1), old.x.shape
    rank = len(extents)
    if -rank <= axis < rank and all(extent == 1 for extent in extents[axis % rank + 1 :]):
        return [old.present(node.op_type, node.input, ("axis",), axis=axis)]
    shape, rows, made = map(old.inner, ("shape", "rows", "of_rows"))
    return [
        make("Shape", node.input, [shape]),
        make("Flatten", node.input, [rows], axis=axis),
        make(node.op_type, [rows], [made], node.name, axis=1),
        make("Reshape", [made, shape], node.output, old.inner("reshape")),
    ]


def _clip(old: Old) -> Sequence[Any]:
    """Bounds that are attributes."""
    bounds = [("min", -3.4028234663852886e38), ("max", 3.4028234663852886e38)]
    given = [(name, old.value(name, default)) for name, default in bounds]
    # A bound that is absent does nothing; those of the schema are the largest floats.
    make = onnx().helper.make_node
    nodes = [old.constant(name, float(value), FLOAT) for name, value in given]
    nodes += [
        make("CastLike", [old.inner(name), old.node.input[0]], [old.inner(f"{name}/like")])
        for name, _ in given
    ]
    inputs = [old.node.input[0], *(old.inner(f"{name}/like") for name, _ in given)]
    return [*nodes, old.present("Clip", inputs, ("min", "max"))]


def _slice(old: Old) -> Sequence[Any]:
    """Places that are attributes."""
    starts = old.value("starts", [])
    lists = {"starts": starts, "ends": old.value("ends", []),
             "axes": old.value("axes", range(len(starts)))}  # fmt: skip
    nodes = [old.constant(name, list(values), INT64) for name, values in lists.items()]
    return [*nodes, old.present("Slice", [old.node.input[0], *map(old.inner, lists)], list(lists))]


def _top(old: Old) -> Sequence[Any]:
    """A number that is an attribute."""
    count = old.constant("k", [old.value("k", 0)], INT64)
    return [count, old.present("TopK", [old.node.input[0], old.inner("k")], ("k",))]


def _dropout(old: Old) -> Sequence[Any]:
    """A share that is an attribute, and a mask that may be of the data's type."""
    node = old.node
    asked = len(node.output) > 1 and bool(node.output[1])
    if old.version >= MASK_OF_TRUTH or not asked:
        return [old.present("Dropout", node.input[:1], ("ratio",))]
    make, mask = onnx().helper.make_node, old.inner("mask")
    return [
        make("Dropout", node.input[:1], [node.output[0], mask], node.name),
        make("CastLike", [mask, node.input[0]], [node.output[1]]),
    ]


MASK_OF_TRUTH = 10
"""Since then a Dropout's mask is of truth values; before, of the data's type."""


def _normalization(old: Old) -> Sequence[Any]:
    """Of channels."""
    if old.value("spatial", 1) != 1:
        raise UnsupportedError(f"{old.where}: spatial = 0")
    return [old.present("BatchNormalization", old.node.input, ("spatial",))]


def _resize(old: Old) -> Sequence[Any]:
    """Places as they were before there were modes of them."""
    node, make = old.node, onnx().helper.make_node
    nodes: list[Any] = []
    if len(node.input) > 1:
        scales = node.input[1]
    else:
        scales = old.inner("scales")
        nodes.append(old.constant("scales", list(old.value("scales", [])), FLOAT))
    mode = old.value("mode", b"nearest")
    made = make(
        "Resize", [node.input[0], "", scales], node.output, node.name,
        mode="linear" if mode == b"bilinear" else mode, nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    return [*nodes, made]


def _scatter(old: Old) -> Sequence[Any]:
    """Another name."""
    return [old.present("ScatterElements", old.node.input, ())]


def _regions(old: Old) -> Sequence[Any]:
    """Of coordinates that were not shifted."""
    made = old.present("RoiAlign", old.node.input, ())
    made.attribute.append(
        onnx().helper.make_attribute("coordinate_transformation_mode", "output_half_pixel")
    )
    return [made]


RULES: Mapping[str, tuple[int, Rule]] = {
    "Softmax": (13, _flattened),
    "LogSoftmax": (13, _flattened),
    "Hardmax": (13, _flattened),
    "Clip": (11, _clip),
    "Slice": (10, _slice),
    "TopK": (10, _top),
    "Dropout": (12, _dropout),
    "BatchNormalization": (9, _normalization),
    "Resize": (11, _resize),
    "Upsample": (ALWAYS, _resize),
    "Scatter": (ALWAYS, _scatter),
    "RoiAlign": (16, _regions),
}
"""Operators that once were others: since which opset they are what they are, and what they were."""


def is_older(kind: str, version: int) -> bool:
    """Whether an operator is another one in an opset than it is now."""
    return kind in RULES and version < RULES[kind][0]


def renewed(old: Old) -> Sequence[Any]:
    """The nodes that such a node stands for."""
    return RULES[old.node.op_type][1](old)
