"""Read a torch trace into typed columns: any vendor, any layout, plain or gzip, any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.errors import TraceError
from glassworld.trace.reading.columns import (
    COLLECTIVE,
    COPY,
    DEVICE_OP,
    FILL,
    KERNEL,
    LAUNCH,
    MEMORY,
    RANGE,
    EventTable,
    Ints,
    Trace,
)
from glassworld.trace.reading.events import Event, EventArgs, EventStream
from glassworld.trace.reading.tag_scanner import TagStream

_TAG, _OP, _PYTHON, _LAUNCH, _DEVICE, _OVERHEAD = range(1, 7)
_CATEGORIES = {
    "user_annotation": _TAG,
    "cpu_op": _OP,
    "operator": _OP,
    "python_function": _PYTHON,
    "kernel": _DEVICE,
    "concurrent_kernel": _DEVICE,
    "gpu_memcpy": _DEVICE,
    "memcpy": _DEVICE,
    "gpu_memset": _DEVICE,
    "memset": _DEVICE,
    "overhead": _OVERHEAD,
    "runtime": _LAUNCH,
}
_COLLECTIVES = ("nccl", "rccl", "oneccl")
ProgressCallback = Callable[[int], None]
"""Called now and then with the number of (decompressed) bytes read so far."""


def _hashable(value: Any) -> Any:
    """Return a hashable stand-in for a JSON value: its text if it is a list or an object."""
    try:
        hash(value)
    except TypeError:
        return str(value)
    return value


class _Interner(dict[Any, int]):
    """Numbers values in the order in which they are first looked up."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


class _Categories(dict[Any, int]):
    """Maps a category of events to the code of its table; 0 for none."""

    def __missing__(self, cat: Any) -> int:
        text = str(cat).lower()
        launch = text.endswith(("_runtime", "_driver"))
        self[cat] = _LAUNCH if launch else _CATEGORIES.get(text, 0)
        return self[cat]


class TraceBuilder:
    """Builds the columns of a trace from its events, a list at a time."""

    def __init__(self) -> None:
        self.names = _Interner()
        self.threads = _Interner()
        self.tables = {
            _TAG: EventTable(RANGE),
            _OP: EventTable(RANGE),
            _PYTHON: EventTable(RANGE),
            _LAUNCH: EventTable(LAUNCH),
            _DEVICE: EventTable(DEVICE_OP),
        }
        self.memory = EventTable(MEMORY)
        self.events = 0
        self.overhead_ns = 0
        self.start, self.end = 2**62, -(2**62)
        self.skipped: Counter[str] = Counter()
        self._categories = _Categories()

    def add(self, events: list[Event]) -> None:
        """Sort events into their tables."""
        self.events += len(events)
        categories = self._categories
        try:
            by_event = [categories[e.cat] if e.ph == "X" else -1 for e in events]
        except TypeError:
            by_event = [categories[_hashable(e.cat)] if e.ph == "X" else -1 for e in events]
        codes = np.array(by_event, dtype=np.int8)
        for code in (_TAG, _OP, _PYTHON, _LAUNCH, _DEVICE, _OVERHEAD):
            of_code = [events[i] for i in np.flatnonzero(codes == code)]
            if of_code:
                self._add_ranges(code, of_code)
        others = [events[i] for i in np.flatnonzero(codes == -1)]
        self._add_memory([e for e in others if e.ph == "i" and e.name == "[memory]"])
        unpaired = sum(e.ph in ("B", "E") for e in others)
        if unpaired:
            self.skipped["begin/end events (only complete ones are read)"] += unpaired

    def _add_ranges(self, code: int, events: list[Event]) -> None:
        exact = type(events[0]) is not Event  # all events of a list are of one kind
        starts = to_nanoseconds([e.ts for e in events], exact)
        durations = to_nanoseconds([e.dur or 0.0 for e in events], exact)
        possible = (np.abs(starts) < _FAR_NS) & (np.abs(durations) < _FAR_NS)
        if not possible.all():
            self.skipped["events with impossible times"] += int((~possible).sum())
            events = [events[i] for i in np.flatnonzero(possible)]
            starts, durations = starts[possible], durations[possible]
        if code == _OVERHEAD:
            self.overhead_ns += int(durations.sum())
        elif events:
            rows = self._rows(code, events)
            rows["start"], rows["dur"] = starts, np.maximum(durations, 0)
            self.start = min(self.start, int(starts.min()))
            self.end = max(self.end, int((rows["start"] + rows["dur"]).max()))
            self.tables[code].append(rows)

    def _rows(self, code: int, events: list[Event]) -> npt.NDArray[np.void]:
        """Return rows for a table, their times yet to be filled in."""
        rows = np.empty(len(events), self.tables[code].dtype)
        names = self.names
        try:
            rows["name"] = [names[e.name] for e in events]
        except TypeError:
            rows["name"] = [names[_hashable(e.name)] for e in events]
        rows["thread"] = self._threads(events)
        if code in (_LAUNCH, _DEVICE):
            args = [e.args if isinstance(e.args, EventArgs) else _NO_ARGS for e in events]
            rows["correlation"] = _to_ints([a.correlation for a in args], -1)
            if code == _DEVICE:
                rows["stream"] = _to_small_ints([a.stream for a in args])
                rows["device"] = _to_small_ints([a.device for a in args])
                rows["bytes"] = _to_ints([a.bytes for a in args], 0)
                rows["kind"] = [_device_kind(e) for e in events]
        return rows

    def _threads(self, events: list[Event]) -> list[int]:
        threads = self.threads
        try:
            return [threads[e.pid, e.tid] for e in events]
        except TypeError:
            return [threads[_hashable(e.pid), _hashable(e.tid)] for e in events]

    def _add_memory(self, events: list[Event]) -> None:
        if not events:
            return
        rows = np.empty(len(events), MEMORY)
        args = [e.args if isinstance(e.args, EventArgs) else _NO_ARGS for e in events]
        rows["thread"] = self._threads(events)
        rows["at"] = to_nanoseconds([e.ts for e in events], type(events[0]) is not Event)
        rows["total"] = _to_ints([a.total_allocated for a in args], 0)
        cpu = _to_ints([a.device_type for a in args], 0) == 0
        rows["device"] = np.where(cpu, -1, _to_small_ints([a.device_id for a in args]))
        self.memory.append(rows)

    def finish(self, path: Path, stream: EventStream) -> Trace:
        """Return the complete columns."""
        skipped = [f"{count} {what} were left out" for what, count in self.skipped.items()]
        empty = self.start > self.end
        return Trace(
            path=str(path),
            metadata=stream.metadata,
            names=[str(name) for name in self.names],
            threads=list(self.threads),
            tag_rows=self.tables[_TAG],
            launch_rows=self.tables[_LAUNCH],
            device_rows=self.tables[_DEVICE],
            memory=self.memory,
            ops=self.tables[_OP],
            python=self.tables[_PYTHON],
            events=self.events,
            bytes_read=stream.source.bytes_read,
            overhead_ns=self.overhead_ns,
            start=0 if empty else self.start,
            end=0 if empty else self.end,
            losses=[*stream.losses, *skipped],
        )


def read_trace(
    path: str | Path, progress: ProgressCallback | None = None, tags_only: bool = False
) -> Trace:
    """Read the trace at `path` into columns; `tags_only` skips everything but tags and is faster.

    Raises `TraceError` if there is nothing to read; `Trace.losses` names what is damaged.
    """
    path = Path(path)
    stream = TagStream(path) if tags_only else EventStream(path)
    builder = TraceBuilder()
    for events in stream:
        builder.add(events)
        if progress:
            progress(stream.source.bytes_read)
    if not builder.events and not tags_only:
        reasons = "; ".join(stream.losses) or "its event list is empty"
        raise TraceError(f"{path}: no events in this trace: {reasons}")
    return builder.finish(path, stream)


_NO_ARGS = EventArgs()
_FAR_US = 4 * 10**15  # late in this century; int64 nanoseconds hold the sum of two of these
_FAR_NS = _FAR_US * 1000


def to_nanoseconds(microseconds: list[Any], exact: bool) -> Ints:
    """Convert microseconds (decimals if `exact`, else floats) to integer nanoseconds.

    Times further from 0 than any clock are cut to `_FAR_US`.
    """
    if exact:
        return np.array([_nanoseconds(value) for value in microseconds], dtype=np.int64)
    values = np.clip(np.array(microseconds, dtype=np.float64), -_FAR_US, _FAR_US)
    return np.rint(values * 1000.0).astype(np.int64)


def _nanoseconds(microseconds: Any) -> int:
    try:
        nanoseconds: int = round(max(-_FAR_US, min(_FAR_US, microseconds)) * 1000)
        return nanoseconds
    except ArithmeticError:  # not a number
        return _FAR_NS


def _to_small_ints(values: list[Any]) -> Ints:
    """Convert stream and device numbers; 0 for what is none."""
    numbers = _to_ints(values, 0)
    return np.where(np.abs(numbers) < 2**31, numbers, 0)


def _to_ints(values: list[Any], otherwise: int) -> Ints:
    """Convert any JSON values to integers; `otherwise` for what is none or too large."""
    if set(map(type, values)) == {int}:
        numbers = np.array(values)
        if numbers.dtype == np.int64 and -(2**62) < numbers.min() <= numbers.max() < 2**62:
            return numbers
    return np.array([_to_int(value, otherwise) for value in values], dtype=np.int64)


def _to_int(value: Any, otherwise: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return number if -(2**62) < number < 2**62 else otherwise


def _device_kind(event: Event) -> int:
    category = str(event.cat).lower()
    if "memcpy" in category:
        return COPY
    if "memset" in category:
        return FILL
    name = str(event.name).lower()
    return COLLECTIVE if name.startswith(_COLLECTIVES) else KERNEL
