"""Which range lies in which: ranges of one thread form a forest."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, Ints


@dataclass(frozen=True)
class Forest:
    """Ranges nested by thread and time; all arrays run over the ranges as given.

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
        """For each range, the sum of its direct children's `values`."""
        child = self.parent >= 0
        total = np.bincount(self.parent[child], values[child], minlength=len(self.parent))
        return total.astype(np.int64)


def nest(rows: npt.NDArray[np.void], carried: int = 0) -> Forest:
    """The forest of ranges (dtype `RANGE`); the first `carried` of them began before all others."""
    start, end = rows["start"], rows["start"] + rows["dur"]
    place = np.arange(len(rows))
    order = np.lexsort((place, -end, place >= carried, start, rows["thread"]))
    parent, depth = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
    walk = _Walk()
    for mine in np.split(order, np.flatnonzero(np.diff(rows["thread"][order])) + 1):
        above, levels, crossing = _as_nested(start[mine], end[mine])
        parent[mine], depth[mine] = np.where(above >= 0, mine[above], -1), levels
        for at in range(0, len(crossing), _AT_ONCE):  # lists of Python numbers are large
            here = mine[crossing[at : at + _AT_ONCE]]
            parent[here], depth[here], end[here] = walk.through(
                here.tolist(), start[here].tolist(), end[here].tolist()
            )
        walk.leave()
    return Forest(order, parent, depth, end, walk.clipped)


def _as_nested(start: Ints, end: Ints) -> tuple[Codes, Codes, Ints]:
    """Parents and depths of one thread's ranges, in order, as if none crossed another's end.

    The depth of a range is how many before it have not ended at its start; its parent is the
    last before it that is one less deep. Third come the ranges for which this may not hold:
    those of every stretch between two idle moments in which one outlasts its parent.
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
        stretch = np.cumsum(idle)
        crossing = np.flatnonzero(np.isin(stretch, stretch[crossing]))
    return parent, depth, crossing


_AT_ONCE = 1 << 15


class _Walk:
    """Goes through one thread's ranges in order, the open ones and their ends in hand."""

    def __init__(self) -> None:
        self.clipped = 0
        self._open: list[int] = []
        self._ends: list[int] = []

    def through(
        self, order: list[int], starts: list[int], ends: list[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """Parents, depths and clipped ends of the next ranges."""
        parents, depths, clipped_ends = [], [], []
        opened, latest = self._open, self._ends
        for i, start, end in zip(order, starts, ends, strict=True):
            # A range mostly behind another's end follows it, however the times were rounded.
            while latest and (latest[-1] <= start or latest[-1] < (start + end) // 2):
                opened.pop()
                latest.pop()
            depths.append(len(opened))
            parents.append(opened[-1] if opened else -1)
            if latest and end > latest[-1]:
                self.clipped += end - latest[-1] > 1000
                end = latest[-1]
            clipped_ends.append(end)
            opened.append(i)
            latest.append(end)
        return parents, depths, clipped_ends

    def leave(self) -> None:
        """Go on with another thread."""
        self._open.clear()
        self._ends.clear()


def innermost(rows: npt.NDArray[np.void], forest: Forest, thread: Codes, at: Ints) -> Codes:
    """The innermost range around each moment `at` of each `thread`; -1 where there is none."""
    found = np.full(len(at), -1, dtype=np.int32)
    if not len(rows) or not len(at):
        return found
    order = forest.order
    starts, asked = rows["start"][order], np.argsort(thread, kind="stable")
    numbers, first = np.unique(thread[asked], return_index=True)
    threads = rows["thread"][order]
    low, high = np.searchsorted(threads, numbers), np.searchsorted(threads, numbers, "right")
    for i, mine in enumerate(np.split(asked, first[1:])):
        place = low[i] + np.searchsorted(starts[low[i] : high[i]], at[mine], "right") - 1
        found[mine] = np.where(place >= low[i], order[np.maximum(place, 0)], -1)
    while True:
        past = (found >= 0) & (forest.end[found] < at)
        if not past.any():
            return found
        found[past] = forest.parent[found[past]]
