"""The packing of wave files, against a decoder written from the format's description."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest

from weft.sim.objects import PACKING
from weft.sim.toolchain import find_compiler


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("lz4")
    source = folder / "lz4.cpp"
    header = next(path for path in PACKING if path.name == "lz4.h")
    source.write_text(
        f'#include "{header}"\n'
        'extern "C" int bound(int n) { return LZ4_compressBound(n); }\n'
        'extern "C" int pack(const char* s, char* t, int n, int room)'
        " { return LZ4_compress_default(s, t, n, room); }\n"
    )
    target = folder / "lz4.so"
    command = [*find_compiler().command, "-O1", "-shared", "-fPIC", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def packed(library: ctypes.CDLL, data: bytes) -> bytes:
    room = library.bound(len(data))
    target = ctypes.create_string_buffer(b"\xee" * (room + 8), room + 8)
    used = library.pack(data, target, len(data), room)
    assert used <= room
    assert target.raw[room:] == b"\xee" * 8, "wrote beyond its room"
    return target.raw[:used]


def unpacked(block: bytes) -> bytes:
    """What a decoder that follows the format makes of a block, its end rules checked."""
    out, at, last_match = bytearray(), 0, None

    def length(nibble: int) -> int:
        nonlocal at
        total = nibble
        while nibble == 15:
            total += block[at]
            at += 1
            if block[at - 1] < 255:
                break
        return total

    while True:
        token = block[at]
        at += 1
        count = length(token >> 4)
        out += block[at : at + count]
        at += count
        if at == len(block):
            assert last_match is None or (count >= 5 and len(out) - last_match >= 12)
            return bytes(out)
        offset = int.from_bytes(block[at : at + 2], "little")
        at += 2
        assert 0 < offset <= len(out)
        last_match = len(out)
        for _ in range(length(token & 15) + 4):
            out.append(out[-offset])


@pytest.mark.parametrize("size", [0, 1, 4, 11, 12, 13, 16, 100, 270, 300, 5000, 200_000])
@pytest.mark.parametrize("kind", ["random", "constant", "few values", "repeated"])
def test_a_block_unpacks_to_what_was_packed(library: ctypes.CDLL, size: int, kind: str):
    generator = np.random.default_rng(size)
    data = {
        "random": lambda: generator.integers(0, 256, size, np.uint8),
        "constant": lambda: np.full(size, 7, np.uint8),
        "few values": lambda: generator.integers(0, 2, size, np.uint8),
        "repeated": lambda: np.resize(generator.integers(0, 256, 70_000, np.uint8), size),
    }[kind]().tobytes()
    block = packed(library, data)
    assert unpacked(block) == data
    if kind == "constant" and size >= 100:
        assert len(block) < size / 10 + 16
