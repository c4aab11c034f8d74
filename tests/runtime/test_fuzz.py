"""``weft fuzz`` where no terminal shows a bar."""

from __future__ import annotations

from weft.runtime.commands.fuzz import EVERY, Log
from weft.sim.fuzz import Report


def test_a_log_has_a_line_a_minute(capsys):
    log, report = Log(), Report(seed=0, configs=[])
    for tenth in range(25):
        report.seconds, report.steps = tenth * EVERY / 10, 100 * tenth
        log.say(report)
    assert capsys.readouterr().err.splitlines() == [
        "60 s: 0 programs, 1000 steps, 0 found",
        "120 s: 0 programs, 2000 steps, 0 found",
    ]
