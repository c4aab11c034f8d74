"""The four engines side by side, each with an AXI port of its own, and nothing between them."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.cocotb.course import CONFIG
from weft.hw.axi import axi4_read_signature, axi4_write_signature
from weft.hw.compute import ComputeEngine
from weft.hw.fetch import Fetch
from weft.hw.form import Form
from weft.hw.load import LoadEngine
from weft.hw.read_port import ReadPort
from weft.hw.store import StoreEngine
from weft.hw.verilog import verilog_of
from weft.hw.write_port import WritePort

TOP = "rig"
"""The module's name."""


class Rig(wiring.Component):
    """An engine's member ``x`` is ``ENGINE_x``; instead of ``bus`` there is ``ENGINE_axi``."""

    def __init__(self, form: Form):
        self._units = {
            "fetch": Fetch(CONFIG),
            "load": LoadEngine(CONFIG),
            "compute": ComputeEngine(CONFIG, form),
            "store": StoreEngine(CONFIG, form),
        }
        members = {}
        for name, unit in self._units.items():
            axi = axi4_write_signature if name == "store" else axi4_read_signature
            members[f"{name}_axi"] = Out(axi(CONFIG))
            for member, what in unit.signature.members.items():
                if member != "bus":
                    members[f"{name}_{member}"] = what
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for name, unit in self._units.items():
            port = WritePort(CONFIG) if name == "store" else ReadPort(CONFIG, 1)
            client = port.client if name == "store" else port.client[0]
            m.submodules[name], m.submodules[f"{name}_port"] = unit, port
            wiring.connect(m, unit.bus, client)
            wiring.connect(m, port.axi, wiring.flipped(getattr(self, f"{name}_axi")))
            for member, what in unit.signature.members.items():
                if member != "bus":
                    inside, outside = getattr(unit, member), getattr(self, f"{name}_{member}")
                    if what.is_signature:
                        wiring.connect(m, inside, wiring.flipped(outside))
                    else:
                        m.d.comb += inside.eq(outside) if what.flow is In else outside.eq(inside)
        return m


def verilog(netlist: bool) -> str:
    """The rig's Verilog; see :func:`weft.hw.verilog.generate` for what a netlist is."""
    form: Form = "synthesis" if netlist else "simulation"
    return verilog_of(Rig(form), TOP, netlist=netlist)
