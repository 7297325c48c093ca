"""Long names in narrow columns: broken where their words end, not in the middle of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text

_WORD = re.compile(r"\s*\S+\s*")
_PIECE = re.compile(r"[^_:/,]*[_:/,]+|[^_:/,]+")


@dataclass(frozen=True)
class Name:
    """A cell with a name in it, that of a tag, an operator, a kernel or a function."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, len(self.text))).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text("\n".join(wrapped(self.text, options.max_width)))


def wrapped(text: str, width: int) -> list[str]:
    """`text` in lines: broken between words, in words too long for a line between their parts."""
    lines = [""]
    for piece in _pieces(text, width):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(text: str, width: int) -> Iterator[str]:
    """What stays together: words, their parts in those that no line can hold, at most a line."""
    for word in _WORD.findall(text):
        fits = len(word.rstrip()) <= width
        for part in (word,) if fits else _PIECE.findall(word):
            for at in range(0, max(1, len(part.rstrip())), width):
                yield part[at : at + width] if len(part.rstrip()) > width else part
