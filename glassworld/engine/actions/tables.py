"""Tables of numbers as spreadsheets and other programs write them: CSV in all its dialects."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection
from pathlib import Path

from glassworld.errors import ActionError
from glassworld.file_signatures import HEAD_BYTES, describe_content

DELIMITERS = ",;\t"
"""What spreadsheets put between cells: the comma, or where it is the decimal point, others."""

TRUTH = {"true": "1", "false": "0"}

MOST_DIGITS = 20
"""No index has numbers this long, and Python reads none that are much longer."""

MINUS = "\u2212"
"""The minus sign that some locales write instead of the hyphen."""

ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the next one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks of what spreadsheets call Unicode; without one, a text is UTF-8."""

Rows = list[list[str]]


def read_unicode(path: Path) -> str:
    """Return a file's text in any Unicode encoding.

    Raises `ActionError` if the file is missing, is no text, or holds text of another encoding.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ActionError(f"{path}: no such action file; name one that is there") from None
    except OSError as error:
        raise ActionError(f"{path!s:.200}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # no name of a file
        raise ActionError(f"{path!s:.200}: cannot be read ({error})") from None
    kind = describe_content(content[:HEAD_BYTES]) if content else None
    if kind is not None:
        raise ActionError(f"{path}: is {kind}, not a file of actions; name another")
    named = next((name for mark, name in ENCODINGS if content.startswith(mark)), None)
    encoding = named or _unmarked_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ActionError(
            f"{path}: cannot be read as text: byte {error.start} is not UTF-8; save it as UTF-8"
        ) from None


def _unmarked_encoding(content: bytes) -> str:
    """Return the encoding of a text without a byte-order mark that begins with a plain letter."""
    if content[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" else "utf-8-sig"


def parse_table(text: str, known: Collection[str]) -> tuple[list[str], Rows]:
    """Return the column names and the cells under them, numbers as Python writes them.

    Read are commas, semicolons or tabs between cells, decimal commas, TRUE and FALSE, comments
    after a "#" that begins a line, and a "sep=" line. Columns without a name and an index in front
    are left out; `known` are the names of which none is an index. An empty text has no names.
    Raises `ActionError` for what is no table.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and lines[0].strip().strip('"').lower().startswith("sep="):  # a spreadsheet's note
        lines = lines[1:]
    delimiter = max(DELIMITERS, key=lines[0].count) if lines else ","
    try:
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        table = [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    except csv.Error as error:
        raise ActionError(
            f"not a table of numbers: {error}; write one row per pixel frame"
        ) from None
    if not table:
        return [], []
    names, *cells = _without_unnamed(table)
    names = [column_name(name) for name in names]
    if _has_index(names, cells, known):
        names, cells = names[1:], [row[1:] for row in cells]
    return names, [[_number(cell) for cell in row] for row in cells]


def column_name(name: str) -> str:
    """Return a column's name as the modes write it: "Mouse Vertical" as "mouse_vertical"."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _without_unnamed(table: Rows) -> Rows:
    """Leave out an index without a name in front, and empty cells behind the last name."""
    names = table[0]
    start = int(len(names) > 1 and (not names[0] or names[0].lower().startswith("unnamed:")))
    end = len(names)
    while end > start + 1 and not names[end - 1]:
        end -= 1
    return [row[start:end] + [cell for cell in row[end:] if cell] for row in table]


def _has_index(names: list[str], cells: Rows, known: Collection[str]) -> bool:
    """Return whether the first column counts the rows under a name of its own, such as "frame"."""
    if len(names) < 2 or names[0] in known or not all(name in known for name in names[1:]):
        return False
    counts = [row[0] for row in cells if row]
    if not all(count.isdecimal() and len(count) < MOST_DIGITS for count in counts):
        return False
    return bool(counts) and all(
        int(count) == int(counts[0]) + row for row, count in enumerate(counts)
    )


def _number(cell: str) -> str:
    """Return a cell as Python writes it: a decimal comma as a point, true as 1."""
    return TRUTH.get(cell.lower(), cell.replace(",", ".").replace(MINUS, "-"))
