"""Results that stay on chip: ``storex.inp`` against plain numpy, and what reads them afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from weft.isa import (
    PRESETS,
    AcceleratorConfig,
    ConfigError,
    Instruction,
    InstructionSet,
    ProgramError,
)
from weft.isa.assembly import assemble, disassemble
from weft.isa.config import QNT_LANE_BYTES
from weft.isa.golden import GoldenModel
from weft.sim.fuzz.outcome import assert_same, golden, on_device
from weft.sim.fuzz.program import DRAM_BYTES, Program, program_of

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "batch": replace(TINY, batch=2, bus_bytes=16, token_depth=2),
    "nibbles": replace(TINY, inp_width=4, wgt_width=4, token_depth=1),
}
ACC, QNT, WGT, UOP, OUT = 0x5000, 0x8000, 0xA000, 0x4000, 0xC000
RESULTS, ROWS, STRIDE, FIRST = 15, 3, 7, 9
"""Accumulators in so many rows, and where in inp they go."""


def program(config: AcceleratorConfig, seed: int) -> Program:
    """Accumulators become inputs, which a product with the unit matrix brings back; every
    element between the rows holds padding."""
    rng = np.random.default_rng(seed)
    columns, block, batch = RESULTS // ROWS, config.block, config.batch
    image = np.zeros(DRAM_BYTES, np.uint8)

    def put(at: int, values: np.ndarray) -> None:
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        image[at : at + data.size] = data

    put(ACC, rng.integers(-(1 << 31), 1 << 31, (RESULTS, batch, block)).astype(np.int32))
    put(QNT, records(rng, config))
    unit = np.eye(block, dtype=np.uint8)
    put(WGT, unit if config.wgt_width == 8 else unit[:, ::2] | unit[:, 1::2] << 4)
    across = FIRST + ROWS * STRIDE
    words = assemble(
        f"""
        load.uop dram_base={UOP // 4} y_size=1 x_size=1
        load.acc dram_base={ACC // config.acc_element_bytes} y_size=1 x_size={RESULTS}
        load.qnt dram_base={QNT // config.qnt_element_bytes} y_size=1 x_size=3
        loadx.inp y_size=0 x_size=1 x_pad_0=2 y_pad_0={across // 3} pad_value=-5
        load.wgt dram_base={WGT // config.wgt_element_bytes} y_size=1 x_size=1 | push_next
        gemm | pop_prev push_next
        storex.inp dram_base={FIRST} y_size={ROWS} x_size={columns} x_stride={STRIDE} \
            qnt_step=1 | pop_prev push_prev
        matmul.set uop_end=1 iter_out=1 iter_in={across} dst_factor_in=1 src_factor_in=1 \
            | pop_next push_next
        store.out dram_base={OUT // config.out_element_bytes} y_size=1 x_size={across} | pop_prev
        finish
        """.replace("\\\n", " "),
        config,
    )
    return program_of(config, words, image)


def records(rng: np.random.Generator, config: AcceleratorConfig) -> np.ndarray:
    """Three elements of parameters, [element, channel, byte]."""
    lanes = np.zeros((3, config.block, QNT_LANE_BYTES), np.uint8)
    lanes[..., :4] = rng.integers(0, 256, (3, config.block, 4))
    lanes[..., 4:7] = rng.integers(0, 256, (3, config.block, 3))
    lanes[..., 7] = rng.integers(32, 128, (3, config.block))
    lanes[..., 8] = rng.integers(0, 2, (3, config.block))
    lanes[..., 9] = rng.integers(24, 30, (3, config.block))
    lanes[..., 10] = rng.integers(0, 256, (3, config.block))
    low, high = np.sort(rng.integers(-128, 128, (2, 3, config.block)), axis=0)
    lanes[..., 11], lanes[..., 12] = low.astype(np.uint8), high.astype(np.uint8)
    return lanes


def requantized(image: np.ndarray, config: AcceleratorConfig) -> np.ndarray:
    """What the accumulators become, [element, batch, channel], row by row with other parameters."""
    shape = RESULTS, config.batch, config.block
    acc = image[ACC:].view(np.int32)[: np.prod(shape)].reshape(shape).astype(np.int64)
    lanes = image[QNT:].view(np.uint8)[: 3 * config.qnt_element_bytes]
    lanes = np.repeat(lanes.reshape(3, 1, config.block, QNT_LANE_BYTES), RESULTS // ROWS, axis=0)

    def field(at: int, kind: type) -> np.ndarray:
        size = np.dtype(kind).itemsize
        bytes_ = np.ascontiguousarray(lanes[..., at : at + size])
        return bytes_.view(kind)[..., 0].astype(np.int64)

    wrap = lambda x: (x + (1 << 31)) % (1 << 32) - (1 << 31)  # noqa: E731
    x = wrap(wrap(acc + field(0, np.int32)) << field(8, np.uint8))
    x = (x * field(4, np.int32) + (1 << 30)) >> 31
    right = field(9, np.uint8)
    x = np.sign(x) * ((np.abs(x) + (1 << right - 1)) >> right) + field(10, np.int8)
    x = np.minimum(np.maximum(x, field(11, np.int8)), field(12, np.int8))
    low = 1 << config.inp_width - 1
    return (x + low) % (2 * low) - low


def expected(image: np.ndarray, config: AcceleratorConfig) -> np.ndarray:
    """The elements of inp afterwards, from the first on."""
    inp = np.full((FIRST + ROWS * STRIDE, config.batch, config.block), -5, np.int64)
    for y, row in enumerate(requantized(image, config).reshape(ROWS, -1, *inp.shape[1:])):
        inp[FIRST + y * STRIDE : FIRST + y * STRIDE + len(row)] = row
    return inp


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CONFIGS)
def test_inputs_are_what_numpy_makes_of_the_accumulators(name: str, seed: int):
    config = CONFIGS[name]
    case = program(config, seed)
    model = GoldenModel(config, DRAM_BYTES)
    model.dram[:] = case.image
    counters = model.run(case.address, case.count, seed)
    wanted = expected(case.image, config)
    assert np.array_equal(model.arrays["inp"][: len(wanted)], wanted)
    assert np.array_equal(model.arrays["acc"][: len(wanted)], wanted)
    assert not model.arrays["inp"][len(wanted) :].any()
    assert counters["write_bytes"] == len(wanted) * config.out_element_bytes  # of store.out alone
    assert len(np.unique(wanted)) > 8


@pytest.mark.parametrize("name", CONFIGS)
def test_a_device_keeps_the_same(name: str, devices):
    config = CONFIGS[name]
    device = devices(config, DRAM_BYTES)
    for seed in range(3):
        case = program(config, seed)
        assert_same(on_device(case, device), golden(case))


def test_text_and_encoding_go_back_and_forth():
    text = (
        "storex.inp sram_base=3 dram_base=0x11 y_size=2 x_size=4 x_stride=9 qnt_base=1 qnt_step=1"
    )
    words = assemble(f"{text} | pop_prev push_prev\nfinish", TINY)
    assert words[0] & 7 == 7
    assert words[0] >> 7 & 7 == 2
    shown = disassemble(words, TINY).splitlines()[0].partition(":")[2].split()
    assert shown == [*text.split(), "|", "pop_prev", "push_prev"]
    instructions = InstructionSet(TINY)
    assert instructions.encode(instructions.decode(words[0])) == words[0]


@pytest.mark.parametrize("switch", ["stores_inputs", "requantize"])
def test_a_machine_without_the_switch_does_not_have_it(switch: str):
    plain = replace(TINY, **{switch: False})
    assert not plain.keeping
    with pytest.raises(ProgramError, match=r"no operation 'storex\.inp'"):
        InstructionSet(plain).encode(Instruction("storex.inp"))
    word = assemble("storex.inp", TINY)[0]
    assert InstructionSet(plain).operation_of(word) is None


def test_every_preset_has_it_and_the_switch_is_checked():
    assert all(config.keeping for config in PRESETS.values())
    with pytest.raises(ConfigError, match="stores_inputs must be true or false"):
        replace(TINY, stores_inputs=1)
