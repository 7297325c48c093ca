"""Nest time ranges: those of one thread form a forest of parents and children."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, EventTable, Ints


@dataclass(frozen=True)
class IntervalForest:
    """Ranges nested by thread and time; all arrays run parallel to the ranges.

    `parent` is -1 at a root. A range that began in another and lies at least half in it is its
    child; `end` is then clipped to the parent's, and `clipped` counts those cut by more than a
    microsecond.
    `order` sorts the ranges so that parents come before children.
    """

    order: Ints
    parent: Codes
    depth: Codes
    end: Ints
    clipped: int

    def sum_into_parents(self, values: Ints) -> Ints:
        """Return for each range the sum of its direct children's `values`."""
        child = self.parent >= 0
        total = np.bincount(self.parent[child], values[child], minlength=len(self.parent))
        return total.astype(np.int64)


def nest_intervals(rows: npt.NDArray[np.void], carried: int = 0) -> IntervalForest:
    """Return the forest of ranges (dtype `RANGE`).

    The first `carried` of them began before all others.
    """
    start, end = rows["start"], rows["start"] + rows["dur"]
    index = np.arange(len(rows))
    order = np.lexsort((index, -end, index >= carried, start, rows["thread"]))
    parent, depth = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
    clipper = _IntervalClipper()
    for on_thread in np.split(order, np.flatnonzero(np.diff(rows["thread"][order])) + 1):
        above, levels, crossing = _nest_vectorized(start[on_thread], end[on_thread])
        parent[on_thread], depth[on_thread] = np.where(above >= 0, on_thread[above], -1), levels
        for at in range(0, len(crossing), _BATCH):  # lists of Python numbers are large
            batch = on_thread[crossing[at : at + _BATCH]]
            parent[batch], depth[batch], end[batch] = clipper.nest(
                batch.tolist(), start[batch].tolist(), end[batch].tolist()
            )
        clipper.end_thread()
    return IntervalForest(order, parent, depth, end, clipper.clipped)


def _nest_vectorized(start: Ints, end: Ints) -> tuple[Codes, Codes, Ints]:
    """Return parents and depths of one thread's ranges, in order, as if none outlasted its parent.

    The depth of a range is the number of earlier ranges that have not ended at its start; its
    parent is the last earlier range that is one less deep. The third array holds the ranges for
    which this may be wrong: all those of a busy period in which one outlasts its parent.
    """
    empty = end == start
    ended = np.searchsorted(np.sort(end[~empty]), start, "right") + np.cumsum(empty) - empty
    depth = (np.arange(len(start)) - ended).astype(np.int32)
    parent = np.full(len(start), -1, np.int32)
    levels = np.split(np.argsort(depth, kind="stable"), np.cumsum(np.bincount(depth))[:-1])
    for above, level in pairwise(levels):
        parent[level] = above[np.searchsorted(above, level) - 1]
    outlasts = (parent >= 0) & (end > end[parent])
    crossing = np.flatnonzero(outlasts)
    if len(crossing):
        idle = np.concatenate(([True], start[1:] >= np.maximum.accumulate(end)[:-1]))
        period = np.cumsum(idle)
        crossing = np.flatnonzero(np.isin(period, period[crossing]))
    return parent, depth, crossing


_BATCH = 1 << 15


class _IntervalClipper:
    """Nests one thread's ranges one by one with a stack, and clips those that outlast a parent."""

    def __init__(self) -> None:
        self.clipped = 0
        self._open: list[int] = []
        self._ends: list[int] = []

    def nest(
        self, order: list[int], starts: list[int], ends: list[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """Return parents, depths and clipped ends of the next ranges, sorted by start."""
        parents, depths, clipped_ends = [], [], []
        stack, stack_ends = self._open, self._ends
        for i, start, end in zip(order, starts, ends, strict=True):
            # A range mostly behind another's end follows it, however the times were rounded.
            while stack_ends and (stack_ends[-1] <= start or stack_ends[-1] < (start + end) // 2):
                stack.pop()
                stack_ends.pop()
            depths.append(len(stack))
            parents.append(stack[-1] if stack else -1)
            if stack_ends and end > stack_ends[-1]:
                self.clipped += end - stack_ends[-1] > 1000
                end = stack_ends[-1]
            clipped_ends.append(end)
            stack.append(i)
            stack_ends.append(end)
        return parents, depths, clipped_ends

    def end_thread(self) -> None:
        """Forget the open ranges: the next ones are of another thread."""
        self._open.clear()
        self._ends.clear()


def innermost_ranges(
    rows: npt.NDArray[np.void], forest: IntervalForest, thread: Codes, at: Ints
) -> Codes:
    """Return the innermost range around each time `at` on each `thread`; -1 where there is none."""
    innermost = np.full(len(at), -1, dtype=np.int32)
    if not len(rows) or not len(at):
        return innermost
    order = forest.order
    starts, by_thread = rows["start"][order], np.argsort(thread, kind="stable")
    wanted, first = np.unique(thread[by_thread], return_index=True)
    threads = rows["thread"][order]
    low, high = np.searchsorted(threads, wanted), np.searchsorted(threads, wanted, "right")
    for i, on_thread in enumerate(np.split(by_thread, first[1:])):
        latest = low[i] + np.searchsorted(starts[low[i] : high[i]], at[on_thread], "right") - 1
        innermost[on_thread] = np.where(latest >= low[i], order[np.maximum(latest, 0)], -1)
    while True:
        ended = (innermost >= 0) & (forest.end[innermost] < at)
        if not ended.any():
            return innermost
        innermost[ended] = forest.parent[innermost[ended]]


def union_ns(ranges: EventTable) -> int:
    """Return the length of the union of all ranges of a table."""
    total, until = 0, -(2**62)
    for rows in ranges.in_time():
        end = rows["start"] + rows["dur"]
        latest = np.maximum.accumulate(np.concatenate([[until], end]))
        total += int(np.maximum(0, end - np.maximum(rows["start"], latest[:-1])).sum())
        until = int(latest[-1])
    return total


def covered_ns(intervals: Ints, start: Ints, end: Ints) -> Ints:
    """Return how much of each range the intervals cover; these are disjoint and in order."""
    first, last = intervals.T
    before = np.concatenate([[0], np.cumsum(last - first)])

    def until(at: Ints) -> Ints:
        index = np.searchsorted(first, at)
        rest = np.append(last, 0)[index - 1] - at  # of the interval that `at` lies in
        covered: Ints = before[index] - np.where(index > 0, np.maximum(0, rest), 0)
        return covered

    return until(end) - until(start)


def merge_intervals(intervals: Ints) -> Ints:
    """Return the union of intervals (rows of start and end) as disjoint ones in order of time."""
    if not len(intervals):
        return np.empty((0, 2), dtype=np.int64)
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    latest = np.maximum.accumulate(intervals[:, 1])
    first = np.flatnonzero(np.concatenate([[True], intervals[1:, 0] > latest[:-1]]))
    last = np.concatenate([first[1:] - 1, [len(intervals) - 1]])
    return np.stack([intervals[first, 0], latest[last]], axis=1)
