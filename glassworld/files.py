"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glassworld.errors import InputError

ANOTHER = "choose another output folder"

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")
"""Names of `draft_of`."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(InputError):
    """A disk, or a user's share of it, has no room for a file."""


def disk_is_full(error: BaseException) -> bool:
    """Return whether an exception means that a disk has no room.

    Libraries written in Rust, such as safetensors, say so in the text of errors of their own.
    """
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, DiskFullError) or any(
        f"(os error {number})" in str(error) for number in _FULL
    )


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raise `DiskFullError`, naming `path`, for an error that means that the disk has no room."""
    try:
        yield
    except Exception as error:
        if disk_is_full(error) and not isinstance(error, DiskFullError):
            raise DiskFullError(
                f"{path}: cannot be written: the disk is full; free some space or {ANOTHER}"
            ) from error
        raise


@contextmanager
def usual_permissions(path: Path) -> Iterator[None]:
    """Give a file that is written meanwhile the permissions of any new file of this user.

    Some libraries, such as safetensors, let their user alone read what they write.
    """
    path.touch()
    permissions = path.stat().st_mode
    yield
    path.chmod(permissions)


def draft_of(path: Path) -> Path:
    """Return an unused path beside a file or folder, to write it at first."""
    return path.with_name(f".{path.stem}.{_unused()}{path.suffix}")


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left below `folder` of files that they were writing."""
    for path in list(folder.rglob(".*")):
        if not _DRAFT.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; it becomes `path` at the end.

    A file at `path` stays until then; after an exception nothing is left behind. Raises
    `DiskFullError` if the disk has no room, and `InputError` if the file cannot be written.
    """
    temporary = draft_of(path)
    try:
        with naming_full_disk(path):
            with usual_permissions(temporary):
                yield temporary
            temporary.replace(path)
    except OSError as error:
        if error.filename and Path(error.filename) == temporary:
            raise InputError(
                f"{path}: cannot be written: {error.strerror}; name another file"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all, with the errors of `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_writable(folder: Path, advice: str = ANOTHER) -> None:
    """Raise `InputError` if nothing can be written into a folder, present or not.

    Nothing is created: for a missing folder, its nearest parent is tried. The error ends with
    `advice`.
    """
    with _refused(folder, advice):
        folder = folder.absolute()
        parents = (path for path in (folder, *folder.parents) if path.exists())
        nearest = next(parents, folder)  # none exists on a drive that Windows does not have
        probe = nearest / f".writable.{_unused()}"
        probe.touch()
        probe.unlink()


def writable_folder(folder: Path, advice: str = ANOTHER) -> Path:
    """Create `folder` if it is missing and return it; `InputError` if it is not writable."""
    check_writable(folder, advice)
    with _refused(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unused() -> str:
    """Return a part of a name that nobody else uses: containers have processes of equal numbers."""
    return secrets.token_hex(4)


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
