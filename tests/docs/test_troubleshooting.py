"""Every error of the code is on the troubleshooting page, and the page has no others."""

from __future__ import annotations

import re

from docs.hooks.messages import error_messages
from tests.docs.test_messages import REASONS
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FILLED_IN = re.compile(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")


WORD = re.compile("[a-z]{2,}", re.IGNORECASE)
FEW_WORDS = 2
"""A message of so few words of its own wraps another, which the page has."""


def _normal(text: str) -> str:
    """Return a message with "..." for what is filled in."""
    return re.sub(r"(?:\.\.\.)+", "...", re.sub("`[^`]*`", "...", FILLED_IN.sub("...", text)))


def _covers(pattern: str, text: str) -> bool:
    """Return whether a text is what `pattern` says, with its "..." for any text."""
    parts = [re.escape(part) for part in pattern.split("...")]
    return re.fullmatch(".*".join(parts), text) is not None


def _matches(quoted: str, message: str) -> bool:
    """Return whether a quoted message is that of the code, whose helpers may fill in words too."""
    return _covers(quoted, message) or (not _wraps(message) and _covers(message, quoted))


def _wraps(message: str) -> bool:
    return len(WORD.findall(message)) <= FEW_WORDS


def quoted_messages() -> list[str]:
    """Return the messages in the first column of the page's tables."""
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [row.split(" | ")[0] for row in rows if row.startswith("| `")]
    return [message for cell in cells for message in re.findall("`([^`]+)`", cell)]


def test_quoted_messages_are_those_of_the_code() -> None:
    known = [_normal(each.text) for each in error_messages()]
    wrong = [
        quoted for quoted in quoted_messages() if not any(_matches(quoted, text) for text in known)
    ]
    assert not wrong, "\n".join(wrong)


def test_quoted_messages_have_words_to_search_for() -> None:
    assert not [quoted for quoted in quoted_messages() if _wraps(quoted)]


def test_every_error_has_its_cause_on_the_page() -> None:
    quoted = quoted_messages()
    missing = [
        f"{message.where}:{message.line}: {text}"
        for message in error_messages()
        if message.where not in REASONS and not _wraps(text := _normal(message.text))
        if not any(_matches(each, text) for each in quoted)
    ]
    assert not missing, "\n".join(missing)


def test_most_errors_are_found_in_the_sources() -> None:
    texts = [message.text for message in error_messages()]
    assert len(texts) > 200
    assert "save: the world decodes by a tiny decoder; load it without and save that" in texts
    assert any(text.startswith("gymnasium is not installed: pip install") for text in texts)
