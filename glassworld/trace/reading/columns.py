"""Typed columns of a trace's events: small tables in memory, large ones spilling to disk."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from glassworld.errors import TraceError

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RANGE = np.dtype([("name", "<i4"), ("thread", "<i4"), ("start", "<i8"), ("dur", "<i8")])
"""A tag, operator or Python function on a CPU thread; nanoseconds of the trace's clock."""

SHAPED_OP = np.dtype([*RANGE.descr, ("inputs", "<i4")])
"""A call of one of `COUNTED_OPERATORS` with recorded inputs: an index into `Trace.inputs`."""

LAUNCH = np.dtype([*RANGE.descr, ("correlation", "<i8")])
"""A call of the GPU's runtime or driver."""

DEVICE_OP = np.dtype(
    [*LAUNCH.descr, ("stream", "<i4"), ("device", "<i4"), ("kind", "<i4"), ("bytes", "<i8")]
)
"""A kernel, copy or fill on a GPU; its `thread` is the stream's row in the trace."""

MEMORY = np.dtype(
    [("thread", "<i4"), ("device", "<i4"), ("at", "<i8"), ("total", "<i8"), ("change", "<i8")]
)
"""The allocator's total, in bytes, right after an allocation or a release; device -1 is the CPU.

`change` is what was allocated (negative: released); 0 where the trace lacks it.
"""

TOTAL_UNKNOWN = -(2**62)
"""The total of a `MEMORY` row of which only the change is known."""

EVERY_PROCESS = "(every process)"
"""The process of a `MEMORY` row of a format that does not tell whose memory it is."""

SYNC = np.dtype(
    [
        *(("start", "<i8"), ("dur", "<i8"), ("correlation", "<i8"), ("device", "<i4")),
        *(("stream", "<i4"), ("kind", "<i4"), ("awaited_stream", "<i4"), ("recorded_by", "<i8")),
    ]
)
"""A wait that torch records with `enable_cuda_sync_events`, made by the call `correlation`.

For an event, `recorded_by` is the correlation id of the call that recorded it on the stream
`awaited_stream`. A number that is not told is -1, and so is the kind of a row with another name.
"""

STREAM = np.dtype([("process", "<i4"), ("device", "<i4"), ("stream", "<i4")])
"""A GPU's stream: processes that were merged into one trace may have the same numbers."""

LABELED_OP = np.dtype(
    [("start", "<i8"), ("correlation", "<i8"), ("stream", "<i4"), ("label", "<i4")]
)
"""A GPU operation of a graph that `mark_kernels` of torch labeled, while the graph was captured."""

GRADIENT_END = np.dtype([("thread", "<i4"), ("start", "<i8"), ("id", "<i8"), ("is_backward", "?")])
"""One end of a link from an operator to its backward pass: the time at which either begins."""

STREAM_WAIT_EVENT, EVENT_SYNC, STREAM_SYNC, DEVICE_SYNC = range(4)

KERNEL, COPY, FILL, COLLECTIVE = range(4)

IN_MEMORY_ROWS = 1 << 17
SLICE_ROWS = 1 << 16


class EventTable:
    """Rows of one dtype in file order; beyond `limit` rows they spill to a temporary file.

    The table remembers which times each appended batch spans, so that it can read the rows of a
    time range alone.
    """

    def __init__(self, dtype: np.dtype[np.void], limit: int | None = None) -> None:
        self.dtype = dtype
        self._limit = IN_MEMORY_ROWS if limit is None else limit
        self._time = "at" if "at" in (dtype.names or ()) else "start"
        self._batches: list[tuple[int, int, int]] = []  # rows, earliest and latest time
        self._buffers: list[npt.NDArray[np.void]] = []
        self._in_memory = 0
        self._on_disk = 0
        self._file: IO[bytes] | None = None

    @classmethod
    def from_rows(cls, rows: npt.NDArray[np.void]) -> EventTable:
        """Return a table that holds these rows, in memory."""
        table = cls(rows.dtype, len(rows))
        table.append(rows)
        return table

    def __len__(self) -> int:
        return self._in_memory + self._on_disk

    def append(self, rows: npt.NDArray[np.void]) -> None:
        """Add rows at the end. Raises `TraceError` if the temporary file cannot be written."""
        if not len(rows):
            return
        times = rows[self._time]
        self._batches.append((len(rows), int(times.min()), int(times.max())))
        self._buffers.append(rows)
        self._in_memory += len(rows)
        if self._in_memory > self._limit:
            try:
                self._spill()
            except OSError as error:
                raise TraceError(
                    f"{tempfile.gettempdir()}: cannot store the tables of a large trace "
                    f"({error.strerror}); set TMPDIR to a folder with more space"
                ) from error

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="glassworld-trace-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        for rows in self._buffers:
            self._file.write(rows.tobytes())
        self._file.flush()
        self._on_disk += self._in_memory
        self._buffers, self._in_memory = [], 0

    def batches(self) -> list[tuple[int, int, int]]:
        """Return the number of rows, earliest and latest time of each appended batch."""
        return self._batches

    def slices(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield all rows in order, at most `SLICE_ROWS` at a time."""
        for at in range(0, len(self), SLICE_ROWS):
            yield self._read(at, min(SLICE_ROWS, len(self) - at))

    def named(self, names: Mask) -> npt.NDArray[np.void]:
        """Return the rows whose names are marked."""
        if not names.any():
            return np.empty(0, self.dtype)
        return np.concatenate(
            [np.empty(0, self.dtype), *(rows[names[rows["name"]]] for rows in self.slices())]
        )

    def to_array(self) -> npt.NDArray[np.void]:
        """Return all rows at once."""
        return self._read(0, len(self))

    def even_times(self, count: int) -> list[int]:
        """Return times that split the rows into about `count` equal parts, as batches allow."""
        batches = np.array(sorted(self._batches, key=lambda batch: batch[1])).reshape(-1, 3)
        rows = np.cumsum(batches[:, 0])
        if not len(rows):
            return []
        at = np.searchsorted(rows, rows[-1] * np.arange(1, count) / count)
        return sorted(set(batches[at, 1].tolist()))

    def in_time(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield all rows sorted by time, about `SLICE_ROWS` of them at once."""
        times = self.even_times(-(-len(self) // SLICE_ROWS))
        for start, end in pairwise([-(2**62), *times, 2**62]):
            rows = self.between(start, end)
            if len(rows):
                yield rows[np.argsort(rows[self._time], kind="stable")]

    def between(self, start: int, end: int) -> npt.NDArray[np.void]:
        """Return the rows that begin at `start` or later, but before `end`; in order."""
        selected, at = [np.empty(0, self.dtype)], 0
        for count, earliest, latest in self._batches:
            if latest >= start and earliest < end:
                rows = self._read(at, count)
                selected.append(rows[(rows[self._time] >= start) & (rows[self._time] < end)])
            at += count
        return np.concatenate(selected)

    def _read(self, at: int, count: int) -> npt.NDArray[np.void]:
        """Return `count` rows from row `at` on."""
        pieces = [np.empty(0, self.dtype)]
        stored = max(0, min(count, self._on_disk - at))
        if stored:
            assert self._file is not None
            self._file.seek(at * self.dtype.itemsize)
            pieces.append(np.fromfile(self._file, self.dtype, stored))
        if count > stored:
            if len(self._buffers) > 1:
                self._buffers = [np.concatenate(self._buffers)]
            first = max(0, at - self._on_disk)
            pieces.append(self._buffers[0][first : first + count - stored])
        return pieces[-1] if len(pieces) <= 2 else np.concatenate(pieces)


@dataclass
class Trace:
    """The contents of a trace file, as columns.

    Names and threads are indices into `names` and `threads`; times are integer nanoseconds. In a
    chunk of a trace, the first `pieces` tags are longer than a chunk and are cut to this one; the
    first `carried` of them began in an earlier chunk.
    `losses` says in words what could not be read, `left_out` what was read and is not counted.
    `inputs` are JSON lists of the shapes, types, strides and values of an operator's inputs, null
    where they were not recorded; a chunk has `inputs` and `shaped_ops` of the whole trace.
    """

    path: str
    metadata: dict[str, object]
    names: list[str]
    threads: list[tuple[object, object]]
    tag_rows: EventTable
    launch_rows: EventTable
    device_rows: EventTable
    memory: EventTable
    ops: EventTable
    python: EventTable
    events: int = 0
    bytes_read: int = 0
    overhead_ns: int = 0
    start: int = 0
    end: int = 0
    losses: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    carried: int = 0
    pieces: int = 0
    inputs: list[bytes] = field(default_factory=list)
    shaped_ops: EventTable = field(default_factory=lambda: EventTable(SHAPED_OP))
    sync_rows: EventTable = field(default_factory=lambda: EventTable(SYNC))
    labeled_ops: EventTable = field(default_factory=lambda: EventTable(LABELED_OP))
    gradient_ends: EventTable = field(default_factory=lambda: EventTable(GRADIENT_END))

    @property
    def tables(self) -> tuple[EventTable, ...]:
        """All tables of events."""
        return (
            self.tag_rows,
            self.launch_rows,
            self.device_rows,
            self.memory,
            self.ops,
            self.python,
        )

    def tags_alone(self) -> Trace:
        """Return the trace with its tags and nothing else."""
        return replace(
            self,
            launch_rows=EventTable(LAUNCH),
            device_rows=EventTable(DEVICE_OP),
            memory=EventTable(MEMORY),
            ops=EventTable(RANGE),
            python=EventTable(RANGE),
            shaped_ops=EventTable(SHAPED_OP),
            sync_rows=EventTable(SYNC),
            labeled_ops=EventTable(LABELED_OP),
            gradient_ends=EventTable(GRADIENT_END),
        )

    def streams(self, ops: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Return the stream (dtype `STREAM`) of each GPU operation."""
        number: dict[object, int] = {}
        processes = [number.setdefault(str(pid), len(number)) for pid, _ in self.threads]
        streams = np.empty(len(ops), STREAM)
        streams["process"] = np.array(processes, dtype=np.int32)[ops["thread"]]
        streams["device"], streams["stream"] = ops["device"], ops["stream"]
        return streams

    @cached_property
    def tags(self) -> npt.NDArray[np.void]:
        """All tags (dtype `RANGE`), in memory."""
        return self.tag_rows.to_array()

    @cached_property
    def launches(self) -> npt.NDArray[np.void]:
        """All calls of the GPU's runtime or driver (dtype `LAUNCH`), in memory."""
        return self.launch_rows.to_array()

    @cached_property
    def device_ops(self) -> npt.NDArray[np.void]:
        """All GPU operations (dtype `DEVICE_OP`), in memory."""
        return self.device_rows.to_array()


_MemoryOwner = tuple[int, object]


def fill_totals(memory: EventTable, threads: list[tuple[Any, Any]]) -> tuple[EventTable, list[str]]:
    """Return rows (dtype `MEMORY`) that all have totals, and a sentence about those that had none.

    A total that is not recorded is the one before it plus the change. What was allocated before
    the first row is unknown: it counts as the least with which no total is negative, for each
    process by itself.
    """
    missing = sum(int((rows["total"] == TOTAL_UNKNOWN).sum()) for rows in memory.slices())
    if not missing:
        return memory, []
    lowest: dict[_MemoryOwner, int] = {}
    for _ in _with_totals(memory, threads, {}, lowest):
        pass
    before = {owner: max(0, -total) for owner, total in lowest.items()}
    filled = EventTable(MEMORY)
    for rows in _with_totals(memory, threads, before, {}):
        filled.append(rows)
    return filled, [
        f"{missing} records of memory have no total: they count from the least that must have been "
        "allocated when the trace began"
    ]


def _with_totals(
    memory: EventTable,
    threads: list[tuple[Any, Any]],
    before: dict[_MemoryOwner, int],
    lowest: dict[_MemoryOwner, int],
) -> Iterator[npt.NDArray[np.void]]:
    """Yield rows with totals that start at `before`; `lowest` becomes the least of each owner.

    From its first recorded total on, an owner has no lowest one: then all is known.
    """
    total = dict(before)
    known: set[_MemoryOwner] = set()
    for rows in memory.in_time():
        totals = rows["total"].copy()
        columns = (rows["device"], rows["thread"], rows["total"], rows["change"])
        for i, (device, thread, recorded, change) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            owner = (device, threads[thread][0])
            if recorded == TOTAL_UNKNOWN:
                totals[i] = total[owner] = total.get(owner, 0) + change
            else:
                total[owner] = recorded
                known.add(owner)
            if owner not in known:
                lowest[owner] = min(lowest.get(owner, 0), total[owner])
        rows["total"] = totals
        yield rows
