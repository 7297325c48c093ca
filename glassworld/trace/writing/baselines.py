"""Traces that are kept under a name, to compare later runs with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from glassworld.errors import InputError, TraceError
from glassworld.files import cache_folder, replacing, writable_folder
from glassworld.trace.reading.reader import read_trace

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def baselines_folder() -> Path:
    """Return the folder of the kept traces, one file for each name."""
    return cache_folder() / "baselines"


def keep_trace(name: str, trace: Path) -> Path:
    """Keep a copy of a trace under a name, in place of an earlier one; return its path.

    Raises `InputError` for a name that is no plain word, and `TraceError` for what is no trace.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name}: is no name of a baseline; use letters, digits, '-', '_' and '.'")
    read_trace(trace)
    kept = writable_folder(baselines_folder()) / name
    with replacing(kept) as partial:
        shutil.copyfile(trace, partial)
    return kept


def baseline_names() -> list[str]:
    """Return the names of all kept traces, sorted."""
    folder = baselines_folder()
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in files if _NAME.fullmatch(path.name))


def delete_baseline(name: str) -> None:
    """Delete the trace that is kept under a name; raise `InputError` if there is none."""
    if name not in baseline_names():
        raise InputError(
            f"{name}: no baseline of that name; run glassworld trace baseline list to see yours"
        )
    (baselines_folder() / name).unlink()


def trace_or_baseline(path: Path) -> Path:
    """Return the path of a trace, which may be the name of a baseline where no such file is.

    Raises `TraceError` if it is neither.
    """
    if path.exists():
        return path
    names = baseline_names()
    if str(path) in names:
        return baselines_folder() / path
    known = f"; baselines: {', '.join(names)}" if names else ""
    raise TraceError(f"{path}: no such trace, and no baseline of that name{known}; name one")
