"""What the two benches share: DRAM that ends somewhere, a clock, channels that rest."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import cycle
from random import Random
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiResp

from tests.programs import DRAM_BYTES


def power_up(dut: Any) -> None:
    """In reset, with a clock that runs until the end of the test."""
    dut.rst.value = 1
    Clock(dut.clk, 10, "ns").start(start_high=False)


async def reset(dut: Any, cycles: int = 3) -> None:
    """The pin ``rst``."""
    dut.rst.value = 1
    await ClockCycles(dut.clk, cycles)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


def ends(half: Any, response: AxiResp) -> None:
    """Lets the reading or the writing half of an ``AxiRam`` answer so beyond ``DRAM_BYTES``."""
    logging.getLogger(half.log.name).setLevel(logging.ERROR)  # errors of the bus are wanted
    direction = "read" if hasattr(half, "r_channel") else "write"
    access = getattr(half, direction)

    async def checked(address: int, what: Any) -> Any:
        if address >= DRAM_BYTES:
            raise IndexError(f"{address:#x} is beyond DRAM")
        return access(address, what)

    setattr(half, f"_{direction}", checked)
    channel, name = (half.r_channel, "rresp") if direction == "read" else (half.b_channel, "bresp")
    send = channel.send

    async def answer(transfer: Any) -> None:
        if getattr(transfer, name) == AxiResp.SLVERR:
            setattr(transfer, name, response)
        await send(transfer)

    channel.send = answer


def stall(channels: Sequence[Any], fraction: float, seed: int) -> None:
    """Lets each channel rest in that fraction of the cycles."""
    if fraction:
        for number, channel in enumerate(channels):
            channel.set_pause_generator(rests(fraction, seed << 8 | number))


def rests(fraction: float, seed: int) -> Iterator[bool]:
    """Whether to rest, cycle by cycle; the same for the same seed."""
    random = Random(seed)
    return cycle([random.random() < fraction for _ in range(997)])


def channels_of(half: Any) -> list[Any]:
    """The channels of one half of a bus."""
    names = ("ar", "r") if hasattr(half, "r_channel") else ("aw", "w", "b")
    return [getattr(half, f"{name}_channel") for name in names]
