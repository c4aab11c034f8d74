from __future__ import annotations

import re

import pytest

from weft.hw import fpga
from weft.hw.fpga import (
    BLOCK_RAM,
    Expected,
    Stretch,
    cells,
    critical_path,
    place,
    scratchpads,
    units,
)
from weft.hw.harness import harness
from weft.hw.netlist import CELLS
from weft.hw.verilog import generate
from weft.isa import PRESETS
from weft.isa.errors import ConfigError, MissingToolError

TINY = PRESETS["tiny"]
SCRATCHPADS = {"inp", "wgt", "compute.uop", "compute.acc", "compute.qnt"}


def step(kind: str, delay: float, cell: str, net: str = "") -> dict:
    return {"type": kind, "delay": delay, "to": {"cell": cell}, "net": net}


def test_the_harness_connects_every_pin_and_nothing_else():
    text, verilog = harness(TINY), generate(TINY)
    top = verilog[verilog.index("module weft(") : verilog.index("endmodule")]
    pins = {
        word.split()[-1].rstrip(";")
        for line in top.splitlines()
        if (word := line.strip()).startswith(("input ", "output "))
    }
    connected = {part.split("(")[0] for part in text.replace(" ", "").split(".")[1:]}
    connected = {name for name in connected if name in pins}
    assert len(pins) > 50
    assert connected == pins


def test_a_critical_path_is_cut_where_it_goes_from_unit_to_unit():
    path = [
        step("clk-to-q", 5.5, "weft.compute.acc.cells.0.0"),
        step("routing", 1.0, "weft.compute.execute.lanes.sum_LUT4_Z", "weft.compute.acc.data"),
        step("logic", 0.25, "weft.compute.execute.lanes.sum_LUT4_Z"),
        step("routing", 0.5, "$abc$17", "weft.compute.execute.x"),
        step("setup", 0.25, "weft.irq_TRELLIS_FF_Q"),
    ]
    timing = {
        "critical_paths": [
            {"from": "async ", "to": "posedge $glbnet$clk", "path": []},
            {"from": "posedge $glbnet$clk", "to": "posedge $glbnet$clk", "path": path},
        ]
    }
    known = {"compute", "compute_acc", "compute_execute", "compute_execute_lanes"}
    assert critical_path(timing, known) == [
        Stretch("compute.acc", 5.5, 1),
        Stretch("compute.execute.lanes", 1.25, 1),
        Stretch("compute.execute", 0.5, 0),
        Stretch("(between units)", 0.25, 1),
    ]


def test_the_fastest_placement_is_routed_or_of_those_that_are_fast_enough_the_least_crowded():
    fast, faster, crowded = Expected(70, 9), Expected(78, 80), Expected(95, 90)
    assert max(fast, faster, key=lambda found: found.rank(80)) is faster
    assert max(fast, faster, crowded, key=lambda found: found.rank(80)) is crowded
    assert max(fast, faster, crowded, key=lambda found: found.rank(60)) is fast


def test_slow_wires_are_taken_up_again_only_where_the_clock_is_in_reach():
    assert Expected(78, 0).in_reach(80)
    assert not Expected(56.3, 0).in_reach(80)


def test_units_are_the_modules_below_the_top():
    text = "module weft(a);\nmodule weft_load(b);\nmodule weft_load_reader(c);\n"
    assert units(text) == {"load", "load_reader"}


def test_cells_and_memories_are_read_from_what_yosys_says():
    statistics = {"design": {"num_cells_by_type": {"LUT4": 7, "DP16KD": 2, "PFUMX": 1}}}
    assert cells(statistics) == {**dict.fromkeys(CELLS, 0), "lut": 7, "block_ram": 2}
    log = (
        "mapping memory harness.weft.inp.cells via $__DP16KD_\n"
        "mapping memory harness.weft.compute.acc.bank0 via $__PDPW16KD_\n"
        "mapping memory harness.weft.compute.acc.bank1 via $__PDPW16KD_\n"
        "mapping memory harness.weft.compute.uop.cells_0 via $__DP16KD_\n"
        "mapping memory harness.weft.compute.uop.cells_1 via $__TRELLIS_DPR16X4_\n"
        "mapping memory harness.weft.read_port.addresses.fifo.storage via $__TRELLIS_DPR16X4_\n"
        "mapping memory harness.weft.read_port.queue_1.behind.cells via $__PDPW16KD_\n"
    )
    assert scratchpads(log) == {
        "inp": "DP16KD",
        "compute.acc": "PDPW16KD",
        "compute.uop": "TRELLIS_DPR16X4",
    }


def test_the_phases_of_the_tools_are_seen_in_their_logs(tmp_path, monkeypatch):
    """Round by round, and not twice."""
    lines = ["Info: Packing LUTs...", "Info:     at iteration #1, type ALL: wirelen", "Info: x"]
    tool = tmp_path / "tool"
    tool.write_text(
        "#!/bin/sh\n" + "".join(f"echo '{line}' >> nextpnr.log; sleep 1.2\n" for line in lines)
    )
    tool.chmod(0o755)
    said = []
    fpga._run([str(tool)], tmp_path, "nextpnr", said.append)
    assert said == ["nextpnr: starts", "nextpnr: packs", "nextpnr: places, round 1"]


def test_a_missing_tool_is_named_with_what_mends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fpga.shutil, "which", lambda name: None)
    monkeypatch.setattr(fpga.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"needs yosys: pip install 'weft\[fpga\]'"):
        place(TINY, "ecp5-85k", tmp_path)


def test_what_a_tool_complains_about_is_said_with_its_log(tmp_path, monkeypatch):
    tool = tmp_path / "yosys"
    tool.write_text("#!/bin/sh\necho 'ERROR: no room'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setattr(fpga.shutil, "which", lambda name: str(tool))
    with pytest.raises(ConfigError, match=r"no room \(see .*yosys.log\)"):
        place(TINY, "ecp5-85k", tmp_path / "out")
    with pytest.raises(ConfigError, match="no device 'x'; there are ecp5-85k"):
        place(TINY, "x", tmp_path)
    with pytest.raises(ConfigError, match="ecp5-5g-85k has no speed grade 6; there are 8"):
        place(TINY, "ecp5-5g-85k", tmp_path, speed="6")


@pytest.mark.parametrize(
    ("asked", "best", "why"), [(80, 2, "the fastest"), (50, 3, "the less crowded of two")]
)
def test_the_best_placement_is_routed(asked, best, why, tmp_path, monkeypatch):
    """By a tool that places seed 2 best, seed 3 in fewer columns, and leaves what it was told."""
    tool = tmp_path / "tool"
    tool.write_text(
        f"""#!{fpga.sys.executable}
import json, sys
words = sys.argv[1:]
after = lambda flag: words[words.index(flag) + 1]
if "-p" in words:
    cells = {{"num_cells_by_type": {{"LUT4": 7}}}}
    open("cells.json", "w").write(json.dumps({{"design": cells}}))
    open("netlist.json", "w").write(json.dumps({{"modules": {{}}}}))
elif "--no-route" in words:
    mhz = {{"1": 61.5, "2": 78.25, "3": 70}}[after("--seed")]
    for clock in (9, mhz):
        print(f"Info: Max frequency for clock 'x': {{clock:5.2f}} MHz (FAIL)", file=open("n", "a"))
    settings = {{"seed": after("--seed"), "place": "1", "placer": "static"}}
    far = 2 if after("--seed") == "3" else 90
    cells = {{
        f"{{n}}{{x}}": {{
            "type": "x", "attributes": {{"NEXTPNR_BEL": f"X{{x}}/Y1/A"}}, "parameters": {{}},
            "port_directions": {{"A": "input"}}, "connections": {{"A": [n]}},
        }}
        for n in range(2, 100) for x in (1, far)
    }}
    top = {{"cells": cells, "ports": {{}}, "netnames": {{}}, "settings": settings}}
    placement = {{"modules": {{"top": top}}}}
    open(after("--write"), "w").write(json.dumps(placement))
    import os; os.replace("n", "nextpnr.log")
else:
    step = {{"type": "setup", "delay": 1, "to": {{"cell": "weft.irq"}}}}
    path = {{"from": "posedge c", "to": "posedge c", "path": [step]}}
    timing = {{"fmax": {{"c": {{"achieved": 70.125, "constraint": 80}}}}, "utilization": {{}},
              "critical_paths": [path]}}
    open(after("--report"), "w").write(json.dumps(timing))
    assert after("--seed") == json.load(open(after("--json")))["modules"]["top"]["settings"]["seed"]
open("yosys.log" if "-p" in words else "nextpnr.log", "a").write("")
"""
    )
    tool.chmod(0o755)
    monkeypatch.setattr(fpga.shutil, "which", lambda name: str(tool))
    said = []
    placed = place(TINY, "ecp5-85k", tmp_path / "out", asked, seeds=3, progress=said.append)
    assert {seed: found.megahertz for seed, found in placed.seeds.items()} == {
        1: 61.5, 2: 78.25, 3: 70,
    }  # fmt: skip
    assert placed.seeds[3].crowding < placed.seeds[2].crowding == placed.seeds[1].crowding
    assert (placed.seed, placed.megahertz) == (best, 70.12), why
    routed = fpga.json.loads((tmp_path / "out" / fpga.PLACEMENT).read_text())
    assert routed["modules"]["top"]["settings"] == {"seed": str(best), **fpga.ROUTER}
    assert len([*(tmp_path / "out").glob("*placement*")]) == 1
    wires = placed.seeds[2].crowding
    assert f"nextpnr: expects 78.25 MHz, {wires:,} wires in crowds, seed 2 of 3" in said
    with pytest.raises(ConfigError, match="must be a seed to place from, not 0"):
        place(TINY, "ecp5-85k", tmp_path / "out", seeds=0)


def test_what_does_not_fit_is_not_placed(tmp_path, monkeypatch):
    yosys = tmp_path / "yosys"
    counts = '{"design": {"num_cells_by_type": {"LUT4": 7, "MULT18X18D": 157}}}'
    yosys.write_text(f"#!/bin/sh\necho '{counts}' > cells.json\n")
    yosys.chmod(0o755)
    monkeypatch.setattr(fpga.shutil, "which", lambda name: str(yosys))
    with pytest.raises(ConfigError, match="fit on ecp5-85k: it takes 157 of 156 dsp"):
        place(TINY, "ecp5-85k", tmp_path / "out")


@pytest.mark.deep
@pytest.mark.parametrize("name", PRESETS)
def test_scratchpads_become_block_ram_and_products_multipliers(name, tmp_path):
    try:
        yosys = fpga._command("yosys")
    except MissingToolError as error:
        pytest.skip(str(error))
    config = PRESETS[name]
    (tmp_path / "weft.v").write_text(generate(config))
    (tmp_path / "harness.v").write_text(harness(config))
    script = f"{fpga.READ} -run begin:map_gates; tee -o cells.json stat -json"
    command = [*yosys, "-q", "-l", "yosys.log", "-p", script]
    fpga._run(command, tmp_path, "yosys", lambda line: None)
    found = scratchpads((tmp_path / "yosys.log").read_text())
    assert set(found) == SCRATCHPADS
    assert set(found.values()) <= set(BLOCK_RAM)
    counts = (tmp_path / "cells.json").read_text()
    products = config.batch * config.block**2
    dsp = cells(fpga.json.loads(counts))["dsp"]
    assert dsp >= products


@pytest.mark.deep
@pytest.mark.parametrize("device", fpga.DEVICES)
def test_the_clock_has_a_wire_of_its_own_from_its_pad(device, tmp_path):
    try:
        yosys, nextpnr = (fpga._command(name) for name in fpga._TOOLS)
    except MissingToolError as error:
        pytest.skip(str(error))
    (tmp_path / "top.v").write_text(
        "module top(input clk, i, output o); reg [15:0] s; assign o = s[15];\n"
        "always @(posedge clk) s <= {s, i}; endmodule\n"
    )
    size, package, _ = fpga.DEVICES[device]
    (tmp_path / "pins.lpf").write_text(fpga.pins(package))
    script = "read_verilog top.v; synth_ecp5 -top top -json top.json"
    routed = [size, "--package", package, "--json", "top.json", "--lpf", "pins.lpf",
              "--lpf-allow-unconstrained", "--textcfg", "top.config", "-q"]  # fmt: skip
    fpga._run([*yosys, "-q", "-p", script], tmp_path, "yosys", lambda line: None)
    fpga._run([*nextpnr, *routed], tmp_path, "nextpnr", lambda line: None)
    assert re.search(r"arc: G_\wDCC\dCLKI G_JPCLKT61", (tmp_path / "top.config").read_text())
