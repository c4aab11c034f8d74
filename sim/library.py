"""The simulation library of a configuration, found without generating its Verilog again."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..isa.config import AcceleratorConfig
from ..isa.registers import COUNTERS
from ..isa.spec import spec_hash
from . import verilate
from .exercise import train
from .objects import folder, key_of

if TYPE_CHECKING:
    from ..hw.form import Form

TRAINED_LANES = 256
"""Multiplications a cycle from which a model is worth a second compilation, of the code that a
first one has been seen to run."""


def library(
    config: AcceleratorConfig,
    *,
    trace: bool = False,
    coverage: bool = False,
    form: Form = "simulation",
    progress: verilate.Progress | None = None,
) -> Path:
    """The shared library that simulates ``config``; built at the first call.

    By default in the form that simulates fast; that for synthesis does the same, cycle by cycle.

    What was built is found by the configuration and the sources that decide the Verilog, so
    that a warm start costs neither Amaranth nor Verilator. Raises what
    :func:`weft.sim.verilate.build` raises.
    """
    key = verilate.toolchain_key(trace=trace, coverage=coverage)
    parts = (spec_hash(config), sources_hash(), form, key)
    index = folder() / f"{key_of(*parts)}.built"
    if index.exists():
        built = folder() / index.read_text()
        if built.exists():
            return built

    def generate() -> str:
        from ..hw import verilog

        return verilog.generate(config, form=form, sources=coverage)

    trained = not (trace or coverage) and config.batch * config.block**2 >= TRAINED_LANES
    names = [counter.name for counter in COUNTERS]
    built = verilate.build(
        generate, config.bus_bytes, counters=names, trace=trace, coverage=coverage,
        train=(lambda path: train(path, config)) if trained else None, progress=progress,
    )  # fmt: skip
    if coverage:  # whoever reads the counts wants to know of what
        built.with_suffix(".v").write_text(generate())
    partial = index.with_suffix(f".{os.getpid()}")
    partial.write_text(built.name)
    os.replace(partial, index)
    return built


@cache
def sources_hash() -> str:
    """Of everything that decides the Verilog but the configuration."""
    digest = hashlib.sha256(metadata.version("amaranth").encode())
    rooms = Path(__file__).resolve().parent.parent
    for room in ("isa", "hw"):
        for source in sorted((rooms / room).rglob("*.py")):
            digest.update(str(source.relative_to(rooms)).encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()
