"""``weft quantize``: a float network becomes one of 8-bit integers."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...compiler import onnx
from ...compiler.graph import op_name
from ...compiler.quantize import Noise, Options, Quantized, quantize
from ...compiler.quantize.lite import lite
from ...compiler.quantize.observers import METHODS
from ...compiler.tflite import write as tflite
from ...isa.errors import DataError, InputError
from ...sim.paths import cache_directory
from ..inputs import bound_graph
from ..network import load
from .arrays import read_arrays
from .options import print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("model", metavar="MODEL", help="a float .onnx or .tflite file")
    parser.add_argument(
        "--calibrate", metavar="FILE", required=True,
        help="samples as the network takes them, on the first axis: .npy, or .npz with one array "
        "per input",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True,
        help="an .onnx file (QDQ), or a .tflite file, whose inputs and outputs are bytes",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=("minmax", *METHODS), default="minmax",
        help="how the ranges of activations are chosen (default minmax)",
    )  # fmt: skip
    parser.add_argument(
        "--percentile", type=float, default=99.99, metavar="P",
        help="for the method of that name: of a hundred values, how many lie below the range's "
        "end (default 99.99)",
    )  # fmt: skip
    parser.add_argument(
        "--no-bias-correction", action="store_true", help="leave the mean errors of channels"
    )
    parser.add_argument(
        "--per-tensor", action="store_true", help="one scale for all weights of a layer"
    )
    parser.add_argument(
        "--skip", metavar="NODE", action="append", default=[],
        help="leave this node on floats; may be repeated",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, metavar="N", help="use only the first N samples")


def main(options: argparse.Namespace) -> int:
    """Quantize, write, and print what it cost."""
    output = Path(options.output)
    if output.suffix not in WRITERS:
        raise InputError(f"{output}: a quantized network is written as {' or '.join(WRITERS)}")
    if not output.absolute().parent.is_dir():
        raise DataError(f"{output}: there is no folder {output.parent} to write it to")
    if options.samples is not None and options.samples < 1:
        raise DataError(f"--samples takes 1 or more, not {options.samples}")
    network = load(options.model)
    arrays = read_arrays(Path(options.calibrate), network.graph.inputs)
    chosen = Options(
        method=options.method,
        percentile=options.percentile,
        per_channel=not options.per_tensor,
        bias_correction=not options.no_bias_correction,
        skip=frozenset(options.skip),
        cache=cache_directory() / "host",
    )
    graph = bound_graph(network, arrays)
    with _bar() as progress:
        made = quantize(graph, arrays, chosen, samples=options.samples, progress=progress)
    data = WRITERS[output.suffix](made)
    try:
        output.write_bytes(data)
    except OSError as error:
        raise DataError(f"{output}: {error.strerror}") from None
    record = _record(made, options)
    if options.json:
        print_json(record)
    else:
        _print(record)
    return 0


WRITERS: Mapping[str, Callable[[Quantized], bytes]] = {
    ".onnx": lambda made: onnx.write(made.qdq),
    ".tflite": lambda made: tflite.write(lite(made.graph)),
}
"""From a file's suffix to its bytes."""


def _record(made: Quantized, options: argparse.Namespace) -> dict[str, Any]:
    """What is printed, as plain data."""
    return {
        "model": options.model,
        "output": options.output,
        "method": options.method,
        "per_channel": not options.per_tensor,
        "bias_correction": not options.no_bias_correction,
        "samples": made.samples,
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "tensor": layer.tensor,
                "range": list(layer.range),
                "scale": layer.quant.scale[0],
                "zero_point": layer.quant.zero_point[0],
                **_noise(layer.noise),
            }
            for layer in made.layers
        ],
        "outputs": [{"name": name, **_noise(noise)} for name, noise in made.outputs.items()],
        "on_floats": [
            {"name": node.name, "op": op_name(node.op)}
            for node in made.floats
            if not options.output.endswith(".tflite")  # there is nothing on floats in these
        ],
    }


def _noise(noise: Noise) -> dict[str, float | None]:
    """JSON has no infinity: an exact tensor has no ratio."""
    decibels = noise.decibels
    return {
        "snr_db": decibels if math.isfinite(decibels) else None,
        "largest_error": noise.largest,
    }


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "op"):
        grid.add_column(title, no_wrap=True)
    for title in ("least", "greatest", "scale", "zero", "SNR dB", "largest error"):
        grid.add_column(title, justify="right", no_wrap=True)
    for layer in record["layers"]:
        low, high = layer["range"]
        grid.add_row(
            escape(layer["name"]), layer["op"], f"{low:.4g}", f"{high:.4g}",
            f"{layer['scale']:.4g}", str(layer["zero_point"]), *_cells(layer),
        )  # fmt: skip
    grid.add_section()
    for output in record["outputs"]:
        grid.add_row(escape(output["name"]), "output", *[""] * 4, *_cells(output), style="bold")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(grid)
    floats = ", ".join(f"{node['name']} ({node['op']})" for node in record["on_floats"])
    notes = (
        f"{record['samples']} samples, ranges by {record['method']}; "
        f"on floats: {floats or 'nothing'}"
    )
    console.print(escape(notes), style="dim")
    console.print(escape(f"written to {record['output']}"))


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    decibels = "exact" if row["snr_db"] is None else f"{row['snr_db']:.1f}"
    return decibels, f"{row['largest_error']:.4g}"


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar for each phase; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def phase(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done)

    with bars:
        yield phase
