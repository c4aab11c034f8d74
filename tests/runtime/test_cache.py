"""The cache of compiled networks: found again, never wrong, never in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.models import hand_made
from weft.isa import AcceleratorConfig
from weft.runtime import cache

TINY, BASE = AcceleratorConfig.preset("tiny"), AcceleratorConfig.preset("base")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_stored_is_loaded():
    path = cache.path_of("ab", TINY, "auto")
    assert cache.load(path, TINY) is None
    cache.store(path, hand_made(), {})
    loaded = cache.load(path, TINY)
    assert loaded is not None
    assert loaded.steps == hand_made().steps


def test_it_lies_where_weft_cache_says(directory: Path):
    assert cache.path_of("ab", TINY, "auto").is_relative_to(directory)


def test_file_hardware_options_and_compiler_decide_the_path(monkeypatch: pytest.MonkeyPatch):
    paths = {
        cache.path_of("ab", TINY, "auto"),
        cache.path_of("cd", TINY, "auto"),
        cache.path_of("ab", BASE, "auto"),
        cache.path_of("ab", replace(TINY, bus_bytes=16), "auto"),
        cache.path_of("ab", TINY, "cpu"),
    }
    monkeypatch.setattr(cache, "sources_hash", lambda *rooms: "an edited compiler")
    paths.add(cache.path_of("ab", TINY, "auto"))
    assert len(paths) == 6


def test_a_damaged_entry_is_removed_and_made_again():
    path = cache.path_of("ab", TINY, "auto")
    cache.store(path, hand_made(), {})
    path.write_bytes(path.read_bytes()[:-100])
    assert cache.load(path, TINY) is None
    assert not path.exists()


def test_an_entry_for_other_hardware_is_not_used():
    path = cache.path_of("ab", BASE, "auto")
    cache.store(path, hand_made(), {})
    assert cache.load(path, BASE) is None


def test_a_cache_that_cannot_be_written_is_no_error(directory: Path):
    directory.write_text("a file where the folder should be")
    path = cache.path_of("ab", TINY, "auto")
    cache.store(path, hand_made(), {})
    assert cache.load(path, TINY) is None
