"""A tensor graph of catalog operators as an ONNX file: what :mod:`.read` reads, written.

Nodes, tensors and constants keep their names and order. An attribute that a newer opset has made an
input (``axes`` of ``Squeeze``, say) is written as a constant, as that opset wants it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...isa.errors import ModelError, UnsupportedError
from ...isa.nest import DType
from ..catalog.pointwise import type_of_code
from ..graph import Attribute, Call, Graph, Node, Tensor, element_dtype, op_name
from .source import onnx

OPSET, IR_VERSION = 21, 10
"""What is written: of 2024, so that tools need not be the newest."""
BYTES_LIMIT = 1 << 31
"""Protobuf's own, of one file."""
CODES = {type_of_code(code): code for code in range(1, 14) if type_of_code(code) is not None}
"""ONNX's number of a type."""
RENAMED = {("Pad", "value"): "constant_value"}
"""Attributes that have become inputs of another name."""


def write(graph: Graph) -> bytes:
    """The ONNX file (opset 21) that says what ``graph`` says. Equal graphs give equal bytes.

    Raises
    ------
    UnsupportedError
        If a node is none of ONNX's operators, or ONNX cannot say what it says.
    ModelError
        If the file would be larger than protobuf allows.
    MissingToolError
        If the package ``onnx`` is not installed.
    """
    return _Writer(graph).model()


class _Writer:
    def __init__(self, graph: Graph):
        self.graph, self.onnx = graph, onnx()
        self.initializers: list[Any] = []
        self.names = set(graph.tensors)

    def model(self) -> bytes:
        graph, helper = self.graph, self.onnx.helper
        constants = [t for t in graph.tensors.values() if t.data is not None]
        if sum(t.data.nbytes for t in constants if t.data is not None) >= BYTES_LIMIT:
            raise ModelError(f"{graph.name}: an ONNX file holds less than {BYTES_LIMIT >> 30} GiB")
        nodes = [self.node(node) for node in graph.nodes]
        used = {name for node in graph.nodes for name in node.inputs}
        for tensor in constants:
            if tensor.name in used and tensor.data is not None:
                self.initializer(tensor.name, tensor.data)
        ends = {*graph.inputs, *graph.outputs}
        written = {name for node in graph.nodes for name in node.outputs}
        proto = helper.make_graph(
            nodes, graph.name,
            [self.info(graph.tensors[name]) for name in graph.inputs],
            [self.info(graph.tensors[name]) for name in graph.outputs],
            self.initializers,
            value_info=[
                self.info(t) for name, t in graph.tensors.items() if name in written - ends
            ],
        )  # fmt: skip
        opset = helper.make_opsetid("", OPSET)
        made = helper.make_model(
            proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="weft"
        )
        return made.SerializeToString(deterministic=True)

    def info(self, tensor: Tensor) -> Any:
        code = self.code(tensor.dtype, tensor.name)
        return self.onnx.helper.make_tensor_value_info(tensor.name, code, tensor.shape)

    def code(self, dtype: DType, name: str) -> int:
        if dtype not in CODES:
            raise UnsupportedError(f"{self.graph.name}: ONNX has no type {dtype} ({name!r})")
        return CODES[dtype]

    def initializer(self, name: str, data: np.ndarray) -> None:
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(data), name))

    def node(self, node: Node) -> Any:
        """A node, with those of its attributes as inputs that are inputs in this opset."""
        where = f"{self.graph.name}: node {node.name!r}"
        if not isinstance(node.op, Call):
            raise UnsupportedError(f"{where}: ONNX has no operator {op_name(node.op)}")
        kind, defs = node.op.kind, self.onnx.defs
        try:
            schema = defs.get_schema(kind, OPSET, "")
        except defs.SchemaError:
            raise UnsupportedError(f"{where}: opset {OPSET} has no operator {kind}") from None
        inputs, attributes = list(node.inputs), list[Any]()
        if kind == "ConstantOfShape" and len(inputs) == 2:
            value = self.graph.tensors[inputs.pop()].data
            attributes.append(self.onnx.helper.make_attribute("value", self.tensor(value)))
        positions = {formal.name: k for k, formal in enumerate(schema.inputs)}
        for name, value in node.op.attributes:
            if name in schema.attributes:
                attributes.append(self.attribute(name, value, schema.attributes[name].type))
                continue
            place = positions.get(RENAMED.get((kind, name), name))
            if place is None or place < len([n for n in inputs if n]) or isinstance(value, str):
                raise UnsupportedError(f"{where} ({kind}): opset {OPSET} has no attribute {name!r}")
            inputs += [""] * (place + 1 - len(inputs))
            inputs[place] = self.constant(f"{node.name}/{name}", value, node)
        made = self.onnx.helper.make_node(kind, inputs, list(node.outputs), node.name)
        made.attribute.extend(attributes)
        return made

    def attribute(self, name: str, value: Attribute, kind: Any) -> Any:
        return self.onnx.helper.make_attribute(name, value, attr_type=int(kind.value))

    def tensor(self, value: np.ndarray | None) -> Any:
        assert value is not None
        return self.onnx.numpy_helper.from_array(np.asarray(value))

    def constant(self, wish: str, value: Attribute, node: Node) -> str:
        """An attribute as a constant: integers, or reals of the first input's type."""
        while wish in self.names:
            wish += "_"
        self.names.add(wish)
        integers = all(isinstance(v, int) for v in np.array(value).reshape(-1).tolist())
        real = element_dtype(self.graph.tensors[node.inputs[0]].dtype)
        self.initializer(wish, np.array(value, np.int64 if integers else real))
        return wish
