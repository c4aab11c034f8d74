"""What arrives beside the compute engine's work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.hw.machine import DONE
from tests.hw.test_accelerator import ACC, INP, SMALL, UOP, WGT, prepare, simulate
from weft.hw import accumulators
from weft.isa import Instruction

HALF = SMALL.acc_depth // 2
FOUR_BANKS = replace(SMALL, token_depth=3)
"""A machine of its own, for it is built with smaller banks."""
WALKS = {
    "one after another": {"iter_out": 20, "iter_in": HALF, "dst_factor_in": 1},
    "all to one": {"iter_out": 20, "iter_in": HALF},
    "every other": {"iter_out": 20 * 2, "iter_in": HALF // 2, "dst_factor_in": 2},
}


def load(name: str, address: int, at: int, count: int, **flags) -> Instruction:
    size = getattr(SMALL, f"{name.split('.')[1]}_element_bytes")
    box = {"sram_base": at, "dram_base": address // size, "y_size": 1, "x_size": count}
    return Instruction(name, box, **flags)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("extra", ["acc", "acc8", "uop", "qnt", "all"])
def test_the_array_loses_no_cycle_to_what_is_loaded_for_later(walk, extra, monkeypatch):
    monkeypatch.setattr(accumulators, "BANK_DEPTH", 8)  # four banks, as larger machines have
    loads = {
        "acc": [load("loadx.acc", ACC, HALF + 4 * n, 4) for n in range(HALF // 4)],
        "acc8": [load("loadx.acc8", ACC, HALF, HALF)],
        "uop": [load("loadx.uop", UOP, 1, 30)],
        "qnt": [load("loadx.qnt", ACC, 0, 2)],
    }
    chosen = [i for name, some in loads.items() if extra in (name, "all") for i in some]
    begin = [
        load("load.inp", INP, 0, 1),
        load("loadx.uop", UOP, 0, 1),
        load("load.wgt", WGT, 0, 1, push_next=True),
    ]
    gemm = Instruction("gemm", {"uop_end": 1, **WALKS[walk]}, pop_prev=True)
    cycles = []

    async def testbench(ctx, machine):
        for program in ([*begin, gemm], [*begin, gemm, *chosen]):
            prepare(machine)
            assert await machine.run(ctx, [*program, Instruction("finish")]) == DONE
            counters = await machine.counters(ctx)
            assert counters["compute_busy"] == counters["gemm_steps"] == 20 * HALF
            cycles.append(counters["cycles"])

    simulate(testbench, FOUR_BANKS, latency=10)
    # An instruction of the stream that is fetched with them may end a cycle or two later.
    assert cycles[1] - cycles[0] <= len(chosen)
