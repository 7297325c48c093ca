"""Read the allocator's history that `torch.cuda.memory._dump_snapshot` pickles.

A pickle can run any code while it is read. This reader builds plain containers, texts and numbers
alone, which is all that a snapshot has, and refuses a file with anything else.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from glassworld.trace.reading.event_source import EventSource, memory_event, range_event
from glassworld.trace.reading.events import Event

_MARK = 0x80  # in front of the protocol's number
_PROTOCOLS = range(2, 6)
_EXPECTED = "name one that torch.cuda.memory._dump_snapshot wrote"
_CHANGES = {"alloc": 1, "free_requested": -1}
"""Which way the allocated bytes go; what is freed counts as free once the program has freed it."""

_KNOWN = {
    *(*_CHANGES, "free_completed", "oom", "snapshot"),
    *("segment_alloc", "segment_free", "segment_map", "segment_unmap"),
}
"""All actions of the allocator; the others change no allocated bytes."""

_MOST_NAMED = 5


def is_pickle(start: bytes) -> bool:
    """Return whether a file begins like a pickle."""
    return len(start) > 1 and start[0] == _MARK and start[1] in _PROTOCOLS


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain containers, texts and numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every class and function."""
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which could run code")

    def persistent_load(self, identifier: Any) -> NoReturn:
        """Refuse references to what lies outside the pickle."""
        raise pickle.UnpicklingError("it refers to objects outside the file")


class SnapshotEvents(EventSource):
    """Reads the allocations and annotations of a memory snapshot."""

    def events(self) -> Iterator[list[Event]]:
        """Yield the annotations as tags, and the allocated bytes after every change."""
        try:
            snapshot = _PlainUnpickler(io.BytesIO(self.read_all())).load()
        except pickle.UnpicklingError as error:
            raise self.refuse(f"a pickle that is not read: {error}; {_EXPECTED}") from error
        except Exception as error:  # damaged bytes may raise any
            raise self.refuse(
                f"a pickle that is cut short or damaged: {error}; record the snapshot again"
            ) from error
        traces = snapshot.get("device_traces") if isinstance(snapshot, dict) else None
        if not isinstance(traces, list):
            raise self.refuse(
                f"a pickle, but no memory snapshot of torch: it has no device_traces; {_EXPECTED}"
            )
        yield list(self._annotations(_records(snapshot.get("external_annotations"))))
        allocated = _allocated_at_end(_records(snapshot.get("segments")))
        unreadable, unknown = 0, Counter[str]()
        for device, trace in enumerate(traces):
            records = [(str(record.get("action")), record) for record in _records(trace)]
            changes = [record for action, record in records if action in _CHANGES]
            unknown.update(action for action, _ in records if action not in _KNOWN)
            whole = [change for change in changes if _is_change(change)]
            unreadable += len(changes) - len(whole)
            yield _totals(whole, device, allocated.get(device, 0))
        if unreadable:
            self.losses.append(f"{unreadable} allocations have no size or time and were left out")
        if unknown:
            self.losses.append(
                f"{unknown.total()} records of actions that are not known were left out: "
                f"{', '.join(sorted(unknown)[:_MOST_NAMED])}"
            )

    def _annotations(self, records: list[dict[Any, Any]]) -> Iterator[Event]:
        """Yield the annotations that begin and end, as tags; count the others."""
        opened: dict[tuple[str, str], list[int]] = {}
        alone = 0
        for record in records:
            at, name, device = record.get("time_us"), str(record.get("name")), record.get("device")
            starts, stage = opened.setdefault((str(device), name), []), record.get("stage")
            if isinstance(at, int) and stage == "START":
                starts.append(at)
            elif isinstance(at, int) and stage == "END" and starts:
                thread = ("annotations", str(device))
                yield range_event("user_annotation", name, thread, starts.pop() * 1000, at * 1000)
            else:
                alone += 1
        if alone := alone + sum(map(len, opened.values())):
            self.losses.append(
                f"{alone} begins or ends of annotations have no partner and were left out"
            )


def _records(value: Any) -> list[dict[Any, Any]]:
    """Return the dictionaries in a list; none of what is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_change(record: dict[Any, Any]) -> bool:
    return all(isinstance(record.get(key), int) for key in ("size", "time_us"))


def _allocated_at_end(segments: list[dict[Any, Any]]) -> dict[int, int]:
    """Return the bytes of each device that were allocated when the snapshot was taken."""
    totals: dict[int, int] = {}
    for segment in segments:
        device, size = segment.get("device"), segment.get("allocated_size")
        if isinstance(device, int) and isinstance(size, int):
            totals[device] = totals.get(device, 0) + size
    return totals


def _totals(changes: list[dict[Any, Any]], device: int, at_end: int) -> list[Event]:
    """Return the total after each change; the first are found from the end of the history."""
    sizes = [_CHANGES[change["action"]] * change["size"] for change in changes]
    total = at_end - sum(sizes)
    events: list[Event] = []
    for change, size in zip(changes, sizes, strict=True):
        total += size
        events.append(memory_event(change["time_us"] * 1000, total, device, size))
    return events
