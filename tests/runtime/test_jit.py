"""Networks as functions on arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import golden
from tests.networks import addition, random_inputs, single
from tests.runtime.models import hand_made
from weft.compiler import pipeline, tflite
from weft.compiler.graph import Graph
from weft.isa import AcceleratorConfig
from weft.isa.errors import ConfigError, DataError, DeviceTimeout, PackageError
from weft.runtime import jit as jit_module
from weft.runtime.jit import Run, jit
from weft.runtime.network import Network
from weft.sim import Device, RunResult


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network(graph: Graph) -> Network:
    return Network(graph.name, graph, f"sha of {graph.name}")


def recorded(name: str) -> Network:
    return network(tflite.read(golden.model_file(name), name))


def package() -> Network:
    return Network("hand_made", hand_made().graph, "", hand_made())


SMALL = single("conv", (1, 3, 3, 2), 4)


class IdleDevice(Device):
    """Takes every program and does nothing, or times out."""

    def __init__(self, config: AcceleratorConfig, fails: bool, **options: Any):
        self.config = config
        self.dram = np.zeros(options["dram_bytes"], np.uint8)
        self.fails = fails
        self.closed = False

    def _run(self, address: int, count: int, marks: tuple[int, ...]) -> RunResult:
        if self.fails:
            raise DeviceTimeout("FINISH was not reached")
        return RunResult(0, {})

    def reset(self) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[IdleDevice]:
    """The devices that were connected to: the first one fails, the others do not."""
    made: list[IdleDevice] = []

    def connect(kind: str, config: AcceleratorConfig, **options: Any) -> IdleDevice:
        made.append(IdleDevice(config, fails=not made, **options))
        return made[-1]

    monkeypatch.setattr(jit_module, "connect", connect)
    return made


@pytest.mark.parametrize("on", ["cpu", "functional"])
def test_it_answers_as_tflm_does(on: str):
    with jit(recorded("every_operator"), "tiny", on) as run:
        x = golden.inputs("every_operator")[0].reshape(-1, 10, 10, 3)
        expected = golden.outputs("every_operator")[0].reshape(-1, 10)
        np.testing.assert_array_equal(run(x), expected)


def test_any_node_may_run_on_the_host_instead():
    net = recorded("every_operator")
    x = golden.inputs("every_operator")[0].reshape(-1, 10, 10, 3)
    for node in net.graph.nodes:
        with jit(net, "tiny", "functional", on_host=frozenset({node.name})) as run:
            expected = golden.outputs("every_operator")[0].reshape(-1, 10)
            np.testing.assert_array_equal(run(x), expected)
            where = {layer["name"]: layer["where"] for layer in run.report()["layers"]}
            assert where.get(node.name, "cpu") == "cpu"


def test_samples_lie_on_the_first_axis_and_progress_is_told():
    run, told = jit(network(SMALL), on="cpu"), []
    x = random_inputs(SMALL)["input_0"]
    many = np.concatenate([x, x + 1, x + 2])
    y = run(many, progress=lambda done, total: told.append((done, total)))
    assert isinstance(y, np.ndarray)
    assert y.shape == (3, 3, 3, 4)
    np.testing.assert_array_equal(y[1:2], run(x + 1))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert run.report()["samples"] == 4


def test_a_batch_is_one_sample():
    batched = single("conv", (2, 3, 3, 2), 4)
    run = jit(network(batched), on="cpu")
    x = random_inputs(batched)["input_0"]
    assert np.shape(run(np.concatenate([x, x]))) == (4, 3, 3, 4)
    with pytest.raises(DataError, match="a multiple of 2 samples, not 3"):
        run(np.zeros((3, 3, 3, 2), np.int8))


def test_several_inputs_and_outputs_are_taken_and_given_in_order():
    graph = addition((1, 2, 2, 3), (1, 2, 2, 3))
    run = jit(network(graph), on="cpu")
    a, b = random_inputs(graph).values()
    assert np.shape(run(a, b)) == (1, 2, 2, 3)
    with pytest.raises(DataError, match="expected 2 inputs, got 1"):
        run(a)
    with pytest.raises(DataError, match="different numbers of samples"):
        run(a, np.concatenate([b, b]))


@pytest.mark.parametrize("on", ["cpu", "functional"])
def test_a_constant_may_be_an_output(on: str):
    constants = {name: t.data for name, t in SMALL.tensors.items() if t.data is not None}
    outputs = (*SMALL.outputs, *constants)
    with jit(network(replace(SMALL, name="outputs", outputs=outputs)), "tiny", on) as run:
        _, *found = run(random_inputs(SMALL, 1)[SMALL.inputs[0]])
    assert all(map(np.array_equal, found, constants.values()))
    assert len(found) == len(constants) > 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((1, 3, 3, 2), np.uint8), r"input 'input_0' takes int8, not uint8"),
        (np.zeros((1, 3, 3, 2), np.float32), r"takes int8, not float32"),
        (np.zeros((1, 3, 2, 3), np.int8), r"takes shape \(samples, 3, 3, 2\), not \(1, 3, 2, 3\)"),
        (np.zeros((3, 3, 2), np.int8), r"takes shape"),
        (np.zeros((0, 3, 3, 2), np.int8), r"a multiple of 1 samples, not 0"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(value: np.ndarray, message: str):
    with pytest.raises(DataError, match=message):
        jit(network(SMALL), on="cpu")(value)


def test_inputs_need_not_be_contiguous():
    x = np.asfortranarray(random_inputs(SMALL)["input_0"])
    run = jit(network(SMALL), on="cpu")
    np.testing.assert_array_equal(run(x), run(np.ascontiguousarray(x)))


def test_unknown_targets_hardware_and_nodes_are_refused():
    with pytest.raises(ConfigError, match="runs on rtl, functional, cpu, not on 'gpu'"):
        jit(network(SMALL), on="gpu")
    with pytest.raises(ConfigError, match="there is no preset 'huge'"):
        jit(network(SMALL), "huge")
    with pytest.raises(ConfigError, match="no node 'conv_9'"):
        jit(network(SMALL), on="cpu", on_host=frozenset({"conv_9"})).compile()


def test_the_second_compilation_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch):
    x = random_inputs(SMALL)["input_0"]
    first = jit(network(SMALL), on="cpu")(x)

    def compile_again(*arguments: Any, **options: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(pipeline, "run", compile_again)
    np.testing.assert_array_equal(jit(network(SMALL), on="cpu")(x), first)


def test_there_is_no_report_before_the_first_inference():
    with pytest.raises(DataError, match="nothing to report"):
        jit(network(SMALL), on="cpu").report()


def test_a_report_needs_no_device(devices: list[IdleDevice]):
    devices.append(IdleDevice(hand_made().config, False, dram_bytes=16))
    run = jit(package())
    run(random_inputs(hand_made().graph)["input_0"])
    run.close()
    assert run.report()["layers"][0]["name"] == "conv_0"
    assert len(devices) == 2


def test_what_stops_a_device_names_the_layer_and_the_next_call_connects_again(
    devices: list[IdleDevice],
):
    run = jit(package(), on="functional")
    x = random_inputs(hand_made().graph)["input_0"]
    with pytest.raises(DeviceTimeout, match="conv_0: FINISH was not reached"):
        run(x)
    assert devices[0].closed
    run(x)
    assert len(devices) == 2


def test_a_package_runs_on_what_it_was_compiled_for(devices: list[IdleDevice]):
    assert jit(package()).config == hand_made().config
    assert jit(package(), "tiny").config == hand_made().config
    with pytest.raises(PackageError, match=r"compiled for spec .*, the hardware has"):
        jit(package(), "base")


def test_a_package_can_run_on_the_cpu():
    x = random_inputs(hand_made().graph)["input_0"]
    plain = jit(network(hand_made().graph), on="cpu")(x)
    run = jit(package(), on="cpu")
    np.testing.assert_array_equal(run(x), plain)
    assert {layer["where"] for layer in run.report()["layers"]} == {"cpu"}


def test_a_closed_run_can_be_called_again():
    run: Run = jit(network(SMALL), on="cpu")
    x = random_inputs(SMALL)["input_0"]
    with run:
        first = run(x)
    np.testing.assert_array_equal(run(x), first)
