"""What a user installs: the wheel holds every room, and importing it is quick and clean."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("isa", "hw", "compiler", "sim", "runtime")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool, version in (("build", "1.2"), ("setuptools", "77")):
        pytest.importorskip(tool, version, reason=f"weft[test] brings {tool} {version} or newer")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(out),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_source_file_of_every_room(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ROOMS:
        for source in (ROOT / room).rglob("*"):
            if source.suffix in (".py", ".cpp", ".h", ".v") and "__pycache__" not in source.parts:
                assert f"weft/{source.relative_to(ROOT).as_posix()}" in names
    assert "weft/py.typed" in names


def test_every_dependency_has_an_upper_bound_and_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (r for group in groups for r in group if not r.startswith("weft[")):
        assert "<" in requirement, requirement
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert "#" in line, line


def test_import_weft_loads_neither_the_compiler_nor_numpy():
    code = (
        "import sys, weft; heavy = {'numpy', 'llvmlite', 'amaranth', 'rich', 'tflite'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_public_name_resolves():
    import weft

    for name in weft.__all__:
        assert getattr(weft, name) is not None
