"""Say what a CPU thread did at each moment: which tag was open, and whether anything was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import RANGE, Codes, EventTable, Ints, Mask, Trace
from glassworld.trace.timeline.critical_path.waits import is_synchronizing, is_waiting_function
from glassworld.trace.timeline.intervals import merge_intervals
from glassworld.trace.timeline.tag_tree import TagTree

CPU, LAUNCH_DELAY, GPU, SYNCHRONIZE, UNEXPLAINED = range(5)
"""What a part of the critical path is."""

KINDS = 5

Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class ThreadSegments:
    """Segments of a thread in order of time: each lasts until the next one starts.

    `group` is the path (of `TagTree.by_name`) that was open, -1 for none; `kind` is `CPU`,
    `SYNCHRONIZE` (in a call that waits) or `UNEXPLAINED` (no range was open, or a Python function
    waited for another thread or process).
    """

    start: Ints
    group: Codes
    kind: Codes

    def split(self, cuts: Ints) -> ThreadSegments:
        """Return the same with segments that start at each of `cuts` too."""
        start = np.unique(np.concatenate([self.start, cuts]))
        at = np.searchsorted(self.start, start, "right") - 1
        return ThreadSegments(start, self.group[at], self.kind[at])


def busy_ranges(trace: Trace) -> Rows:
    """Return the tags, operators and calls of the runtime (dtype `RANGE`)."""
    parts = [trace.tags, trace.ops.to_array(), trace.launches]
    return np.concatenate([_as_ranges(part) for part in parts])


def _as_ranges(rows: Rows) -> Rows:
    ranges = np.empty(len(rows), RANGE)
    for name in RANGE.names or ():
        ranges[name] = rows[name]
    return ranges


def thread_segments(
    trace: Trace, tree: TagTree, busy: Rows
) -> Iterator[tuple[int, int, ThreadSegments]]:
    """Yield each thread, the end of its last range, and its segments from the trace's start on.

    Threads that run Python functions alone are left out: most of them wait all the time.
    """
    waiting = np.array([is_synchronizing(name) for name in trace.names], dtype=bool)
    calls = trace.launches
    calls = calls[waiting[calls["name"]]] if len(calls) else calls
    python = _python_cover(trace.python, np.ones(len(trace.names), dtype=bool))
    idle = np.array([is_waiting_function(name) for name in trace.names], dtype=bool)
    python_waits = _python_cover(trace.python, idle) if idle.any() else {}
    for thread in np.unique(busy["thread"]).tolist():
        ranges = busy[busy["thread"] == thread]
        cover = merge_intervals(np.concatenate([_spans(ranges), python.get(thread, _NOTHING)]))
        synchronizing = merge_intervals(_spans(calls[calls["thread"] == thread]))
        waits = python_waits.get(thread, _NOTHING)
        start, group = _open_groups(tree, thread)
        bounds = [spans.ravel() for spans in (cover, waits, synchronizing)]
        edges = [np.array([trace.start]), start, *bounds]
        times: Ints = np.unique(np.concatenate(edges))
        times = times[times >= trace.start]
        at = np.searchsorted(start, times, "right") - 1
        groups = np.where(at >= 0, group[np.maximum(at, 0)] if len(group) else -1, -1)
        works = _inside(cover, times) & ~_inside(waits, times)
        kind = np.where(works, CPU, UNEXPLAINED)
        kind = np.where(_inside(synchronizing, times), SYNCHRONIZE, kind)
        segments = ThreadSegments(times, groups.astype(np.int32), kind.astype(np.int32))
        yield thread, int(cover[-1, 1]), segments


_NOTHING = np.empty((0, 2), dtype=np.int64)


def _spans(rows: Rows) -> Ints:
    return np.stack([rows["start"], rows["start"] + rows["dur"]], axis=1)


def _inside(intervals: Ints, times: Ints) -> npt.NDArray[np.bool_]:
    """Mark the times at which one of the disjoint intervals is open."""
    inside: npt.NDArray[np.bool_] = np.searchsorted(intervals.ravel(), times, "right") % 2 == 1
    return inside


def _python_cover(table: EventTable, by_name: Mask) -> dict[int, Ints]:
    """Return the union of each thread's Python functions whose name is marked."""
    cover: dict[int, Ints] = {}
    for part in table.slices():
        rows = part[by_name[part["name"]]]
        for thread in np.unique(rows["thread"]).tolist():
            spans = _spans(rows[rows["thread"] == thread])
            cover[thread] = merge_intervals(np.concatenate([cover.get(thread, _NOTHING), spans]))
    return cover


def _open_groups(tree: TagTree, thread: int) -> tuple[Ints, Codes]:
    """Return the times at which a thread's innermost tag changes, and its path's group from then.

    At one time, ranges end from the inside out before others begin from the outside in.
    """
    forest = tree.forest
    rows = np.flatnonzero((tree.rows["thread"] == thread) & (forest.end > tree.rows["start"]))
    groups = np.append(tree.by_name.of, -1)
    depth, count = forest.depth[rows], len(rows)
    times = np.concatenate([tree.rows["start"][rows], forest.end[rows]])
    begins = np.arange(2 * count) < count
    order = np.lexsort((np.concatenate([depth, -depth]), begins, times))
    then_open = np.concatenate([groups[rows], groups[forest.parent[rows]]])
    return times[order], then_open[order]
