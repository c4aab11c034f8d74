"""Where a generator's decisions come from: a seed, or whatever else answers the same questions."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices(ABC):
    """Answers a generator's questions; the least and the first are the plainest answers."""

    @abstractmethod
    def integer(self, least: int, most: int) -> int:
        """Any integer from ``least`` to ``most``."""

    @abstractmethod
    def one_of(self, options: Sequence[T]) -> T:
        """Any of ``options``."""

    def yes(self) -> bool:
        """Either."""
        return self.integer(0, 1) == 1

    def rarely(self, n: int) -> bool:
        """True once in ``n`` times."""
        return self.integer(0, n - 1) == n - 1

    def low(self, least: int, near: int, most: int) -> int:
        """From ``least`` to ``most``, half of the time not beyond ``near``."""
        return self.integer(least, most if self.yes() else max(least, min(near, most)))


class RandomChoices(Choices):
    """The same answers for the same seed."""

    def __init__(self, seed: int | str):
        self.random = random.Random(seed)

    def integer(self, least: int, most: int) -> int:
        """Any integer from ``least`` to ``most``."""
        return self.random.randint(least, most)

    def one_of(self, options: Sequence[T]) -> T:
        """Any of ``options``."""
        return options[self.random.randrange(len(options))]
