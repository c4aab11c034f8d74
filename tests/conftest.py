"""What all tests share: options, the fixture ``golden_text``, hypothesis' profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from weft.sim import library, verilate

# How long something takes on a busy machine is not what these tests are about.
settings.register_profile("weft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weft")
# Tests build many machines and simulate little on each: optimizing takes longer than it saves.
verilate.MODEL_FLAGS = ("-O1",)
library.TRAINED_LANES = 1 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the tests print over their golden texts, to be reviewed as code is",
    )
    parser.addoption("--deep", action="store_true", help="also what takes minutes: make prove")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--deep"):
        skip = pytest.mark.skip(reason="takes minutes: --deep")
        for item in items:
            if item.get_closest_marker("deep"):
                item.add_marker(skip)


@pytest.fixture
def golden_text(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the file of that name in ``golden/`` beside the test."""
    folder = Path(str(request.path)).parent / "golden"

    def check(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing; pytest --update-golden writes it"
        assert text == path.read_text()

    return check
