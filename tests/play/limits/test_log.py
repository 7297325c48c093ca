"""The log: lines that repeat are dropped and counted."""

from __future__ import annotations

import logging

import pytest

from glassworld.play.limits import log
from glassworld.play.limits.log import LINES, RepetitionFilter


def test_lines_that_repeat_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("test_log")
    logger.addFilter(RepetitionFilter())
    for number in range(LINES + 4):
        logger.warning("bad input %d", number)
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == [
        *[f"bad input {number}" for number in range(LINES)],
        "something else",
    ]
    monkeypatch.setattr(log, "SECONDS", -1.0)
    for number in range(2):
        logger.warning("now %d", number)
    assert len(caplog.records) == LINES + 3


def test_first_line_after_a_pause_says_how_many_were_dropped() -> None:
    repetition = log._Repetition()
    assert [repetition.count(1.0) for _ in range(LINES + 2)] == [0] * LINES + [None] * 2
    assert repetition.count(1.0 + log.SECONDS + 1) == 2
