"""The sentences of a Markdown page, for tests of how the docs read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

NOT_PROSE = {"docs/tags.md"}  # generated

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]*`")
_END = re.compile(r"(?<=[.?!:])\s+(?=[A-Z*(])|(?<=[.?!])$")


def pages() -> list[Path]:
    """Return the pages that a user reads in English, without the lab notebook's logs."""
    docs = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")]
    found = [ROOT / "README.md", *docs]
    return sorted(page for page in found if page.relative_to(ROOT).as_posix() not in NOT_PROSE)


def sentences(markdown: str) -> Iterator[str]:
    """Yield the sentences of paragraphs and lists; headings, tables and code are left out."""
    text = _LINK.sub(r"\1", _CODE.sub("Code", _FENCE.sub("", markdown)))
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        lines = [line.strip() for line in block.strip().splitlines()]
        if not lines or lines[0].startswith(("#", "|", "!", "::", "options", "    ", "*[")):
            continue
        paragraph = re.sub(r"^(?:[-*]|\d+\.) ", "", " ".join(lines))
        for sentence in _END.split(paragraph):
            if len(sentence.split()) > 2:
                yield sentence.strip()
