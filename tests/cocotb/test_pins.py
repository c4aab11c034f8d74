"""The Verilog at its pins, between bus models that others have written: the accelerator, and
each engine alone.

The scenarios run inside the simulator: Verilator, and Icarus where it is installed.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.cocotb.program import CONFIG
from weft.hw import verilog
from weft.hw.form import Form
from weft.sim.toolchain import find_verilator

pytest.importorskip("cocotbext.axi", reason="no cocotb: pip install cocotb cocotbext-axi")

pytestmark = pytest.mark.slow
# Compiling is what takes time: it is one file then, hardly optimized, and shows only its pins.
VERILATOR_ARGUMENTS = (
    *("-Wno-lint", "--no-public-flat-rw", "--public-depth", "1"),
    *("--output-split", "0", "-CFLAGS", "-O0"),
)
TOPS = {
    "tests.cocotb.scenarios": (verilog.TOP, partial(verilog.generate, CONFIG)),
}
"""Scenarios, and the module that they are played with, whose form is still to be given."""


def play(
    simulator: str, scenarios: str, form: Form, folder: Path, arguments: tuple[str, ...] = ()
) -> None:
    """Builds the simulation and runs all scenarios, none of which may fail."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    top, text = TOPS[scenarios]
    source, log = folder / f"{top}.sv", folder / "log"
    source.write_text(text(form))
    runner = get_runner(simulator)
    common = {"hdl_toplevel": top, "build_dir": folder, "log_file": log}
    timescale = ("1ns", "1ps")
    runner.build(sources=[source], build_args=arguments, timescale=timescale, **common)
    results = runner.test(
        test_module=scenarios,
        test_dir=folder,
        results_xml=folder / "results.xml",
        extra_env={"COCOTB_LOG_LEVEL": "WARNING"},
        **common,
    )
    count, failed = get_results(results)
    assert count
    assert not failed, log.read_text()


@pytest.mark.parametrize("scenarios", TOPS)
def test_all_scenarios_pass_on_verilator(scenarios, tmp_path, monkeypatch):
    # What cocotb calls is ``verilator`` on PATH, which need not be the one that Weft takes.
    verilator = find_verilator()
    shim = tmp_path / "bin" / "verilator"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\nVERILATOR_ROOT="{verilator.root}" exec "{verilator.command}" "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=":")
    play("verilator", scenarios, "simulation", tmp_path, VERILATOR_ARGUMENTS)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no Icarus: apt install iverilog")
@pytest.mark.parametrize("scenarios", TOPS)
def test_all_scenarios_pass_on_icarus(scenarios, tmp_path, monkeypatch):
    # Icarus takes every part of a vector that an always_comb block reads for the whole, and two
    # blocks that read parts of each other's vectors wake each other for ever. Muxes come to rest.
    monkeypatch.setattr(verilog, "_SCRIPT", "proc -norom; memory_collect; write_verilog -noattr")
    play("icarus", scenarios, "synthesis", tmp_path)
