"""Typed columns of a trace's events: small tables in memory, large ones spilling to disk."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO

import numpy as np
import numpy.typing as npt

from glassworld.errors import TraceError

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RANGE = np.dtype([("name", "<i4"), ("thread", "<i4"), ("start", "<i8"), ("dur", "<i8")])
"""A stretch of time on a CPU thread; times in nanoseconds of the trace's clock."""

LAUNCH = np.dtype([*RANGE.descr, ("correlation", "<i8")])
"""A call of the GPU's runtime or driver."""

DEVICE_OP = np.dtype(
    [*LAUNCH.descr, ("stream", "<i4"), ("device", "<i4"), ("kind", "<i4"), ("bytes", "<i8")]
)
"""A kernel, copy or fill on a GPU; its `thread` is the stream's row in the trace."""

MEMORY = np.dtype([("thread", "<i4"), ("device", "<i4"), ("at", "<i8"), ("total", "<i8")])
"""The allocator's total, in bytes, right after an allocation or a release; device -1 is the CPU."""

KERNEL, COPY, FILL, COLLECTIVE = range(4)

IN_MEMORY_ROWS = 1 << 17
SLICE_ROWS = 1 << 16


class Spool:
    """Rows of one dtype in file order; past `limit` rows they wait in a temporary file.

    Batches are remembered by the time they span, so that a stretch of time can be read alone.
    """

    def __init__(self, dtype: np.dtype[np.void], limit: int | None = None) -> None:
        self.dtype = dtype
        self._limit = IN_MEMORY_ROWS if limit is None else limit
        self._time = "at" if "at" in (dtype.names or ()) else "start"
        self._batches: list[tuple[int, int, int]] = []  # rows, earliest and latest time
        self._parts: list[npt.NDArray[np.void]] = []
        self._waiting = 0
        self._on_disk = 0
        self._file: IO[bytes] | None = None

    @classmethod
    def of(cls, rows: npt.NDArray[np.void]) -> Spool:
        """A spool that holds these rows, in memory."""
        spool = cls(rows.dtype, len(rows))
        spool.append(rows)
        return spool

    def __len__(self) -> int:
        return self._waiting + self._on_disk

    def append(self, rows: npt.NDArray[np.void]) -> None:
        """Add rows at the end. Raises `TraceError` if the temporary file cannot be written."""
        if not len(rows):
            return
        times = rows[self._time]
        self._batches.append((len(rows), int(times.min()), int(times.max())))
        self._parts.append(rows)
        self._waiting += len(rows)
        if self._waiting > self._limit:
            try:
                self._spill()
            except OSError as error:
                raise TraceError(
                    f"{tempfile.gettempdir()}: no room for a large trace's tables "
                    f"({error.strerror}); set TMPDIR to a folder that has it"
                ) from error

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="glassworld-trace-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        for part in self._parts:
            self._file.write(part.tobytes())
        self._file.flush()
        self._on_disk += self._waiting
        self._parts, self._waiting = [], 0

    def batches(self) -> list[tuple[int, int, int]]:
        """Rows, earliest and latest time of each batch as it was added."""
        return self._batches

    def slices(self) -> Iterator[npt.NDArray[np.void]]:
        """All rows in order, at most `SLICE_ROWS` at a time."""
        for at in range(0, len(self), SLICE_ROWS):
            yield self._read(at, min(SLICE_ROWS, len(self) - at))

    def whole(self) -> npt.NDArray[np.void]:
        """All rows at once."""
        return self._read(0, len(self))

    def between(self, start: int, end: int) -> npt.NDArray[np.void]:
        """The rows that begin at `start` or later, but before `end`; in order."""
        found, at = [np.empty(0, self.dtype)], 0
        for count, earliest, latest in self._batches:
            if latest >= start and earliest < end:
                rows = self._read(at, count)
                found.append(rows[(rows[self._time] >= start) & (rows[self._time] < end)])
            at += count
        return np.concatenate(found)

    def _read(self, at: int, count: int) -> npt.NDArray[np.void]:
        """`count` rows from row `at` on."""
        parts = [np.empty(0, self.dtype)]
        stored = min(count, self._on_disk - at)
        if stored > 0:
            assert self._file is not None
            self._file.seek(at * self.dtype.itemsize)
            parts.append(np.fromfile(self._file, self.dtype, stored))
        if count > max(stored, 0):
            if len(self._parts) > 1:
                self._parts = [np.concatenate(self._parts)]
            first = max(0, at - self._on_disk)
            parts.append(self._parts[0][first : first + count - max(stored, 0)])
        return parts[-1] if len(parts) <= 2 else np.concatenate(parts)


@dataclass
class Trace:
    """What a trace file holds, as columns.

    Names and threads are numbers into `names` and `threads`; times are integer nanoseconds. Of a
    stretch of a trace, the first `carried` tags began earlier and are cut to it.
    """

    path: str
    metadata: dict[str, object]
    names: list[str]
    threads: list[tuple[object, object]]
    tag_rows: Spool
    launch_rows: Spool
    device_rows: Spool
    memory: Spool
    ops: Spool
    python: Spool
    events: int = 0
    bytes_read: int = 0
    overhead_ns: int = 0
    start: int = 0
    end: int = 0
    losses: list[str] = field(default_factory=list)
    carried: int = 0

    @property
    def spools(self) -> tuple[Spool, ...]:
        """All tables."""
        return (
            self.tag_rows,
            self.launch_rows,
            self.device_rows,
            self.memory,
            self.ops,
            self.python,
        )

    @cached_property
    def tags(self) -> npt.NDArray[np.void]:
        """All tags (dtype `RANGE`), in memory."""
        return self.tag_rows.whole()

    @cached_property
    def launches(self) -> npt.NDArray[np.void]:
        """All calls of the GPU's runtime (dtype `LAUNCH`), in memory."""
        return self.launch_rows.whole()

    @cached_property
    def device_ops(self) -> npt.NDArray[np.void]:
        """All GPU operations (dtype `DEVICE_OP`), in memory."""
        return self.device_rows.whole()
