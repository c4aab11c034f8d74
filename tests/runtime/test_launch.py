"""Programs of several layers: what each layer cost, and what all of them did together."""

from __future__ import annotations

from tests.compiler.test_keep import NARROW, turns
from tests.networks import every_operator, random_inputs
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig
from weft.runtime.executor import Executor
from weft.sim import connect
from weft.sim.device import Mark, RunResult

TINY = AcceleratorConfig.preset("tiny")


def test_the_layers_of_a_program_share_its_cycles_and_its_bytes(monkeypatch):
    graph = every_operator()
    model = compile_graph(graph, TINY)
    results: list[RunResult] = []
    with connect("functional", TINY, dram_bytes=8 << 20) as device:
        run = device.run

        def timed(address: int, count: int, marks: tuple[int, ...]) -> RunResult:
            result = run(address, count, marks)
            assert list(marks) == sorted(marks)
            assert len(result.marks) == len(marks)
            made = [Mark({"cycles": 10 * (i + 1)}, m.seconds) for i, m in enumerate(result.marks)]
            whole = {**result.counters, "cycles": 1000}
            results.append(RunResult(1000, whole, tuple(made), result.seconds))
            return results[-1]

        monkeypatch.setattr(device, "run", timed)
        _, profiles = Executor(model, device)(random_inputs(graph))
    assert len(profiles) == len(model.steps)
    assert max(map(len, model.programs)) > 3
    assert sum(p.cycles for p in profiles) == 1000 * len(results)
    for name in ("read_bytes", "write_bytes"):
        total = sum(r.counters[name] for r in results)
        assert sum(p.counters.get(name, 0) for p in profiles) == total
        assert sum(p.counters[name] > 0 for p in profiles if p.cycles) > 3


def test_layers_that_take_turns_have_the_cycles_of_their_own_turns(monkeypatch):
    graph = turns()
    model = compile_graph(graph, NARROW)
    (steps,) = model.programs
    first = [step.name for step in steps].index("depthwise_1")
    with connect("functional", NARROW, dram_bytes=8 << 20) as device:
        run = device.run

        def timed(address: int, count: int, marks: tuple[int, ...]) -> RunResult:
            result = run(address, count, marks)
            assert list(marks) == sorted(marks)
            made = [Mark({"cycles": 10 * (i + 1)}, m.seconds) for i, m in enumerate(result.marks)]
            whole = {**result.counters, "cycles": 10 * (len(made) + 1)}
            return RunResult(whole["cycles"], whole, tuple(made), result.seconds)

        monkeypatch.setattr(device, "run", timed)
        _, profiles = Executor(model, device)(random_inputs(graph))
    tiles = 4  # of two rows, for each of the two layers; at the ends two turns follow one another
    assert [p.cycles for p in profiles[first : first + 2]] == [10 * (tiles - 1), 10 * (tiles - 1)]
