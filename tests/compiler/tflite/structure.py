"""TFLite files with a field of their structure changed: every slot of every table, every length,
every reference and elements of every vector, found by the schema in the package ``tflite``."""

from __future__ import annotations

import importlib
import inspect
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import tflite

from tests import networks
from weft.compiler.tflite.write import write

SIZES = {
    "Bool": 1, "Int8": 1, "Uint8": 1, "Int16": 2, "Uint16": 2, "Int32": 4, "Uint32": 4,
    "Float32": 4, "Int64": 8, "Uint64": 8, "Float64": 8, "UOffsetTRelative": 4,
}  # fmt: skip
OFFSET = "UOffsetTRelative"
UNIONS = {"BuiltinOptions": "BuiltinOptionsType"}
"""Fields that hold a table of several kinds, and the field that says which."""


@dataclass(frozen=True)
class Place:
    """A number in the file."""

    what: str
    at: int
    size: int


@dataclass(frozen=True)
class Slot:
    """A field of a table."""

    name: str
    number: int
    kind: str


@cache
def slots(name: str) -> tuple[Slot, ...]:
    """The fields of a table of the schema."""
    module = importlib.import_module(f"tflite.{name}")
    found: list[Slot] = []
    for function, value in vars(module).items():
        if function.startswith(f"{name}Add") and callable(value):
            match = re.search(r"Prepend(\w+)Slot\((\d+)", inspect.getsource(value))
            if match:
                found.append(Slot(function[len(name) + 3 :], int(match[2]), match[1]))
    return tuple(found)


@cache
def element_bytes(name: str, field: str) -> int:
    """How large an element of a vector is."""
    module = importlib.import_module(f"tflite.{name}")
    source = inspect.getsource(getattr(module, f"{name}Start{field}Vector"))
    match = re.search(r"StartVector\((\d+)", source)
    assert match
    return int(match[1])


def places(data: bytes) -> list[Place]:
    """Every number of the structure of a valid file."""
    found = [Place("root", 0, 4), Place("identifier", 4, 4)]
    seen: set[int] = set()
    found.extend(_of_table(data, tflite.Model.GetRootAs(data, 0), seen))
    return found


def _of_table(data: bytes, table: Any, seen: set[int]) -> Iterator[Place]:
    start, name = table._tab.Pos, type(table).__name__
    if start in seen:
        return
    seen.add(start)
    vtable = start - struct.unpack_from("<i", data, start)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    yield Place(f"{name} to its slots", start, 4)
    yield Place(f"{name}'s slots", vtable, 2)
    for slot in slots(name):
        entry = 4 + 2 * slot.number
        if entry >= size:
            continue
        label = f"{name}.{slot.name}"
        yield Place(f"slot of {label}", vtable + entry, 2)
        offset = struct.unpack_from("<H", data, vtable + entry)[0]
        if offset:
            yield Place(label, start + offset, SIZES[slot.kind])
            if slot.kind == OFFSET:
                yield from _behind(data, table, slot, start + offset, seen)


def _behind(data: bytes, table: Any, slot: Slot, at: int, seen: set[int]) -> Iterator[Place]:
    """What a reference refers to: a table, a text or a vector."""
    name, label = type(table).__name__, f"{type(table).__name__}.{slot.name}"
    target = at + struct.unpack_from("<I", data, at)[0]
    if hasattr(table, f"{slot.name}Length"):
        count, size = getattr(table, f"{slot.name}Length")(), element_bytes(name, slot.name)
        yield Place(f"length of {label}", target, 4)
        for k in sorted({0, 1, count // 2, count - 1} & set(range(count))):
            yield Place(f"{label}[{k}]", target + 4 + k * size, size)
        for k in range(count):
            one = getattr(table, slot.name)(k)
            if not hasattr(one, "_tab"):
                break
            yield from _of_table(data, one, seen)
        return
    if slot.name in UNIONS:
        kind = getattr(table, UNIONS[slot.name])()
        names = {v: n for n, v in vars(tflite.BuiltinOptions).items() if isinstance(v, int)}
        made = getattr(tflite, names[kind])()
        made.Init(data, target)
        yield from _of_table(data, made, seen)
        return
    value = getattr(table, slot.name)()
    if isinstance(value, bytes):
        yield Place(f"length of {label}", target, 4)
        if value:
            yield Place(f"{label}[0]", target + 4, 1)
    elif hasattr(value, "_tab"):
        yield from _of_table(data, value, seen)


def mutated(data: bytes, random: Random) -> bytes:
    """The file with one to three numbers of its structure changed, or cut short."""
    changed, all_places = bytearray(data), _places(data)
    if random.random() < 0.03:
        return data[: random.randrange(len(data))]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        kind = random.choice(sorted(all_places))
        place = random.choice(all_places[kind])
        old = int.from_bytes(changed[place.at : place.at + place.size], "little")
        bits = 8 * place.size
        other = random.choice(all_places[random.choice(sorted(all_places))])
        reals = {4: (0x7FC00000, 0x7F800000, 0xFF800000, 0x00000001), 8: (0x7FF0 << 48,)}
        value = random.choice((
            0, 1, 2, 3, random.randrange(256), 1 << (bits - 1), (1 << bits) - 1,
            (1 << (bits - 1)) - 1, (1 << bits) - 2, old + 1, old - 1, -old, old * 2, old ^ 0x80,
            old + 4, old - 4, len(data), len(data) - place.at, len(data) - place.at - 4,
            other.at - place.at, *reals.get(place.size, ()),
        ))  # fmt: skip
        changed[place.at : place.at + place.size] = (value % (1 << bits)).to_bytes(
            place.size, "little"
        )
    return bytes(changed)


@cache
def _places(data: bytes) -> dict[str, list[Place]]:
    """By what they are, so that each kind is as likely as others."""
    found: dict[str, list[Place]] = {}
    for place in places(data):
        found.setdefault(re.sub(r"\[\d+\]", "[]", place.what), []).append(place)
    return found


def seeds(every: bool) -> list[bytes]:
    """Valid files: small networks of all operators of the graph and, with ``every``, the smaller
    of the trained ones."""
    files = [write(networks.every_operator())]
    if every:
        from tests.shared import SHARED

        if SHARED is not None:
            for name in ("hello_sine", "micro_speech", "mnist_lstm", "sww_1dconv", "dscnn_kws"):
                files.append((SHARED / "models" / name / f"{name}.tflite").read_bytes())
    return files
