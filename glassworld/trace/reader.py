"""Reads a torch trace into typed columns: any vendor, any layout, plain or gzip, any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.errors import TraceError
from glassworld.trace.events import Event, EventStream
from glassworld.trace.tables import (
    COLLECTIVE,
    COPY,
    DEVICE_OP,
    FILL,
    KERNEL,
    LAUNCH,
    MEMORY,
    RANGE,
    Ints,
    Spool,
    Trace,
)
from glassworld.trace.tagscan import TagStream

_TAG, _OP, _PYTHON, _LAUNCH, _DEVICE, _OVERHEAD, _OTHER = range(1, 8)
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
Progress = Callable[[int], None]
"""Called now and then with the number of (decompressed) bytes read so far."""


class _Numbering(dict[Any, int]):
    """Numbers things in the order they are first seen."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


def _category(cat: Any) -> int:
    """The table an event's category belongs to; 0 for none."""
    text = str(cat).lower()
    if text.endswith(("_runtime", "_driver")):
        return _LAUNCH
    return _CATEGORIES.get(text, 0)


class _Categories(dict[Any, int]):
    def __missing__(self, cat: Any) -> int:
        self[cat] = _category(cat)
        return self[cat]


class Builder:
    """Collects the columns of a trace from its events, a list at a time."""

    def __init__(self) -> None:
        self.names = _Numbering()
        self.threads = _Numbering()
        self.tables = {
            _TAG: Spool(RANGE),
            _OP: Spool(RANGE),
            _PYTHON: Spool(RANGE),
            _LAUNCH: Spool(LAUNCH),
            _DEVICE: Spool(DEVICE_OP),
        }
        self.memory = Spool(MEMORY)
        self.events = 0
        self.overhead_ns = 0
        self.start, self.end = 2**62, -(2**62)
        self.skipped: Counter[str] = Counter()
        self._categories = _Categories()

    def add(self, events: list[Event]) -> None:
        """Sort events into their tables."""
        self.events += len(events)
        categories = self._categories
        codes = np.array([categories[e.cat] if e.ph == "X" else -1 for e in events], dtype=np.int8)
        for code in (_TAG, _OP, _PYTHON, _LAUNCH, _DEVICE, _OVERHEAD):
            chosen = [events[i] for i in np.flatnonzero(codes == code)]
            if chosen:
                self._add_ranges(code, chosen)
        others = [events[i] for i in np.flatnonzero(codes == -1)]
        self._add_memory([e for e in others if e.ph == "i" and e.name == "[memory]" and e.args])
        unpaired = sum(e.ph in ("B", "E") for e in others)
        if unpaired:
            self.skipped["begin/end events (only complete ones are read)"] += unpaired

    def _add_ranges(self, code: int, events: list[Event]) -> None:
        starts, durations = times(e.ts for e in events), times(e.dur for e in events)
        if code == _OVERHEAD:
            self.overhead_ns += int(durations.sum())
            return
        rows = np.empty(len(events), self.tables[code].dtype)
        names, threads = self.names, self.threads
        rows["name"] = [names[e.name] for e in events]
        rows["thread"] = [threads[e.pid, e.tid] for e in events]
        rows["start"], rows["dur"] = starts, np.maximum(durations, 0)
        if code in (_LAUNCH, _DEVICE):
            empty = _NO_ARGS
            args = [e.args or empty for e in events]
            rows["correlation"] = [_int(a.correlation, -1) for a in args]
            if code == _DEVICE:
                rows["stream"] = [_int(a.stream, 0) for a in args]
                rows["device"] = [_int(a.device, 0) for a in args]
                rows["bytes"] = [_int(a.bytes, 0) for a in args]
                rows["kind"] = [_device_kind(e) for e in events]
        self.start = min(self.start, int(starts.min()))
        self.end = max(self.end, int((rows["start"] + rows["dur"]).max()))
        self.tables[code].append(rows)

    def _add_memory(self, events: list[Event]) -> None:
        if not events:
            return
        rows = np.empty(len(events), MEMORY)
        args = [e.args or _NO_ARGS for e in events]
        rows["thread"] = [self.threads[e.pid, e.tid] for e in events]
        rows["at"] = times(e.ts for e in events)
        rows["total"] = [_int(a.total_allocated, 0) for a in args]
        rows["device"] = [-1 if _int(a.device_type, 0) == 0 else _int(a.device_id, 0) for a in args]
        self.memory.append(rows)

    def finish(self, path: Path, stream: EventStream) -> Trace:
        """The columns, complete."""
        lost = [f"{count} {what} were left out" for what, count in self.skipped.items()]
        empty = self.start > self.end
        return Trace(
            path=str(path),
            metadata=stream.metadata,
            names=[str(name) for name in self.names],
            threads=list(self.threads),
            tags=_whole(self.tables[_TAG]),
            launches=_whole(self.tables[_LAUNCH]),
            device_ops=_whole(self.tables[_DEVICE]),
            memory=self.memory,
            ops=self.tables[_OP],
            python=self.tables[_PYTHON],
            events=self.events,
            bytes_read=stream.source.bytes_read,
            overhead_ns=self.overhead_ns,
            start=0 if empty else self.start,
            end=0 if empty else self.end,
            losses=[*stream.losses, *lost],
        )


def read(path: str | Path, progress: Progress | None = None, tags_only: bool = False) -> Trace:
    """Read the trace at `path` into columns; `tags_only` skips all that is not a tag, fast.

    Raises `TraceError` if there is nothing to read; what is merely damaged is named in
    `Trace.losses`.
    """
    path = Path(path)
    stream = TagStream(path) if tags_only else EventStream(path)
    builder = Builder()
    for events in stream:
        builder.add(events)
        if progress:
            progress(stream.source.bytes_read)
    if not builder.events and not tags_only:
        reasons = "; ".join(stream.losses) or "its event list is empty"
        raise TraceError(f"{path}: no events in this trace: {reasons}")
    return builder.finish(path, stream)


_NO_ARGS = type("_NoArgs", (), {"__getattr__": lambda self, name: None})()


def times(microseconds: Iterable[Any]) -> Ints:
    """Integer nanoseconds of decimal microseconds, exact (see `events.EXACT_BELOW_US`)."""
    values = list(microseconds)
    if values and not isinstance(values[0], float):
        return np.array([round(value * 1000) for value in values], dtype=np.int64)
    return np.rint(np.array(values) * 1000.0).astype(np.int64)


def _int(value: Any, otherwise: int) -> int:
    if type(value) is int:
        return value if -(2**62) < value < 2**62 else otherwise
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _device_kind(event: Event) -> int:
    category = str(event.cat).lower()
    if "memcpy" in category:
        return COPY
    if "memset" in category:
        return FILL
    name = str(event.name).lower()
    return COLLECTIVE if name.startswith(_COLLECTIVES) else KERNEL


def _whole(spool: Spool) -> npt.NDArray[np.void]:
    parts = list(spool.slices())
    return np.concatenate(parts) if parts else np.empty(0, spool.dtype)
