"""Read which GPU work a stream, or a call, waited for, from torch's rows of `cuda_sync`.

With `enable_cuda_sync_events` torch writes a row per wait. It names the call that made the wait
and, for an event, the call that recorded it and the stream on which that was done. The work before
a record is the last operation of that stream whose launch call began before the record.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import (
    EVENT_SYNC,
    STREAM_SYNC,
    STREAM_WAIT_EVENT,
    Ints,
    Trace,
)
from glassworld.trace.timeline.attribution import DeviceOps, match_launches

STREAM_WAIT = np.dtype([("op", "<i4"), ("awaited", "<i4")])
"""A GPU operation, and one of another stream that had to end before it could begin."""

Rows = npt.NDArray[np.void]


@dataclass
class StreamSyncs:
    """The waits between streams, and what calls waited for.

    `waits` (dtype `STREAM_WAIT`) are sorted by the operation and the end of the awaited one.
    `calls` maps a row of `Trace.launches` to the operations for which it waited. `ignored` counts
    rows that name no call or no stream, or that contradict the measured times.
    """

    waits: Rows
    calls: dict[int, list[int]] = field(default_factory=dict)
    ignored: int = 0


def find_stream_syncs(trace: Trace, ops: DeviceOps) -> StreamSyncs:
    """Find what the rows of a trace say; nothing where it has none."""
    rows = trace.sync_rows.to_array()
    found = StreamSyncs(np.empty(0, STREAM_WAIT), ignored=int((rows["kind"] < 0).sum()))
    rows = rows[np.isin(rows["kind"], (STREAM_WAIT_EVENT, EVENT_SYNC, STREAM_SYNC))]
    if not len(rows):
        return found
    by_event = rows["kind"] != STREAM_SYNC
    recorded = rows.copy()
    recorded["correlation"] = np.where(by_event, rows["recorded_by"], rows["correlation"])
    call, record = (match_launches(of, trace.launches) for of in (rows, recorded))
    awaited_stream = np.where(by_event, rows["awaited_stream"], rows["stream"])
    known = (call >= 0) & (record >= 0) & (awaited_stream >= 0)
    known &= (rows["kind"] != STREAM_WAIT_EVENT) | (rows["stream"] >= 0)
    found.ignored += int((~known).sum())
    streams = _StreamWork(trace, ops)
    starts = trace.launches["start"]
    process = process_numbers(trace)[trace.launches["thread"]]
    waits: set[tuple[int, int]] = set()
    order = np.flatnonzero(known)
    for i in order[np.argsort(starts[call[order]], kind="stable")].tolist():
        at = int(starts[call[i]])
        device = (int(process[call[i]]), int(rows["device"][i]))
        awaited = streams.before((*device, int(awaited_stream[i])), int(starts[record[i]]))
        if rows["kind"][i] != STREAM_WAIT_EVENT:
            found.ignored += not _add_call(found, trace, ops, int(call[i]), awaited)
            continue
        op = streams.wait((*device, int(rows["stream"][i])), at, awaited)
        possible = all(op < 0 or _can_wait(ops, op, other) for other in awaited)
        found.ignored += not possible
        if op >= 0 and possible and rows["stream"][i] != awaited_stream[i]:
            waits.update((op, other) for other in awaited)
    ordered = sorted(waits, key=lambda wait: (wait[0], int(ops.end[wait[1]]), wait[1]))
    found.waits = np.array(ordered, STREAM_WAIT)
    return found


def process_numbers(trace: Trace) -> Ints:
    """Return a number for the process of each thread: merged ranks share a device's number."""
    processes = [str(pid) for pid, _ in trace.threads]
    return np.unique(processes, return_inverse=True)[1].astype(np.int64)


def _add_call(
    found: StreamSyncs, trace: Trace, ops: DeviceOps, call: int, awaited: list[int]
) -> bool:
    """Keep what a call waited for; return False if that ended after the call."""
    end = int(trace.launches["start"][call] + trace.launches["dur"][call])
    if any(ops.end[op] > end for op in awaited):
        return False
    found.calls[call] = awaited
    return True


def _can_wait(ops: DeviceOps, op: int, awaited: int) -> bool:
    """Return whether the awaited operation ended by the time at which the other one began."""
    return bool(ops.rows["dur"][op] > 0 and ops.end[awaited] <= ops.rows["start"][op])


_Lane = tuple[int, int, int]
"""The number of a process, of a device, and of a stream."""


class _StreamWork:
    """The operations of each stream in the order of their launches, and its waits so far."""

    def __init__(self, trace: Trace, ops: DeviceOps) -> None:
        at = np.flatnonzero(ops.launch >= 0)
        start = trace.launches["start"][ops.launch[at]]
        order = np.lexsort((ops.rows["start"][at], start))
        process = process_numbers(trace)[trace.launches["thread"][ops.launch[at]]][order].tolist()
        device, stream = (ops.rows[column][at][order].tolist() for column in ("device", "stream"))
        members: dict[_Lane, list[int]] = {}
        for position, lane in enumerate(zip(process, device, stream, strict=True)):
            members.setdefault(lane, []).append(position)
        self._ops: dict[_Lane, Ints] = {k: at[order][v] for k, v in members.items()}
        self._starts: dict[_Lane, Ints] = {k: start[order][v] for k, v in members.items()}
        self._waits: dict[_Lane, list[tuple[int, list[int]]]] = {}

    def before(self, lane: _Lane, time: int) -> list[int]:
        """Return what a stream must have done to come past a time of the CPU.

        That is its last operation launched before, and what it began to wait for since then.
        """
        awaited, since = set[int](), -(2**62)
        if lane in self._ops:
            at = int(np.searchsorted(self._starts[lane], time, "left")) - 1
            if at >= 0:
                awaited.add(int(self._ops[lane][at]))
                since = int(self._starts[lane][at])
        for began, others in self._waits.get(lane, ()):
            if since < began < time:
                awaited.update(others)
        return sorted(awaited)

    def wait(self, lane: _Lane, time: int, awaited: list[int]) -> int:
        """Let a stream wait from a time on; return its next operation, -1 for none."""
        self._waits.setdefault(lane, []).append((time, awaited))
        if lane not in self._ops:
            return -1
        at = int(np.searchsorted(self._starts[lane], time, "left"))
        return int(self._ops[lane][at]) if at < len(self._ops[lane]) else -1
