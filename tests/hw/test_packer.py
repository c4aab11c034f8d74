from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.hw.box_bench import TINY
from tests.hw.stream_bench import Sink, Source, simulate
from weft.hw.packer import Packer


@pytest.mark.parametrize("bus", [8, 16, 64])
@pytest.mark.parametrize("block", [4, 16])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_rows_become_beats_with_the_strobes_of_their_bytes(bus, block, stall):
    config = replace(TINY, block=block, bus_bytes=bus, acc_bytes=8192, wgt_bytes=8192)
    size = config.out_element_bytes
    slots = max(1, bus // size)
    random = Random(bus)
    rows = [
        {
            "count": random.randint(1, 99 // slots + 9),
            "slot": random.randrange(slots),
            "turn": random.randrange(slots),
            "kept": number % 3 == 1,
        }
        for number in range(20)
    ]
    for row in rows:
        row["place"] = slots * random.randrange(config.inp_depth // slots - 40) + row["slot"]
    groups, beats, writes = [], [], []
    for row in rows:
        memory: dict[int, int] = {}
        places: dict[int, list[bytes]] = {}
        for place in range(row["slot"], row["slot"] + row["count"]):
            element = random.randbytes(size)
            group = places.setdefault(place // slots, [bytes(size)] * slots)
            group[(row["turn"] + place) % slots] = element
            memory |= {place * size + i: byte for i, byte in enumerate(element)}
        groups += [int.from_bytes(b"".join(group), "little") for group in places.values()]
        if row["kept"]:
            start = row["place"] - row["slot"]
            for at in places:
                held = [memory.get((at * slots + n) * size) is not None for n in range(slots)]
                data = [memory.get(at * slots * size + i) for i in range(slots * size)]
                last = at == max(places)
                writes.append((start + at * slots, held, data, last))
            continue
        for first in range(0, max(memory) + 1, bus):
            beats.append([memory.get(first + i) for i in range(bus)])

    packer = Packer(config)
    sink, keeper = Sink(packer.o, stall=stall), Sink(packer.kept, stall=stall, seed=4)
    sources = (Source(packer.rows, rows, seed=2), Source(packer.i, groups, stall=stall, seed=3))
    count = len(beats) + len(writes)
    cycles = simulate(
        packer, sink, keeper, *sources,
        until=lambda: len(sink.values) + len(keeper.values) == count, extra=9,
    )  # fmt: skip
    assert len(sink.values) == len(beats)
    for got, (address, held, data, last) in zip(keeper.values, writes, strict=True):
        parts = len(packer.kept.p.mask) // slots
        mask = sum((1 << parts) - 1 << n * parts for n in range(slots) if held[n])
        assert (got.address, got.mask, got.last) == (address, mask, last)
        found = [got.data >> 8 * i & 255 if held[i // size] else None for i in range(slots * size)]
        assert found == data
    for got, expected in zip(sink.values, beats, strict=True):
        strobes = [bool(got.strobe >> i & 1) for i in range(bus)]
        assert strobes == [byte is not None for byte in expected]
        assert [got.data >> 8 * i & 255 if s else None for i, s in enumerate(strobes)] == expected
    if not stall:
        assert cycles <= count + 4
