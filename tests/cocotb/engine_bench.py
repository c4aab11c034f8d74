"""An engine that executes instructions, alone between scratchpads and DRAM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cocotb import start_soon
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout

from tests.cocotb.course import BESIDE, CONFIG, SCRATCHPADS, Course, Stretch
from tests.cocotb.surroundings import FILLED, LONGEST_RUN, Surroundings
from tests.programs import DRAM_BYTES
from weft.hw.interfaces import Activity

READS = {"load": (), "compute": ("inp", "wgt"), "store": ("acc", "qnt")}
"""Scratchpads that an engine reads outside of itself."""
WRITES = {"load": SCRATCHPADS, "compute": (), "store": ("inp",)}
"""Those that it writes."""
WRITE = ("valid", "ready", "address", "mask", "data")
BITS = {name: 8 * getattr(CONFIG, f"{name}_element_bytes") for name in ("inp", "wgt", "acc", "qnt")}
BITS["uop"] = 32


class EngineBench(Surroundings):
    """An engine that executes instructions, between scratchpads.

    Attributes
    ----------
    done : int
        Instructions that it has completed since its reset.
    held : dict
        The scratchpads, by name, an ``int`` for each element: those outside of the engine as they
        are, those within as they were filled.
    """

    async def start(self, course: Course) -> None:
        """Resets the engine, and puts into memory and scratchpads what the course begins with."""
        await self.reset()
        self.memory.write(0, course.image.tobytes())
        self.done, self.held = 0, {name: list(row) for name, row in course.start.items()}
        self.tasks = [start_soon(self._watch())]
        self.tasks += [start_soon(self._keep(name)) for name in WRITES[self.engine]]
        self.tasks += [start_soon(self._hold(name)) for name in READS[self.engine]]
        if self.engine == "compute":
            for name in FILLED:
                filled = self._fill(name, range(len(self.held[name])))
                await with_timeout(filled, LONGEST_RUN, "us")

    async def run(self, stretch: Stretch) -> tuple[int, int] | None:
        """To the last completion, and then looks at memory and scratchpads.

        Code and place of the fault, if there is one.
        """
        first = self.done
        await with_timeout(self._work(stretch), LONGEST_RUN, "us")
        await ClockCycles(self.dut.clk, 30 if stretch.fault is not None else 2)
        fault = self.pin("fault_valid").value
        assert self.done == first + (len(stretch.words) if not fault else stretch.fault)
        assert fault or self.pin("idle").value
        await self._compare(stretch)
        if not fault:
            return None
        return int(self.pin("fault_code").value), int(self.pin("fault_index").value)

    async def offer(self, stretch: Stretch) -> None:
        """Offers the instructions one after the other."""
        payloads = [index << 128 | word for index, word in enumerate(stretch.words)]
        await self.give("i", payloads)

    async def _work(self, stretch: Stretch) -> None:
        end = self.done + len(stretch.words)
        offers = start_soon(self.offer(stretch))
        filled = BESIDE if self.engine == "compute" else ()
        self._working = True
        beside = [start_soon(self._beside(name)) for name in filled]
        while self.done < end and not self.pin("fault_valid").value:
            await RisingEdge(self.dut.clk)
        self._working = False
        if not offers.done():
            offers.cancel()
        for task in beside:
            await task

    async def _watch(self) -> None:
        """What must hold in every cycle."""
        done, idle, activity, fault = map(self.pin, ("done", "idle", "activity", "fault_valid"))
        failed = 0
        while True:
            await RisingEdge(self.dut.clk)
            self.done += int(done.value)
            assert (activity.value == Activity.IDLE.value) == bool(idle.value)
            assert not (failed and done.value), "something completes after a fault"
            assert not failed or fault.value, "a fault does not stay"
            failed = int(fault.value)

    async def _hold(self, name: str) -> None:
        """A scratchpad that the engine reads; the store engine, when others let it."""
        enable, address, data = self.pins(name, "enable", "address", "data")
        following = self.pin("inp_following") if name == "inp" else None
        bits, elements = BITS[name], self.held[name]
        places = len(data) // bits
        ready = self.pin(f"{name}_ready") if self.engine == "store" else None
        while True:
            await RisingEdge(self.dut.clk)
            if ready is not None:
                assert ready.value or not enable.value
                ready.value = not self.rests()
            if not enable.value:
                continue
            first = int(address.value)
            if following is None:  # each element where the low bits of its index say
                last = range(first, min(first + places, len(elements)))
                data.value = sum(elements[index] << index % places * bits for index in last)
                continue
            count = places if following.value else 1
            shown = [elements[(first + n) % len(elements)] for n in range(count)]
            junk = self.random.getrandbits(len(data)) >> count * bits << count * bits
            data.value = junk | sum(value << n * bits for n, value in enumerate(shown))

    async def _keep(self, name: str) -> None:
        """A scratchpad that the engine writes."""
        valid, ready, address, mask, data = self.pins(name, *WRITE)
        bits, elements = BITS[name], self.held[name]
        places = len(data) // bits
        part = len(data) // len(mask)
        while True:
            ready.value = takes = not self.rests()
            await RisingEdge(self.dut.clk)
            if not (takes and valid.value):
                continue
            first, chosen, value = int(address.value), int(mask.value), int(data.value)
            assert chosen
            for index in range(first, first + places):
                low = index % places * bits
                kept = [n for n in range(bits // part) if chosen >> low // part + n & 1]
                for n in kept:
                    new = (value >> low + n * part) & (1 << part) - 1
                    elements[index] &= ~((1 << part) - 1 << n * part)
                    elements[index] |= new << n * part

    async def _fill(self, name: str, indices: Sequence[int]) -> None:
        """Writes what is held into the engine's scratchpad, as the load engine would."""
        valid, ready, address, mask, data = self.pins(f"load_{name}", *WRITE)
        bits = BITS[name]
        places = len(data) // bits
        parts = len(mask) // places
        at = 0
        while at < len(indices):
            group = indices[at : at + self.random.randrange(1, places + 1)]
            at += len(group)
            address.value = group[0]
            mask.value = sum((1 << parts) - 1 << index % places * parts for index in group)
            data.value = sum(self.held[name][index] << index % places * bits for index in group)
            valid.value = 1
            await RisingEdge(self.dut.clk)
            while not ready.value:
                await RisingEdge(self.dut.clk)
            valid.value = 0
            await self.rest()

    async def _beside(self, name: str) -> None:
        """Other values for the elements that no instruction touches, again and again."""
        indices = range(BESIDE[name], len(self.held[name]))
        while self._working:
            for index in indices:
                self.held[name][index] = self.random.getrandbits(BITS[name])
            await self._fill(name, indices)

    async def _compare(self, stretch: Stretch) -> None:
        def same(what: str, found: Sequence[int], expected: Sequence[int]) -> None:
            unsure = stretch.unsure.get(what, np.zeros(len(expected), bool))
            wrong = [
                at for at in range(len(expected)) if found[at] != expected[at] and not unsure[at]
            ]
            assert not wrong, f"{what} differs at {wrong}"

        for name in WRITES[self.engine]:
            same(name, self.held[name], stretch.arrays[name])
        match self.engine:
            case "compute":
                for name, least in BESIDE.items():
                    expected = stretch.arrays[name][:least] + self.held[name][least:]
                    same(name, await self._read(name), expected)
            case "store":
                found = np.frombuffer(self.memory.read(0, DRAM_BYTES), np.uint8)
                open_to_stores = stretch.unsure.get("dram", np.zeros(DRAM_BYTES, bool))
                assert np.array_equal(found[~open_to_stores], stretch.dram[~open_to_stores])

    async def _read(self, name: str) -> list[int]:
        """The compute engine's scratchpad, as the store engine sees it."""
        enable, address, data = self.pins(f"store_{name}", "enable", "address", "data")
        bits, elements = BITS[name], list[int]()
        places = len(data) // bits
        enable.value = 1
        for at in range(0, len(self.held[name]), places):
            address.value = at
            await ClockCycles(self.dut.clk, 2)
            value = int(data.value)
            elements += [value >> n * bits & (1 << bits) - 1 for n in range(places)]
        enable.value = 0
        return elements
