"""RoiAlign: what lies in regions of images, in a raster that has the same size for all."""

from __future__ import annotations

import math

import numpy as np

from ...isa.nest import I64
from .site import FLOATS, Kernel, Site, Types, define, numpy_of

GRID_LIMIT = 1 << 12
"""Samples along an axis of a cell: as many as an image has pixels."""
WEIGHT_LIMIT = 1 << 24
"""Elements of what a region takes of an axis, and samples of a region in all channels."""
Array = np.ndarray


def _align_infer(site: Site) -> Types:
    x, rois, images = site.x, site.input(1), site.input(2)
    site.expect(x, FLOATS)
    site.expect(images, (I64,))
    site.same_type(x, rois)
    if len(x.shape) != 4 or 0 in x.shape or rois.shape[1:] != (4,):
        site.fail(f"regions {list(rois.shape)} of images {list(x.shape)}")
    if images.shape != rois.shape[:1]:
        site.fail(f"{list(images.shape)} images of {rois.shape[0]} regions")
    if site.text("mode", "avg") not in ("avg", "max"):
        site.fail(f"mode {site.text('mode', '')!r}")
    if site.text("coordinate_transformation_mode", "half_pixel") not in SHIFTS:
        site.fail("coordinates of another kind")
    if not 0 <= site.integer("sampling_ratio", 0) <= GRID_LIMIT:
        site.fail(f"{site.integer('sampling_ratio', 0)} samples")
    size = (site.integer("output_height", 1), site.integer("output_width", 1))
    return [(x.dtype, site.sized((rois.shape[0], x.shape[1], *size)))]


SHIFTS = {"half_pixel": 0.5, "output_half_pixel": 0.0}


def _weights(places: Array, extent: int) -> Array:
    """What a place takes of the pixel before it and of that behind it: ``[2, places, extent]``.

    Places outside of the image take nothing.
    """
    inside = (places >= -1) & (places <= extent)
    at = np.clip(places, 0, extent - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((2, len(places), extent))
    rows = np.arange(len(places))
    matrix[0, rows, low] = 1 - (at - low)
    matrix[1, rows, np.minimum(low + 1, extent - 1)] = at - low
    return matrix * inside[:, None]


@define("RoiAlign", infer=_align_infer, native=False)
def align(site: Site) -> Kernel:
    """The mean of samples in every cell, or the greatest share of a pixel in them."""
    shift = SHIFTS[site.text("coordinate_transformation_mode", "half_pixel")]
    ratio, scale = site.integer("sampling_ratio", 0), site.real("spatial_scale", 1.0)
    cells, dtype = site.out.shape[2:], numpy_of(site.out)
    mean = site.text("mode", "avg") == "avg"

    def sampled(first: float, last: float, count: int, extent: int) -> Array:
        """The weights of the samples along an axis, cell by cell."""
        start, length = first * scale - shift, (last - first) * scale
        if shift == 0:
            length = max(length, 1.0)
        if not math.isfinite(start + length) or abs(length) > GRID_LIMIT * count:
            raise ValueError(f"a region from {first} to {last}")
        grid = ratio or max(1, math.ceil(length / count))
        if count * grid * extent > WEIGHT_LIMIT:
            raise ValueError(f"{grid} samples in each of {count} cells")
        steps = (np.arange(count * grid) + 0.5) / grid
        return _weights(start + steps * (length / count), extent).reshape(2, count, grid, extent)

    def compute(x: Array, rois: Array, images: Array) -> Array:
        out = np.zeros((len(rois), x.shape[1], *cells), dtype)
        for k, (left, top, right, bottom) in enumerate(rois.astype(np.float64).tolist()):
            if not 0 <= images[k] < len(x):
                raise ValueError(f"image {images[k]} of {len(x)}")
            rows = sampled(top, bottom, cells[0], x.shape[2])
            columns = sampled(left, right, cells[1], x.shape[3])
            image = x[images[k]].astype(np.float64)
            if mean:
                out[k] = rows.sum(0).mean(1) @ image @ columns.sum(0).mean(1).T
            else:
                samples = math.prod(rows.shape[1:3]) * math.prod(columns.shape[1:3])
                if samples * image.shape[0] > WEIGHT_LIMIT:
                    raise ValueError(f"{samples} samples of a region")
                shares = np.einsum("aygh,chw,bxkw->cyxgkab", rows, image, columns, optimize=True)
                out[k] = shares.max((3, 4, 5, 6))
        return out

    return Kernel(compute)
