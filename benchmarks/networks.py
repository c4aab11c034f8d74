"""Whole networks on the RTL: are the bits right, and how many MACs a cycle.

    python benchmarks/networks.py [--hw base] [--samples 1] [--on rtl|functional]
                                  [--no-fusion] [NAME ...]

Every figure is of one inference, first instruction to last completion, with the DRAM model of
every published figure (40 cycles to the first beat, a beat a cycle, 16 requests outstanding).
``bound`` is what no schedule can beat: for each layer the greater of its MACs over the array's peak
and its compulsory bytes over the bus's width, but for the tensors that stay on chip. ``KiB`` are
those that crossed the bus, instructions included; ``least`` what must at least, and ``unfused``
what must where every tensor does. With ``--no-fusion``, every tensor does.
Exit code 1 if an output differs from the reference in a single bit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import weft
from weft.isa import AcceleratorConfig
from weft.runtime.hardware import hardware as hardware_of

SHARED = Path(os.environ.get("WEFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
NETWORKS = (
    "resnet8_cifar10",
    "resnet8_large_cifar10",
    "dscnn_kws",
    "mobilenetv1_vww96",
    "ad_toycar_ae",
    "sww_1dconv",
    "micro_speech",
    "mobilenetv2_035_160",
    "mobilenetv1_025_128_uint8",
    "mnist_mlp",
    "mnist_lstm",
    "hello_sine",
)
"""Folders of ``models/`` with a file and reference outputs of the same name."""


def measure(name: str, hw: str | AcceleratorConfig, on: str, samples: int) -> dict[str, Any]:
    """Run one network and compare it with the reference's outputs, as plain data."""
    folder = SHARED / "models" / name
    with np.load(folder / f"{name}_golden.npz", allow_pickle=False) as golden:
        reference = "out_tflm" if "out_tflm" in golden else "out_litert_ref"
        x, expected = golden["x"][:samples], golden[reference][:samples]
    started = time.perf_counter()
    with weft.jit(weft.load(folder / f"{name}.tflite"), hw, on) as run:
        run.compile()
        compiled = time.perf_counter()
        outputs = run(np.ascontiguousarray(x.reshape(len(x), *run.input_shape[1:])))
        record = run.report()
    finished = time.perf_counter()
    assert isinstance(outputs, np.ndarray)
    bound = sum(layer["bound_cycles"] for layer in record["layers"])
    totals = record["totals"]
    moved = {
        key: sum(layer[f"dram_{key}"] for layer in record["layers"])
        for key in ("read_bytes", "write_bytes", "fused_bytes", "compulsory_bytes")
    }
    return {
        "network": name,
        "samples": len(x),
        "different_bytes": int((outputs.reshape(expected.shape) != expected).sum()),
        "macs": totals["macs"],
        "cycles": totals["cycles"],
        "macs_per_cycle": totals["macs_per_cycle"],
        "bound_macs_per_cycle": totals["macs"] / bound if bound else 0.0,
        "offload_macs": totals["offload_macs"],
        **moved,
        "compile_seconds": compiled - started,
        "run_seconds": finished - compiled,
    }


def main() -> int:
    """Measure the named networks, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--hw", default="base", help="preset or TOML file (default base)")
    parser.add_argument("--on", default="rtl", choices=("rtl", "functional"))
    parser.add_argument("--samples", type=int, default=1, help="of each network (default 1)")
    parser.add_argument(
        "--no-fusion", action="store_true", help="nothing stays on chip, no layers are joined"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if not (SHARED / "models").is_dir():
        print(
            "the models are not there; set WEFT_SHARED to the folder with models/", file=sys.stderr
        )
        return 2
    hardware: str | AcceleratorConfig = options.hw
    if options.no_fusion:
        hardware = replace(hardware_of(options.hw), stores_inputs=False)
    rows = []
    if not options.json:
        print(
            f"{'network':24}{'MACs':>12}{'cycles':>12}{'MAC/cycle':>11}{'bound':>8}{'offload':>9}"
            f"{'KiB':>8}{'least':>8}{'unfused':>8}{'bits':>8}{'compile':>9}{'run':>8}"
        )
    for name in options.names or NETWORKS:
        row = measure(name, hardware, options.on, options.samples)
        rows.append(row)
        if not options.json:
            verdict = "exact" if not row["different_bytes"] else "DIFFER"
            moved = row["read_bytes"] + row["write_bytes"], row["fused_bytes"]
            sizes = (count / 1024 for count in (*moved, row["compulsory_bytes"]))
            print(
                f"{name:24}{row['macs']:12,}{row['cycles']:12,}{row['macs_per_cycle']:11.1f}"
                f"{row['bound_macs_per_cycle']:8.1f}{row['offload_macs']:9.1%}"
                f"{''.join(f'{size:8,.0f}' for size in sizes)}{verdict:>8}"
                f"{row['compile_seconds']:8.1f}s{row['run_seconds']:7.1f}s",
                flush=True,
            )
    if options.json:
        print(json.dumps({"hw": options.hw, "on": options.on, "networks": rows}, indent=2))
    return int(any(row["different_bytes"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
