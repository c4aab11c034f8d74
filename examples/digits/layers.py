"""The layers that the example trains: forward and backward in plain numpy, float32.

Images are [N, H, W, C]. ``forward`` keeps what ``backward`` needs; ``backward`` takes the loss's
gradient by the output and gives that by the input, and leaves those by the parameters in
``gradients``, in the order of ``parameters``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

KERNEL = 3
"""Rows and columns of a window that is not one pixel."""


class Layer:
    """Base: a layer without parameters."""

    parameters: tuple[np.ndarray, ...] = ()
    gradients: tuple[np.ndarray, ...] = ()

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The layer's output."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """The gradient by the input of the last ``forward``."""
        raise NotImplementedError

    def walk(self) -> Iterator[Layer]:
        """This layer and those inside it."""
        yield self


def _taps(x: np.ndarray, size: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each place in the window: what lies under it, for every output pixel (stride 1)."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    for i in range(size):
        for j in range(size):
            yield i, j, x[:, i : i + height, j : j + width]


def _padded(x: np.ndarray, size: int) -> np.ndarray:
    edge = size // 2
    return np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))


def _unpadded(x: np.ndarray, size: int) -> np.ndarray:
    edge = size // 2
    return x[:, edge : x.shape[1] - edge, edge : x.shape[2] - edge]


class Conv(Layer):
    """Convolution, stride 1, output as large as the input; weights [KH, KW, C, O]."""

    def __init__(self, rng: np.random.Generator, channels: int, outputs: int, size: int = KERNEL):
        spread = np.sqrt(2 / (size * size * channels))
        self.weights = rng.normal(0, spread, (size, size, channels, outputs)).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)
        self.parameters = (self.weights, self.bias)
        self.size = size

    def forward(self, x: np.ndarray) -> np.ndarray:
        """A matrix product for each place in the window."""
        self._x = _padded(x, self.size)
        return sum((t @ self.weights[i, j] for i, j, t in _taps(self._x, self.size)), self.bias)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        dx, dw = np.zeros_like(self._x), np.empty_like(self.weights)
        for i, j, tap in _taps(self._x, self.size):
            dw[i, j] = np.tensordot(tap, dy, ((0, 1, 2), (0, 1, 2)))
        for i, j, under in _taps(dx, self.size):
            np.add(under, dy @ self.weights[i, j].T, out=under)
        self.gradients = (dw, dy.sum((0, 1, 2)))
        return _unpadded(dx, self.size)


class Depthwise(Layer):
    """Depthwise convolution, stride 1, output as large as the input; weights [KH, KW, C]."""

    def __init__(self, rng: np.random.Generator, channels: int, size: int = KERNEL):
        self.weights = rng.normal(0, np.sqrt(2) / size, (size, size, channels)).astype(np.float32)
        self.bias = np.zeros(channels, np.float32)
        self.parameters = (self.weights, self.bias)
        self.size = size

    def forward(self, x: np.ndarray) -> np.ndarray:
        """A product for each place in the window."""
        self._x = _padded(x, self.size)
        return sum((t * self.weights[i, j] for i, j, t in _taps(self._x, self.size)), self.bias)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        dx, dw = np.zeros_like(self._x), np.empty_like(self.weights)
        for i, j, tap in _taps(self._x, self.size):
            dw[i, j] = (tap * dy).sum((0, 1, 2))
        for i, j, under in _taps(dx, self.size):
            np.add(under, dy * self.weights[i, j], out=under)
        self.gradients = (dw, dy.sum((0, 1, 2)))
        return _unpadded(dx, self.size)


class Dense(Layer):
    """Fully connected; weights [I, O]."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int):
        self.weights = rng.normal(0, np.sqrt(1 / inputs), (inputs, outputs)).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)
        self.parameters = (self.weights, self.bias)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """[N, I] to [N, O]."""
        self._x = x
        return x @ self.weights + self.bias

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        self.gradients = (self._x.T @ dy, dy.sum(0))
        return dy @ self.weights.T


class Relu(Layer):
    """Negative values become zero."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        self._positive = x > 0
        return x * self._positive

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        return dy * self._positive


class MaxPool(Layer):
    """The greatest of 2 x 2 pixels, stride 2."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        n, h, w, c = x.shape
        blocks = x.reshape(n, h // 2, 2, w // 2, 2, c)
        greatest = blocks.max((2, 4), keepdims=True)
        self._winners = blocks == greatest
        return greatest[:, :, 0, :, 0]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Equal pixels share the gradient."""
        shared = self._winners / self._winners.sum((2, 4), keepdims=True, dtype=np.float32)
        blocks = shared * dy[:, :, None, :, None]
        n, h, _, w, _, c = blocks.shape
        return blocks.reshape(n, 2 * h, 2 * w, c)


class MeanPool(Layer):
    """The mean of 2 x 2 pixels, stride 2."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        return np.repeat(np.repeat(dy / 4, 2, 1), 2, 2)


class Flatten(Layer):
    """[N, H, W, C] to [N, H * W * C]."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        self._shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        return dy.reshape(self._shape)


class Residual(Layer):
    """The input plus what a chain of layers makes of it."""

    def __init__(self, body: Sequence[Layer]):
        self.body = body

    def forward(self, x: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        return x + forward(self.body, x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """See :class:`Layer`."""
        return dy + backward(self.body, dy)

    def walk(self) -> Iterator[Layer]:
        """The chain's layers, too."""
        yield self
        for layer in self.body:
            yield from layer.walk()


def forward(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """``x`` through a chain of layers."""
    for layer in layers:
        x = layer.forward(x)
    return x


def backward(layers: Sequence[Layer], dy: np.ndarray) -> np.ndarray:
    """A gradient back through the chain of the last :func:`forward`."""
    for layer in reversed(layers):
        dy = layer.backward(dy)
    return dy
