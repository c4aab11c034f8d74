"""Trains the network that ``classify.py`` runs, quantizes it to int8 and writes it as TFLite.

    pip install 'weft[train]'          # from a checkout: pip install -e '.[train]'
    python examples/digits/train.py    # writes digits.tflite and digits_test.npz beside itself

The data are scikit-learn's digits: 1797 images of 8 x 8 pixels, brightness 0 to 16, from the UCI
repository. A fifth of them is held out, never trained on, and shipped with the network. One seed
decides everything; on one machine the files come out the same, byte for byte.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # more would add up in another order every time

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from layers import (
    Conv,
    Dense,
    Depthwise,
    Flatten,
    Layer,
    MaxPool,
    MeanPool,
    Relu,
    Residual,
    backward,
    forward,
)
from quantize import quantize, quantize_images

from weft.compiler.tflite.write import write

SEED = 1
EPOCHS = 16
BATCH = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
HELD_OUT = 360
CALIBRATION = 500
"""Images that the ranges of activations are taken from."""
BRIGHTEST = 16


def network(rng: np.random.Generator) -> list[Layer]:
    """The untrained network: images [N, 8, 8, 1] to logits [N, 10]."""
    return [
        Conv(rng, 1, 16),
        Relu(),
        Residual([Depthwise(rng, 16), Relu(), Conv(rng, 16, 16, size=1)]),
        Relu(),
        Conv(rng, 16, 32),
        Relu(),
        MaxPool(),
        Depthwise(rng, 32),
        Relu(),
        Conv(rng, 32, 32, size=1),
        Relu(),
        MeanPool(),
        Flatten(),
        Dense(rng, 128, 10),
    ]


def data() -> tuple[np.ndarray, np.ndarray]:
    """Every image [N, 8, 8, 1] with its label, in a shuffled order that SEED decides."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        sys.exit("train.py needs scikit-learn: pip install 'weft[train]'")
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    return digits.images[order, ..., None].astype(np.uint8), digits.target[order]


def train(images: np.ndarray, labels: np.ndarray, say: bool = True) -> list[Layer]:
    """A network trained on images [N, 8, 8, 1] with values from 0 to 1."""
    rng = np.random.default_rng(SEED)
    layers = network(rng)
    optimizer = Adam(layers)
    steps = EPOCHS * (len(images) // BATCH)
    step = 0
    for epoch in range(EPOCHS):
        losses: list[float] = []
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            logits = forward(layers, shifted(images[chosen], rng))
            loss, gradient = cross_entropy(logits, labels[chosen])
            backward(layers, gradient)
            optimizer.step(LEARNING_RATE * (1 + np.cos(np.pi * step / steps)) / 2)
            losses.append(loss)
            step += 1
        if say:
            print(f"epoch {epoch + 1:2} of {EPOCHS}: loss {np.mean(losses):.4f}")
    return layers


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to a pixel to either side, darkness coming in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (0, 0)))
    columns = rng.integers(0, 3, (len(images), 1)) + np.arange(images.shape[2])
    return np.take_along_axis(padded, columns[:, None, :, None], 2)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean loss, and its gradient by the logits."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(probabilities[rows, labels] + 1e-9).mean()
    probabilities[rows, labels] -= 1
    return float(loss), probabilities / np.float32(len(labels))


class Adam:
    """Adam with decoupled weight decay, on all parameters of the layers."""

    def __init__(self, layers: Sequence[Layer], first: float = 0.9, second: float = 0.999):
        self._layers = [layer for outer in layers for layer in outer.walk() if layer.parameters]
        self._moments = [
            [(np.zeros_like(p), np.zeros_like(p)) for p in layer.parameters]
            for layer in self._layers
        ]
        self._decays = (first, second)
        self._count = 0

    def step(self, rate: float) -> None:
        """Change the parameters along the gradients of the last ``backward``."""
        self._count += 1
        first, second = self._decays
        for layer, moments in zip(self._layers, self._moments, strict=True):
            for value, gradient, (mean, square) in zip(
                layer.parameters, layer.gradients, moments, strict=True
            ):
                mean[...] = first * mean + (1 - first) * gradient
                square[...] = second * square + (1 - second) * gradient * gradient
                unbiased = mean / (1 - first**self._count)
                spread = np.sqrt(square / (1 - second**self._count)) + 1e-8
                value[...] -= np.float32(rate) * (unbiased / spread + WEIGHT_DECAY * value)


def main() -> int:
    """Train, quantize, write, and say how good it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).parent, metavar="DIR",
        help="where the two files go (default: beside this script)",
    )  # fmt: skip
    output: Path = parser.parse_args().output
    images, labels = data()
    reals = images.astype(np.float32) / BRIGHTEST
    layers = train(reals[HELD_OUT:], labels[HELD_OUT:])
    graph = quantize("digits", layers, reals[HELD_OUT : HELD_OUT + CALIBRATION])
    output.mkdir(parents=True, exist_ok=True)
    (output / "digits.tflite").write_bytes(write(graph))
    x = quantize_images(reals[:HELD_OUT])
    np.savez_compressed(
        output / "digits_test.npz",
        image=images[:HELD_OUT], x=x, y=labels[:HELD_OUT].astype(np.uint8),
    )  # fmt: skip
    right = int((forward(layers, reals[:HELD_OUT]).argmax(1) == labels[:HELD_OUT]).sum())
    print(f"float: {right} of {HELD_OUT} held-out digits right, {right / HELD_OUT:.1%}")
    right = int((predictions(output / "digits.tflite", x) == labels[:HELD_OUT]).sum())
    print(f"int8:  {right} of {HELD_OUT} held-out digits right, {right / HELD_OUT:.1%}")
    return 0


def predictions(path: Path, x: np.ndarray) -> np.ndarray:
    """What the written network says, on the CPU."""
    import weft

    scores = weft.jit(weft.load(path), on="cpu")(x)
    assert isinstance(scores, np.ndarray)
    return scores.argmax(1)


if __name__ == "__main__":
    sys.exit(main())
