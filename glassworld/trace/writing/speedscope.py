"""Write a trace for speedscope: one profile per CPU thread and per stream of a GPU.

The format is documented at https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glassworld.files import replacing
from glassworld.trace.reading.columns import Ints, Trace
from glassworld.trace.timeline.intervals import IntervalForest
from glassworld.trace.writing.host_ranges import HostRanges, host_ranges
from glassworld.trace.writing.lanes import lane_of

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write_speedscope(path: Path, trace: Trace) -> None:
    """Write the trace to `path`; times are nanoseconds from its first event."""
    encode = msgspec.json.encode
    shared = {"frames": [{"name": name or "(no name)"} for name in trace.names]}
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(b'{"$schema":' + encode(_SCHEMA) + b',"exporter":"glassworld","name":')
        file.write(encode(Path(trace.path).name) + b',"shared":' + encode(shared))
        file.write(b',"profiles":[')
        for i, profile in enumerate(_profiles(trace)):
            file.write((b",\n" if i else b"") + encode(profile))
        file.write(b"]}")


def _profiles(trace: Trace) -> Iterator[dict[str, Any]]:
    host = host_ranges(trace)
    for thread in np.unique(host.rows["thread"]).tolist():
        pid, tid = trace.threads[thread]
        mine = np.flatnonzero(host.rows["thread"] == thread)
        yield _profile(f"CPU: process {pid}, thread {tid}", trace, _nested(host, mine))
    ops = trace.device_ops
    lanes = lane_of(ops, ops[["device", "stream"]])
    for lane, ((device, stream), number) in enumerate(lanes.names):
        mine = np.flatnonzero(lanes.of == lane)
        mine = mine[np.argsort(ops["start"][mine], kind="stable")]
        beside = f" ({number + 1})" if number else ""
        events = [
            moment
            for name, start, dur in ops[mine][["name", "start", "dur"]].tolist()
            for moment in ((name, start, True), (name, start + dur, False))
        ]
        yield _profile(f"GPU {device}, stream {stream}{beside}", trace, events)


def _profile(name: str, trace: Trace, moments: list[tuple[int, int, bool]]) -> dict[str, Any]:
    return {
        "type": "evented",
        "name": name,
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": trace.end - trace.start,
        "events": [
            {"type": "O" if opens else "C", "frame": frame, "at": at - trace.start}
            for frame, at, opens in moments
        ],
    }


def _nested(host: HostRanges, mine: Ints) -> list[tuple[int, int, bool]]:
    """Return where the ranges of a thread begin and end: frame, time, whether it begins.

    A range that outlasts the next one on its level is cut there.
    """
    forest: IntervalForest = host.forest
    order = mine[np.lexsort((forest.depth[mine], host.rows["start"][mine]))]
    moments: list[tuple[int, int, bool]] = []
    opened: list[tuple[int, int, int]] = []  # index, frame, end
    rows = zip(
        order.tolist(),
        host.rows["name"][order].tolist(),
        host.rows["start"][order].tolist(),
        forest.end[order].tolist(),
        forest.parent[order].tolist(),
        strict=True,
    )
    for i, frame, start, end, parent in rows:
        while opened and opened[-1][0] != parent:
            _, ended, at = opened.pop()
            moments.append((ended, min(at, start), False))
        moments.append((frame, start, True))
        opened.append((i, frame, end))
    moments += [(frame, end, False) for _, frame, end in reversed(opened)]
    return moments
