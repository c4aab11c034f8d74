"""Fourier transforms and determinants, by numpy."""

from __future__ import annotations

import math

import numpy as np

from .site import FLOATS, Kernel, Site, Types, define, numpy_of

Array = np.ndarray


def _plan(site: Site) -> tuple[int, int]:
    """The axis, and how many elements of it are transformed."""
    rank = len(site.x.shape)
    if rank < 2 or site.x.shape[-1] not in (1, 2):
        site.fail(f"a signal of shape {list(site.x.shape)}")
    if site.has(2):
        axis = site.axis(int(site.constant(2).reshape(-1)[0]), rank)
    else:
        axis = site.axis(site.integer("axis", -2 if "axis" not in site.attributes else 1), rank)
    if axis == rank - 1:
        site.fail("the last axis holds the parts of complex numbers")
    extent = site.x.shape[axis]
    if site.integer("onesided", 0) and site.integer("inverse", 0):
        extent = 2 * (extent - 1)
    count = int(site.constant(1).reshape(-1)[0]) if site.has(1) else extent
    if count < 1:
        site.fail(f"a transform of {count} elements")
    return axis, count


def _dft_infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    axis, count = _plan(site)
    shape = [*site.x.shape[:-1], 2]
    shape[axis] = count
    if site.integer("onesided", 0):
        if site.integer("inverse", 0):
            shape[-1] = 1
        else:
            shape[axis] = count // 2 + 1
    return [(site.x.dtype, site.sized(shape))]


@define("DFT", infer=_dft_infer, native=False)
def dft(site: Site) -> Kernel:
    """The discrete Fourier transform along an axis, or its inverse."""
    axis, count = _plan(site)
    inverse, one = site.integer("inverse", 0), site.integer("onesided", 0)
    dtype = numpy_of(site.out)

    def compute(x: Array, *_: Array | None) -> Array:
        parts = x.astype(np.float32) if x.dtype == np.float16 else x
        signal = parts[..., 0].astype(np.result_type(parts, np.complex64))
        if x.shape[-1] == 2:
            signal.imag = parts[..., 1]
        if inverse and one:
            return np.fft.irfft(signal, count, axis)[..., None].astype(dtype)
        result = (np.fft.ifft if inverse else np.fft.fft)(signal, count, axis)
        if one:
            result = result.take(range(count // 2 + 1), axis)
        return np.stack((result.real, result.imag), -1).astype(dtype)

    return Kernel(compute)


def _det_infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    if len(site.x.shape) < 2 or site.x.shape[-1] != site.x.shape[-2]:
        site.fail(f"square matrices are expected, not {list(site.x.shape)}")
    return [(site.x.dtype, site.x.shape[:-2])]


@define("Det", infer=_det_infer, native=False)
def determinant(site: Site) -> Kernel:
    """The determinants of square matrices."""
    return Kernel(lambda x: np.linalg.det(x.astype(np.float64)))


def _col2im_sizes(
    site: Site,
) -> tuple[list[int], list[int], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    image = [int(v) for v in site.constant(1).reshape(-1)]
    block = [int(v) for v in site.constant(2).reshape(-1)]
    rank = len(image)
    strides, dilations = (site.integers(k, (1,) * rank) for k in ("strides", "dilations"))
    pads = site.integers("pads", (0,) * (2 * rank))
    sizes = (len(block), len(strides), len(dilations), len(pads))
    if not rank or sizes != (rank, rank, rank, 2 * rank):
        site.fail(f"blocks {block} of an image {image}")
    if min((*image, *block, *strides, *dilations)) < 1 or min(pads) < 0:
        site.fail(f"blocks {block} of an image {image}")
    return image, block, strides, dilations, pads


def _col2im_counts(site: Site) -> list[int]:
    image, block, strides, dilations, pads = _col2im_sizes(site)
    rank = len(image)
    return [
        (image[k] + pads[k] + pads[rank + k] - dilations[k] * (block[k] - 1) - 1) // strides[k] + 1
        for k in range(rank)
    ]


def _col2im_infer(site: Site) -> Types:
    image, block, *_ = _col2im_sizes(site)
    x = site.x.shape
    if len(x) != 3 or x[1] % math.prod(block) or x[2] != math.prod(_col2im_counts(site)):
        site.fail(f"columns {list(x)} of blocks {block} for an image {image}")
    site.sized([n + 2 * max(_col2im_sizes(site)[4]) for n in image])
    return [(site.x.dtype, site.sized((x[0], x[1] // math.prod(block), *image)))]


@define("Col2Im", infer=_col2im_infer, native=False)
def col2im(site: Site) -> Kernel:
    """An image of the sums of its blocks."""
    image, block, strides, dilations, pads = _col2im_sizes(site)
    counts, rank = _col2im_counts(site), len(image)
    shape = site.out.shape

    def compute(x: Array, *_: Array) -> Array:
        whole = [image[k] + pads[k] + pads[rank + k] for k in range(rank)]
        out = np.zeros((*shape[:2], *whole), x.dtype)
        blocks = x.reshape(*shape[:2], *block, *counts)
        for tap in np.ndindex(*block):
            places = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilations, counts, strides, strict=True)
            )
            out[(..., *places)] += blocks[(slice(None), slice(None), *tap)]
        inner = tuple(slice(pads[k], pads[k] + image[k]) for k in range(rank))
        return out[(..., *inner)]

    return Kernel(compute)
