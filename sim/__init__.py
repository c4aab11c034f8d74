"""Simulators behind one contract; see :func:`connect`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError
from .device import Device, RunResult

_KINDS = {"functional": ("functional", "FunctionalDevice"), "rtl": ("rtl", "RtlDevice")}
"""Module and class of each kind; imported when asked for, because they are large."""


def connect(kind: str, config: AcceleratorConfig, **options: Any) -> Device:
    """A device of that kind, a context manager; several may live at once.

    Parameters
    ----------
    kind : str
        ``functional`` (the instructions' meanings, compiled) or ``rtl`` (the generated Verilog
        in Verilator; the first connection of a configuration builds it).
    config : AcceleratorConfig
        What the device is.
    **options
        ``dram_bytes`` (default 256 MiB), ``dram_latency`` (40 cycles from a read request to its
        first beat), ``stall_seed`` (random stalls on every AXI channel; none when left out),
        ``timeout_cycles``, ``progress`` (told of the phases of a build: name, fraction) and
        ``wave`` (an FST file for the whole run, ``rtl`` only). The functional simulator takes
        them all and has no use for those about time.

    Raises
    ------
    ConfigError
        If ``kind`` is unknown.
    MissingToolError
        If ``rtl`` finds no Verilator or no C++ compiler.
    """
    if kind not in _KINDS:
        raise ConfigError(f"there is no device {kind!r}; there are {', '.join(_KINDS)}")
    module, name = _KINDS[kind]
    device: Device = getattr(import_module(f".{module}", __package__), name)(config, **options)
    return device


__all__ = ["Device", "RunResult", "connect"]
