"""The README's Python blocks run as they stand, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from weft.__main__ import VERBS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_python_block_runs(block: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})


def test_the_blocks_were_found():
    assert len(BLOCKS) >= 2


def test_every_verb_that_the_readme_names_exists():
    named = set(re.findall(r"bin/weft (\w+)", README))
    assert named
    assert named <= set(VERBS)


def test_every_file_that_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
