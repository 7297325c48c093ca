"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glassworld.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix, that becomes `path` when all went well.

    Whatever was at `path` stays until then; after an exception nothing is left behind. A folder
    that cannot be written is an `InputError`.
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


def writable_folder(path: Path) -> Path:
    """`path`, made if it is not there; an `InputError` if nothing can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written to ({error.strerror}); choose another output folder"
        ) from error
    return path
