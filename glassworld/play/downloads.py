"""Files that players may fetch, under names that nobody can guess."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

MOST_FILES = 48
"""The oldest go first."""


class Download(NamedTuple):
    """A file on the shelf."""

    path: Path
    name: str  # that it is saved under
    media_type: str


class DownloadStore:
    """A folder of its own, gone when the server is; what a client asks for is only looked up."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="glassworld-")
        self._items: dict[str, Download] = {}

    def place(self, name: str) -> Path:
        """A new path to write a file to, ending in `name`."""
        return Path(self._folder.name) / f"{secrets.token_hex(4)}-{name}"

    def put(self, path: Path, name: str, media_type: str) -> str:
        """Offer the file at `path`; the URL path it is offered under."""
        key = secrets.token_urlsafe(18)
        self._items[key] = Download(path, name, media_type)
        while len(self._items) > MOST_FILES:
            self._items.pop(next(iter(self._items))).path.unlink(missing_ok=True)
        return f"/files/{key}"

    def get(self, key: str) -> Download | None:
        return self._items.get(key)

    def close(self) -> None:
        self._items.clear()
        self._folder.cleanup()
