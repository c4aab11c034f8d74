"""Packages come back as they were written; whatever is damaged or foreign is refused."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import assert_same_graph
from tests.runtime.models import hand_made
from weft.compiler.artifact import CompiledModel
from weft.isa import AcceleratorConfig
from weft.isa.errors import PackageError
from weft.isa.spec import spec_hash
from weft.runtime import package

EXTRA = {"name": "hand_made", "sha256": "ab" * 32}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.weft"
    package.save(hand_made(), path, EXTRA)
    return path


def assert_same_model(a: CompiledModel, b: CompiledModel) -> None:
    assert_same_graph(replace(a.graph, tensors=ordered(a)), replace(b.graph, tensors=ordered(b)))
    assert (a.config, a.steps, a.dram_bytes) == (b.config, b.steps, b.dram_bytes)
    assert dict(a.tensors) == dict(b.tensors)
    assert [(s.name, s.address) for s in a.segments] == [(s.name, s.address) for s in b.segments]
    for left, right in zip(a.segments, b.segments, strict=True):
        np.testing.assert_array_equal(left.data, right.data)


def ordered(model: CompiledModel) -> dict[str, Any]:
    return dict(sorted(model.graph.tensors.items()))


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The package with its manifest changed, and every checksum right."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(parts["manifest.json"])
    change(manifest)
    parts["manifest.json"] = json.dumps(manifest).encode()
    other = path.with_name("other.weft")
    with zipfile.ZipFile(other, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return other


def test_a_package_comes_back_as_it_was_written(path: Path):
    model, extra = package.load(path, hand_made().config)
    assert_same_model(model, hand_made())
    assert extra == EXTRA


def test_every_prefix_of_a_package_is_refused(path: Path):
    data = path.read_bytes()
    for size in range(len(data)):
        with pytest.raises(PackageError):
            package.parse(data[:size], "cut")


def test_a_changed_byte_is_refused_or_means_nothing(path: Path):
    data, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= int(rng.integers(1, 256))
        try:
            model, _ = package.parse(bytes(flipped), "flipped")
        except PackageError:
            refused += 1
            continue
        assert_same_model(model, hand_made())  # for instance a part's date
    assert refused > 0.9 * len(data)


def leaves(value: Any, trail: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside ``value``, and to ``value`` itself."""
    yield trail
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*trail, key))


def test_a_manifest_with_any_value_replaced_is_refused_or_loads(path: Path):
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    trails = [trail for trail in leaves(manifest) if trail]
    assert len(trails) > 60
    refused = 0
    for trail in trails:
        for value in (None, -1, 1 << 70, 1.5, "x", [], {}, [[]], True):

            def change(manifest: dict[str, Any], trail=trail, value=value) -> None:
                *way, last = trail
                inner: Any = manifest
                for key in way:
                    inner = inner[key]
                inner[last] = value

            try:
                package.load(rewritten(path, change))
            except PackageError:
                refused += 1
    assert refused > 7 * len(trails)


def change_step(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["steps"][0].update(fields)


def change_program(column: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["programs"][0].__setitem__(column, value)


def change_host_step(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["steps"][1].update(fields)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "dram": (lambda m: m.update(dram_bytes=1 << 40), "dram_bytes must be an integer from 0"),
    "beyond": (lambda m: m["segments"][1].__setitem__(1, 0x3FF0), "'weights': it ends at"),
    "short": (lambda m: m["segments"][1].__setitem__(2, 61), "it has 61 bytes, 60 are left"),
    "left": (lambda m: m["segments"][1].__setitem__(2, 59), "have 75 bytes, the package holds 76"),
    "shape": (lambda m: m["tensors"][0].__setitem__(2, [1, 2, 2, 4]), "does not hold"),
    "unfold": (lambda m: m["tensors"][0].__setitem__(4, [0] * 10), "no origin, steps"),
    "twice": (lambda m: m["tensors"].append(m["tensors"][0]), "stands twice"),
    "place": (lambda m: m["tensors"].pop(), "'conv_0' has no place in DRAM"),
    "count": (change_program(2, 2), "no segment at 0x1000 holds its 2 instructions"),
    "owners": (change_program(3, [1]), "'program': an owner that is none of its 1 layers"),
    "owner of none": (change_program(3, []), "'program': owners must be 1 numbers of layers"),
    "program": (change_step(program=1), "there is no program 1"),
    "layer": (change_step(layer=1), "layer 1 follows no other one"),
    "unused": (
        lambda m: m["programs"].append(m["programs"][0]),
        "the programs are not those of the steps",
    ),
    "node": (change_step(nodes=["nothing"]), "there is no node 'nothing'"),
    "tensor": (change_step(inputs=["nothing"]), "there is no tensor 'nothing'"),
    "early": (lambda m: m["steps"].reverse(), "'conv_0' has no value by then"),
    "same name": (change_host_step(name="conv_0"), "another step has the same name"),
    "outputs": (change_host_step(outputs=["input_0"]), "its nodes do not make its outputs"),
    "nothing made": (lambda m: m["steps"].pop(), "no step makes the outputs"),
    "format": (lambda m: m.update(format=1), "package format 1; this Weft reads 3"),
    "key": (lambda m: m["config"].update(blok=4), "unknown key 'blok', did you mean 'block'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_does_not_fit_together_is_refused(case: str, path: Path):
    change, message = HOSTILE[case]
    with pytest.raises(PackageError, match=re.escape(message)):
        package.load(rewritten(path, change))


def test_a_package_for_other_hardware_is_refused_with_both_hashes(path: Path):
    base = AcceleratorConfig.preset("base")
    own, other = spec_hash(hand_made().config), spec_hash(base)
    with pytest.raises(PackageError, match=f"made for spec '{own}', but the hardware.*'{other}'"):
        package.load(path, base)


def test_a_package_of_another_instruction_set_is_refused_with_both_hashes(path: Path):
    foreign, own = "0123456789abcdef", spec_hash(hand_made().config)
    changed = rewritten(path, lambda manifest: manifest.update(spec_hash=foreign))
    with pytest.raises(PackageError, match=f"'{foreign}', but this Weft's.*'{own}'"):
        package.load(changed)


def test_a_compressed_part_is_refused(path: Path):
    other = path.with_name("other.weft")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(PackageError, match="compressed"):
        package.load(other)


@pytest.mark.parametrize("missing", ["manifest.json", "graph.txt", "segments.bin"])
def test_a_missing_part_is_refused(missing: str, path: Path):
    other = path.with_name("other.weft")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in set(old.namelist()) - {missing}:
            new.writestr(name, old.read(name))
    with pytest.raises(PackageError, match=missing):
        package.load(other)


def test_nested_json_of_any_depth_is_refused(path: Path):
    other = path.with_name("other.weft")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("manifest.json", "[" * 200_000)
    with pytest.raises(PackageError):
        package.load(other)


def test_a_package_that_cannot_be_written_is_one_error_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PackageError, match="file"):
        package.save(hand_made(), tmp_path / "file" / "model.weft", EXTRA)
    (tmp_path / "folder").mkdir()
    with pytest.raises(PackageError, match="folder"):
        package.save(hand_made(), tmp_path / "folder", EXTRA)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_package_that_does_not_exist_is_one_error(tmp_path: Path):
    with pytest.raises(PackageError, match="No such file"):
        package.load(tmp_path / "nothing.weft")
