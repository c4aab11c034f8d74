"""The generated Verilog at its pins, between bus models that others have written.

The scenarios run inside the simulator: Verilator, and Icarus where it is installed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cocotb.program import CONFIG
from weft.hw.verilog import TOP, generate, lint_waivers
from weft.sim.toolchain import find_verilator

pytest.importorskip("cocotbext.axi", reason="no cocotb: pip install cocotb cocotbext-axi")

SCENARIOS = "tests.cocotb.scenarios"
# Compiling is what takes time: it is one file then, hardly optimized, and shows only its pins.
VERILATOR_ARGUMENTS = (
    *("-Wno-fatal", "--no-public-flat-rw", "--public-depth", "1"),
    *("--output-split", "0", "-CFLAGS", "-O0"),
)


@pytest.fixture(scope="module")
def verilog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verilog") / f"{TOP}.sv"
    path.write_text(generate(CONFIG, "simulation"))
    return path


def play(simulator: str, sources: list[Path], arguments: tuple[str, ...], folder: Path) -> None:
    """Builds the simulation and runs all scenarios, none of which may fail."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    log = folder / "log"
    runner = get_runner(simulator)
    common = {"hdl_toplevel": TOP, "build_dir": folder, "log_file": log}
    timescale = ("1ns", "1ps")
    runner.build(sources=sources, build_args=arguments, timescale=timescale, **common)
    results = runner.test(
        test_module=SCENARIOS,
        test_dir=folder,
        results_xml=folder / "results.xml",
        extra_env={"COCOTB_LOG_LEVEL": "WARNING"},
        **common,
    )
    count, failed = get_results(results)
    assert count
    assert not failed, log.read_text()


@pytest.mark.slow
def test_the_accelerator_passes_all_scenarios_on_verilator(verilog, tmp_path, monkeypatch):
    # What cocotb calls is ``verilator`` on PATH, which need not be the one that Weft takes.
    verilator = find_verilator()
    shim = tmp_path / "bin" / "verilator"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\nVERILATOR_ROOT="{verilator.root}" exec "{verilator.command}" "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=":")
    waivers = tmp_path / f"{TOP}.vlt"
    waivers.write_text(lint_waivers())
    play("verilator", [waivers, verilog], VERILATOR_ARGUMENTS, tmp_path / "build")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no Icarus: apt install iverilog")
def test_the_accelerator_passes_all_scenarios_on_icarus(verilog, tmp_path):
    play("icarus", [verilog], (), tmp_path / "build")
