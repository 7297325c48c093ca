"""What every format yields: events in the terms of torch's profiler, a list at a time.

A reader of another format translates its records into the categories of `categories.py`:
`user_annotation` for tags, `cuda_runtime` for launch calls, `kernel` for GPU operations. Everything
behind it then works the same for every format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from glassworld.errors import TraceError
from glassworld.trace.reading.categories import TAG, Categories
from glassworld.trace.reading.columns import EVERY_PROCESS
from glassworld.trace.reading.events import Event, EventArgs, NanosecondEvent
from glassworld.trace.reading.source import TraceFile


class TraceSource(Protocol):
    """The events of one trace file; `metadata` and `losses` are complete after iteration."""

    metadata: dict[str, Any]

    @property
    def losses(self) -> list[str]:
        """Sentences about everything that could not be read."""
        ...

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read so far, decompressed."""
        ...

    def __iter__(self) -> Iterator[list[Event]]:
        """Yield the events in file order; all events of a list are of one kind."""
        ...

    def raw(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the events as the objects of a torch trace."""
        ...


class EventSource(ABC):
    """Reads the events of a file that is no JSON of torch's profiler.

    A subclass yields lists of `NanosecondEvent` from `events`, and adds to `losses` what it could
    not read. With `tags_only`, everything but tags is dropped.
    """

    def __init__(self, source: TraceFile, tags_only: bool = False) -> None:
        self.source = source
        self.metadata: dict[str, Any] = {}
        self.losses: list[str] = source.losses
        self._tags_only = tags_only

    @abstractmethod
    def events(self) -> Iterator[list[Event]]:
        """Yield the events in file order."""

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read so far, decompressed."""
        return self.source.bytes_read

    def __iter__(self) -> Iterator[list[Event]]:
        """Yield the events in file order, without those that nobody asked for."""
        categories = Categories()
        for events in self.events():
            yield (
                [e for e in events if categories[e.cat] == TAG and e.ph == "X"]
                if self._tags_only
                else events
            )

    def raw(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the events as the objects of a torch trace; times are exact decimals."""
        for events in self:
            yield [_as_json(event) for event in events]

    def read_all(self) -> bytes:
        """Return the whole file, decompressed."""
        pieces = []
        while piece := self.source.read():
            pieces.append(piece)
        return b"".join(pieces)

    def refuse(self, reason: str) -> TraceError:
        """Return the error that names this file and why it cannot be read."""
        return TraceError(f"{self.source.path}: {reason}")


def _as_json(event: Event) -> dict[str, Any]:
    """Return an event as an object of a torch trace, without what it lacks."""
    fields: dict[str, Any] = {
        name: getattr(event, name) for name in ("ph", "cat", "name", "pid", "tid", "id")
    }
    fields |= {"ts": _microseconds(event.ts), "dur": _microseconds(event.dur)}
    if isinstance(event.args, EventArgs):
        args = msgspec.to_builtins(event.args)
        fields["args"] = {name: value for name, value in args.items() if value is not None}
    return {name: value for name, value in fields.items() if value is not None}


def _microseconds(nanoseconds: Any) -> Decimal | None:
    return None if nanoseconds is None else Decimal(nanoseconds).scaleb(-3)


def range_event(
    category: str | None,
    name: str,
    thread: tuple[Any, Any],
    start: int,
    end: int,
    args: EventArgs | None = None,
) -> NanosecondEvent:
    """Return a complete event of a process and thread; nanoseconds.

    An end before the start gives a negative duration, which the reader leaves out and counts.
    """
    pid, tid = thread
    return NanosecondEvent("X", category, name, pid, tid, None, start, end - start, args)


def gpu_row(device: int, pid: int, order: int) -> int | str:
    """Return what stands for the process of a GPU's rows: the device, and whose work it is.

    Programs number their streams, and often their devices, alike: the rows of each must stay
    apart. `order` counts the processes of a file that use a GPU; the first has the device alone.
    """
    return f"GPU {device} of process {pid}" if order else device


def name_event(kind: str, thread: tuple[Any, Any], name: str) -> NanosecondEvent:
    """Return the event that names a process or a thread (`kind`)."""
    pid, tid = thread
    return NanosecondEvent("M", None, f"{kind}_name", pid, tid, None, 0, None, EventArgs(name=name))


def memory_event(
    at: int, total: int, device: int, change: int = 0, thread: tuple[int, int] | None = None
) -> NanosecondEvent:
    """Return the allocator's total of a device in bytes at a time in nanoseconds.

    `thread`: process and thread whose record it is; None where the file does not tell.
    """
    args = EventArgs(total_allocated=total, allocated=change, device_type=1, device_id=device)
    process, of = thread or (EVERY_PROCESS, device)
    name, category = "[memory]", "cpu_instant_event"
    return NanosecondEvent("i", category, name, process, of, None, at, None, args)
