"""Find the launches of GPU operations without correlation ids through the trace's flow events.

A flow starts ("s") in the operator or call that launches, and finishes ("f") in the operation.
Exports of the profiler before Kineto have nothing else that connects the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import LAUNCH, Codes, EventTable, Ints

FLOW = np.dtype(
    [("name", "<i4"), ("thread", "<i4"), ("category", "<i4"), ("at", "<i8"), ("id", "<i8")]
)
"""One end of a flow; `category` and `id` together tell which flow it is."""

FORWARD_BACKWARD = "fwdbwd"
"""The category of flows from an operator to its backward one; they launch nothing."""

Rows = npt.NDArray[np.void]


class Flows:
    """The flow events of a trace, kept until a correlation id shows that nobody needs them."""

    def __init__(self) -> None:
        self._ends = {"s": EventTable(FLOW), "f": EventTable(FLOW)}
        self._named_ids: dict[str, int] = {}

    def number(self, identifier: Any) -> int:
        """Return a number for the id of a flow, which may be any JSON value."""
        if isinstance(identifier, int) and abs(identifier) < 2**61:
            return identifier
        return 2**61 + self._named_ids.setdefault(str(identifier), len(self._named_ids))

    def add(self, phase: str, rows: Rows) -> None:
        """Take in the starts ("s") or the finishes ("f") of flows."""
        self._ends[phase].append(rows)

    def connect(self, launches: EventTable, ops: EventTable) -> tuple[EventTable, EventTable]:
        """Return the tables with correlation ids from the flows.

        The tables stay the same if operations have correlation ids already. A flow that starts in
        no call of the runtime becomes a call that takes no time.
        """
        starts, finishes = (self._ends[phase].to_array() for phase in "sf")
        device_ops = ops.to_array()
        if not len(starts) or not len(finishes) or (device_ops["correlation"] > 0).any():
            return launches, ops
        ends = np.concatenate([starts, finishes])
        _, flow = np.unique(ends[["category", "id"]], return_inverse=True)
        correlation = flow.astype(np.int64) + 1
        finished = _nearest(finishes["thread"], finishes["at"], device_ops)
        reached = finished >= 0
        device_ops["correlation"][finished[reached]] = correlation[len(starts) :][reached]
        calls = _with_correlation(launches.to_array(), starts, correlation[: len(starts)])
        return EventTable.from_rows(calls), EventTable.from_rows(device_ops)


def _with_correlation(calls: Rows, starts: Rows, correlation: Ints) -> Rows:
    """Return the runtime's calls with the ids of the flows that start in them, and new calls."""
    within = _nearest(starts["thread"], starts["at"], calls, around=True)
    taken: set[int] = set()
    alone = []
    for flow, call in enumerate(within.tolist()):
        if call < 0 or call in taken:
            alone.append(flow)
        else:
            taken.add(call)
            calls["correlation"][call] = correlation[flow]
    new = np.zeros(len(alone), LAUNCH)
    new["name"], new["thread"] = starts["name"][alone], starts["thread"][alone]
    new["start"], new["correlation"] = starts["at"][alone], correlation[alone]
    return np.concatenate([calls, new])


def _nearest(thread: Codes, at: Ints, ranges: Rows, around: bool = False) -> Codes:
    """Return for each time the range of its thread that holds it, else the next one; -1 for none.

    With `around`, only ranges that hold the time count. Times that are equal take the ranges that
    begin then one after another.
    """
    nearest = np.full(len(at), -1, dtype=np.int32)
    for number in np.unique(thread).tolist():
        mine = np.flatnonzero(thread == number)
        mine = mine[np.argsort(at[mine], kind="stable")]
        on_thread = np.flatnonzero(ranges["thread"] == number)
        if not len(on_thread):
            continue
        on_thread = on_thread[np.argsort(ranges["start"][on_thread], kind="stable")]
        start = ranges["start"][on_thread]
        end = start + ranges["dur"][on_thread]
        time = at[mine]
        low, high = np.searchsorted(start, time), np.searchsorted(start, time, "right")
        rank = np.arange(len(time)) - np.searchsorted(time, time)
        exact = np.minimum(low + rank, high - 1)  # the range that begins then, or the one before
        holds = (exact >= 0) & (end[exact] >= time)
        following = np.where(high < len(start), high, -1) if not around else np.full(len(time), -1)
        chosen = np.where(holds, exact, following)
        nearest[mine] = np.where(chosen >= 0, on_thread[chosen], -1)
    return nearest
