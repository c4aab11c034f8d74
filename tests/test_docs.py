"""The code in the documents runs and prints what stands below it; links and commands exist."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from tests.shared import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_prints_what_the_page_says(
    page, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": "__main__"}
    for code, expected in BLOCK.findall(page.read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page.name, "exec", dont_inherit=True), names)
        assert printed.getvalue() == expected


def test_the_life_of_a_tensor_has_code():
    assert len(BLOCK.findall((ROOT / "docs" / "design.md").read_text())) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in LINK.findall(prose):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_a_page_names_exists(page):
    rooms = r"(?:isa|hw|sim|compiler|runtime|tests|examples|benchmarks)"
    for name in re.findall(rf"`({rooms}/[\w/.]+?)`", page.read_text()):
        path = ROOT / name
        assert path.exists() or path.with_suffix(".py").exists(), name
