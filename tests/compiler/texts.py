"""Texts of levels for tests: a small network at each, and texts with something changed."""

from __future__ import annotations

import random
import re
from functools import lru_cache

from tests.compiler.compiled import TINY
from tests.networks import NetworkBuilder
from weft.compiler.graph import Graph
from weft.compiler.levels import format_module
from weft.compiler.module import LEVELS, Level, Module, Origin
from weft.compiler.pipeline import run
from weft.isa import AcceleratorConfig

TOKEN = re.compile(r"-?\d+|[A-Za-z_][\w.]*|\S")


def small() -> Graph:
    """A network with every kind of placement: unfolded, padded, elementwise, a view, the host."""
    n = NetworkBuilder("small")
    x = n.conv(n.input(1, 3, 3, 1), 4, 3, activation="relu")
    y = n.max_pool(n.add(x, n.depthwise(x, 3)), 2, strides=2, padding="valid")
    n.softmax(n.fc(n.reshape(y, 1, 4), 3))
    return n.graph()


@lru_cache(maxsize=8)
def text_of(level: Level, config: AcceleratorConfig = TINY) -> str:
    """:func:`small` at a level."""
    return format_module(run(Module(small(), config, origin=Origin("small", "0" * 64)), level))


def mutated(level: Level, seed: int) -> str:
    """The text of a level with one to three things changed, nearly always for the worse."""
    rng = random.Random(seed)
    lines = text_of(level).splitlines()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                del lines[at]
            case 1:
                lines.insert(other, lines[at])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines = lines[: max(1, at)]
            case 4:
                lines[at] = _other_character(lines[at], rng)
            case 5:
                lines[at] = _other_token(lines[at], rng.choice(_numbers(rng)), rng, r"-?\d+")
            case 6:
                token = rng.choice(TOKEN.findall(lines[other]) or ["0"])
                lines[at] = _other_token(lines[at], token, rng, TOKEN.pattern)
    return "\n".join(lines) + "\n"


def _numbers(rng: random.Random) -> list[str]:
    return ["0", "1", "-1", "2", "3", str(rng.randrange(1 << 8)), str(1 << 31), "9" * 30]


def _other_character(line: str, rng: random.Random) -> str:
    if not line:
        return "?"
    at = rng.randrange(len(line))
    return line[:at] + rng.choice(' "\\{[(=:,.0x\x00é') + line[at + 1 :]


def _other_token(line: str, token: str, rng: random.Random, pattern: str) -> str:
    places = list(re.finditer(pattern, line))
    if not places:
        return line
    place = rng.choice(places)
    return line[: place.start()] + token + line[place.end() :]


__all__ = ["LEVELS", "mutated", "small", "text_of"]
