"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glassworld.errors import InputError

ANOTHER = "choose another output folder"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; it becomes `path` at the end.

    A file at `path` stays until then; after an exception nothing is left behind. A folder that
    cannot be written is an `InputError`.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename and Path(error.filename) == temporary:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path, advice: str = ANOTHER) -> None:
    """Raise `InputError` if nothing can be written into a folder, present or not.

    Nothing is created: for a missing folder, its nearest parent is tried. The error ends with
    `advice`.
    """
    with _refused(folder, advice):
        folder = folder.absolute()
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        probe = nearest / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()


def writable_folder(folder: Path, advice: str = ANOTHER) -> Path:
    """Create `folder` if it is missing and return it; `InputError` if it is not writable."""
    check_writable(folder, advice)
    with _refused(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_file(path: Path) -> None:
    """Raise `InputError` if no file can be written at `path`; nothing is created."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file to write")
    check_writable(path.parent)


def writable_file(path: Path) -> None:
    """Create the folder of a file to be written; `InputError` if the file cannot be written."""
    check_file(path)
    writable_folder(path.parent)


@contextmanager
def _refused(folder: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}); {advice}") from error


def cache_folder() -> Path:
    """Return the folder that keeps what this program compiled and measured for this user."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "glassworld"


def compiled_folder() -> Path:
    """Return the folder of compiled networks, one folder in it for each combination."""
    return cache_folder() / "compiled"
