"""The command line: what each verb says, its exit codes, and errors of one line."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import golden
from tests.networks import single
from tests.runtime.models import PROGRAM_AT, hand_made
from tests.shared import ROOT
from weft.__main__ import VERBS, main
from weft.compiler.artifact import AcceleratorStep, Program, Segment
from weft.compiler.graph import Opaque
from weft.compiler.levels import format_module
from weft.compiler.module import Module
from weft.compiler.tflite.write import write
from weft.isa import AcceleratorConfig, Instruction, InstructionSet
from weft.isa.errors import DataError
from weft.runtime import package
from weft.runtime.commands.run import _read as read_array

OK, MISMATCH, BAD_INPUT, MISSING_TOOL, STOPPED = 0, 1, 2, 3, 4


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to work in, with a model in it."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("model.tflite").write_bytes(write(single("conv", (1, 3, 3, 2), 4)))
    np.save("x.npy", np.zeros((2, 3, 3, 2), np.int8))
    return tmp_path


@pytest.fixture
def weft(capsys: pytest.CaptureFixture[str]):
    """Runs a command line in this process: (exit code, standard output, standard error)."""

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def fails(weft):
    """Checks that a command line fails with that code and one line that has those words."""

    def check(code: int, words: str, *argv: str) -> None:
        got, out, err = weft(*argv)
        assert got == code, err
        assert err.startswith("weft: ")
        assert err.count("\n") == 1, err
        assert words in err
        assert out == ""

    return check


def in_a_process(
    *argv: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weft", *argv],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# --- the parser --------------------------------------------------------------------------------


def test_help_lists_every_verb_and_the_exit_codes(weft):
    code, out, _ = weft("--help")
    assert code == OK
    assert all(verb in out and summary in out for verb, summary in VERBS.items())
    assert "4 device fault or timeout" in " ".join(out.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str, weft):
    code, out, _ = weft(verb, "--help")
    assert code == OK
    assert "--json" in out


def test_help_comes_at_once():
    started = time.perf_counter()
    assert in_a_process("--help").returncode == OK
    assert time.perf_counter() - started < 1.5  # 0.1 s on an idle machine


def test_a_wrong_command_line_is_one_line(fails):
    fails(BAD_INPUT, "invalid choice: 'fly'", "fly")
    fails(BAD_INPUT, "unrecognized arguments: --speed", "run", "model.tflite", "--speed")
    fails(BAD_INPUT, "required: VERB")


def test_an_error_is_json_where_json_was_asked_for(weft):
    code, out, err = weft("run", "nothing.tflite", "--json")
    assert code == BAD_INPUT
    assert json.loads(out)["kind"] == "ModelError"
    assert json.loads(out)["error"] in err
    code, out, _ = weft("run", "model.tflite", "--speed", "--json")
    assert code == BAD_INPUT
    assert "--speed" in json.loads(out)["error"]


def test_an_exception_that_nobody_foresaw_is_no_mismatch(weft, monkeypatch: pytest.MonkeyPatch):
    def broken(path: str) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("weft.runtime.commands.explain.load", broken)
    code, _, err = weft("explain", "model.tflite")
    assert code == 70
    assert "Traceback" in err
    assert err.endswith("weft: a defect of Weft, please report it: ZeroDivisionError: oh\n")


# --- run ---------------------------------------------------------------------------------------


def test_run_without_input_says_that_it_made_data(weft):
    code, out, _ = weft("run", "model.tflite", "--on", "cpu")
    assert code == OK
    assert out.startswith("no --input: running on data made from seed 0\n")
    assert any(line.startswith("conv_0 ") for line in out.splitlines())


def test_run_with_input_writes_outputs_and_report(weft):
    code, out, _ = weft(
        *("run", "model.tflite", "--on", "cpu", "--input", "x.npy"),
        *("--output", "y.npz", "--report", "r.json"),
    )
    assert code == OK
    assert "seed" not in out
    with np.load("y.npz") as outputs:
        assert outputs["conv_0"].shape == (2, 3, 3, 4)
    record = json.loads(Path("r.json").read_text())
    assert (record["samples"], record["on"]) == (2, "cpu")


def test_run_prints_the_report_as_json(weft):
    code, out, _ = weft("run", "model.tflite", "--on", "cpu", "--json", "--limit", "3")
    assert code == OK
    assert json.loads(out)["samples"] == 3


def test_seeded_data_are_the_same_every_time(weft):
    for name in ("a.npz", "b.npz"):
        assert weft("run", "model.tflite", "--on", "cpu", "--output", name)[0] == OK
    with np.load("a.npz") as a, np.load("b.npz") as b:
        np.testing.assert_array_equal(a["conv_0"], b["conv_0"])


def test_an_output_may_have_any_name(weft):
    graph = single("conv", (1, 3, 3, 2), 4)
    node, output = graph.nodes[0], graph.tensors["conv_0"]
    tensors = dict(graph.tensors) | {"file": replace(output, name="file")}
    del tensors["conv_0"]
    graph = replace(
        graph, tensors=tensors, nodes=(replace(node, outputs=("file",)),), outputs=("file",)
    )
    Path("model.tflite").write_bytes(write(graph))
    assert weft("run", "model.tflite", "--on", "cpu", "--output", "y")[0] == OK
    with np.load("y") as outputs:
        assert list(outputs) == ["file"]


def test_outputs_that_are_not_as_expected_are_exit_code_1(weft):
    run = ("run", "model.tflite", "--on", "cpu", "--input", "x.npy")
    assert weft(*run, "--output", "y.npz")[0] == OK
    assert weft(*run, "--expect", "y.npz")[0] == OK
    with np.load("y.npz") as outputs:
        y = outputs["conv_0"]
    np.save("y.npy", y)
    assert weft(*run, "--expect", "y.npy")[0] == OK
    y[1, 2, 0, 3] ^= 1
    np.save("y.npy", y)
    code, out, err = weft(*run, "--expect", "y.npy")
    assert code == MISMATCH
    assert "1 of 72 elements differ; the first, at [1, 2, 0, 3], is " in err
    assert err.count("\n") == 1
    assert "conv_0 " in out  # the table is there all the same
    np.save("y.npy", y[:1])
    assert weft(*run, "--expect", "y.npy")[0] == BAD_INPUT


def test_an_archive_of_several_arrays_needs_a_key(weft, fails):
    np.savez("many.npz", x=np.zeros((1, 3, 3, 2), np.int8), y=np.zeros(3))
    run = ("run", "model.tflite", "--on", "cpu", "--input", "many.npz")
    fails(BAD_INPUT, "many.npz: choose one of its arrays with --key: x, y", *run)
    fails(BAD_INPUT, "choose one of its arrays with --key: x, y", *run, "--key", "z")
    assert weft(*run, "--key", "x")[0] == OK
    fails(BAD_INPUT, "--key is for .npz", *run[:-1], "x.npy", "--key", "x")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 3, 2), np.float32), "takes int8, not float32"),
        (np.zeros((1, 4, 3, 2), np.int8), "takes shape (samples, 3, 3, 2), not (1, 4, 3, 2)"),
        (np.int8(3), "takes shape (samples, 3, 3, 2), not ()"),
        (np.zeros((0, 3, 3, 2), np.int8), "a multiple of 1 samples, not 0"),
    ],
)
def test_an_input_that_does_not_fit_is_one_line(array: Any, words: str, fails):
    np.save("bad.npy", array)
    argv = ("run", "model.tflite", "--on", "cpu", "--input", "bad.npy")
    fails(BAD_INPUT, words, *argv)
    fails(BAD_INPUT, words, *argv, "--limit", "1")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello", b"PK\x03\x04 no archive",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<i8' }",
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n",
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '|i1', 'fortran_order': False, 'shape': (1099511627776,)}".ljust(69) + b"\n",
    ],
)  # fmt: skip
def test_a_file_that_is_no_array_is_one_line(data: bytes, fails):
    Path("bad.npy").write_bytes(data)
    fails(BAD_INPUT, "bad.npy: ", "run", "model.tflite", "--on", "cpu", "--input", "bad.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_changed_byte_of_an_array_file_is_one_error_or_another_array(suffix: str):
    np.savez_compressed("x.npz", x=np.arange(60, dtype=np.int8))
    data, rng = Path(f"x.{suffix}").read_bytes(), np.random.default_rng(0)
    bad = Path(f"bad.{suffix}")
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= int(rng.integers(1, 256))
        bad.write_bytes(flipped)
        with suppress(DataError):
            assert isinstance(read_array(bad, None), np.ndarray)


def test_a_file_that_does_not_exist_is_one_line(fails):
    fails(BAD_INPUT, "nothing.tflite: No such file", "run", "nothing.tflite")
    fails(BAD_INPUT, ": Is a directory", "run", ".")
    run = ("run", "model.tflite", "--on", "cpu")
    fails(BAD_INPUT, "nothing.npy: No such file", *run, "--input", "nothing.npy")
    fails(BAD_INPUT, "no folder away", *run, "--output", "away/y.npz")
    fails(BAD_INPUT, "no folder away", *run, "--report", "away/r.json")
    fails(BAD_INPUT, "nothing.toml: No such file", *run, "--hw", "nothing.toml")


def test_options_that_mean_nothing_are_refused(fails):
    run = ("run", "model.tflite", "--on", "cpu")
    fails(BAD_INPUT, "--limit takes 1 or more, not 0", *run, "--limit", "0")
    fails(BAD_INPUT, "there are none on cpu", *run, "--wave", "w.fst")
    fails(BAD_INPUT, "no node 'conv_7'", *run, "--on-host", "conv_7")


def test_hardware_that_does_not_exist_is_one_line_with_a_hint(fails):
    run = ("run", "model.tflite", "--on", "cpu")
    fails(BAD_INPUT, "unknown key 'blok', did you mean 'block'?", *run, "--set", "blok=8")
    fails(BAD_INPUT, "block must be a power of two from 2 to 64, not 7", *run, "--set", "block=7")
    fails(BAD_INPUT, "--set takes KEY=VALUE, not 'block'", *run, "--set", "block")
    fails(BAD_INPUT, "'x y' is neither a number", *run, "--set", "block=x y")
    fails(BAD_INPUT, "there are tiny, edge, vta, base, big", *run, "--hw", "huge")
    Path("hw.toml").write_text('extends = "tiny"\nbuss_bytes = 8\n')
    fails(BAD_INPUT, "hw.toml: unknown key 'buss_bytes', did you mean 'bus_bytes'?", *run,
          "--hw", "hw.toml")  # fmt: skip


def test_a_truncated_model_is_one_line(fails):
    data = Path("model.tflite").read_bytes()
    for size in (0, 3, 8, 40, len(data) // 2, len(data) - 1):
        Path("cut.tflite").write_bytes(data[:size])
        fails(BAD_INPUT, "cut", "run", "cut.tflite", "--on", "cpu")


def test_operators_that_nothing_can_run_are_listed_in_one_line(fails):
    graph = single("conv", (1, 3, 3, 2), 4)
    odd = tuple(replace(node, op=Opaque("SPARSE_TO_DENSE")) for node in graph.nodes)
    module = Module(replace(graph, nodes=odd), AcceleratorConfig.preset("tiny"))
    Path("odd.txt").write_text(format_module(module))
    fails(BAD_INPUT, "SPARSE_TO_DENSE", "run", "odd.txt")


def test_a_cache_that_cannot_be_made_is_one_line(fails, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WEFT_CACHE", "model.tflite")
    fails(BAD_INPUT, "model.tflite/", "run", "model.tflite", "--on", "cpu")


# --- packages ----------------------------------------------------------------------------------


def test_a_package_runs_as_its_model_does(weft, fails):
    Path("every.tflite").write_bytes(golden.model_file("every_operator"))
    code, out, _ = weft("compile", "every.tflite", "-o", "every.weft", "--hw", "tiny")
    assert code == OK
    assert out.startswith("every.weft: ")
    np.save("every.npy", golden.inputs("every_operator")[0].reshape(-1, 10, 10, 3))
    code, _, _ = weft(
        *("run", "every.weft", "--on", "functional", "--input", "every.npy"),
        *("--output", "y.npz"),
    )
    assert code == OK
    with np.load("y.npz") as outputs:
        (scores,) = outputs.values()
    np.testing.assert_array_equal(scores, golden.outputs("every_operator")[0].reshape(-1, 10))
    fails(BAD_INPUT, "compiled for spec", "run", "every.weft", "--hw", "base")


def test_a_package_that_cannot_be_written_is_one_line(fails):
    fails(
        BAD_INPUT, "model.tflite/y.weft: ", "compile", "model.tflite", "-o", "model.tflite/y.weft"
    )


def test_a_damaged_package_is_one_line(fails):
    package.save(hand_made(), "model.weft", {})
    data = Path("model.weft").read_bytes()
    for size in (4, 100, len(data) - 30):
        Path("cut.weft").write_bytes(data[:size])
        fails(BAD_INPUT, "cut.weft: ", "run", "cut.weft")


# --- devices that stop -------------------------------------------------------------------------


def stopping(*program: Instruction) -> None:
    """Writes ``stop.weft``: the hand-made model with another program."""
    model = hand_made()
    instructions = InstructionSet(model.config)
    words = b"".join(instructions.encode(i).to_bytes(16, "little") for i in program)
    step = model.steps[0]
    assert isinstance(step, AcceleratorStep)
    segment = Segment("program", PROGRAM_AT, np.frombuffer(words, np.uint8))
    stream = Program("program", PROGRAM_AT, program, (0,) * len(program))
    changed = replace(
        model,
        steps=(replace(step, program=stream), *model.steps[1:]),
        segments=(segment, *model.segments[1:]),
    )
    package.save(changed, "stop.weft", {})


def test_a_deadlock_is_exit_code_4_and_names_layer_and_engine(fails):
    stopping(Instruction("finish", pop_prev=True))
    fails(STOPPED, "conv_0: ", "run", "stop.weft", "--on", "functional")


def test_a_program_without_end_is_exit_code_4(fails):
    stopping(Instruction("gemm", {"uop_bgn": 0, "uop_end": 1}))
    fails(STOPPED, "conv_0: ", "run", "stop.weft", "--on", "functional")


@pytest.mark.slow
def test_the_rtl_runs_times_out_and_records_waves(
    weft, fails, home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Builds the simulator of ``tiny``, twice, where it is not in the user's cache."""
    monkeypatch.delenv("WEFT_CACHE")
    package.save(hand_made(), "model.weft", {})
    code, out, err = weft("run", "model.weft", "--json")
    assert code == OK, err
    record = json.loads(out)
    assert record["on"] == "rtl"
    assert record["layers"][0]["cycles"] == sum(record["layers"][0]["stalls"].values()) > 0
    fails(STOPPED, "conv_0: FINISH was not reached in 3 cycles", "run", "model.weft",
          "--timeout", "3")  # fmt: skip
    stopping(Instruction("finish", pop_prev=True))
    fails(STOPPED, "conv_0: deadlock: compute waits for a token from load", "run", "stop.weft")
    assert weft("run", "model.weft", "--wave", "w.fst", "--limit", "2")[0] == OK
    assert (home / "w.fst").stat().st_size > 100
    fails(BAD_INPUT, "dram_latency must be from 1", "run", "model.weft", "--latency", "0")


def test_a_missing_compiler_is_exit_code_3():
    package.save(hand_made(), "model.weft", {})
    result = in_a_process("run", "model.weft", environment={"PATH": "", "CXX": ""})
    assert result.returncode == MISSING_TOOL, result.stderr
    assert result.stderr.startswith("weft: ")
    assert result.stderr.count("\n") == 1
    assert "CXX" in result.stderr


# --- the other verbs ---------------------------------------------------------------------------


def test_explain_says_where_every_node_runs(weft):
    code, out, _ = weft("explain", "model.tflite", "--json")
    assert code == OK
    (row,) = json.loads(out)
    assert row["nodes"] == ["conv_0"]
    assert row["where"] in ("accelerator", "cpu")
    assert row["why"]
    assert row["bound_by"] in ("array", "bus", "padding", "dependence")
    code, out, _ = weft("explain", "model.tflite")
    assert out.startswith("conv_0 ")
    assert "bound by " in out


def test_disasm_prints_every_program(weft):
    package.save(hand_made(), "model.weft", {})
    code, out, _ = weft("disasm", "model.weft")
    assert code == OK
    assert "; program: 1 instructions at 0x1000" in out
    assert "; conv_0: Conv2D, from instruction 0 on" in out
    assert "finish" in out.lower()
    code, out, _ = weft("disasm", "model.weft", "--json")
    assert list(json.loads(out)) == ["conv_0"]


def test_disasm_of_a_layer_that_does_not_exist_is_refused(fails):
    package.save(hand_made(), "model.weft", {})
    fails(
        BAD_INPUT,
        "no program 'conv_8'; there are conv_0",
        "disasm",
        "model.weft",
        "--layer",
        "conv_8",
    )


def test_hw_show_prints_sizes_and_hash(weft):
    code, out, _ = weft("hw", "show", "tiny", "--json")
    facts = json.loads(out)
    assert code == OK
    assert facts["config"]["block"] == 4
    assert len(facts["spec_hash"]) == 16
    code, out, _ = weft("hw", "show", "--hw", "tiny", "--set", "block=8")
    assert code == OK
    assert "64 MACs a cycle" in out


def test_hw_diff_prints_what_differs(weft, fails):
    code, out, _ = weft("hw", "diff", "base", "vta", "--json")
    assert code == OK
    assert json.loads(out)["config.bus_bytes"] == [16, 8]
    assert weft("hw", "diff", "base", "base")[1] == "no difference\n"
    fails(BAD_INPUT, "takes two configurations, not 1", "hw", "diff", "base")
    fails(BAD_INPUT, "takes one configuration, not 2", "hw", "show", "base", "vta")


def test_hw_show_counts_what_it_costs(weft):
    code, out, _ = weft("hw", "show", "tiny", "--cost", "--json")
    assert code == OK
    assert json.loads(out)["cost"]["inp"]["memory_bits"] == 8 * 4096


def test_synth_without_its_tools_says_what_to_install(weft, fails, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    fails(MISSING_TOOL, "pip install 'weft[fpga]'", "synth", "--hw", "tiny", "-o", "out")


def test_doctor_lists_the_tools(weft):
    code, out, _ = weft("doctor", "--json")
    assert code in (OK, MISSING_TOOL)
    names = {tool["name"] for tool in json.loads(out)["tools"]}
    assert {"python", "numpy", "verilator"} <= names
    lines = weft("doctor")[1].splitlines()
    assert lines[0].startswith("ok       python")


def test_doctor_finds_what_is_missing_and_how_to_mend_it():
    result = in_a_process("doctor", environment={"PATH": "", "CXX": ""})
    assert result.returncode == MISSING_TOOL
    (line,) = [line for line in result.stdout.splitlines() if "C++ compiler" in line]
    assert line.startswith("missing")
    assert "apt install g++" in line


@pytest.mark.slow
def test_verilog_writes_every_file(weft, fails):
    code, out, _ = weft("verilog", "-o", "out", "--hw", "tiny", "--json")
    assert code == OK
    assert {Path(path).name for path in json.loads(out)["files"]} == {
        "weft.v", "weft.vlt", "registers.md", "registers.json", "weft_isa.h", "config.toml",
    }  # fmt: skip
    assert "module weft" in Path("out/weft.v").read_text()
    code, again, _ = weft("hw", "show", "out/config.toml", "--json")
    assert json.loads(again)["spec_hash"] == json.loads(out)["spec_hash"]
    fails(BAD_INPUT, "model.tflite", "verilog", "-o", "model.tflite", "--hw", "tiny")
