"""The lock of an output folder: two runs at once would remove each other's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from glassworld.errors import InputError
from glassworld.files import ANOTHER

LOCK = ".lock"
"""The locked file. It stays in the folder: whoever removed it could remove another run's."""


@contextmanager
def locked(folder: Path, kind: str) -> Iterator[None]:
    """Hold the lock of a folder; raise `InputError` if another run holds it.

    `kind` says what writes there, such as "batch". The system releases the lock when the process
    ends, however that ends.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: another {kind} writes there; wait until it ends, or {ANOTHER}"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder / LOCK}: cannot be locked ({error.strerror}); check its owner, or {ANOTHER}"
        ) from error
    try:
        yield
    finally:
        lock.release()
