"""The shipped digits example: its network, its data, and how they are made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import golden

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "digits"
RIGHT = 355
"""Of the held-out digits, what the shipped int8 network gets right."""


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """Lets the example's modules be imported as its scripts do."""
    monkeypatch.syspath_prepend(str(EXAMPLE))


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(EXAMPLE / "digits_test.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive}


def test_the_shipped_files_are_small():
    shipped = ("digits.tflite", "digits_test.npz")
    assert sum((EXAMPLE / name).stat().st_size for name in shipped) < 100_000


def test_the_shipped_data_are_images_inputs_and_labels(example, data: dict[str, np.ndarray]):
    from quantize import quantize_images

    assert data["image"].shape == data["x"].shape == (360, 8, 8, 1)
    assert data["image"].max() == 16
    assert data["x"].dtype == np.int8
    np.testing.assert_array_equal(data["x"], quantize_images(data["image"] / 16))
    assert sorted(set(data["y"])) == list(range(10))


def test_the_recorded_scores_reach_the_stated_accuracy(data: dict[str, np.ndarray]):
    assert (golden.DIGITS.argmax(1) == data["y"]).sum() == RIGHT
    assert RIGHT / len(data["y"]) > 0.96


@pytest.mark.parametrize("on", ["cpu", "functional"])
def test_the_shipped_network_scores_as_tflm_does(
    on: str, data: dict[str, np.ndarray], tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    import weft

    with weft.jit(weft.load(EXAMPLE / "digits.tflite"), on=on) as run:
        np.testing.assert_array_equal(run(data["x"]), golden.DIGITS)


@pytest.mark.slow
def test_the_rtl_scores_as_tflm_does(data: dict[str, np.ndarray]):
    """Builds the simulator of ``base`` if it is not in the user's cache."""
    import weft

    with weft.jit(weft.load(EXAMPLE / "digits.tflite"), "base", "rtl") as run:
        np.testing.assert_array_equal(run(data["x"][:20]), golden.DIGITS[:20])
        totals = run.report()["totals"]
    assert totals["offload_macs"] == 1
    assert 0 < totals["cycles"] < 10_000


def test_classify_shows_digits_mistakes_accuracy_and_the_table(tmp_path):
    result = subprocess.run(
        [sys.executable, EXAMPLE / "classify.py", "--on", "functional", "--limit", "360"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "WEFT_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "360 handwritten digits that the network has never seen" in result.stdout
    assert result.stdout.count("says") == 2
    assert f"{RIGHT} of 360 right: 98.6%" in result.stdout
    assert "conv1 " in result.stdout
    assert result.stderr == ""


def test_classify_says_in_one_line_what_is_missing(tmp_path):
    result = subprocess.run(
        [sys.executable, EXAMPLE / "classify.py"],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "WEFT_CACHE": str(tmp_path), "PATH": "", "CXX": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3
    assert result.stderr.startswith("classify.py: ")
    assert result.stderr.count("\n") == 1


def test_gradients_equal_differences_of_the_loss(example):
    import train
    from layers import backward, forward

    rng = np.random.default_rng(0)
    layers = train.network(rng)
    inner = [layer for outer in layers for layer in outer.walk() if layer.parameters]
    for layer in inner:  # in float64, so that differences of the loss are exact enough
        layer.weights = rng.normal(0, 0.2, layer.weights.shape)
        layer.bias = rng.normal(0, 0.2, layer.bias.shape)
        layer.parameters = (layer.weights, layer.bias)
    x, labels = rng.random((3, 8, 8, 1)), rng.integers(0, 10, 3)

    def loss() -> float:
        return train.cross_entropy(forward(layers, x), labels)[0]

    backward(layers, train.cross_entropy(forward(layers, x), labels)[1])
    gradients = [[g.copy() for g in layer.gradients] for layer in inner]
    for layer, expected in zip(inner, gradients, strict=True):
        for parameter, gradient in zip(layer.parameters, expected, strict=True):
            place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
            value, step = parameter[place], 1e-6
            parameter[place] = value + step
            above = loss()
            parameter[place] = value - step
            below = loss()
            parameter[place] = value
            assert (above - below) / (2 * step) == pytest.approx(gradient[place], rel=1e-3)


@pytest.mark.slow
def test_training_makes_the_shipped_network_again(tmp_path, data: dict[str, np.ndarray]):
    """Byte for byte where floating point rounds as where it was made; else as good."""
    pytest.importorskip("sklearn", reason="training needs scikit-learn, from weft[train]")
    result = subprocess.run(
        [sys.executable, EXAMPLE / "train.py", "-o", tmp_path],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "WEFT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "digits_test.npz") as archive:
        for key, value in data.items():
            np.testing.assert_array_equal(archive[key], value)
    if (tmp_path / "digits.tflite").read_bytes() != (EXAMPLE / "digits.tflite").read_bytes():
        right = int(result.stdout.split("int8:")[1].split()[0])
        assert right >= RIGHT - 4
