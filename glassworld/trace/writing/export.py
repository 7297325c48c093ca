"""Export a trace by the name of a format."""

from __future__ import annotations

from pathlib import Path

from glassworld.trace.reading.reader import read_trace
from glassworld.trace.timeline.merged import analyze_at_once
from glassworld.trace.writing.folded_stacks import write_folded
from glassworld.trace.writing.perfetto_packets import write_perfetto
from glassworld.trace.writing.speedscope import write_speedscope
from glassworld.trace.writing.tables import write_parquet


def export_trace(path: Path, output: Path, format_name: str) -> None:
    """Write the trace at `path` to `output`: `perfetto`, `speedscope`, `folded` or `parquet`.

    Raises `MissingExtraError` if a format needs a package that is not installed.
    """
    if format_name == "perfetto":
        write_perfetto(output, read_trace(path))
    elif format_name == "speedscope":
        write_speedscope(output, read_trace(path))
    elif format_name == "folded":
        write_folded(output, analyze_at_once(path))
    else:
        write_parquet(output, analyze_at_once(path))
