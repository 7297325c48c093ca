"""Write a trace as Perfetto's protocol buffers: a track per level of tags, and counters.

Every thread has one track per depth of its tags, operators, Python functions and launch calls, so
slices of a track never overlap; every stream of a GPU has one. Counters show the allocated memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from glassworld.files import replacing
from glassworld.trace.reading.columns import COPY, FILL, EventTable, Trace
from glassworld.trace.reading.track_events import MEMORY_COUNTER
from glassworld.trace.reading.wire import encode_field
from glassworld.trace.timeline.intervals import nest_intervals
from glassworld.trace.timeline.memory import Owner, by_owner
from glassworld.trace.writing.lanes import lane_of

Rows = npt.NDArray[np.void]

_SEQUENCE, _STATE_CLEARED = 1, 1
_CATEGORIES = (
    "user_annotation",
    "cpu_op",
    "python_function",
    "cuda_runtime",
    "kernel",
    "gpu_memcpy",
    "gpu_memset",
)
_ANNOTATIONS = ("correlation", "stream", "device", "bytes")
_BYTES_UNIT = 3  # CounterDescriptor.Unit


def write_perfetto(path: Path, trace: Trace) -> None:
    """Write all events of a trace to `path`; the file appears whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        writer = _PacketWriter(file, trace.names)
        tags, ops, python, calls = (0, 1, 2, 3)
        for title, category, table in (
            ("Tags", tags, trace.tag_rows),
            ("Operators", ops, trace.ops),
            ("Python", python, trace.python),
            ("Launch calls", calls, trace.launch_rows),
        ):
            _write_host(writer, trace, title, category, table)
        _write_device(writer, trace)
        _write_memory(writer, trace)


def _write_host(
    writer: _PacketWriter, trace: Trace, title: str, category: int, table: EventTable
) -> None:
    rows = table.to_array()
    level = np.empty(len(rows), [("thread", "<i4"), ("depth", "<i4")])
    level["thread"], level["depth"] = rows["thread"], nest_intervals(rows).depth
    lanes = lane_of(rows, level)
    for lane, ((thread, depth), number) in enumerate(lanes.names):
        parent = writer.thread_track(thread, trace.threads[thread])
        beside = f" ({number + 1})" if number else ""
        name = f"{title}, level {depth}{beside}" if title == "Tags" or depth else title + beside
        track = writer.track(name, parent)
        on_lane = rows[lanes.of == lane]
        for row in on_lane[np.argsort(on_lane["start"], kind="stable")].tolist():
            writer.write_slice(track, category, row[0], row[2], row[3], (*row[4:5],))


def _write_device(writer: _PacketWriter, trace: Trace) -> None:
    ops = trace.device_ops
    streams = trace.streams(ops)
    lanes = lane_of(ops, streams)
    is_merged = len(np.unique(streams[["device", "stream"]])) < len(np.unique(streams))
    processes = list(dict.fromkeys(str(pid) for pid, _ in trace.threads))
    categories = np.full(len(ops), _CATEGORIES.index("kernel"))
    for kind, name in ((COPY, "gpu_memcpy"), (FILL, "gpu_memset")):
        categories[ops["kind"] == kind] = _CATEGORIES.index(name)
    fields = ["name", "start", "dur", "correlation", "stream", "device", "bytes"]
    for lane, ((process, device, stream), number) in enumerate(lanes.names):
        beside = f" ({number + 1})" if number else ""
        parent = writer.process_track(processes[process]) if is_merged else 0
        track = writer.track(f"GPU {device}, stream {stream}{beside}", parent)
        mine = np.flatnonzero(lanes.of == lane)
        mine = mine[np.argsort(ops["start"][mine], kind="stable")]
        for category, row in zip(
            categories[mine].tolist(), ops[mine][fields].tolist(), strict=True
        ):
            writer.write_slice(track, category, row[0], row[1], row[2], row[3:])


def _write_memory(writer: _PacketWriter, trace: Trace) -> None:
    """Write a counter for each device, and for each process where several have a record."""
    unit = encode_field(8, encode_field(3, _BYTES_UNIT))
    recording = {thread for rows in trace.memory.slices() for thread in np.unique(rows["thread"])}
    is_merged = len({trace.threads[thread][0] for thread in recording}) > 1
    tracks: dict[Owner, int] = {}
    for rows in trace.memory.in_time():
        for owner, own_rows in by_owner(trace, rows):
            if owner not in tracks:
                thread = int(own_rows["thread"][0])
                parent = writer.thread_track(thread, trace.threads[thread]) if is_merged else 0
                tracks[owner] = writer.track(f"{MEMORY_COUNTER}{owner[0]}", parent, unit)
                if own_rows["change"][0]:
                    before = int(own_rows["total"][0] - own_rows["change"][0])
                    writer.write_counter(tracks[owner], int(own_rows["at"][0]), before)
            for at, total in own_rows[["at", "total"]].tolist():
                writer.write_counter(tracks[owner], at, total)


class _PacketWriter:
    """Writes packets of one sequence, with every text once."""

    def __init__(self, file: BinaryIO, names: list[str]) -> None:
        self._file = file
        self._names = names
        self._written: set[int] = set()
        self._threads: dict[int, int] = {}
        self._processes: dict[Any, int] = {}
        self._process_tracks: dict[str, int] = {}
        self._tracks = 0
        interned = b"".join(_interned(1, i, name) for i, name in enumerate(_CATEGORIES)) + b"".join(
            _interned(3, i, name) for i, name in enumerate(_ANNOTATIONS)
        )
        self._packet(encode_field(12, interned) + encode_field(13, _STATE_CLEARED))

    def _packet(self, fields: bytes) -> None:
        self._file.write(encode_field(1, fields + encode_field(10, _SEQUENCE)))

    def track(self, name: str, parent: int, more: bytes = b"") -> int:
        """Describe a track and return its number."""
        self._tracks += 1
        above = encode_field(5, parent) if parent else b""
        described = encode_field(1, self._tracks) + encode_field(2, name) + above + more
        self._packet(encode_field(60, described))
        return self._tracks

    def thread_track(self, thread: int, identity: tuple[Any, Any]) -> int:
        """Return the track of a thread, described once."""
        if thread not in self._threads:
            process = self._processes.setdefault(identity[0], len(self._processes))
            pid, tid = _small(identity[0], process), _small(identity[1], thread)
            described = encode_field(4, encode_field(1, pid) + encode_field(2, tid))
            name = f"Process {identity[0]}, thread {identity[1]}"
            self._threads[thread] = self.track(name, 0, described)
        return self._threads[thread]

    def process_track(self, process: str) -> int:
        """Return the track of a process that has operations of its own, described once."""
        if process not in self._process_tracks:
            name, pid = f"Process {process}", 2_000_000_000 + len(self._process_tracks)
            described = encode_field(3, encode_field(1, pid) + encode_field(6, name))
            self._process_tracks[process] = self.track(name, 0, described)
        return self._process_tracks[process]

    def write_slice(
        self, track: int, category: int, name: int, start: int, dur: int, args: tuple[int, ...]
    ) -> None:
        """Write where a slice begins and ends; `args` are the first of `_ANNOTATIONS`."""
        annotations = b"".join(
            encode_field(4, encode_field(1, i) + encode_field(4, value))
            for i, value in enumerate(args, 1)
            if value >= 0
        )
        event = encode_field(9, 1) + encode_field(11, track) + encode_field(10, name + 1)
        event += encode_field(3, category + 1) + annotations
        text = b""
        if name not in self._written:
            self._written.add(name)
            text = encode_field(12, _interned(2, name, self._names[name]))
        self._packet(encode_field(8, start) + text + encode_field(11, event))
        ended = encode_field(9, 2) + encode_field(11, track)
        self._packet(encode_field(8, start + dur) + encode_field(11, ended))

    def write_counter(self, track: int, at: int, value: int) -> None:
        """Write the value of a counter at a time."""
        event = encode_field(9, 4) + encode_field(11, track) + encode_field(30, value)
        self._packet(encode_field(8, at) + encode_field(11, event))


def _interned(field: int, number: int, text: str) -> bytes:
    """Return a text that packets name by its number, from 1."""
    return encode_field(field, encode_field(1, number + 1) + encode_field(2, text))


def _small(part: Any, position: int) -> int:
    """Return a process or thread id; for one that is no number, a number of its own."""
    return part if isinstance(part, int) and 0 <= part < 2**31 else 1_000_000_000 + position
