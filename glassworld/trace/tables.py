"""Typed columns of a trace's events: small tables in memory, large ones spilling to disk."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import numpy.typing as npt

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

_IN_MEMORY_ROWS = 1_000_000
SLICE_ROWS = 1 << 18


class Spool:
    """Rows of one dtype in file order; past `limit` rows they wait in a temporary file."""

    def __init__(self, dtype: np.dtype[np.void], limit: int = _IN_MEMORY_ROWS) -> None:
        self.dtype = dtype
        self._limit = limit
        self._parts: list[npt.NDArray[np.void]] = []
        self._waiting = 0
        self._on_disk = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._waiting + self._on_disk

    def append(self, rows: npt.NDArray[np.void]) -> None:
        """Add rows at the end."""
        self._parts.append(rows)
        self._waiting += len(rows)
        if self._waiting > self._limit:
            file = self._open()
            for part in self._parts:
                part.tofile(file)
            self._on_disk += self._waiting
            self._parts, self._waiting = [], 0

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="glassworld-trace-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file

    def slices(self) -> Iterator[npt.NDArray[np.void]]:
        """All rows in order, at most `SLICE_ROWS` at a time."""
        if self._on_disk:
            file = self._open()
            for at in range(0, self._on_disk, SLICE_ROWS):
                file.seek(at * self.dtype.itemsize)
                yield np.fromfile(file, self.dtype, min(SLICE_ROWS, self._on_disk - at))
        if self._parts:
            self._parts = [np.concatenate(self._parts)]
            for at in range(0, self._waiting, SLICE_ROWS):
                yield self._parts[0][at : at + SLICE_ROWS]


@dataclass
class Trace:
    """What a trace file holds, as columns.

    Names and threads are numbers into `names` and `threads`; times are integer nanoseconds.
    """

    path: str
    metadata: dict[str, object]
    names: list[str]
    threads: list[tuple[object, object]]
    tags: npt.NDArray[np.void]
    launches: npt.NDArray[np.void]
    device_ops: npt.NDArray[np.void]
    memory: Spool
    ops: Spool
    python: Spool
    events: int = 0
    bytes_read: int = 0
    overhead_ns: int = 0
    start: int = 0
    end: int = 0
    losses: list[str] = field(default_factory=list)
