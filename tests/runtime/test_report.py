"""The report's record: every field that is promised, and sums that add up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.runtime.models import hand_made
from weft.isa.registers import COUNTERS
from weft.isa.spec import spec_hash
from weft.runtime import report
from weft.runtime.launch import StepProfile
from weft.version import VERSION

FIELDS = {
    "weft", "spec_hash", "model", "hw", "on", "dram", "samples", "totals", "layers",
}  # fmt: skip
LAYER_FIELDS = {
    "name", "op", "where", "macs", "cycles", "dram_read_bytes", "dram_write_bytes",
    "dram_compulsory_bytes", "dram_fused_bytes",
    "bound_cycles", "bound_by", "utilization", "stalls", "seconds",
}  # fmt: skip
TOTALS = {
    "macs", "cycles", "macs_per_cycle", "offload_macs", "host_seconds", "simulation_seconds",
}  # fmt: skip
PARTITION = [c.name for c in COUNTERS if c.group == "compute" and c.partition]


def profiles(cycles: int = 640) -> list[StepProfile]:
    """Of the hand-made model: a convolution of that many cycles, and a host step."""
    counters = dict.fromkeys(PARTITION, 0) | {"cycles": cycles, "read_bytes": 96, "write_bytes": 32}
    counters["compute_busy"], counters["compute_wait_memory"] = cycles // 4, cycles - cycles // 4
    return [StepProfile(cycles, counters, 0.25), StepProfile(0, {}, 0.5)]


def record(**changes: Any) -> dict[str, Any]:
    info = {
        "model_name": "hand_made", "model_sha256": "ab", "on": "rtl", "dram": report.dram({}),
        "samples": 3, "host_seconds": 0.5, "simulation_seconds": 0.25,
    } | changes  # fmt: skip
    return report.build(hand_made(), profiles(), report.RunInfo(**info))


def test_the_record_has_every_field():
    made = record()
    assert set(made) == FIELDS
    assert set(made["totals"]) == TOTALS
    assert set(made["model"]) == {"name", "sha256"}
    accelerator, cpu = made["layers"]
    assert set(accelerator) == LAYER_FIELDS | {"choices", "search"}
    assert set(cpu) == LAYER_FIELDS | {"reason"}
    assert json.loads(json.dumps(made)) == made


def test_it_says_what_was_run_on_what():
    made = record()
    assert (made["weft"], made["on"], made["samples"]) == (VERSION, "rtl", 3)
    assert made["spec_hash"] == spec_hash(hand_made().config)
    assert made["hw"] == hand_made().config.to_mapping()
    assert (made["layers"][0]["where"], made["layers"][1]["where"]) == ("accelerator", "cpu")
    assert made["layers"][1]["reason"] == "it only renames"


def test_the_layers_sum_to_the_totals():
    made = record()
    for key in ("macs", "cycles"):
        assert made["totals"][key] == sum(layer[key] for layer in made["layers"])
    assert made["totals"]["macs_per_cycle"] == 60 / 640
    assert made["totals"]["offload_macs"] == 1.0


def test_a_layers_stalls_and_busy_cycles_sum_to_its_cycles():
    layer = record()["layers"][0]
    assert sum(layer["stalls"].values()) == layer["cycles"] == 640
    assert set(layer["stalls"]) == {name.removeprefix("compute_") for name in PARTITION}
    assert "busy" in layer["stalls"]


def test_the_bound_is_the_array_or_the_bus_whichever_takes_longer():
    layer = record()["layers"][0]  # 60 MACs of 16 a cycle; 80 bytes on the bus, 8 a cycle
    assert (layer["bound_cycles"], layer["bound_by"]) == (10, "bus")
    assert layer["utilization"] == 60 / (640 * 16)
    assert (layer["dram_read_bytes"], layer["dram_write_bytes"]) == (96, 32)
    assert (layer["dram_compulsory_bytes"], layer["dram_fused_bytes"]) == (100, 80)
    (line,) = [line for line in str(report.Report(record())).splitlines() if "conv_0" in line]
    assert line.split()[-3:] == ["100", "B", "1.60x"]


def test_a_simulator_without_time_reports_no_rate():
    made = report.build(
        hand_made(),
        [StepProfile(), StepProfile()],
        report.RunInfo("m", "", "functional", report.dram({}), 1, 0.0, 0.0),
    )
    assert made["totals"]["cycles"] == made["totals"]["macs_per_cycle"] == 0
    assert made["layers"][0]["utilization"] == 0
    assert made["layers"][0]["stalls"] == {}


def test_the_memory_model_is_the_published_one_unless_it_was_changed():
    published = {"latency": 40, "outstanding": 16, "write_response": 10, "beats_per_cycle": 1}
    assert report.dram({}) == published
    changed = report.dram({"dram_latency": 7, "stall_seed": 3, "timeout_cycles": 5})
    assert changed == published | {"latency": 7, "stall_seed": 3}


@pytest.mark.parametrize("timed", [True, False])
def test_it_prints_as_a_table_of_every_layer(timed: bool):
    made = report.Report(record())
    if not timed:
        made["layers"] = [layer | {"cycles": 0} for layer in made["layers"]]
    lines = str(made).splitlines()
    assert lines[0].split()[:3] == ["layer", "op", "where"]
    assert any(line.startswith("conv_0 ") for line in lines)
    assert any(line.startswith("reshape_1 ") for line in lines)
    assert any(line.startswith("total ") for line in lines)
    assert ("640" in str(made)) or not timed
