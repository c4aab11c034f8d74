"""Programs that keep a device busy: for measuring how fast it simulates, and for making it so.

A C++ compiler that has seen which code of a model runs puts that code together. Run as a program,
with a library and a configuration, this module is what it sees: tiles are loaded, multiplied and
stored, as a convolution does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import DeviceError
from ..isa.formats import INSTRUCTION_BYTES, uop_layout
from ..isa.instructions import Instruction, InstructionSet
from .device import Device

STREAM, UOPS, INP, WGT, OUT = 0x10_0000, 0x1000, 0x40_0000, 0x80_0000, 0xC0_0000
ROWS, TAPS = 256, 16
"""A tile: accumulators, and the weights that each is multiplied by."""
TRAINING_TILES = 12
"""Some 50,000 cycles on a 16x16 array: enough to see what runs."""


class Exercise:
    """Programs for one configuration, on a device."""

    def __init__(self, device: Device):
        self.device = device
        self.config = config = device.config
        self.instructions = InstructionSet(config)
        generator = np.random.default_rng(1)
        for address in (INP, WGT):
            device.write(address, generator.integers(0, 256, 1 << 20, np.uint8))
        self.half = half = [
            depth // 2 for depth in (config.acc_depth, config.inp_depth, config.wgt_depth)
        ]
        acc, inp, wgt = half
        self.taps = taps = min(TAPS, wgt, config.uop_depth // 2, max(1, inp // 2))
        self.rows = min(ROWS, acc, inp - taps + 1)
        layout = uop_layout(config)
        uops = [
            layout.encode({"dst": side * half[0], "src": side * half[1] + tap,
                           "wgt": side * half[2] + tap})
            for side in range(2)
            for tap in range(taps)
        ]  # fmt: skip
        device.write(UOPS, np.array(uops, np.uint32))

    def tiles(self, count: int) -> int:
        """Write the program of ``count`` tiles, loads and stores beside GEMMs; its length."""
        words = [self._load_uops()]
        for tile in range(count):
            side, first, last = tile % 2, tile < 2, tile >= count - 2
            words += [
                self._move("load.inp", side * self.half[1], INP, self.rows + self.taps - 1,
                           pop_next=not first),
                self._move("load.wgt", side * self.half[2], WGT, self.taps, push_next=True),
                self._gemm(side, self.rows, 1, 1, pop_prev=True, pop_next=not first,
                           push_prev=not last, push_next=True),
                self._move("store.out", side * self.half[0], OUT, self.rows,
                           pop_prev=True, push_prev=not last),
            ]  # fmt: skip
        return self._write(words)

    def endless(self) -> int:
        """Write a program of one GEMM that outlasts every measurement; its length."""
        trips = (1 << 14) - 1
        return self._write([self._load_uops(), self._gemm(0, trips, trips, 0)])

    def gemm(self, trips: int) -> tuple[int, int]:
        """Write a program of one GEMM of ``16 * taps * trips`` steps; its length, its MACs."""
        steps = 16 * self.taps * trips
        macs = steps * self.config.batch * self.config.block**2
        return self._write([self._load_uops(), self._gemm(0, trips, 16, 0)]), macs

    def _load_uops(self) -> Instruction:
        return self._move("load.uop", 0, UOPS, 2 * self.taps)

    def _move(
        self, operation: str, base: int, address: int, size: int, **flags: bool
    ) -> Instruction:
        memory = operation.partition(".")[2]
        element = getattr(self.config, f"{memory}_element_bytes")
        operands = {"sram_base": base, "dram_base": address // element, "y_size": 1,
                    "x_size": size, "x_stride": size}  # fmt: skip
        return Instruction(operation, operands, **flags)

    def _gemm(
        self, side: int, iter_out: int, iter_in: int, factor: int, **flags: bool
    ) -> Instruction:
        operands = {"uop_bgn": side * self.taps, "uop_end": (side + 1) * self.taps,
                    "iter_out": iter_out, "iter_in": iter_in,
                    "dst_factor_out": factor, "src_factor_out": factor}  # fmt: skip
        return Instruction("gemm", operands, **flags)

    def _write(self, words: list[Instruction]) -> int:
        words = [*words, Instruction("finish")]
        stream = b"".join(
            self.instructions.encode(word).to_bytes(INSTRUCTION_BYTES, "little") for word in words
        )
        self.device.write(STREAM, stream)
        return len(words)


def train(library: Path, config: AcceleratorConfig) -> None:
    """Let a process of its own simulate ``config`` with a library that notes what is executed.

    The notes are written when that process ends. Raises :class:`DeviceError` if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(library), json.dumps(config.to_mapping())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise DeviceError(f"the model does not run: {last}")


def main() -> None:
    """Simulate some tiles: ``python -m weft.sim.exercise LIBRARY CONFIG``."""
    from .rtl import RtlDevice

    config = AcceleratorConfig.from_mapping(json.loads(sys.argv[2]))
    with RtlDevice(config, built=Path(sys.argv[1])) as device:
        device.run(STREAM, Exercise(device).tiles(TRAINING_TILES))


if __name__ == "__main__":
    main()
