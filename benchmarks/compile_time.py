"""How long compiling takes: pass by pass, again from the cache, and how long importing takes.

Every figure is CPU time of a process of its own, user and system, the best of a few. ``cold`` is
the call that compiles, in a process that has not compiled before, checks included, without the
cache of networks; native code of the compiler itself comes from its cache. ``warm`` is
:func:`weft.compile` where the cache has the network. ``command`` is a whole ``weft compile`` then,
the interpreter's start, imports, the reading of the model and the writing of the package included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = (
    ("mobilenetv2_035_160", "base", 4.0),
    ("resnet18", "vta", 6.0),
    ("resnet18", "base", None),
    ("resnet8_large_cifar10", "base", None),
    ("resnet8_cifar10", "base", None),
    ("mobilenetv1_vww96", "base", None),
    ("dscnn_kws", "base", None),
    ("ad_toycar_ae", "base", None),
)
"""(network, hardware, seconds that compiling it may take)."""
WARM, IMPORT = 0.3, 0.3
"""Seconds that a compiled network, and a bare import, may take."""


def network_of(name: str, models: Path) -> Any:
    """A network of the folder ``models``; ResNet-18 is made from a seed."""
    import weft

    if name == "resnet18":
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import resnet18

        return resnet18.resnet18()
    return weft.load(models / name / f"{name}.tflite")


def cold(name: str, hw: str, effort: str, models: Path) -> dict[str, float]:
    """Seconds of each pass, and of them together."""
    import time

    network = network_of(name, models)
    from weft.compiler.effort import EFFORTS
    from weft.compiler.pipeline import compile_graph
    from weft.isa import AcceleratorConfig

    seconds: dict[str, float] = {}
    last = begin = time.process_time()

    def watch(passed: str, _: object) -> None:
        nonlocal last
        now = time.process_time()
        seconds[passed] = seconds.get(passed, 0.0) + now - last
        last = now

    config = AcceleratorConfig.preset(hw)
    model = compile_graph(network.graph, config, effort=EFFORTS[EFFORTS.index(effort)], watch=watch)  # type: ignore[arg-type]
    seconds["cold"] = time.process_time() - begin
    steps = [step for steps in model.programs for step in steps]
    seconds["estimate"] = sum(int(step.choices["estimate"]) for step in steps)
    seconds["instructions"] = sum(steps[0].program.count for steps in model.programs)
    return seconds


def warm(name: str, hw: str, effort: str, models: Path) -> dict[str, float]:
    """Seconds of compiling, and what is in the cache after it."""
    import time

    import weft

    network = network_of(name, models)
    begin = time.process_time()
    weft.compile(network, hw, effort=effort)
    return {"warm": time.process_time() - begin}


def imported() -> dict[str, float]:
    """Seconds of ``import weft``."""
    import time

    begin = time.process_time()
    import weft  # noqa: F401

    return {"import": time.process_time() - begin}


def _child(*arguments: str, environment: dict[str, str]) -> tuple[dict[str, float], float]:
    """What this program prints when it is called so, and the CPU time of the whole process."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    after = os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    used = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "{}"
    return (json.loads(last) if last.startswith("{") else {}), used


def measure(
    name: str, hw: str, effort: str, models: Path, times: int, environment: dict[str, str]
) -> dict[str, Any]:
    """All figures of one network, the best of ``times``."""
    this = str(Path(__file__).resolve())
    common = ("--network", name, "--hw", hw, "--effort", effort, "--models", str(models))
    runs = [_child(this, "--part", "cold", *common, environment=environment)[0]
            for _ in range(times)]  # fmt: skip
    row: dict[str, Any] = {"network": name, "hw": hw, "effort": effort}
    row |= min(runs, key=lambda run: run["cold"])
    _child(this, "--part", "warm", *common, environment=environment)  # fills the cache
    row["warm"] = min(
        _child(this, "--part", "warm", *common, environment=environment)[0]["warm"]
        for _ in range(times)
    )
    row["command"] = None
    if name != "resnet18":
        file = models / name / f"{name}.tflite"
        target = str(Path(environment["WEFT_CACHE"]) / "out.weft")
        command = ("-m", "weft", "compile", str(file), "--hw", hw, "-o", target, "--effort", effort)
        row["command"] = min(
            _child(*command, "--json", environment=environment)[1] for _ in range(times)
        )
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and say what is over its goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT / ".." / "shared" / "models")
    parser.add_argument("--network", action="append", help="only this one; may be repeated")
    parser.add_argument("--hw", help="instead of the hardware of the table")
    parser.add_argument("--effort", default="default", choices=("fast", "default", "max"))
    parser.add_argument("--times", type=int, default=3, help="processes, of which the best counts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--part", choices=("cold", "warm", "import"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part is not None:
        part = {
            "cold": lambda: cold(options.network[0], options.hw, options.effort, options.models),
            "warm": lambda: warm(options.network[0], options.hw, options.effort, options.models),
            "import": imported,
        }[options.part]
        print(json.dumps(part()))
        return 0
    networks = [
        (name, options.hw or hw, most)
        for name, hw, most in NETWORKS
        if options.network is None or name in options.network
    ]
    with tempfile.TemporaryDirectory() as folder:
        # Byte code may be written, as where Weft is installed; native code is found again.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"WEFT_CACHE": folder, "PYTHONPYCACHEPREFIX": f"{folder}/pyc"}
        environment["PYTHONPATH"] = str(ROOT)
        return _report(networks, options, environment)


def _report(
    networks: Sequence[tuple[str, str, float | None]],
    options: argparse.Namespace,
    environment: dict[str, str],
) -> int:
    from weft.compiler.pipeline import PASSES  # not above: the children measure what that takes

    passes = [step.name for step in PASSES]
    this = str(Path(__file__).resolve())
    _child(this, "--part", "import", environment=environment)
    importing = min(
        _child(this, "--part", "import", environment=environment)[0]["import"]
        for _ in range(options.times)
    )
    rows: list[dict[str, Any]] = []
    if not options.json:
        head = "".join(f"{name:>10}" for name in (*passes, "cold", "at most", "warm", "command"))
        print(f"{'network':24}{'hw':6}{head}")
    for name, hw, most in networks:
        row = measure(name, hw, options.effort, options.models, options.times, environment)
        rows.append(row | {"at_most": most})
        if not options.json:
            figures = "".join(f"{row.get(one, 0.0):10.2f}" for one in (*passes, "cold"))
            limit = "" if most is None else f"{most:.1f}"
            command = "" if row["command"] is None else f"{row['command']:.2f}"
            print(f"{name:24}{hw:6}{figures}{limit:>10}{row['warm']:10.3f}{command:>10}",
                  flush=True)  # fmt: skip
    if options.json:
        print(json.dumps({"import": importing, "networks": rows}, indent=2))
    else:
        print(f"import weft: {importing:.3f} s (at most {IMPORT}); warm at most {WARM}")
    slow = [r for r in rows if r["warm"] > WARM or (r["at_most"] and r["cold"] > r["at_most"])]
    return int(bool(slow) or importing > IMPORT)


if __name__ == "__main__":
    sys.exit(main())
