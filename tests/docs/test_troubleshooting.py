"""The errors on the troubleshooting page are errors of the code."""

from __future__ import annotations

import re

from docs.hooks.messages import error_messages
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FILLED_IN = re.compile(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")


def _normal(text: str) -> str:
    """Return a message with "..." for what is filled in."""
    return re.sub(r"(?:\.\.\.)+", "...", FILLED_IN.sub("...", text))


def _covers(pattern: str, text: str) -> bool:
    """Return whether a text is what `pattern` says, with its "..." for any text."""
    parts = [re.escape(part) for part in pattern.split("...")]
    return re.fullmatch(".*".join(parts), text) is not None


def _matches(quoted: str, message: str) -> bool:
    """Return whether a quoted message is that of the code, whose helpers may fill in words too."""
    enough = len(re.findall("[a-z]{2,}", message, re.IGNORECASE)) > 2
    return _covers(quoted, message) or (enough and _covers(message, quoted))


def quoted_messages() -> list[str]:
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    return [row.split("`")[1] for row in rows if row.startswith("| `")]


def test_quoted_messages_are_those_of_the_code() -> None:
    known = [_normal(each.text) for each in error_messages()]
    wrong = [
        quoted for quoted in quoted_messages() if not any(_matches(quoted, text) for text in known)
    ]
    assert not wrong, "\n".join(wrong)
    assert len(quoted_messages()) > 40


def test_most_errors_are_found_in_the_sources() -> None:
    texts = [message.text for message in error_messages()]
    assert len(texts) > 200
    assert "save: the world decodes by a tiny decoder; load it without and save that" in texts
    assert any(text.startswith("gymnasium is not installed: pip install") for text in texts)
