"""``weft run``: a network on the accelerator, with its per-layer table."""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.graph import element_dtype
from ...isa.errors import ConfigError, DataError, MismatchError
from .. import report
from ..jit import INTERPRETER, TARGETS, jit
from ..network import Network, load
from .options import (
    add_crashes,
    add_effort,
    add_hardware,
    chosen_hardware,
    print_json,
    progress_bars,
)

SEED = 0
"""Of the data that is made when none is given."""

DAMAGED = (
    ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError, SyntaxError,
    NotImplementedError, RuntimeError, tokenize.TokenError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What numpy's readers raise for files that are no arrays."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .tflite or .onnx file, a .weft package or the text of a level",
    )
    parser.add_argument(
        "--on", choices=(*TARGETS, INTERPRETER), default="rtl",
        help="where to run (default rtl); interpreter: the level of a text, as it stands",
    )  # fmt: skip
    add_hardware(parser)
    add_effort(parser)
    add_crashes(parser)
    parser.add_argument("--input", metavar="FILE", help="samples on the first axis, .npy or .npz")
    parser.add_argument("--key", help="which array of an .npz")
    parser.add_argument("--limit", type=int, metavar="N", help="run only the first N samples")
    parser.add_argument("--output", metavar="FILE.npz", help="one array per output, samples first")
    parser.add_argument(
        "--expect", metavar="FILE",
        help="compare the outputs with these, bit for bit: what --output wrote, or a .npy",
    )  # fmt: skip
    parser.add_argument("--report", metavar="FILE.json", help="write the report")
    parser.add_argument("--wave", metavar="FILE.fst", help="record waves of the whole run")
    parser.add_argument(
        "--on-host", metavar="NODE", action="append", default=[],
        help="run this node on the CPU; may be repeated",
    )  # fmt: skip
    parser.add_argument("--latency", type=int, metavar="CYCLES", help="of DRAM reads (default 40)")
    parser.add_argument(
        "--stall-seed", type=int, metavar="N", help="random stalls on every channel"
    )
    parser.add_argument("--timeout", type=int, metavar="CYCLES", help="of one layer's program")


def main(options: argparse.Namespace) -> int:
    """Run, print the table, write what was asked for."""
    for path in (options.output, options.report):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise DataError(f"{path}: there is no folder {Path(path).parent} to write it to")
    if options.report is not None and options.on == INTERPRETER:
        raise ConfigError("an interpreter has no cycles; there is no --report")
    network = load(options.model)
    inputs, seeded = _inputs(network, options)
    expected = _expected(network, options)
    device: dict[str, Any] = {}
    if options.latency is not None:
        device["dram_latency"] = options.latency
    if options.stall_seed is not None:
        device["stall_seed"] = options.stall_seed
    if options.timeout is not None:
        device["timeout_cycles"] = options.timeout
    if options.wave is not None:
        if options.on != "rtl":
            raise ConfigError(f"--wave records the RTL's waves; there are none on {options.on}")
        device["wave"] = options.wave
    with progress_bars() as (build, samples):
        run = jit(
            network,
            chosen_hardware(options),
            options.on,
            on_host=frozenset(options.on_host),
            effort=options.effort,
            crashes=options.crash_dir,
            progress=build,
            **device,
        )
        with run:
            outputs = run(*inputs, progress=samples)
            record = run.report() if options.on != INTERPRETER else {}
    arrays = outputs if isinstance(outputs, tuple) else (outputs,)
    named = dict(zip(network.graph.outputs, arrays, strict=True))
    if options.output:
        _write_outputs(named, options.output)
    if options.report:
        _write(options.report, json.dumps(record, indent=2) + "\n")
    if options.json:
        print_json(record)
    elif record:
        _print(record, seeded, options)
    for name, array in expected.items():
        compare(name, named[name], array)
    return 0


def _inputs(network: Network, options: argparse.Namespace) -> tuple[list[np.ndarray], bool]:
    graph = network.graph
    if options.limit is not None and options.limit < 1:
        raise DataError(f"--limit takes 1 or more, not {options.limit}")
    if options.input is None:
        generator = np.random.default_rng(SEED)
        return [
            _random(generator, graph.tensors[name], options.limit) for name in graph.inputs
        ], True
    if len(graph.inputs) != 1:
        raise DataError(f"--input serves one input; {network.name} has {', '.join(graph.inputs)}")
    tensor = graph.tensors[graph.inputs[0]]
    array = _read(Path(options.input), options.key)
    if options.limit is not None and array.ndim and tensor.shape:
        array = array[: options.limit * tensor.shape[0]]
    return [array], False


def _random(generator: np.random.Generator, tensor: Any, limit: int | None) -> np.ndarray:
    shape = ((limit or 1) * tensor.shape[0], *tensor.shape[1:]) if tensor.shape else ()
    dtype = element_dtype(tensor.dtype)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(tensor.dtype.min, tensor.dtype.max + 1, shape).astype(dtype)


def _read(path: Path, key: str | None) -> np.ndarray:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                if key is not None:
                    raise DataError(f"{path}: --key is for .npz files")
                return loaded
            keys = list(loaded)
            if key is None and len(keys) == 1:
                key = keys[0]
            if key is None or key not in keys:
                raise DataError(f"{path}: choose one of its arrays with --key: {', '.join(keys)}")
            return np.asarray(loaded[key])
    except DAMAGED as error:
        raise DataError(f"{path}: not a .npy or .npz file of plain arrays ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _expected(network: Network, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """What ``--expect`` says of each output; nothing without it."""
    if options.expect is None:
        return {}
    names, path = network.graph.outputs, Path(options.expect)
    if len(names) == 1:
        return {names[0]: _read(path, None)}
    return {name: _read(path, name) for name in names}


def compare(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Return if two arrays are equal.

    Raises
    ------
    DataError
        If they differ in type or shape, so that no element can be compared.
    MismatchError
        If elements differ; it says how many, and shows the first.
    """
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        raise DataError(
            f"output {name!r} is {got.dtype}{list(got.shape)}, "
            f"{expected.dtype}{list(expected.shape)} was expected"
        )
    different = np.argwhere(~np.equal(got, expected))
    if len(different):
        first = tuple(int(i) for i in different[0])
        raise MismatchError(
            f"output {name!r}: {len(different)} of {got.size} elements differ; the first, at "
            f"{list(first)}, is {got[first]} and should be {expected[first]}"
        )


def _write_outputs(named: dict[str, np.ndarray], path: str) -> None:
    # Not numpy.savez, whose own arguments are names that an output cannot have.
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in named.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _print(record: dict[str, Any], seeded: bool, options: argparse.Namespace) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if seeded:
        console.print(f"no --input: running on data made from seed {SEED}", style="dim")
    console.print(report.table(record))
    totals = record["totals"]
    console.print(
        f"{record['samples']} sample(s) of {record['model']['name']} on {record['on']}: "
        f"simulation {totals['simulation_seconds']:.3f} s, host {totals['host_seconds']:.3f} s "
        "(the last sample's)",
        style="dim",
    )
