"""``weft diff``: where two forms of one network, or two devices, part ways."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from ...isa.errors import DataError, MismatchError
from ..difference import Difference, Row, differences
from ..hardware import hardware
from ..inputs import bound_graph
from ..jit import TARGETS
from ..network import load
from ..trace import Trace
from .arrays import read_arrays
from .options import add_hardware, chosen_hardware, print_json, progress_bars

DECIBELS = 10.0
"""Below it two forms of a network part ways, if nothing else is said."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("first", metavar="A", help="a network; it runs on the CPU")
    parser.add_argument(
        "second", metavar="B", nargs="?", help="another form of it (default: A itself)"
    )
    parser.add_argument(
        "--input", metavar="FILE", required=True,
        help="samples as A takes them, on the first axis: .npy, or .npz with one array per input",
    )  # fmt: skip
    parser.add_argument(
        "--on", "--device", choices=(*TARGETS, "host"), action="append", default=[],
        help="where B runs; may be repeated (default: on the CPU if it is another file than A, "
        "else functional); host is cpu",
    )  # fmt: skip
    add_hardware(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="compare only the first N samples")
    parser.add_argument(
        "--threshold", type=float, metavar="DB",
        help="the least signal-to-noise ratio of a tensor in both (default: of one file all bits "
        f"are equal; of two {DECIBELS:g})",
    )  # fmt: skip


def main(options: argparse.Namespace) -> int:
    """Run both, compare all tensors, print the table."""
    if options.limit is not None and options.limit < 1:
        raise DataError(f"--limit takes 1 or more, not {options.limit}")
    first = load(options.first)
    second = first if options.second is None else load(options.second)
    arrays = read_arrays(Path(options.input), first.graph.inputs)
    one, other = bound_graph(first, arrays), None
    if second is not first:
        named = dict(zip(second.graph.inputs, arrays.values(), strict=False))
        other = bound_graph(second, named)
    same = first.sha256 == second.sha256
    threshold = options.threshold
    if threshold is None:
        threshold = math.inf if same else DECIBELS
    targets = ["cpu" if target == "host" else target for target in options.on]
    targets = list(dict.fromkeys(targets)) or ["functional" if other is None else "cpu"]
    config = chosen_hardware(options) or hardware("base")
    found: list[tuple[str, Difference]] = []
    with Trace(one, config, "cpu") as reference:
        for target in targets:
            with progress_bars() as (build, samples):
                extra = {"progress": build} if target == "rtl" and build is not None else {}
                with Trace(other or one, config, target, **extra) as trace:
                    found.append(
                        (target, differences(reference, trace, arrays, options.limit, samples))
                    )
    if options.json:
        print_json([_record(target, made, threshold) for target, made in found])
    else:
        for target, made in found:
            _print(options.first, options.second or options.first, target, made, threshold)
    for target, made in found:
        parting = made.parting(threshold)
        if parting is not None and not options.json:
            raise MismatchError(_sentence(target, parting))
        if parting is not None:  # standard output is one JSON document, which says it too
            print(f"weft: {_sentence(target, parting)}", file=sys.stderr)
            return MismatchError.exit_code
    return 0


def _sentence(target: str, row: Row) -> str:
    return (
        f"they part ways at layer {row.layer!r} ({row.op}) on {target}: tensor {row.tensor!r} has "
        f"{row.noise.unequal} of {row.noise.count} elements different, {_decibels(row)} dB, "
        f"largest error {row.noise.largest:.4g}"
    )


def _decibels(row: Row) -> str:
    ratio = row.noise.decibels
    return f"{ratio:.1f}" if math.isfinite(ratio) else "no"


def _record(target: str, made: Difference, threshold: float) -> dict[str, Any]:
    parting = made.parting(threshold)
    return {
        "on": target,
        "samples": made.samples,
        "threshold_db": threshold if math.isfinite(threshold) else None,
        "parts_at": None if parting is None else parting.layer,
        "tensors": [
            {
                "layer": row.layer,
                "op": row.op,
                "tensor": row.tensor,
                "exact": row.noise.exact,
                "snr_db": row.noise.decibels if math.isfinite(row.noise.decibels) else None,
                "largest_error": row.noise.largest,
                "different": row.noise.unequal,
                "elements": row.noise.count,
            }
            for row in made.rows
        ],
        "only_in_first": list(made.unmatched),
    }


def _print(first: str, second: str, target: str, made: Difference, threshold: float) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "op", "tensor"):
        grid.add_column(title, no_wrap=True)
    for title in ("SNR dB", "largest error", "different"):
        grid.add_column(title, justify="right", no_wrap=True)
    parting = made.parting(threshold)
    for row in made.rows:
        exact = row.noise.exact
        grid.add_row(
            escape(row.layer), row.op, escape(row.tensor),
            "exact" if exact else _decibels(row),
            "" if exact else f"{row.noise.largest:.4g}",
            "" if exact else f"{row.noise.unequal / row.noise.count:.2%}",
            style="bold red" if row is parting else None,
        )  # fmt: skip
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(grid)
    what = "all bits equal" if math.isinf(threshold) else f"at least {threshold:g} dB"
    verdict = f"yes, in {len(made.rows)} tensors" if parting is None else f"not at {parting.layer}"
    console.print(
        escape(
            f"{first} on cpu, {second} on {target}, {made.samples} sample(s); {what}: {verdict}"
        ),
        style="dim",
    )
