"""The manual's examples are programs, and do what is said of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from weft.isa import PRESETS
from weft.isa.assembly import assemble
from weft.isa.config import QNT_LANE_BYTES
from weft.isa.examples import EXAMPLES, PLACES, Example, section
from weft.isa.formats import uop_layout
from weft.isa.golden import GoldenModel

BASE = PRESETS["base"]
STREAM = 0x6_0000
RNG = np.random.default_rng(1)
INP = RNG.integers(-128, 128, (64, 16)).astype(np.int8)
WGT = RNG.integers(-128, 128, (4, 16, 16)).astype(np.int8)
OTHER = RNG.integers(-128, 128, (64, 16)).astype(np.int8)
SHIFT = 4
"""Of the parameters: half, shifted right, plus 3."""


def played(example: Example, seed: int = 0) -> GoldenModel:
    """The golden model after an example, its engines taking turns at random."""
    model = GoldenModel(BASE, 1 << 19)

    def put(name: str, values: np.ndarray) -> None:
        data = values.reshape(-1).view(np.uint8)
        model.dram[PLACES[name] : PLACES[name] + data.size] = data

    layout = uop_layout(BASE)
    put("inp", INP)
    put("wgt", WGT)
    put("acc", OTHER)
    uops = [layout.encode(dict(zip(("dst", "src", "wgt"), uop, strict=True)))
            for uop in example.uops]  # fmt: skip
    put("uop", np.array(uops, np.uint32))
    record = np.zeros((16, QNT_LANE_BYTES), np.uint8)
    record[:, 4:8] = np.frombuffer(np.int32(1 << 30).tobytes(), np.uint8)
    record[:, 9:13] = np.array([SHIFT, 3, -128, 127], np.int64).astype(np.uint8)
    put("qnt", record)
    words = assemble(example.program + "finish", BASE)
    stream = b"".join(word.to_bytes(16, "little") for word in words)
    model.dram[STREAM : STREAM + len(stream)] = np.frombuffer(stream, np.uint8)
    model.run(STREAM, len(words), seed)
    return model


def product(inp: np.ndarray, *weights: int) -> np.ndarray:
    """Rows of inputs, each a step further for each of the weights."""
    rows = len(inp) - len(weights) + 1
    return sum(
        inp[t : t + rows].astype(np.int64) @ WGT[w].astype(np.int64).T
        for t, w in enumerate(weights)
    )


def requantized(acc: np.ndarray) -> np.ndarray:
    """By the parameters; at halves this rounds as TFLite does, up and then away from zero."""
    halved = (acc + 1) >> 1
    shifted = (np.abs(halved) + (1 << SHIFT - 1)) >> SHIFT
    return np.clip(np.sign(halved) * shifted + 3, -128, 127)


def padded(model: GoldenModel) -> None:
    row = model.arrays["inp"][:8, 0]
    assert (row[[0, 7]] == -128).all()
    assert np.array_equal(row[1:7], INP[:6])


def requantization(model: GoldenModel) -> None:
    out = model.dram[PLACES["out"] : PLACES["out"] + 128].view(np.int8).reshape(8, 16)
    assert np.array_equal(out, requantized(product(INP[:8], 0)))
    assert np.array_equal(model.arrays["acc"][8:16, 0], product(INP[:8], 0))


def reduction(model: GoldenModel) -> None:
    assert np.array_equal(model.arrays["acc"][:6, 0], product(INP[:8], 0, 1, 2))


def depthwise(model: GoldenModel) -> None:
    image = INP[:18].reshape(3, 6, 16).astype(np.int64)
    taps = WGT.reshape(-1, 4, 16)[:3, :3].astype(np.int64)
    wanted = sum(image[y, x : x + 4] * taps[y, x] for y in range(3) for x in range(3))
    assert np.array_equal(model.arrays["acc"][:4, 0], wanted)


def sliding(model: GoldenModel) -> None:
    lanes = INP[:56].reshape(-1).astype(np.int64)
    weights = np.concatenate([WGT[0], WGT[1]], axis=1).astype(np.int64)
    runs = np.stack([lanes[9 * x : 9 * x + 32] for x in range(96)])
    assert np.array_equal(model.arrays["acc"][:96, 0], runs @ weights.T)


def beside(model: GoldenModel) -> None:
    assert np.array_equal(model.arrays["acc"][:8, 0], product(INP[:8], 0))
    assert np.array_equal(model.arrays["acc"][8:16, 0], OTHER[:8] + product(INP[:8], 0))
    out = model.dram[PLACES["out"] : PLACES["out"] + 128].view(np.int8).reshape(8, 16)
    assert np.array_equal(out, requantized(OTHER[:8] + product(INP[:8], 0)))


def strided(model: GoldenModel) -> None:
    assert np.array_equal(model.arrays["inp"][:8, 0], INP[:16:2])


def layers(model: GoldenModel) -> None:
    hidden = requantized(product(INP[:8], 0))
    assert np.array_equal(model.arrays["inp"][8:16, 0], hidden)
    assert np.array_equal(model.arrays["acc"][:8, 0], product(hidden, 0))


def pairs(model: GoldenModel) -> None:
    acc, other = model.arrays["acc"][:, 0], OTHER.astype(np.int64)
    assert np.array_equal(acc[:8], other[:8] + other[8:16])
    assert np.array_equal(acc[16:24], other[:8] * other[8:16])
    assert np.array_equal(acc[32:39], np.maximum(other[:7], other[1:8]))


CHECKS: tuple[Callable[[GoldenModel], None], ...] = (
    padded, requantization, reduction, depthwise, sliding, beside, strided, layers, pairs,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("example", "check"),
    list(zip(EXAMPLES, CHECKS, strict=True)),
    ids=lambda x: getattr(x, "title", ""),
)
def test_an_example_does_what_is_said_of_it(example: Example, check, seed: int):
    check(played(example, seed))


def test_the_section_shows_every_program():
    text = section()
    assert all(example.program in text for example in EXAMPLES)
