"""Folders of caches stay within a size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from weft.isa import kept


def names(folder: Path) -> set[str]:
    """Of the files in a folder."""
    return {path.name for path in folder.iterdir()}


def test_what_was_not_used_for_longest_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LIMIT", 300)
    for k, name in enumerate("abc"):
        kept.keep(tmp_path / name, (b"x" * 60, memoryview(b"y" * 40)))
        os.utime(tmp_path / name, (k, k))
    assert names(tmp_path) == {"a", "b", "c"}
    kept.used(tmp_path / "a")
    kept.keep(tmp_path / "d", (b"z" * 150,))
    assert names(tmp_path) == {"a", "d"}
    assert (tmp_path / "a").read_bytes() == b"x" * 60 + b"y" * 40


def test_what_was_kept_last_stays_whatever_its_size(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    kept.keep(tmp_path / "a", (b"x",))
    kept.keep(tmp_path / "b", (b"x" * 1000,))
    kept.make_room(tmp_path, 10)
    assert names(tmp_path) == {"b", "folder"}


def test_a_file_that_is_no_longer_there_is_no_error(tmp_path: Path) -> None:
    kept.used(tmp_path / "gone")
