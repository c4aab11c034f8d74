import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from amaranth.back import verilog as amaranth_verilog
from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from weft import __version__
from weft.hw import verilog
from weft.hw.axi import axi4_signature, axi4lite_signature
from weft.hw.verilog import LINT_EXCEPTIONS, generate, lint_waivers, verilog_of
from weft.isa import PRESETS, MissingToolError, spec_hash
from weft.sim.toolchain import find_verilator

TINY = PRESETS["tiny"]


@lru_cache
def text_of(name: str, form: str) -> str:
    return generate(PRESETS[name], form)


@pytest.fixture(scope="module")
def tiny() -> str:
    return text_of("tiny", "simulation")


def test_the_heading_says_what_it_is(tiny):
    heading = tiny[: tiny.index("module")]
    assert f"Weft {__version__}, spec {spec_hash(TINY)}, form simulation" in heading
    for line in TINY.to_toml().splitlines():
        assert f"// {line}\n" in heading


def test_the_top_has_the_pins_of_the_contract(tiny):
    top = re.search(r"^module weft\(.*?^endmodule", tiny, re.DOTALL | re.MULTILINE)[0]
    found = {}
    for direction, msb, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top, re.M):
        found[name] = (direction, int(msb or 0) + 1)
    expected = {"clk": ("input", 1), "rst": ("input", 1), "irq": ("output", 1)}
    for prefix, signature in (
        ("m_axi", axi4_signature(TINY)),
        ("s_axil", axi4lite_signature().flip()),
    ):
        for name, member in signature.members.items():
            direction = "output" if member.flow is Out else "input"
            expected[f"{prefix}_{name}"] = (direction, member.shape)
    assert found == expected


def test_modules_have_plain_names_that_follow_the_hierarchy(tiny):
    names = re.findall(r"^module (\S+?)\(", tiny, re.MULTILINE)
    assert {"weft", "weft_load", "weft_load_reader", "weft_scheduler_dispatch"} <= set(names)
    assert all(name.split("_")[0] == "weft" for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_the_text_is_the_same_in_every_process():
    code = (
        "from dataclasses import replace; from weft.isa import PRESETS;"
        "from weft.hw.verilog import generate; import sys;"
        "sys.stdout.write(generate(replace(PRESETS['tiny'], block=2), 'simulation'))"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert texts[0] == texts[1]
    assert texts[0].endswith("endmodule\n")


class Cells(wiring.Component):
    """A memory, its contents given."""

    address: In(2)
    write: In(1)
    data: Out(4)

    def __init__(self, init):
        self._init = init
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.cells = cells = memory.Memory(shape=4, depth=4, init=self._init)
        read, write = cells.read_port(), cells.write_port()
        m.d.comb += [write.en.eq(self.write), write.addr.eq(self.address)]
        m.d.comb += [read.addr.eq(self.address), read.en.eq(1), self.data.eq(read.data)]
        return m


def as_amaranth_writes_it(component) -> str:
    text = amaranth_verilog.convert(component, "cells", emit_src=False, strip_internal_attrs=True)
    return re.sub(r"\A/\*.*?\*/\s*", "", text)


def same_but_for_style(text: str) -> str:
    text = re.sub(r"\(\*.*?\*\)\s*", "", text)
    text = re.sub(r"\\cells\.([\w.]+) ", r"cells_\1", text)
    text = text.replace("always @*", "always_comb").replace("always @(", "always_ff @(")
    return re.sub(r"\s+", " ", text)


def test_memories_that_start_with_something_are_written_as_amaranth_writes_them():
    component = [Cells([5, 0, 3, 1]) for _ in range(2)]
    ours = verilog_of(component[0], "cells")
    assert "initial" in ours
    assert same_but_for_style(ours) == same_but_for_style(as_amaranth_writes_it(component[1]))


def test_memories_that_start_at_zero_are_not_initialized():
    assert "initial" in as_amaranth_writes_it(Cells([]))
    assert "initial" not in verilog_of(Cells([]), "cells")


def test_a_missing_yosys_is_named(monkeypatch):
    original = subprocess.run

    def without_yosys(command, **options):
        return original([*command[:2], "no_such_yosys", *command[3:]], **options)

    monkeypatch.setattr(verilog.subprocess, "run", without_yosys)
    with pytest.raises(MissingToolError, match="builtin-yosys"):
        verilog_of(Cells([]), "cells")


def lint(text: str, directory: Path) -> str:
    """What ``verilator -Wall`` says with the waivers."""
    try:
        verilator = find_verilator()
    except MissingToolError as error:
        pytest.skip(str(error))
    (directory / "weft.v").write_text(text)
    (directory / "weft.vlt").write_text(lint_waivers())
    done = subprocess.run(
        [verilator.command, "--lint-only", "-Wall", "--top-module", "weft", "weft.vlt", "weft.v"],
        env=verilator.environment, cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("%")]
    assert bool(said) == bool(done.returncode)
    return "\n".join(said)


def test_verilator_has_nothing_to_say(tiny, tmp_path):
    assert lint(tiny, tmp_path) == ""


def test_the_linter_would_see_a_mistake(tmp_path):
    text = verilog_of(Cells([]), "weft")
    assert lint(text, tmp_path) == ""
    text = text.replace("endmodule", "  wire u;\n  wire v = u;\nendmodule", 1)
    assert "UNDRIVEN" in lint(text, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("tiny", "synthesis"),
        ("edge", "synthesis"),
        *(pytest.param(n, "synthesis", marks=pytest.mark.deep) for n in ("vta", "base", "big")),
        ("tiny", "simulation"),
        ("base", "simulation"),
    ],
)
def test_verilator_has_nothing_to_say_about_any_preset(name, form, tmp_path):
    assert lint(text_of(name, form), tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 2, "inp_width": 4, "wgt_width": 4},
        {"bus_bytes": 16, "block": 2},
        {"requantize": False, "pad_value": False, "overwrite": False, "token_depth": 1},
    ],
)
def test_verilator_has_nothing_to_say_about_unusual_sizes(changes, tmp_path):
    assert lint(generate(replace(TINY, **changes)), tmp_path) == ""


def test_every_exception_has_a_reason():
    for rule, reason in LINT_EXCEPTIONS.items():
        assert rule.isupper()
        assert f"// {reason}\nlint_off -rule {rule}\n" in lint_waivers()
