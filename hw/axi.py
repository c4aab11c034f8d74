"""The buses: AXI4 towards DRAM, AXI4-Lite for control, and what the engines say to the ports.

Signatures are seen from the side that asks (the master, the client); the other side is ``flip()``.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from .interfaces import ADDRESS_BITS

ID_BITS = 2
"""Of AXI4's ``arid``, ``rid``, ``awid``, ``bid``."""
CONTROL_ADDRESS_BITS = 12
"""Of an AXI4-Lite byte address."""
CONTROL_BITS = 32
"""Of a register, and of AXI4-Lite's data."""
BURST_BEATS = 16
"""The longest burst that a port makes: what AXI3 slaves, too, take."""
BURST_BITS = 8
"""Of ``arlen`` and ``awlen``: beats of a burst less one."""
BURST_INCR = 0b01
"""``arburst``, ``awburst``: each beat at the next address."""
CACHE = 0b0011
"""``arcache``, ``awcache``: normal memory, bufferable, not cacheable."""
BEATS_BITS = 26
"""Of a request's length: holds 2**16 elements of a page each in beats of 8 bytes, and one."""


class Response(IntEnum):
    """``rresp``, ``bresp``; both errors have the upper bit set."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def axi4_read_signature(config: AcceleratorConfig) -> wiring.Signature:
    """The channels AR and R of AXI4."""
    return wiring.Signature(
        {
            **_address("ar"),
            "rvalid": In(1),
            "rready": Out(1),
            "rdata": In(8 * config.bus_bytes),
            "rid": In(ID_BITS),
            "rresp": In(2),
            "rlast": In(1),
        }
    )


def axi4_write_signature(config: AcceleratorConfig) -> wiring.Signature:
    """The channels AW, W and B of AXI4."""
    return wiring.Signature(
        {
            **_address("aw"),
            "wvalid": Out(1),
            "wready": In(1),
            "wdata": Out(8 * config.bus_bytes),
            "wstrb": Out(config.bus_bytes),
            "wlast": Out(1),
            "bvalid": In(1),
            "bready": Out(1),
            "bid": In(ID_BITS),
            "bresp": In(2),
        }
    )


def axi4_signature(config: AcceleratorConfig) -> wiring.Signature:
    """All five channels of AXI4, from the master's side."""
    halves = (axi4_read_signature(config), axi4_write_signature(config))
    return wiring.Signature({name: m for half in halves for name, m in half.members.items()})


def _address(channel: str) -> dict[str, wiring.Member]:
    members = {
        "valid": Out(1),
        "ready": In(1),
        "addr": Out(ADDRESS_BITS),
        "id": Out(ID_BITS),
        "len": Out(BURST_BITS),
        "size": Out(3),
        "burst": Out(2),
        "cache": Out(4),
        "prot": Out(3),
    }
    return {channel + name: member for name, member in members.items()}


def axi4lite_signature() -> wiring.Signature:
    """All five channels of AXI4-Lite, from the master's side."""
    return wiring.Signature(
        {
            "awvalid": Out(1),
            "awready": In(1),
            "awaddr": Out(CONTROL_ADDRESS_BITS),
            "awprot": Out(3),
            "wvalid": Out(1),
            "wready": In(1),
            "wdata": Out(CONTROL_BITS),
            "wstrb": Out(CONTROL_BITS // 8),
            "bvalid": In(1),
            "bready": Out(1),
            "bresp": In(2),
            "arvalid": Out(1),
            "arready": In(1),
            "araddr": Out(CONTROL_ADDRESS_BITS),
            "arprot": Out(3),
            "rvalid": In(1),
            "rready": Out(1),
            "rdata": In(CONTROL_BITS),
            "rresp": In(2),
        }
    )


REQUEST = data.StructLayout({"address": ADDRESS_BITS, "beats": BEATS_BITS})
"""So many whole beats from a byte address on, which is a multiple of the bus width.

``beats`` is not 0. The port cuts a request into bursts.
"""


def read_client_signature(config: AcceleratorConfig) -> wiring.Signature:
    """Reads, as the client sees them: ``request``, and ``beat``, those of its requests in order.

    ``error`` comes with a beat that the bus answered with an error; its data mean nothing.
    """
    beat = data.StructLayout({"data": 8 * config.bus_bytes, "error": 1})
    return wiring.Signature(
        {"request": Out(stream.Signature(REQUEST)), "beat": In(stream.Signature(beat))}
    )


def write_client_signature(config: AcceleratorConfig) -> wiring.Signature:
    """Writes, as the client sees them.

    ``data`` are the beats of the requests, in order, with a ``strobe`` bit for each byte to be
    written; ``response`` comes once for each request, in order, when it is in memory.
    """
    beat = data.StructLayout({"data": 8 * config.bus_bytes, "strobe": config.bus_bytes})
    response = data.StructLayout({"error": 1})
    return wiring.Signature(
        {
            "request": Out(stream.Signature(REQUEST)),
            "data": Out(stream.Signature(beat)),
            "response": In(stream.Signature(response)),
        }
    )
