from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.compiler.artifact import DramTensor, Unfold
from weft.compiler.layout import pack, packed_bytes, unpack
from weft.isa import AcceleratorConfig, DataError

TINY = AcceleratorConfig.preset("tiny")
CONFIGS = [TINY, replace(TINY, block=2, batch=4), AcceleratorConfig.preset("base")]

shapes = st.tuples(*[st.integers(1, n) for n in (5, 4, 4, 20)])


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251 - 125).astype(np.int8).reshape(shape)


@given(shapes, st.sampled_from(CONFIGS), st.integers(-128, 127))
def test_what_is_packed_is_unpacked(shape, config, fill):
    tensor = DramTensor("x", 0, shape, fill)
    data = pack(tensor, config, numbered(shape))
    assert data.dtype == np.uint8
    assert data.shape == (packed_bytes(tensor, config),)
    np.testing.assert_array_equal(unpack(tensor, config, data), numbered(shape))


@given(shapes, st.sampled_from(CONFIGS), st.integers(-128, 127))
def test_every_lane_is_where_the_artifact_says(shape, config, fill):
    n, h, w, c = shape
    x = numbered(shape)
    outer = (-(-n // config.batch), -(-c // config.block))
    flat = pack(DramTensor("x", 0, shape, fill), config, x).view(np.int8)
    lanes = flat.reshape(*outer, h, w, config.batch, config.block)
    for i in range(outer[0] * config.batch):
        for k in range(outer[1] * config.block):
            place = lanes[i // config.batch, k // config.block, :, :,
                          i % config.batch, k % config.block]  # fmt: skip
            expected = x[i, :, :, k] if i < n and k < c else np.full((h, w), fill)
            np.testing.assert_array_equal(place, expected)


def test_a_matrix_and_a_vector_are_packed_through_their_four_axes():
    tensor = DramTensor("x", 0, (3, 1, 1, 6), 0)
    x = numbered((3, 6))
    four = x.reshape(3, 1, 1, 6)
    np.testing.assert_array_equal(pack(tensor, TINY, x), pack(tensor, TINY, four))


def test_another_size_or_type_is_refused():
    tensor = DramTensor("x", 0, (1, 2, 2, 3), 0)
    with pytest.raises(DataError, match="'x' holds"):
        pack(tensor, TINY, numbered((1, 2, 2, 4)))
    with pytest.raises(DataError, match="'x' holds"):
        pack(tensor, TINY, np.zeros((1, 2, 2, 3), np.int16))
    with pytest.raises(DataError, match="'x' takes 16 bytes, not 12"):
        unpack(tensor, TINY, np.zeros(12, np.uint8))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    shapes,
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    pairs,
    pairs,
    pairs,
    pairs,
    st.sampled_from(CONFIGS),
)
def test_an_unfolded_tensor_holds_patches(shape, origin, steps, patch, dilations, extents, config):
    unfold = Unfold(origin, steps, patch, dilations, extents)
    tensor = DramTensor("x", 0, shape, 77, unfold)
    n, h, w, c = shape
    x = numbered(shape)
    flat = pack(tensor, config, x)
    assert flat.size == packed_bytes(tensor, config)
    lanes = patch[0] * patch[1] * c
    as_usual = unpack(DramTensor("x", 0, (n, *extents, lanes), 77), config, flat)
    for at in np.ndindex(n, *extents, *patch, c):
        image, row, column, j, i, channel = at
        y = row * steps[0] + j * dilations[0] + origin[0]
        x_ = column * steps[1] + i * dilations[1] + origin[1]
        inside = 0 <= y < h and 0 <= x_ < w
        lane = (j * patch[1] + i) * c + channel
        expected = x[image, y, x_, channel] if inside else 77
        assert as_usual[image, row, column, lane] == expected


def test_only_the_host_writes_an_unfolded_tensor():
    unfold = Unfold((0, 0), (1, 1), (1, 2), (1, 1), (2, 2))
    tensor = DramTensor("x", 0, (1, 2, 2, 2), 0, unfold)
    with pytest.raises(DataError, match="only the host writes it"):
        unpack(tensor, TINY, np.zeros(16, np.uint8))
