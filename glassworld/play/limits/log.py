"""Limit how often the same line is logged, so that no client can fill the log."""

from __future__ import annotations

import logging
import time

LINES, SECONDS = 5, 10.0
"""How many lines of one kind are logged in how many seconds."""

LOGGERS = ("uvicorn.error", "asyncio", "glassworld.play")


class RepetitionFilter(logging.Filter):
    """Drop lines of a kind that repeats too often; the next one says how many were dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, int, str], _Repetition] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a line; lines from the same place in the code are one kind."""
        kind = (record.pathname, record.lineno, _cause(record))
        repetition = self._kinds.setdefault(kind, _Repetition())
        dropped = repetition.count(time.monotonic())
        if dropped is None:
            return False
        if dropped:
            text = record.getMessage().rstrip()
            record.msg, record.args = "%s (and %d more like this)", (text, dropped)
        return True


class _Repetition:
    """How often a kind of line has been logged."""

    def __init__(self) -> None:
        self._since, self._logged, self._dropped = float("-inf"), 0, 0

    def count(self, now: float) -> int | None:
        """Return how many lines were dropped before this one, or None to drop this one too."""
        if now - self._since > SECONDS:
            self._since, self._logged = now, 0
        if self._logged == LINES:
            self._dropped += 1
            return None
        self._logged += 1
        dropped, self._dropped = self._dropped, 0
        return dropped


def _cause(record: logging.LogRecord) -> str:
    """Return the type of the exception that a line reports, if it reports one."""
    kind = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
    return "" if kind is None else kind.__name__


_filter = RepetitionFilter()


def limit_log() -> None:
    """Limit the lines of the server, of asyncio and of live play."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)
