"""A flight recorder: the tags of the last seconds in memory, written as a trace when asked.

The ring costs one to two microseconds a tag and never grows. It knows host times alone: no profiler
runs, so there are no operators, kernels or memory, and on a GPU a tag lasts as long as launching
its work.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import get_ident
from typing import IO, Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt

from glassworld.files import replacing
from glassworld.profiling.metadata import METADATA_KEY, metadata

Item = TypeVar("Item")

MODE = "flight"
"""The `profile_mode` of such a trace, beside those of a capture."""

TAGS_PER_SECOND = 4096
"""Rows of the ring for each of its seconds; with more tags it reaches back less far."""

MAX_NAMES = 4096
"""Names that the ring tells apart; later ones are all called `OTHER`."""

OTHER = "Other_Tags"

_NUMBERS = 3  # in a tag's name, at most; a name with more is stored formatted
_ROW = np.dtype(
    [
        ("name", "<i8"),
        ("begin", "<f8"),
        ("end", "<f8"),
        ("thread", "<u8"),
        ("numbers", "<i8", _NUMBERS),
    ]
)
_PACKERS = [struct.Struct(f"<qddQ{n}q{8 * (_NUMBERS - n)}x") for n in range(_NUMBERS + 1)]

_PORTION, _PAUSE_SECONDS = 64, 0.001
"""Tags written at a time, and the pause after them: Python's lock is never held for long."""


class TagInterval(NamedTuple):
    """When a tag was open, in nanoseconds of `perf_counter`, and the thread that ran it."""

    name: str
    begin_ns: int
    end_ns: int
    thread: int


class Mark(NamedTuple):
    """Something beside the tags that a recording shows, in seconds of `perf_counter`.

    `row` is the name of the line that viewers draw it on.
    """

    name: str
    begin: float
    end: float
    row: str
    facts: Mapping[str, Any]


class TagRing:
    """A tag listener that keeps the tags of the last `seconds`, of all threads.

    Any thread may call any method. Each tag is one row of a fixed buffer: writing it is a single
    call into C, which Python's lock makes atomic, so no row is ever read half written.
    """

    def __init__(self, seconds: float, rows: int | None = None) -> None:
        self.seconds = seconds
        self.rows = max(2, round(seconds * TAGS_PER_SECOND) if rows is None else rows)
        self._buffer = bytearray(self.rows * _ROW.itemsize)
        self._positions = itertools.count()  # `next` is atomic
        self._names: list[tuple[str, tuple[str, ...]]] = [(OTHER, ())]
        self._ids: dict[tuple[str, ...], int] = {}
        self._naming = threading.Lock()

    def __call__(self, pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        """Keep a tag that has closed."""
        name = self._ids.get((pattern, *fields))
        if name is None:
            name = self._new_name(pattern, tuple(fields))
        offset = next(self._positions) % self.rows * _ROW.itemsize
        try:
            _PACKERS[len(fields)].pack_into(
                self._buffer, offset, name, start, end, get_ident(), *fields.values()
            )
        except (struct.error, IndexError):  # a field that is no integer, or too many of them
            formatted = pattern.format(**fields)
            name = self._ids.get((formatted,))
            if name is None:
                name = self._new_name(formatted, ())
            _PACKERS[0].pack_into(self._buffer, offset, name, start, end, get_ident())

    def _new_name(self, pattern: str, fields: tuple[str, ...]) -> int:
        with self._naming:
            key = (pattern, *fields)
            if key not in self._ids:
                if len(self._names) >= MAX_NAMES:
                    return 0
                self._names.append((pattern, fields))
                self._ids[key] = len(self._names) - 1
            return self._ids[key]

    def intervals(self, until: float) -> Iterator[list[TagInterval]]:
        """Yield the tags that lie within the last `seconds` before `until`, sorted by begin.

        They come in portions. A tag comes with all tags inside it, or not at all.
        """
        rows = self._kept(until)
        for first in range(0, len(rows), _PORTION):
            yield [self._interval(*row) for row in rows[first : first + _PORTION].tolist()]

    def _interval(
        self, name: int, begin: float, end: float, thread: int, numbers: list[int]
    ) -> TagInterval:
        pattern, fields = self._names[name]
        text = pattern.format(**dict(zip(fields, numbers, strict=False))) if fields else pattern
        return TagInterval(text, round(begin * 1e9), round(end * 1e9), thread)

    def _kept(self, until: float) -> npt.NDArray[Any]:
        position = next(self._positions)
        slot = position % self.rows
        _PACKERS[0].pack_into(self._buffer, slot * _ROW.itemsize, 0, -1.0, -1.0, 0)  # ours: none
        rows = np.frombuffer(bytes(self._buffer), _ROW)
        since = until - self.seconds
        if position >= self.rows:  # overwritten: what ended before the oldest that is left
            since = max(since, float(rows["end"][(slot + 1) % self.rows]))
        rows = rows[(rows["begin"] >= max(since, 0.0)) & (rows["end"] <= until) & (rows["end"] > 0)]
        return rows[np.lexsort((-rows["end"], rows["begin"]))]


def write_flight_recording(
    path: Path,
    ring: TagRing,
    until: float,
    marks: Sequence[Mark],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write the tags before `until` (`perf_counter` seconds) as a Chrome trace, gzipped for `.gz`.

    `config` describes the run as for a capture; `facts` are JSON values about the recording. The
    file appears whole or not at all, with the errors of `files.replacing`. Other threads run
    meanwhile: the work is done in small portions with pauses between them.
    """
    tags = list(itertools.chain.from_iterable(_paced(ring.intervals(until))))
    begins = [*(tag.begin_ns for tag in tags[:1]), *(round(mark.begin * 1e9) for mark in marks)]
    origin = min(begins, default=0)
    wall_ns = time.time_ns() - time.perf_counter_ns()
    described = metadata(MODE, config) | {
        "flight_recorder": {
            "seconds": ring.seconds,
            "covered_seconds": _covered_seconds(tags),
            **facts,
        }
    }
    head = {
        METADATA_KEY: described,
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": wall_ns + origin,
    }
    events = itertools.chain(_tag_events(tags, origin), _mark_events(marks, origin))
    with replacing(path) as partial, _opened(partial) as file:
        file.write(json.dumps(head).encode()[:-1] + b',"traceEvents":[')
        separator = b""
        for portion in _paced(_portions(events)):
            file.write(separator + msgspec.json.encode(portion)[1:-1])
            separator = b",\n"
        file.write(b"]}")


def _covered_seconds(tags: Sequence[TagInterval]) -> float:
    return (max(tag.end_ns for tag in tags) - tags[0].begin_ns) / 1e9 if tags else 0.0


def _paced(portions: Iterable[list[Item]]) -> Iterator[list[Item]]:
    """Yield `portions`, with pauses in which other threads have Python's lock."""
    for portion in portions:
        yield portion
        time.sleep(_PAUSE_SECONDS)


def _portions(events: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while portion := list(itertools.islice(events, _PORTION)):
        yield portion


def _opened(path: Path) -> IO[bytes]:
    compressed = path.suffix == ".gz"
    return cast("IO[bytes]", gzip.open(path, "wb", 6)) if compressed else path.open("wb")


def _tag_events(tags: Sequence[TagInterval], origin: int) -> Iterator[dict[str, Any]]:
    """Yield the tags as user annotations, and the names of their threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    rows: dict[int, int] = {}
    for tag in tags:
        row = rows.setdefault(tag.thread, len(rows) + 1)
        yield _span(tag.name, "user_annotation", tag.begin_ns - origin, tag.end_ns - origin, row)
    for thread, row in rows.items():
        yield _row_name(row, names.get(thread, f"thread {thread}"))


def _mark_events(marks: Sequence[Mark], origin: int) -> Iterator[dict[str, Any]]:
    """Yield the marks, below the threads; readers of tags leave this category out."""
    rows: dict[str, int] = {}
    for mark in marks:
        row = rows.setdefault(mark.row, 10_001 + len(rows))
        begin, end = round(mark.begin * 1e9) - origin, round(mark.end * 1e9) - origin
        yield _span(mark.name, "live_play", begin, end, row) | {"args": mark.facts}
    for name, row in rows.items():
        yield _row_name(row, name)


def _span(name: str, category: str, begin_ns: int, end_ns: int, row: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": os.getpid(),
        "tid": row,
        "ts": msgspec.Raw(_microseconds(begin_ns)),
        "dur": msgspec.Raw(_microseconds(end_ns - begin_ns)),
    }


def _microseconds(nanoseconds: int) -> bytes:
    """Return nanoseconds as microseconds with all digits, which a float might not keep."""
    return b"%d.%03d" % divmod(nanoseconds, 1000)


def _row_name(row: int, name: str) -> dict[str, Any]:
    facts = {"name": name}
    return {"ph": "M", "name": "thread_name", "pid": os.getpid(), "tid": row, "args": facts}
