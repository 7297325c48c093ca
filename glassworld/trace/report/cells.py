"""What stands in the cells of tables: numbers, shares, and names that wrap at their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text

_WORD = re.compile(r"\s*\S+\s*")
_PIECE = re.compile(r"[^_:/,]*[_:/,]+|[^_:/,]+")


MOST_NAME = 500  # characters of a name in a cell; the longest of kernels have some more
TINY = 1e-4  # of milliseconds a tenth of a microsecond, which is what rounding leaves


def number(value: object) -> str:
    """Return a number with about four digits; a dash for None, 0 for what rounding leaves."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if abs(value) < TINY:
            return "0"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def percent(value: float | None) -> str:
    """Return a share as a percentage; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f}%"


def start_of(text: str, most: int) -> str:
    """Return the first characters of a long text, with dots for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def end_of(text: str, most: int) -> str:
    """Return the last characters of a long text, with dots for the rest."""
    return text if len(text) <= most else f"...{text[3 - most :]}"


@dataclass(frozen=True)
class Name:
    """A cell with the name of a tag, an operator, a kernel or a function."""

    text: str

    @property
    def shown(self) -> str:
        """The text, or the start of a very long one."""
        return start_of(self.text, MOST_NAME)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, len(self.shown))).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text("\n".join(wrapped(self.shown, options.max_width)))


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines: between words, and between the parts of words longer than a line."""
    lines = [""]
    for piece in _pieces(text, width):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(text: str, width: int) -> Iterator[str]:
    """Yield words, or the parts of words that no line can hold, cut to at most a line."""
    for word in _WORD.findall(text):
        fits = len(word.rstrip()) <= width
        for part in (word,) if fits else _PIECE.findall(word):
            for at in range(0, max(1, len(part.rstrip())), width):
                yield part[at : at + width] if len(part.rstrip()) > width else part
