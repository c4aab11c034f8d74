"""Resampling of images and boxes over them. numpy's, as sums over few neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from ...isa.nest import I64
from .site import FLOATS, NUMBERS, Kernel, Site, Types, define

Array = np.ndarray


# --- Resize --------------------------------------------------------------------------------------


def _sizes(site: Site) -> tuple[list[int], list[float], list[tuple[float, float]]]:
    """For every axis the new extent, the scale and the region of interest."""
    x = site.x.shape
    rank = len(x)
    axes = site.axes(site.integers("axes", range(rank)), rank)
    given = [site.has(k) and math.prod(site.input(k).shape) > 0 for k in range(4)]
    if given[2] == given[3]:
        site.fail("either scales or sizes are expected")
    values = site.constant(2 if given[2] else 3).reshape(-1)
    if len(values) != len(axes) or not np.isfinite(values).all() or (values <= 0).any():
        site.fail(f"scales or sizes {values.tolist()!s:.60} for {len(axes)} axes")
    extents, scales = list(x), [1.0] * rank
    for axis, value in zip(axes, values.tolist(), strict=True):
        scales[axis] = float(value) if given[2] else value / x[axis]
        extents[axis] = math.floor(x[axis] * value) if given[2] else int(value)
    policy = site.text("keep_aspect_ratio_policy", "stretch")
    if given[3] and policy != "stretch":
        chosen = (min if policy == "not_larger" else max)(scales[axis] for axis in axes)
        for axis in axes:
            scales[axis], extents[axis] = chosen, math.floor(chosen * x[axis] + 0.5)
    regions = [(0.0, 1.0)] * rank
    if site.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        roi = site.constant(1).reshape(-1).tolist()
        if len(roi) != 2 * len(axes):
            site.fail(f"a region of {len(roi)} numbers for {len(axes)} axes")
        for k, axis in enumerate(axes):
            regions[axis] = (roi[k], roi[len(axes) + k])
    return extents, scales, regions


def _resize_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    if site.text("mode", "nearest") not in MODES:
        site.fail(f"mode {site.text('mode', '')!r}")
    extents, _, _ = _sizes(site)
    if 0 in site.x.shape:
        site.unsupported("an image without elements")
    shape = site.sized(extents)
    least = TAP_COST if site.integer("antialias", 0) else 1  # a tap for each old element
    for old, new in zip(site.x.shape, shape, strict=True):
        if old != new and old * max(new, least) > MATRIX_LIMIT:
            site.unsupported(f"from {old} to {new} elements along an axis")
    return [(site.x.dtype, shape)]


def _places(
    site: Site, extent: int, count: int, scale: float, region: tuple[float, float]
) -> Array:
    """Where each new element lies among the old ones."""
    at = np.arange(count, dtype=np.float64)
    length = scale * extent
    match site.text("coordinate_transformation_mode", "half_pixel"):
        case "asymmetric":
            return at / scale
        case "align_corners":
            return at * ((extent - 1) / (length - 1)) if length != 1 else at * 0
        case "pytorch_half_pixel" if count <= 1:
            return at * 0
        case "half_pixel_symmetric":
            share = count / length
            return extent / 2 * (1 - share) + (at + 0.5) / scale - 0.5
        case "tf_half_pixel_for_nn":
            return (at + 0.5) / scale
        case "tf_crop_and_resize":
            first, last = (bound * (extent - 1) for bound in region)
            if count == 1:
                return np.array([(first + last) / 2])
            return first + at * ((last - first) / (length - 1))
        case "half_pixel" | "pytorch_half_pixel":
            return (at + 0.5) / scale - 0.5
        case other:
            site.unsupported(f"coordinates {other!r}")


def _cubic(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


MODES = ("nearest", "linear", "cubic")
MATRIX_LIMIT = 1 << 25
"""Elements of the matrix of an axis."""
TAP_COST = 1 << 10
"""What a tap takes at least, in elements."""


def _matrix(
    site: Site, extent: int, count: int, scale: float, region: tuple[float, float]
) -> Array:
    """What each new element takes of each old one along an axis."""
    at, mode = _places(site, extent, count, scale, region), site.text("mode", "nearest")
    matrix = np.zeros((count, extent))
    rows = np.arange(count)
    if mode == "nearest":
        rounding: dict[str, Callable[[Array], Array]] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_floor": lambda v: np.ceil(v - 0.5),
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        }
        name = site.text("nearest_mode", "round_prefer_floor")
        if name not in rounding:
            site.fail(f"nearest_mode {name!r}")
        matrix[rows, np.clip(rounding[name](at), 0, extent - 1).astype(int)] = 1
    else:
        fine = min(scale, 1.0) if site.integer("antialias", 0) else 1.0
        reach = 1 if mode == "linear" else 2
        first = math.floor(-reach / fine) + 1
        base = np.floor(at)
        for tap in range(first, 2 - first):
            distance = (tap - (at - base)) * fine
            if mode == "linear":
                weight = np.clip(1 - np.abs(distance), 0, 1)
            else:
                weight = _cubic(distance, site.real("cubic_coeff_a", -0.75))
            place = base.astype(int) + tap
            if site.integer("exclude_outside", 0):
                weight = np.where((place >= 0) & (place < extent), weight, 0)
            np.add.at(matrix, (rows, np.clip(place, 0, extent - 1)), weight)
        matrix /= matrix.sum(1, keepdims=True)
    if site.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        matrix[(at < 0) | (at > extent - 1)] = np.nan
    return matrix


@define("Resize", infer=_resize_infer, native=False)
def resize(site: Site) -> Kernel:
    """An image of another size: a small matrix for every axis that changes."""
    extents, scales, regions = _sizes(site)
    cropped = site.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    work = [
        (axis, _matrix(site, n, extents[axis], scales[axis], regions[axis]))
        for axis, n in enumerate(site.x.shape)
        if extents[axis] != n or scales[axis] != 1 or cropped
    ]
    outside = site.real("extrapolation_value", 0.0)

    def compute(x: Array, *_: Array | None) -> Array:
        if all(np.isin(matrix, (0, 1)).all() for _, matrix in work):
            out = x
            for axis, matrix in work:
                out = np.take(out, matrix.argmax(1), axis)
            return out
        out, lost = x.astype(np.float64), np.zeros((), bool)
        for axis, matrix in work:
            gone = np.isnan(matrix).any(1)
            out = np.moveaxis(np.tensordot(np.nan_to_num(matrix), out, (1, axis)), 0, axis)
            lost = lost | gone.reshape([-1 if k == axis else 1 for k in range(x.ndim)])
        return np.where(lost, outside, out).astype(x.dtype)

    return Kernel(compute)


# --- GridSample ----------------------------------------------------------------------------------


def _grid_infer(site: Site) -> Types:
    x, grid = site.x, site.input(1)
    site.expect(x, FLOATS)
    site.expect(grid, FLOATS)
    rank = len(x.shape) - 2
    if rank < 1 or len(grid.shape) != rank + 2 or grid.shape[-1] != rank:
        site.fail(f"a grid {list(grid.shape)} for {list(x.shape)}")
    if grid.shape[0] != x.shape[0] or 0 in x.shape:
        site.fail(f"a grid {list(grid.shape)} for {list(x.shape)}")
    if site.text("mode", "linear") not in ("linear", "bilinear", "nearest", "cubic", "bicubic"):
        site.fail(f"mode {site.text('mode', '')!r}")
    if site.text("padding_mode", "zeros") not in ("zeros", "border", "reflection"):
        site.fail(f"padding_mode {site.text('padding_mode', '')!r}")
    return [(x.dtype, site.sized((*x.shape[:2], *grid.shape[1:-1])))]


def _reflected(at: Array, low: float, high: float) -> Array:
    span = high - low
    if span <= 0:
        return np.full_like(at, low)
    folded = np.mod(at - low, 2 * span)
    return low + np.minimum(folded, 2 * span - folded)


@define("GridSample", infer=_grid_infer, native=False)
def grid_sample(site: Site) -> Kernel:
    """An image at the places of a grid, between -1 and 1 from edge to edge."""
    corners = bool(site.integer("align_corners", 0))
    mode, border = site.text("mode", "linear"), site.text("padding_mode", "zeros")

    def padded(at: Array, extent: int) -> Array:
        if border == "border":
            return np.clip(at, 0, extent - 1)
        if border == "reflection":
            low, high = (0.0, extent - 1.0) if corners else (-0.5, extent - 0.5)
            return np.where((at < low) | (at > high), _reflected(at, low, high), at)
        return at

    def compute(x: Array, grid: Array) -> Array:
        spatial = x.shape[2:]
        taps: list[list[tuple[Array, Array]]] = []
        for k, extent in enumerate(spatial):
            g = grid[..., len(spatial) - 1 - k].astype(np.float64)
            at = (g + 1) / 2 * (extent - 1) if corners else ((g + 1) * extent - 1) / 2
            if mode == "nearest":
                at = np.rint(at)
            at = padded(at, extent)
            base = np.floor(at)
            if mode == "nearest":
                taps.append([(np.rint(at), np.ones_like(at))])
            elif mode.endswith("cubic"):
                steps = [base + tap for tap in (-1, 0, 1, 2)]
                taps.append([(place, _cubic(place - at, -0.75)) for place in steps])
            else:
                taps.append([(base, 1 - (at - base)), (base + 1, at - base)])
        out = np.zeros((x.shape[0], x.shape[1], *grid.shape[1:-1]))
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * (grid.ndim - 2))
        for corner in product(*taps):
            weight = np.ones(grid.shape[:-1])
            places: list[Array] = []
            for (place, share), extent in zip(corner, spatial, strict=True):
                inside = padded(place, extent)
                if border == "reflection":
                    inside = np.clip(np.rint(inside), 0, extent - 1)
                valid = (inside >= 0) & (inside < extent)
                weight = weight * np.where(valid, share, 0)
                places.append(np.where(valid, inside, 0).astype(int))
            values = np.moveaxis(x[(batch, slice(None), *places)], -1, 1)
            out += values * weight[:, None]
        return out.astype(x.dtype)

    return Kernel(compute)


# --- boxes ---------------------------------------------------------------------------------------


def _chosen(site: Site) -> Array:
    """The boxes that NonMaxSuppression keeps: batch, class and box of each."""
    boxes, scores = site.constant(0), site.constant(1)
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[2] != 4:
        site.fail(f"boxes {list(boxes.shape)} and scores {list(scores.shape)}")
    if boxes.shape[0] != scores.shape[0] or boxes.shape[1] != scores.shape[2]:
        site.fail(f"boxes {list(boxes.shape)} and scores {list(scores.shape)}")

    def scalar(position: int, default: float | None) -> float | None:
        if not site.has(position):
            return default
        value = site.constant(position).reshape(-1)
        return float(value[0]) if value.size else default

    most = int(scalar(2, 0) or 0)
    overlap, least = scalar(3, 0.0) or 0.0, scalar(4, None)
    kept: list[tuple[int, int, int]] = []
    for n, c in np.ndindex(*scores.shape[:2]):
        box = boxes[n].astype(np.float64)
        if site.integer("center_point_box", 0):
            middle, half = box[:, :2], box[:, 2:] / 2
            low, high = middle - half, middle + half
        else:
            low, high = np.minimum(box[:, :2], box[:, 2:]), np.maximum(box[:, :2], box[:, 2:])
        area = np.prod(high - low, axis=1)
        taken: list[int] = []
        for k in np.argsort(-scores[n, c], kind="stable"):
            if len(taken) >= most or (least is not None and scores[n, c, k] <= least):
                break
            side = np.minimum(high[taken], high[k]) - np.maximum(low[taken], low[k])
            both = np.prod(np.maximum(side, 0), axis=1)
            joint = area[taken] + area[k] - both
            if not np.any(both > overlap * joint):
                taken.append(int(k))
        kept += [(n, c, k) for k in taken]
    return np.array(kept, np.int64).reshape(-1, 3)


@define("NonMaxSuppression", infer=lambda site: [(I64, _chosen(site).shape)], native=False)
def non_max_suppression(site: Site) -> Kernel:
    """The boxes of high scores that do not overlap better ones."""
    value = _chosen(site)
    return Kernel(lambda *_: value)


# --- windows put back ----------------------------------------------------------------------------


def _unpool_infer(site: Site) -> Types:
    x = site.x.shape
    rank = len(x) - 2
    size = site.integers("kernel_shape")
    strides = site.integers("strides", (1,) * rank)
    pads = site.integers("pads", (0,) * (2 * rank))
    if rank < 1 or (len(size), len(strides), len(pads)) != (rank, rank, 2 * rank):
        site.fail(f"a window {list(size)} over {list(x)}")
    if site.input(1).shape != x or site.input(1).dtype != I64:
        site.fail(f"places of shape {list(site.input(1).shape)}")
    if site.has(2):
        shape = site.constant(2).reshape(-1).tolist()
        if len(shape) != len(x):
            site.fail(f"a shape {shape}")
    else:
        shape = [
            *x[:2],
            *(
                (x[2 + k] - 1) * strides[k] - pads[k] - pads[rank + k] + size[k]
                for k in range(rank)
            ),
        ]
    return [(site.x.dtype, site.sized(shape))]


@define("MaxUnpool", infer=_unpool_infer, native=False)
def max_unpool(site: Site) -> Kernel:
    """Zeros with the elements where a MaxPool found them."""
    shape = site.out.shape
    size, x = site.integers("kernel_shape"), site.x.shape
    rank = len(x) - 2
    strides = site.integers("strides", (1,) * rank)
    pads = site.integers("pads", (0,) * (2 * rank))
    plain = (
        *x[:2],
        *((x[2 + k] - 1) * strides[k] - pads[k] - pads[rank + k] + size[k] for k in range(rank)),
    )

    def compute(values: Array, places: Array, *_: Array) -> Array:
        out = np.zeros(plain, values.dtype)
        out.reshape(-1)[places.reshape(-1)] = values.reshape(-1)
        result = np.zeros(shape, values.dtype)
        part = tuple(slice(0, min(a, b)) for a, b in zip(plain, shape, strict=True))
        result[part] = out[part]
        return result

    return Kernel(compute)
