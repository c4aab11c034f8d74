"""``driver.cpp`` from Python: one Verilated device with its DRAM."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from ..isa.errors import DeviceError

_FUNCTIONS = {
    "new": (ctypes.c_void_p, "pointer u64 u32 u32 u64"),
    "free": (None, "pointer"),
    "renew": (ctypes.c_int, "pointer"),
    "reset": (ctypes.c_int, "pointer"),
    "read_register": (ctypes.c_int, "pointer u32 u32*"),
    "write_register": (ctypes.c_int, "pointer u32 u32"),
    "run": (ctypes.c_int, "pointer u64* u64"),
    "break_down": (ctypes.c_int, "pointer u64 u64"),
    "completed": (ctypes.c_int64, "pointer"),
    "mark": (ctypes.c_int, "pointer u64* u32"),
    "bare": (ctypes.c_int, "pointer u64"),
    "writing": (ctypes.c_int, "pointer"),
    "trace": (ctypes.c_int, "pointer text"),
    "cover": (ctypes.c_int, "pointer text"),
    "cycle": (ctypes.c_int64, "pointer"),
    "error": (ctypes.c_char_p, "pointer"),
}
"""Result and arguments of each ``weft_...``."""
NEVER = (1 << 64) - 1
"""More instructions than are ever completed."""
_TYPES = {
    "pointer": ctypes.c_void_p,
    "text": ctypes.c_char_p,
    "u32": ctypes.c_uint32,
    "u64": ctypes.c_uint64,
    "u32*": ctypes.POINTER(ctypes.c_uint32),
    "u64*": ctypes.POINTER(ctypes.c_uint64),
}


@cache
def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, f"weft_{name}")
        function.restype = result
        function.argtypes = [_TYPES[argument] for argument in arguments.split()]
    return library


class Driver:
    """A simulated device, powered up and reset. Other threads run while it simulates.

    Every method raises :class:`DeviceError`, with the rule and the cycle, when the device breaks
    a rule of its buses; only :meth:`renew` helps then.

    Parameters
    ----------
    library : Path
        From :func:`weft.sim.verilate.build`.
    dram : array
        ``uint8``, C-contiguous: DRAM from address 0, shared with the device.
    latency : int
        Cycles from a read request to its first beat, 1 or more.
    stall_seed : int or None
        Of random stalls on every channel; None for none.
    """

    def __init__(self, library: Path, dram: np.ndarray, latency: int, stall_seed: int | None):
        self._library = _load(library)
        self._dram = dram  # kept alive
        self._handle: int | None = self._library.weft_new(
            dram.ctypes.data,
            dram.size,
            latency,
            stall_seed is not None,
            (stall_seed or 0) & (1 << 64) - 1,
        )
        self.renew()

    def renew(self) -> None:
        """Power off and on, and reset: memories zero, errors forgotten; waves end."""
        self._call("renew")

    def reset(self) -> None:
        """Pulse the ``rst`` pin; memories keep their contents."""
        self._call("reset")

    def read_register(self, offset: int) -> int:
        """32 bits from a byte offset, over AXI4-Lite."""
        value = ctypes.c_uint32()
        self._call("read_register", offset, ctypes.byref(value))
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        """32 bits to a byte offset, over AXI4-Lite."""
        self._call("write_register", offset, value)

    def run(self, cycles: int, completed: int = NEVER) -> tuple[int, bool]:
        """Let that many cycles pass, or fewer until the interrupt: how many, and whether it is.

        It also ends when the compute engine has ``completed`` so many instructions since
        power-up.
        """
        count = ctypes.c_uint64(cycles)
        interrupt = self._call("run", ctypes.byref(count), completed)
        return count.value, bool(interrupt)

    def break_down(self, first: int, end: int) -> None:
        """Let beats of DRAM with bytes from ``first`` to before ``end`` answer errors."""
        self._call("break_down", first, end)

    @property
    def completed(self) -> int:
        """Instructions that the compute engine has completed since power-up."""
        return self._call("completed")

    def mark(self, count: int) -> list[int]:
        """The values of the first ``count`` counters; a cycle goes by."""
        values = (ctypes.c_uint64 * count)()
        self._call("mark", values, count)
        return list(values)

    def bare(self, cycles: int) -> None:
        """Toggle the clock and do nothing else, for measurements."""
        self._call("bare", cycles)

    @property
    def writing(self) -> bool:
        """Whether a write to DRAM is not finished."""
        return bool(self._call("writing"))

    @property
    def cycle(self) -> int:
        """Cycles since power-up."""
        return self._call("cycle")

    def trace(self, path: Path) -> None:
        """Write waves of everything from now on to an FST file; the library must have them."""
        self._call("trace", str(path).encode())

    def cover(self, path: Path) -> None:
        """Write what was executed since the last time or power-up; the library must count it."""
        self._call("cover", str(path).encode())

    def close(self) -> None:
        """Free the device; may be called twice."""
        if self._handle is not None:
            self._library.weft_free(self._handle)
            self._handle = None

    def _call(self, name: str, *arguments: object) -> int:
        if self._handle is None:
            raise DeviceError("the device is closed")
        status: int = getattr(self._library, f"weft_{name}")(self._handle, *arguments)
        if status < 0:
            raise DeviceError(self._library.weft_error(self._handle).decode())
        return status

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()
