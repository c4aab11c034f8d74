"""The Verilog at its pins, between bus models that others have written: the accelerator, and
each engine alone.

The scenarios run inside the simulator: Verilator, and Icarus where it is installed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch
from xml.etree import ElementTree

import pytest

from tests.cocotb import program, rig
from tests.formal import planted
from weft.hw import box_reader, compute, load, placer, store, verilog
from weft.hw.queue import Queue
from weft.sim.library import sources_hash
from weft.sim.objects import folder, key_of
from weft.sim.toolchain import find_compiler, find_verilator

pytest.importorskip("cocotbext.axi", reason="no cocotb: pip install cocotb cocotbext-axi")

pytestmark = pytest.mark.slow
# Compiling is what takes time: it is one file then, hardly optimized, and shows only its pins.
VERILATOR_ARGUMENTS = (
    *("-Wno-lint", "--no-public-flat-rw", "--public-depth", "1"),
    *("--output-split", "0", "-CFLAGS", "-O0"),
)
TIMESCALE = ("1ns", "1ps")


@dataclass(frozen=True)
class Scenarios:
    """Scenarios, the module that they are played with, and its Verilog, as a netlist or not."""

    module: str
    top: str
    verilog: Callable[[bool], str]
    sources: tuple[str, ...] = ()
    """What decides the Verilog, beside isa and hw."""


SCENARIOS = (
    Scenarios(
        "tests.cocotb.scenarios",
        verilog.TOP,
        # Icarus plays what goes to an FPGA, Verilator what is simulated elsewhere.
        lambda netlist: verilog.generate(
            program.CONFIG, "synthesis" if netlist else "simulation", netlist=netlist
        ),
        ("program",),
    ),
    Scenarios("tests.cocotb.engines", rig.TOP, rig.verilog, ("rig", "course")),
)


COMPILE = """#!/bin/sh
for source; do :; done
object=$(basename "$source" .cpp).o
case "$source" in
*/include/verilated*)
  cp "{kept}/$object" "$object" 2>/dev/null && exit
  "$@" && cp "$object" "{kept}/$object.$$" && mv "{kept}/$object.$$" "{kept}/$object" ;;
*)
  exec "$@" ;;
esac
"""
"""Stands before the compiler: Verilator's own part of a simulation is compiled once and kept."""


@pytest.fixture
def verilator(tmp_path, monkeypatch) -> str:
    """Which Verilator it is. What cocotb calls is the one on PATH, and need not be Weft's."""
    found = find_verilator()
    tools = key_of(found.identity, find_compiler().identity, repr(VERILATOR_ARGUMENTS))
    kept = folder() / f"cocotb-{tools}"
    kept.mkdir(exist_ok=True)
    tool, compiler = tmp_path / "bin" / "verilator", tmp_path / "bin" / "compile"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nVERILATOR_ROOT="{found.root}" exec "{found.command}" "$@"\n')
    compiler.write_text(COMPILE.format(kept=kept))
    for script in (tool, compiler):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setenv("OBJCACHE", str(compiler))
    return tools


def compile_with_verilator(top: str, text: str, place: Path) -> Path:
    """The simulation as a program, in a folder that is made."""
    from cocotb_tools.runner import get_runner

    place.mkdir()
    source = place / f"{top}.sv"
    source.write_text(text)
    get_runner("verilator").build(
        sources=[source],
        hdl_toplevel=top,
        build_dir=place,
        build_args=VERILATOR_ARGUMENTS,
        timescale=TIMESCALE,
        log_file=place / "build.log",
    )
    return place / top


def kept_simulation(scenarios: Scenarios, tools: str, place: Path) -> None:
    """Puts the Verilated simulation into a folder, from the cache if it was built before."""
    here = Path(__file__).parent
    texts = [(here / f"{name}.py").read_text() for name in scenarios.sources]
    kept = folder() / f"{key_of(tools, sources_hash(), scenarios.module, *texts)}.cocotb"
    if not kept.exists():
        text = scenarios.verilog(False)
        built = compile_with_verilator(scenarios.top, text, place / "build")
        partial = kept.with_suffix(f".{os.getpid()}")
        shutil.copy(built, partial)
        partial.replace(kept)
    shutil.copy(kept, place / scenarios.top)


def play(simulator: str, scenarios: Scenarios, place: Path) -> Mapping[str, bool]:
    """Runs what was built in a folder; whether each scenario has passed."""
    from cocotb_tools.runner import get_runner

    results = place / "results.xml"
    with suppress(SystemExit):  # which is how it says that a scenario has failed
        get_runner(simulator).test(
            test_module=scenarios.module,
            hdl_toplevel=scenarios.top,
            hdl_toplevel_lang="verilog",
            build_dir=place,
            test_dir=place,
            results_xml=results,
            log_file=place / "log",
            extra_env={"COCOTB_LOG_LEVEL": "WARNING"},
            timescale=TIMESCALE,
        )
    cases = ElementTree.parse(results).iter("testcase")
    return {
        case.get("name", ""): not (case.findall("failure") or case.findall("error"))
        for case in cases
    }


def assert_all_pass(passed: Mapping[str, bool], place: Path) -> None:
    """None may fail, and some there must be."""
    assert passed
    assert all(passed.values()), (place / "log").read_text()


@pytest.mark.parametrize("scenarios", SCENARIOS, ids=lambda s: s.top)
def test_all_scenarios_pass_on_verilator(scenarios, verilator, tmp_path):
    kept_simulation(scenarios, verilator, tmp_path)
    assert_all_pass(play("verilator", scenarios, tmp_path), tmp_path)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no Icarus: apt install iverilog")
@pytest.mark.parametrize("scenarios", SCENARIOS, ids=lambda s: s.top)
def test_all_scenarios_pass_on_icarus(scenarios, tmp_path):
    from cocotb_tools.runner import get_runner

    source = tmp_path / f"{scenarios.top}.sv"
    source.write_text(scenarios.verilog(True))
    get_runner("icarus").build(
        sources=[source],
        hdl_toplevel=scenarios.top,
        build_dir=tmp_path,
        timescale=TIMESCALE,
        log_file=tmp_path / "build.log",
    )
    assert_all_pass(play("icarus", scenarios, tmp_path), tmp_path)


Mistake = tuple[ModuleType, str, str, str]
"""A module, a component that it uses, and text of the component's source with what to write."""
# fmt: off
MISTAKES: list[dict[str, Mistake]] = [
    {
        "fetch": (rig, "Fetch", "held[len(beat.p.data) :]", "held[: len(beat.p.data)]"),
        "load": (load, "BoxReader", "self.done.eq(placer.done)",
                 "self.done.eq(placer.done & placer.writing)"),
        "compute": (compute, "Accumulators", "load.ready.eq(~Cat(waits).any())",
                    "load.ready.eq(1)"),
        "store": (store, "AccReader", "slot.eq(0)", "slot.eq(slot)"),
    },
    {
        "fetch": (rig, "Fetch", "valid & ~error & ~self.fault.valid", "valid & ~self.fault.valid"),
        "load": (box_reader, "Placer", "self.fault.index.eq(move.index)",
                 "self.fault.index.eq(self.i.p.index)"),
        "compute": (rig, "ComputeEngine", "((loading == is_load) & (count != IN_FLIGHT))",
                    "(count != IN_FLIGHT)"),
        "store": (rig, "StoreEngine", "(row.moves & answer.p.error)", "0"),
    },
    {
        "fetch": (rig, "Fetch", "at, held, failed = Signal(range(beats)),",
                  "at, held, failed = Signal(range(beats), reset_less=True),"),
        "load": (box_reader, "Placer", "step.eq(offers & self._accepted(m, move.memory_type))",
                 "step.eq(offers)"),
        "compute": (rig, "ComputeEngine", "count, left = Signal(range(IN_FLIGHT + 1)),",
                    "count, left = Signal(range(IN_FLIGHT + 1), reset_less=True),"),
        "store": (store, "AccReader", "left = Signal.like(self.i.p.count)",
                  "left = Signal.like(self.i.p.count, reset_less=True)"),
    },
    {
        "fetch": (rig, "ReadPort", "axi.rresp[1]", "axi.rresp[0]"),
        "load": (placer, "Walk", "busy, step, group_ends = Signal(),",
                 "busy, step, group_ends = Signal(reset_less=True),"),
        "compute": (compute, "Steps", "offset.eq(next_outer)", "offset.eq(outer)"),
        "store": (store, "Packer", "inside.eq(~last)", "inside.eq(~last & (room == slots))"),
    },
]
"""One of each engine a row: of data, errors, resets, and of what is rare. Compute has a ``Placer``,
too; what is wrong in there does not hide what is wrong in compute."""
# fmt: on


@pytest.mark.deep
@pytest.mark.parametrize("mistakes", MISTAKES, ids=["1", "2", "3", "4"])
def test_scenarios_of_an_engine_fail_on_a_mistake(mistakes, verilator, tmp_path):
    scenarios = SCENARIOS[1]
    with ExitStack() as stack:
        for module, name, right, wrong in mistakes.values():
            mistaken = planted(getattr(module, name), right, wrong)
            stack.enter_context(patch.object(module, name, mistaken))
        text = rig.verilog(False)
    built = compile_with_verilator(rig.TOP, text, tmp_path / "build")
    shutil.copy(built, tmp_path / rig.TOP)
    passed = play("verilator", scenarios, tmp_path)
    found = {
        engine: any(engine in name and not good for name, good in passed.items())
        for engine in mistakes
    }
    assert all(found.values()), found


def test_a_netlist_has_no_processes_but_registers_and_no_unknown_memory():
    text = verilog.verilog_of(Queue(8, 5), "queue", netlist=True)
    processes = re.findall(r"always.*", text)
    assert processes
    assert all("@(posedge clk)" in process for process in processes)
    assert len(re.findall(r"reg .*\[\d+:0\];", text)) == text.count("initial for") == 1
