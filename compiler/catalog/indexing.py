"""What takes and puts elements by indices, sorts and searches. numpy's, with checked indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...isa.errors import DataError
from ...isa.nest import BOOL, I32, I64
from .site import NUMBERS, Kernel, Site, Types, define, numpy_of

Array = np.ndarray
INDICES = (I32, I64)


def checked(indices: Array, extent: int, name: str) -> Array:
    """Indices that may count from the end, from the beginning.

    Raises
    ------
    DataError
        If one is out of range.
    """
    if indices.size and (indices.min() < -extent or indices.max() >= extent):
        raise DataError(f"node {name!r}: an index is outside of [{-extent}, {extent})")
    return np.where(indices < 0, indices + extent, indices)


def _axis(site: Site, default: int = 0) -> int:
    return site.axis(site.integer("axis", default), len(site.x.shape))


def _gather_infer(site: Site) -> Types:
    site.expect(site.input(1), INDICES)
    axis, x = _axis(site), site.x.shape
    if not x:
        site.fail("a scalar has no element to choose")
    return [(site.x.dtype, site.sized((*x[:axis], *site.input(1).shape, *x[axis + 1 :])))]


@define("Gather", infer=_gather_infer, native=False)
def gather(site: Site) -> Kernel:
    """Slices along an axis by their indices."""
    axis, name = _axis(site), site.name
    return Kernel(lambda x, at: np.take(x, checked(at, x.shape[axis], name), axis))


def _elements_infer(site: Site) -> Types:
    at = site.input(1)
    site.expect(at, INDICES)
    axis, x = _axis(site), site.x.shape
    if len(at.shape) != len(x) or any(
        m > n for k, (m, n) in enumerate(zip(at.shape, x, strict=True)) if k != axis
    ):
        site.fail(f"indices of shape {list(at.shape)} into {list(x)}")
    return [(site.x.dtype, at.shape)]


def _grid(at: Array, axis: int, extent: int, name: str) -> tuple[Array, ...]:
    """Indices of every axis, of which one has those of ``at``."""
    grid: list[Any] = list(np.indices(at.shape, sparse=True))
    grid[axis] = checked(at, extent, name)
    return tuple(grid)


@define("GatherElements", infer=_elements_infer, native=False)
def gather_elements(site: Site) -> Kernel:
    """Elements by an index on one axis."""
    axis, name = _axis(site), site.name
    return Kernel(lambda x, at: x[_grid(at, axis, x.shape[axis], name)])


REDUCE: Mapping[str, Callable[..., Any] | None] = {
    "none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def _put(out: Array, places: Any, updates: Array, reduction: str) -> Array:
    function = REDUCE[reduction]
    if function is None:
        out[places] = updates
    else:
        function.at(out, places, updates)  # type: ignore[attr-defined]  # a ufunc's
    return out


def _scatter_elements_infer(site: Site) -> Types:
    _elements_infer(site)
    if site.input(2).shape != site.input(1).shape or site.text("reduction", "none") not in REDUCE:
        site.fail(f"updates of shape {list(site.input(2).shape)}, or their reduction")
    return [(site.same_type(site.x, site.input(2)), site.x.shape)]


@define("ScatterElements", infer=_scatter_elements_infer, native=False)
def scatter_elements(site: Site) -> Kernel:
    """A copy with other elements at indices on one axis."""
    axis, name, reduction = _axis(site), site.name, site.text("reduction", "none")

    def compute(x: Array, at: Array, updates: Array) -> Array:
        return _put(x.copy(), _grid(at, axis, x.shape[axis], name), updates, reduction)

    return Kernel(compute)


def _nd_sizes(site: Site, batch: int) -> tuple[int, ...]:
    """The shape of what a tuple of indices chooses."""
    x, at = site.x.shape, site.input(1)
    site.expect(at, INDICES)
    if not at.shape or not batch <= min(len(at.shape) - 1, len(x)) or x[:batch] != at.shape[:batch]:
        site.fail(f"indices of shape {list(at.shape)} into {list(x)}")
    if at.shape[-1] > len(x) - batch:
        site.fail(f"tuples of {at.shape[-1]} indices into {list(x)}")
    return x[batch + at.shape[-1] :]


def _gather_nd_infer(site: Site) -> Types:
    rest = _nd_sizes(site, site.integer("batch_dims", 0))
    return [(site.x.dtype, site.sized((*site.input(1).shape[:-1], *rest)))]


def _tuples(at: Array, shape: tuple[int, ...], batch: int, name: str) -> tuple[Array, ...]:
    lead: Any = np.indices(at.shape[:batch], sparse=True) if batch else ()
    more = at.ndim - 1 - batch
    own = tuple(checked(at[..., k], shape[batch + k], name) for k in range(at.shape[-1]))
    return (*(i.reshape(*i.shape, *(1,) * more) for i in lead), *own)


@define("GatherND", infer=_gather_nd_infer, native=False)
def gather_nd(site: Site) -> Kernel:
    """Slices by tuples of indices."""
    batch, name, shape = site.integer("batch_dims", 0), site.name, site.out.shape

    def compute(x: Array, at: Array) -> Array:
        places = _tuples(at, x.shape, batch, name)
        return (x[places] if places else np.broadcast_to(x, shape)).reshape(shape)

    return Kernel(compute)


def _scatter_nd_infer(site: Site) -> Types:
    rest = _nd_sizes(site, 0)
    if site.input(2).shape != (*site.input(1).shape[:-1], *rest):
        site.fail(f"updates of shape {list(site.input(2).shape)}")
    if site.text("reduction", "none") not in REDUCE:
        site.fail(f"reduction {site.text('reduction', 'none')!r}")
    return [(site.same_type(site.x, site.input(2)), site.x.shape)]


@define("ScatterND", infer=_scatter_nd_infer, native=False)
def scatter_nd(site: Site) -> Kernel:
    """A copy with other slices at tuples of indices."""
    name, reduction = site.name, site.text("reduction", "none")

    def compute(x: Array, at: Array, updates: Array) -> Array:
        return _put(x.copy(), _tuples(at, x.shape, 0, name), updates, reduction)

    return Kernel(compute)


def _scatter_tensor_infer(site: Site) -> Types:
    x, update = site.x, site.input(1)
    axis = site.axis(site.integer("axis", -2), len(x.shape))
    if len(update.shape) != len(x.shape) or axis == 0 or any(
        m != n for k, (m, n) in enumerate(zip(update.shape, x.shape, strict=True)) if k != axis
    ):  # fmt: skip
        site.fail(f"{list(update.shape)} into {list(x.shape)} along axis {axis}")
    if site.has(2) and site.input(2).shape != x.shape[:1]:
        site.fail(f"places of shape {list(site.input(2).shape)}")
    if update.shape[axis] > x.shape[axis]:
        site.fail(f"{update.shape[axis]} elements into {x.shape[axis]}")
    return [(site.same_type(x, update), x.shape)]


@define("TensorScatter", infer=_scatter_tensor_infer, native=False)
def tensor_scatter(site: Site) -> Kernel:
    """A cache with a run of new elements of each batch, which may wrap around."""
    axis = site.axis(site.integer("axis", -2), len(site.x.shape))
    circular, name = site.text("mode", "linear") == "circular", site.name

    def compute(x: Array, update: Array, places: Array | None = None) -> Array:
        out = x.copy()
        for k in range(len(x)):
            first = 0 if places is None else int(places[k])
            at = first + np.arange(update.shape[axis])
            at = at % x.shape[axis] if circular else checked(at, x.shape[axis], name)
            np.moveaxis(out[k], axis - 1, 0)[at] = np.moveaxis(update[k], axis - 1, 0)
        return out

    return Kernel(compute)


# --- sorting and searching -------------------------------------------------------------------


def _top_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    axis, count = _axis(site, -1), int(site.constant(1).reshape(-1)[0])
    x = site.x.shape
    if not x or not 0 <= count <= x[axis]:
        site.fail(f"the first {count} of {list(x)}")
    shape = (*x[:axis], count, *x[axis + 1 :])
    return [(site.x.dtype, shape), (I64, shape)][: site.count]


@define("TopK", infer=_top_infer, native=False)
def top_k(site: Site) -> Kernel:
    """The greatest or least elements along an axis in order, and where they stand."""
    axis, most = _axis(site, -1), site.integer("largest", 1)
    count, both = site.out.shape[axis], site.count == 2

    def compute(x: Array, _: Array) -> list[Array]:
        # Of equal elements the one with the lower index comes first, either way round.
        if most:
            turned = np.flip(x, axis)
            order = np.flip(x.shape[axis] - 1 - np.argsort(turned, axis, kind="stable"), axis)
        else:
            order = np.argsort(x, axis, kind="stable")
        at = order.take(range(count), axis)
        values = np.take_along_axis(x, at, axis)
        return [values, at] if both else [values]

    return Kernel(compute)


def _one_hot_infer(site: Site) -> Types:
    depth = int(site.constant(1).reshape(-1)[0])
    if site.input(2).shape != (2,):
        site.fail(f"values of shape {list(site.input(2).shape)}, not [2]")
    rank = len(site.x.shape) + 1
    axis = site.axis(site.integer("axis", -1), rank)
    x = site.x.shape
    return [(site.input(2).dtype, site.sized((*x[:axis], depth, *x[axis:])))]


@define("OneHot", infer=_one_hot_infer, native=False)
def one_hot(site: Site) -> Kernel:
    """A second value where an axis' index is the element, else a first one."""
    rank = len(site.x.shape) + 1
    axis = site.axis(site.integer("axis", -1), rank)
    depth = site.out.shape[axis]

    def compute(x: Array, _: Array, values: Array) -> Array:
        x = np.floor(x) if x.dtype.kind == "f" else x
        wide = np.expand_dims(np.where(x < 0, x + depth, x), axis)
        shape = [1] * rank
        shape[axis] = depth
        return np.where(wide == np.arange(depth).reshape(shape), values[1], values[0])

    return Kernel(compute)


def _nonzero_infer(site: Site) -> Types:
    count = int(np.count_nonzero(site.constant(0)))
    return [(I64, site.sized((len(site.x.shape), count)))]


@define("NonZero", infer=_nonzero_infer, native=False)
def non_zero(site: Site) -> Kernel:
    """Where the elements stand that are not 0."""
    shape = site.out.shape
    return Kernel(lambda x: np.array(np.nonzero(x), np.int64).reshape(shape))


def _compress_infer(site: Site) -> Types:
    chosen = int(np.count_nonzero(site.constant(1)))
    x, asked = site.x.shape, site.attributes.get("axis")
    site.expect(site.input(1), (BOOL,))
    if asked is None:
        limit, shape = math.prod(x), (chosen,)
    else:
        axis = _axis(site)
        limit, shape = x[axis], (*x[:axis], chosen, *x[axis + 1 :])
    if site.constant(1).size > limit:
        site.fail(f"{site.constant(1).size} conditions for {limit}")
    return [(site.x.dtype, shape)]


@define("Compress", infer=_compress_infer, native=False)
def compress(site: Site) -> Kernel:
    """What a list of conditions chooses."""
    axis = None if site.attributes.get("axis") is None else _axis(site)
    return Kernel(lambda x, chosen: np.compress(chosen.reshape(-1), x, axis))


def unique_of(site: Site, x: Array) -> list[Array]:
    """The four outputs of Unique: elements, first places, inverse and counts."""
    axis = None if site.attributes.get("axis") is None else _axis(site)
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not site.integer("sorted", 1):
        order = np.argsort(first)
        values = values.take(order, 0 if axis is None else axis)
        rank = np.argsort(order)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    return [values, first, inverse, counts]


def _unique_infer(site: Site) -> Types:
    outputs = unique_of(site, site.constant(0))
    types = [site.x.dtype, I64, I64, I64]
    return [(t, o.shape) for t, o in zip(types, outputs, strict=True)][: site.count]


@define("Unique", infer=_unique_infer, native=False)
def unique(site: Site) -> Kernel:
    """Elements or slices once each."""
    return Kernel(lambda x: unique_of(site, x)[: site.count])


# --- sums by their subscripts ----------------------------------------------------------------


def _equation(site: Site) -> str:
    text = site.text("equation", "").replace(" ", "")
    if not text or not set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,->"):
        site.fail(f"equation {text!r:.60}")
    return text


def _einsum_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    dtype = site.same_type(*site.present())
    try:
        # Views of one element: only the shapes are looked at.
        dummies = [np.broadcast_to(np.zeros((), np.int8), t.shape) for t in site.present()]
        shape = _einsum_shape(_equation(site), dummies)
    except (ValueError, KeyError, IndexError) as error:
        site.fail(f"equation {_equation(site)!r}: {error}")
    return [(dtype, site.sized(shape))]


def _einsum_shape(equation: str, arrays: list[Array]) -> tuple[int, ...]:
    left, arrow, right = equation.partition("->")
    extents: dict[str, int] = {}
    dots: tuple[int, ...] = ()
    terms = left.split(",")
    if len(terms) != len(arrays):
        raise ValueError(f"{len(terms)} terms for {len(arrays)} tensors")
    for term, array in zip(terms, arrays, strict=True):
        head, ellipsis, tail = term.partition("...")
        middle = array.ndim - len(head) - len(tail)
        if middle < 0 or (middle and not ellipsis):
            raise ValueError(f"{term!r} for a tensor of rank {array.ndim}")
        named = [*array.shape[: len(head)], *array.shape[len(head) + middle :]]
        dots = np.broadcast_shapes(dots, array.shape[len(head) : len(head) + middle])
        for letter, extent in zip(head + tail, named, strict=True):
            if extents.setdefault(letter, extent) != extent:
                if 1 not in (extents[letter], extent):
                    raise ValueError(f"{letter!r} is {extents[letter]} and {extent}")
                extents[letter] = max(extents[letter], extent)
    if not arrow:
        once = sorted(c for c in extents if left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    head, ellipsis, tail = right.partition("...")
    return (*(extents[c] for c in head), *(dots if ellipsis else ()), *(extents[c] for c in tail))


@define("Einsum", infer=_einsum_infer, native=False)
def einsum(site: Site) -> Kernel:
    """Sums of products by the names of their axes."""
    equation, dtype = _equation(site), numpy_of(site.out)
    return Kernel(lambda *arrays: np.einsum(equation, *arrays).astype(dtype, copy=False))
