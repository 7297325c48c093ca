"""Export a trace by the name of a format."""

from __future__ import annotations

from pathlib import Path

from glassworld.trace.reading.columns import Trace
from glassworld.trace.reading.reader import read_trace
from glassworld.trace.timeline.merged import analyze_at_once
from glassworld.trace.writing.folded_stacks import write_folded
from glassworld.trace.writing.perfetto_packets import write_perfetto
from glassworld.trace.writing.speedscope import write_speedscope
from glassworld.trace.writing.tables import write_parquet


def export_trace(path: Path, output: Path, format_name: str) -> Trace:
    """Write a trace as `perfetto`, `speedscope`, `folded` or `parquet`, and return it.

    Raises `MissingExtraError` if a format needs a package that is not installed.
    """
    if format_name in ("perfetto", "speedscope"):
        trace = read_trace(path)
        (write_perfetto if format_name == "perfetto" else write_speedscope)(output, trace)
        return trace
    analysis = analyze_at_once(path)
    (write_folded if format_name == "folded" else write_parquet)(output, analysis)
    return analysis.trace
