"""One use of an operator of the catalog: its attributes and tensors, with their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ...isa.errors import DataError, ModelError, UnsupportedError
from ...isa.nest import BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, DType, Nest
from ..graph import Attribute, Graph, Node, Tensor, element_dtype
from .narrow import NARROW

U64 = DType("u", 64)
FLOATS = (F16, F32, F64)
SIGNED = (I8, I16, I32, I64)
UNSIGNED = (U8, U16, U32, U64)
NUMBERS = (*FLOATS, *SIGNED, *UNSIGNED)
ANY = (*NUMBERS, *NARROW, BOOL)

RANK_LIMIT = 8
ELEMENT_LIMIT = 1 << 31
"""No tensor has more elements."""

Shape = tuple[int, ...]
Types = list[tuple[DType, Shape]]
Arrays = Sequence[np.ndarray]


class ValueNeeded(Exception):
    """A shape depends on the value of an input that is not a constant.

    It never leaves the compiler: whoever builds a graph finds the value or refuses the node.
    """

    def __init__(self, position: int):
        super().__init__(position)
        self.position = position


@dataclass(frozen=True, eq=False)
class Site:
    """A node of kind :class:`~weft.compiler.graph.Call` with its tensors.

    Attributes
    ----------
    name, kind : str
        Of the node and of its operator.
    attributes : mapping
        As the graph has them.
    inputs : tuple
        None where one is absent.
    count : int
        Of the outputs.
    outputs : tuple of Tensor
        Empty while types and shapes are only being inferred.
    """

    name: str
    kind: str
    attributes: Mapping[str, Attribute]
    inputs: tuple[Tensor | None, ...]
    count: int
    outputs: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, graph: Graph, node: Node) -> Site:
        """The node with its tensors."""
        inputs = tuple(graph.tensors[name] if name else None for name in node.inputs)
        outputs = tuple(graph.tensors[name] for name in node.outputs)
        attributes = dict(node.op.attributes)  # type: ignore[union-attr]  # a Call's
        kind = node.op.kind  # type: ignore[union-attr]
        return cls(node.name, kind, attributes, inputs, len(outputs), outputs)

    def fail(self, message: str) -> NoReturn:
        """Refuse the node as malformed."""
        raise ModelError(f"node {self.name!r} ({self.kind}): {message}")

    def unsupported(self, message: str) -> NoReturn:
        """Refuse the node as one that Weft does not run."""
        raise UnsupportedError(f"node {self.name!r} ({self.kind}): {message}")

    # --- tensors

    def has(self, position: int) -> bool:
        """Whether that input is there."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def input(self, position: int) -> Tensor:
        """An input that must be there."""
        tensor = self.inputs[position] if position < len(self.inputs) else None
        if tensor is None:
            self.fail(f"input {position} is absent")
        return tensor

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.input(0)

    @property
    def out(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def present(self) -> list[Tensor]:
        """The inputs that are there."""
        return [tensor for tensor in self.inputs if tensor is not None]

    def expect(self, tensor: Tensor, types: Sequence[DType]) -> None:
        """Refuse a tensor of another type."""
        if tensor.dtype not in types:
            wanted = ", ".join(map(str, types))
            self.unsupported(f"{tensor.name!r} is {tensor.dtype}; {wanted} is expected")

    def same_type(self, *tensors: Tensor) -> DType:
        """The one type of some tensors."""
        for tensor in tensors:
            if tensor.dtype != tensors[0].dtype:
                self.fail(f"{tensors[0].name!r} is {tensors[0].dtype}, {tensor.name!r} differs")
        return tensors[0].dtype

    def constant(self, position: int) -> np.ndarray:
        """The value of an input on which shapes depend; :class:`ValueNeeded` if it has none."""
        data = self.input(position).data
        if data is None:
            raise ValueNeeded(position)
        return data

    # --- attributes

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute; of the type of ``default``."""
        value = self.attributes.get(name, default)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if default is not None and not isinstance(value, kinds):
            self.fail(f"attribute {name} is {value!r:.40}, not of type {type(default).__name__}")
        return value

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return self.attribute(name, default)

    def real(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        return float(self.attribute(name, default))

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        return self.attribute(name, default)

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """An attribute that is a list of integers; absent and without default is malformed."""
        value = self.attributes.get(name, tuple(default) if default is not None else None)
        if not isinstance(value, tuple) or not all(isinstance(v, int) for v in value):
            self.fail(f"attribute {name} is {value!r:.40}, not a list of integers")
        return tuple(int(v) for v in value)

    def list_of(self, name: str, position: int) -> tuple[int, ...] | None:
        """Integers of an attribute or, in later versions, of an input; None without either."""
        if name in self.attributes:
            value = self.attributes[name]
            return (value,) if isinstance(value, int) else self.integers(name)
        if self.has(position):
            return tuple(int(v) for v in self.constant(position).reshape(-1))
        return None

    def axis(self, value: int, rank: int) -> int:
        """An axis that may count from the end."""
        if not -rank <= value < rank:
            self.fail(f"axis {value} of rank {rank}")
        return value % rank if rank else 0

    def axes(self, values: Sequence[int], rank: int) -> tuple[int, ...]:
        """Axes that may count from the end, all different."""
        found = tuple(self.axis(value, rank) for value in values)
        if len(set(found)) != len(found):
            self.fail(f"axes {list(values)} of rank {rank} are not different")
        return found

    # --- shapes

    def sized(self, shape: Sequence[int]) -> Shape:
        """A shape that a tensor may have."""
        shape = tuple(int(extent) for extent in shape)
        if any(extent < 0 for extent in shape) or math.prod(shape) > ELEMENT_LIMIT:
            self.fail(f"an output of shape {list(shape)}")
        if len(shape) > RANK_LIMIT:
            self.unsupported(f"an output of rank {len(shape)}; at most {RANK_LIMIT} are supported")
        return shape

    def broadcast(self, *shapes: Shape) -> Shape:
        """What shapes broadcast to, as numpy's do."""
        try:
            return self.sized(np.broadcast_shapes(*shapes))
        except ValueError:
            self.fail(f"shapes {', '.join(str(list(s)) for s in shapes)} do not broadcast")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A node that numpy computes: from arrays of its inputs to those of its outputs."""

    compute: Callable[..., Any]

    def __call__(self, name: str, inputs: Sequence[np.ndarray | None]) -> Sequence[np.ndarray]:
        """The outputs; absent inputs are None.

        Raises
        ------
        DataError
            If the values are not such that it can be computed.
        """
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        try:
            with np.errstate(all="ignore"):
                result = self.compute(*inputs)
        except (ValueError, IndexError, TypeError, OverflowError, ArithmeticError) as error:
            raise DataError(f"node {name!r}: {error}") from None
        return result if isinstance(result, list | tuple) else (result,)


@dataclass(frozen=True, eq=False)
class Code:
    """A node as a loop nest.

    Attributes
    ----------
    nest : Nest
        Its buffers are tensors under their names in the graph, in whatever shape suits; truth
        values are ``u8``; and those of ``constants`` and ``scratch``.
    constants : mapping
        Arrays that the lowering made.
    scratch : tuple of str
        Buffers that hold nothing before or after.
    """

    nest: Nest
    constants: Mapping[str, np.ndarray]
    scratch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """An operator of the catalog.

    Attributes
    ----------
    kind : str
        Its name.
    infer : callable
        From a site without outputs to the types and shapes of its outputs. It raises ModelError
        or UnsupportedError for what ``lower`` could not do, and ValueNeeded.
    lower : callable
        From a site to what runs.
    native : bool
        Whether it becomes a loop nest.
    """

    kind: str
    infer: Callable[[Site], Types]
    lower: Callable[[Site], Code | Kernel]
    native: bool

    def types(self, site: Site) -> Types:
        """What ``infer`` says; whatever it stumbles over in a model's numbers is a ModelError."""
        try:
            return self.infer(site)
        except STUMBLES as error:
            site.fail(f"malformed ({error})")

    def code(self, site: Site) -> Code | Kernel:
        """What ``lower`` makes, in the same way."""
        try:
            return self.lower(site)
        except STUMBLES as error:
            site.fail(f"malformed ({error})")


STUMBLES = (ValueError, ArithmeticError, TypeError, IndexError, KeyError, MemoryError)
"""What comes of attributes and constants that no check expected: infinities as extents, say."""

CATALOG: dict[str, Definition] = {}
"""Every operator, by name."""


def define(*kinds: str, infer: Callable[[Site], Types], native: bool) -> Callable[[Any], Any]:
    """Put a lowering into the catalog, under each of these names."""

    def decorate(lower: Callable[[Site], Code | Kernel]) -> Callable[[Site], Code | Kernel]:
        for kind in kinds:
            assert kind not in CATALOG, kind
            CATALOG[kind] = Definition(kind, infer, lower, native)
        return lower

    return decorate


def same(types: Sequence[DType] = ANY) -> Callable[[Site], Types]:
    """An inference: one output like the first input, which has one of these types."""

    def infer(site: Site) -> Types:
        site.expect(site.x, types)
        return [(site.x.dtype, site.x.shape)]

    return infer


def numpy_of(tensor: Tensor) -> np.dtype[Any]:
    """The numpy type of a tensor."""
    return element_dtype(tensor.dtype)
