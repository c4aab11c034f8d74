"""A disagreement as a test file that fails until it is mended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .session import Finding, Session

TEMPLATE = '''"""{title}

{text}
"""

from weft.sim.fuzz import Session, play

SESSION = """
{session}"""


def test_{name}_does_the_same_everywhere():
    finding = play(Session.from_toml(SESSION), {on})
    assert finding is None, str(finding)
'''


def write_test(
    folder: Path, name: str, session: Session, finding: Finding, on: Sequence[str]
) -> Path:
    """Write ``test_NAME.py``, which needs nothing but Weft and pytest; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"test_{name}.py"
    path.write_text(
        TEMPLATE.format(
            title=f"Found by ``weft fuzz``: {finding.executor} against {finding.oracle}.",
            text=finding.text[:1].upper() + finding.text[1:] + ".",
            session=session.to_toml().replace('"""', "'''"),
            name=name,
            on=tuple(on),
        )
    )
    return path
