"""Random programs: the golden model and every device do the same."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.programs import DRAM_BYTES, programs, token_programs
from tests.sim.conftest import for_deep_tests
from weft.isa import PRESETS, AcceleratorConfig, Instruction, InstructionSet
from weft.sim import connect
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.illegal import token_program
from weft.sim.fuzz.legal import legal_program
from weft.sim.fuzz.outcome import assert_same, golden, on_device
from weft.sim.fuzz.program import program_of

TINY = PRESETS["tiny"]
CONFIGS = {
    **PRESETS,
    "nibbles": replace(TINY, inp_width=4, wgt_width=4, token_depth=1),
    "batch": replace(TINY, batch=2, bus_bytes=16, token_depth=2),
    "plain": replace(TINY, requantize=False, pad_value=False, overwrite=False),
    "many in a beat": replace(TINY, bus_bytes=32),
    "narrow": replace(TINY, block=2, inp_width=4, bus_bytes=8, acc_bytes=4096),
    "wide": AcceleratorConfig(block=64, wgt_bytes=1 << 18, bus_bytes=8),
}
LONG_BUILDS = ("big", "wide", "many in a beat")
"""Their models take a minute to compile."""
RARE = ("narrow", "plain")
"""No other test compiles their models: on the RTL they are for ``--deep``."""


def shape(block: int, batch: int, width: int, bus_bytes: int) -> AcceleratorConfig:
    """A machine of that shape, with small scratchpads, so that programs meet their ends."""
    vector = block * batch * width // 8
    return AcceleratorConfig(
        block=block,
        batch=batch,
        inp_width=width,
        wgt_width=width,
        bus_bytes=bus_bytes,
        uop_bytes=1024,
        inp_bytes=128 * vector,
        wgt_bytes=32 * block * block * width // 8,
        acc_bytes=128 * 4 * block * batch,
        qnt_bytes=32 * 16 * block,
    )


SHAPES = {
    f"block {block}, batch {batch}, int{width}, {8 * bus_bytes} bits": shape(
        block, batch, width, bus_bytes
    )
    for block, buses in {4: (8, 16), 8: (16, 32), 16: (32, 64), 32: (64, 8)}.items()
    for batch, bus_bytes in zip((1, 2), buses, strict=True)
    for width in (8, 4)
}
"""Every block, batch and width of operands, and every width of the bus."""
TIMINGS = ({"dram_latency": 1}, {"dram_latency": 40, "stall_seed": 3})


@pytest.mark.deep
@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_passes_the_same_suite(name: str):
    config = SHAPES[name]
    with ExitStack() as stack:
        devices = [
            stack.enter_context(connect(kind, config, dram_bytes=DRAM_BYTES, **options))
            for kind, options in (("functional", {}), *(("rtl", timing) for timing in TIMINGS))
        ]
        for seed in range(30):
            program = legal_program(config, RandomChoices(f"{name} {seed}"), 16, long=seed % 2)
            wanted = golden(program)
            assert wanted.fault is None
            for device in devices:
                assert_same(on_device(program, device), wanted)
        for seed in range(10):
            program = token_program(config, RandomChoices(f"{name} {seed}"))
            wanted = golden(program)
            for device in devices:
                assert_same(on_device(program, device), wanted)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.deep) if n in LONG_BUILDS else n for n in CONFIGS],
)
def test_a_random_program_does_the_same_everywhere(name: str, devices, request):
    config = CONFIGS[name]
    if name in RARE:
        for_deep_tests(devices, request)
    device = devices(config, DRAM_BYTES)

    @settings(max_examples=15, deadline=None)
    @given(programs(config), st.integers(0, 1 << 16))
    def agrees(program, seed):
        note(program.text)
        wanted = golden(program)
        assert wanted.fault is None
        assert_same(golden(program, seed), wanted)
        assert_same(on_device(program, device), wanted)

    agrees()


def test_whoever_gets_room_with_the_last_token_that_is_taken_goes_on(devices):
    config = replace(TINY, token_depth=1)
    waits = Instruction("load.uop", pop_prev=True, pop_next=True)
    stream = (*[Instruction("load.wgt", push_next=True)] * 2, waits)
    program = program_of(config, [InstructionSet(config).encode(one) for one in stream])
    wanted = golden(program)
    assert wanted.fault is not None
    assert_same(on_device(program, devices(config, DRAM_BYTES)), wanted)


@pytest.mark.parametrize("depth", [1, 2, 255])
def test_tokens_hold_every_device_up_at_the_same_place(depth: int, devices):
    config = replace(TINY, token_depth=depth)
    device = devices(config, DRAM_BYTES)

    @settings(max_examples=100, deadline=None)
    @given(token_programs(config), st.integers(0, 1 << 16))
    def agrees(program, seed):
        note(program.text)
        wanted = golden(program)
        assert_same(golden(program, seed), wanted)
        assert_same(on_device(program, device), wanted)

    agrees()
