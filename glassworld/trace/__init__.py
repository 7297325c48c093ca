"""Reads any torch trace and answers: where did the time go, and what to do about it.

Needs no torch. `analyze(path)` gives typed results; `glassworld trace` is the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from glassworld.trace.reading.reader import Progress
    from glassworld.trace.timeline.analysis import Analysis

__all__ = ["analyze"]


def analyze(
    path: str | Path, progress: Progress | None = None, tags_only: bool = False
) -> Analysis:
    """Read the trace at `path` and attribute its time; see `glassworld.trace.timeline.analysis`."""
    from glassworld.trace.timeline.analysis import analyze as run

    return run(path, progress, tags_only)
