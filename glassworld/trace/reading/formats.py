"""Recognize the format of a trace file by its content, whatever its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glassworld.errors import TraceError
from glassworld.trace.reading.event_source import TraceSource
from glassworld.trace.reading.events import EventStream
from glassworld.trace.reading.memory_snapshot import SnapshotEvents, is_pickle
from glassworld.trace.reading.nsight import NsightEvents, is_sqlite
from glassworld.trace.reading.rocprof import RocprofEvents, is_rocprof
from glassworld.trace.reading.source import TraceFile
from glassworld.trace.reading.tag_scanner import TagStream
from glassworld.trace.reading.track_events import PerfettoEvents, is_perfetto
from glassworld.trace.reading.xplane import XPlaneEvents, is_xplane


@dataclass(frozen=True)
class Format:
    """A format of trace files.

    `recognizes` looks at the first piece of a file, decompressed. `open` takes the file and
    whether to read the tags alone.
    """

    name: str
    recognizes: Callable[[bytes], bool]
    open: Callable[[TraceFile, bool], TraceSource]


def _torch_events(source: TraceFile, tags_only: bool) -> TraceSource:
    return TagStream(source) if tags_only else EventStream(source)


TORCH = Format("JSON of torch.profiler or JAX", lambda start: True, _torch_events)
"""What a file is read as that no other format claims; its reader says what it expected."""

FORMATS = (
    Format("SQLite of Nsight Systems", is_sqlite, NsightEvents),
    Format("JSON of rocprofv3", is_rocprof, RocprofEvents),
    Format("XPlane of JAX and XLA", is_xplane, XPlaneEvents),
    Format("protocol buffers of Perfetto", is_perfetto, PerfettoEvents),
    Format("pickled memory snapshot of torch", is_pickle, SnapshotEvents),
    TORCH,
)
"""All formats, in the order in which they are tried."""

_NSIGHT_REPORTS = (".nsys-rep", ".qdrep")
_MEMORY_TIMELINE = re.compile(rb"\s*\[\s*\[\s*\d")  # a list of times, or of changes
_EXECUTION_TRACE = re.compile(rb'\s*\{\s*"schema"\s*:\s*"[^"]*"\s*,\s*"pid"')
_JSON = (b"{", b"[")  # what is read although it is named like such a report, as SQLite is


def open_trace(path: Path, tags_only: bool = False) -> TraceSource:
    """Return the events of the trace at `path`, whatever its format.

    Raises `TraceError` if the file cannot be read.
    """
    source = TraceFile(path)
    start = source.peek()
    if path.suffix in _NSIGHT_REPORTS and not (is_sqlite(start) or start.lstrip()[:1] in _JSON):
        raise TraceError(
            f"{path}: a report of Nsight Systems, which only nsys reads; export it with: "
            f"nsys export --type sqlite {path.name}"
        )
    if _MEMORY_TIMELINE.match(start):
        raise TraceError(
            f"{path}: a memory timeline of torch, which has no events; record with torch.profiler "
            "and profile_memory=True, and write the trace with export_chrome_trace"
        )
    if _EXECUTION_TRACE.match(start):
        raise TraceError(
            f"{path}: a graph of torch's ExecutionTraceObserver, which has no times; record with "
            "torch.profiler, and write the trace with export_chrome_trace"
        )
    return next(f for f in FORMATS if f.recognizes(start)).open(source, tags_only)
