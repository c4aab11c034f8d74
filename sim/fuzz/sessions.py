"""Random sessions and the configurations that they run on."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ...isa.config import PRESETS, AcceleratorConfig
from ...isa.errors import ConfigError
from .choices import Choices, RandomChoices
from .defined import defined
from .illegal import illegal_program, poisoned_program
from .legal import legal_program
from .session import Run, Session

POOL = len(PRESETS) + 19
"""Configurations that a run picks from, so that what was built serves the next run too."""
VALUES: dict[str, tuple[int, ...]] = {
    "block": (2, 4, 8, 16, 2, 4, 8, 4, 32),
    "batch": (1, 2, 1),
    "inp_width": (8, 4, 8),
    "wgt_width": (8, 4, 8),
    "bus_bytes": (8, 16, 32, 64),
    "token_depth": (1, 2, 3, 7, 255),
    "depthwise_taps": (3, 0, 3, 1, 2, 5),
    "rescale_cycles": (1, 2, 1, 4, 1, 8),
    **{f"{memory}_bytes": tuple(64 << n for n in range(3, 12))
       for memory in ("uop", "inp", "wgt", "acc", "qnt")},
}  # fmt: skip
"""What a random configuration may have; switches may be on or off, all else is the default."""
LATENCIES = (1, 2, 7, 40, 60, 150)
MOST_RUNS = 6
MOST_INSTRUCTIONS = 24
BREAK_CYCLES = 600


def pooled_config(number: int) -> AcceleratorConfig:
    """A configuration of the pool: the presets, smallest first, then random ones."""
    presets = tuple(PRESETS.values())
    return presets[number] if number < len(presets) else random_config(number)


def picked_numbers(count: int, choices: Choices) -> list[int]:
    """``count`` different ones of the pool; small ones, which are soon built, more often."""
    numbers: list[int] = []
    while len(numbers) < min(count, POOL):
        pair = choices.integer(0, POOL - 1), choices.integer(0, POOL - 1)
        number = min(pair, key=lambda n: _size(pooled_config(n)))
        if number in numbers:
            number = max(pair, key=lambda n: _size(pooled_config(n)))
        numbers += [number] if number not in numbers else []
    return numbers


def _size(config: AcceleratorConfig) -> int:
    """About what its Verilog is long by: products, and places in a beat."""
    return config.batch * config.block**2 + 8 * config.bus_bytes


def random_config(seed: int) -> AcceleratorConfig:
    """A random configuration that the encodings can hold."""
    choices = RandomChoices(f"config {seed}")
    while True:
        values: dict[str, int | bool] = {}
        for field in fields(AcceleratorConfig):
            if field.type == "bool":
                values[field.name] = not choices.rarely(3)
            elif field.name in VALUES:
                values[field.name] = choices.one_of(VALUES[field.name])
        try:
            return AcceleratorConfig.from_mapping(values)
        except ConfigError:
            continue


def random_session(config: AcceleratorConfig, choices: Choices, longest: int = 1) -> Session:
    """Some programs one after another: legal ones, illegal ones, broken ones.

    ``longest`` is what :func:`weft.sim.fuzz.legal.legal_program` takes as ``long``.
    """
    runs: list[Run] = []
    uops, fresh = np.zeros(config.uop_depth, np.uint32), True
    for _ in range(choices.integer(1, MOST_RUNS)):
        start = "keep"
        if runs and (not fresh or choices.rarely(3)):
            start, fresh = "reset", True
            uops[:] = 0
            if choices.rarely(4):
                broken = legal_program(config, choices, MOST_INSTRUCTIONS, uops=uops)
                runs.append(Run(broken, "break off", choices.integer(1, BREAK_CYCLES)))
                start = "keep"
        program = legal_program(
            config, choices, MOST_INSTRUCTIONS, long=choices.integer(0, longest), uops=uops
        )
        if choices.rarely(3):
            fresh = False
            program = (
                illegal_program(program, choices)
                if choices.yes() or choices.yes()
                else poisoned_program(program, choices)
            )
        else:
            defined(program, uops)
        runs.append(Run(program, start))
    stall_seed = choices.integer(1, 1 << 30) if choices.yes() else None
    return Session(config, tuple(runs), choices.one_of(LATENCIES), stall_seed)
