"""The dependency graph of a run: what had to end before each piece of work could begin.

Its nodes are pieces of CPU threads and GPU operations. Each ends when both nodes before it have
ended, plus its own time, plus a rest that is the same however long others take. So the graph
reproduces the measured times, and predicts those of a run in which some work takes less.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.critical_path.stream_syncs import find_stream_syncs
from glassworld.trace.timeline.critical_path.threads import (
    GPU,
    KINDS,
    LAUNCH_DELAY,
    SYNCHRONIZE,
    UNEXPLAINED,
    ThreadSegments,
    busy_ranges,
    thread_segments,
)
from glassworld.trace.timeline.critical_path.waits import find_waits, launch_anchors
from glassworld.trace.timeline.tag_tree import TagTree

LONGEST_LAUNCH_DELAY_NS = 50_000  # a longer time to the start has another reason
_AT_ONCE = 1 << 16

WORK = np.dtype([("node", "<i4"), ("group", "<i4"), ("op", "<i4"), ("kind", "<i4"), ("ns", "<i8")])
"""Time of a node: of a path of tags (`TagTree.by_name`; -1: none), on the CPU or in a GPU `op`."""


@dataclass(frozen=True)
class PathParts:
    """The critical path: the rows of `DependencyGraph.work` on it, and the time between them.

    `between` has the nanoseconds of each kind that are of no row: delays of launches, and waits.
    """

    work: Ints
    between: Ints

    def ns(self, graph: DependencyGraph) -> Ints:
        """Return the nanoseconds of each kind; they add up to the time of the run."""
        rows = graph.work[self.work]
        return self.between + np.bincount(rows["kind"], rows["ns"], minlength=KINDS).astype(
            np.int64
        )


@dataclass(frozen=True)
class DependencyGraph:
    """The nodes in an order in which all come behind those they depend on; 0 is the start.

    Times are nanoseconds from the trace's start. A node depends on `first` (before it on its
    thread or stream) and on `second`, plus `lag` (0 for none). `rest` is time that the two and
    its own work do not explain; `gap_kind` says what it is if `second` was last. `stream_waits`
    counts the waits between streams, `ignored_syncs` the rows about waits that were of no use.
    """

    end: Ints
    first: Ints
    second: Ints
    lag: Ints
    rest: Ints
    work: npt.NDArray[np.void]
    gap_kind: Codes
    stream_waits: int = 0
    ignored_syncs: int = 0

    def run_ns(self, saved: Ints) -> int:
        """Return how long the run takes if each row of `work` takes `saved` ns less."""
        less = np.bincount(self.work["node"], saved, minlength=len(self.end)).astype(np.int64)
        own = np.bincount(self.work["node"], self.work["ns"], minlength=len(self.end))
        spent = own.astype(np.int64) - less + self.rest
        end = array("q", bytes(8 * len(self.end)))
        for at in range(1, len(end), _AT_ONCE):
            columns = (self.first, self.second, self.lag, spent)
            rows = zip(*(c[at : at + _AT_ONCE].tolist() for c in columns), strict=True)
            for i, (first, second, lag, ns) in enumerate(rows, at):
                a, b = end[first], end[second] + lag
                end[i] = (a if a > b else b) + ns
        return max(end)

    def path(self) -> PathParts:
        """Return the chain of nodes, each bound by the one before, that ends last."""
        first, second = self.end[self.first], self.end[self.second] + self.lag
        by_second = second > first
        before = np.where(by_second, self.second, self.first)
        own = np.bincount(self.work["node"], self.work["ns"], minlength=len(self.end))
        gap = self.end - own.astype(np.int64) - self.end[before]
        on_path = np.zeros(len(self.end), dtype=bool)
        node, previous = int(np.argmax(self.end)), before.tolist()
        while node:
            on_path[node] = True
            node = previous[node]
        kind = np.where(by_second, self.gap_kind, UNEXPLAINED)
        kind = np.where(self.gap_kind == SYNCHRONIZE, SYNCHRONIZE, kind)
        between = np.bincount(kind[on_path], gap[on_path], minlength=KINDS)
        return PathParts(np.flatnonzero(on_path[self.work["node"]]), between.astype(np.int64))


def build_graph(trace: Trace, tree: TagTree, ops: DeviceOps) -> DependencyGraph:
    """Build the graph of a trace in memory; its CPU work is by the paths of `tree`."""
    return _Builder(trace, tree, ops).graph()


class _Builder:
    """Cuts threads and operations into pieces where others depend on them, and connects these.

    Activities are the CPU threads, then the GPU operations, then the waits of a stream for another
    one, which take no time. A piece of an activity is known by its end.
    """

    def __init__(self, trace: Trace, tree: TagTree, ops: DeviceOps) -> None:
        self.trace, self.tree, self.ops = trace, tree, ops
        busy = busy_ranges(trace)
        self.launched_by, self.launched_at = launch_anchors(trace, ops)
        self.syncs = find_stream_syncs(trace, ops)
        anchors = (self.launched_by, self.launched_at)
        self.waits = find_waits(trace, ops, anchors, busy, self.syncs)
        self.segments: list[ThreadSegments] = []
        self.thread_ends: list[int] = []
        self.activity_of = np.full(len(trace.threads) + 1, -1, dtype=np.int64)
        for thread, end, segments in thread_segments(trace, tree, busy):
            self.activity_of[thread] = len(self.segments)
            self.segments.append(segments)
            self.thread_ends.append(end)
        self.behind, self.since = _stream_order(trace, ops)
        self.free = np.where(self.since >= 0, self.since, np.append(ops.end, 0)[self.behind])
        self.passed = self._stream_waits()
        self._cut()

    def _stream_waits(self) -> Ints:
        """Return when each wait between streams was over: both streams had come that far."""
        waits, ops = self.syncs.waits, self.ops
        behind = self.behind[waits["op"]] >= 0
        free = np.where(behind, self.free[waits["op"]], self.trace.start)
        passed: Ints = np.maximum(free, ops.end[waits["awaited"]])
        for i in np.flatnonzero(waits["op"][1:] == waits["op"][:-1]).tolist():
            passed[i + 1] = max(passed[i], passed[i + 1])
        return passed

    def _cut(self) -> None:
        """Cut the activities into pieces, sorted by activity and time."""
        trace, ops, waits, threads = self.trace, self.ops, self.waits, len(self.segments)
        waits["start"] = np.maximum(waits["start"], trace.start)
        at = np.flatnonzero(self.launched_by >= 0)
        inside = np.flatnonzero(self.since >= 0)
        by = np.flatnonzero(waits["by"] >= 0)
        cuts = [
            (np.arange(threads), np.array(self.thread_ends, dtype=np.int64)),
            (threads + np.arange(len(ops)), ops.end),
            (threads + len(ops) + np.arange(len(self.passed)), self.passed),
            (self.activity_of[self.launched_by[at]], self.launched_at[at]),
            (self.activity_of[waits["thread"]], waits["start"]),
            (self.activity_of[waits["thread"]], waits["end"]),
            (self.activity_of[waits["by"][by]], waits["until"][by]),
            (threads + self.behind[inside], self.since[inside]),
        ]
        activity, end = (np.concatenate([cut[i] for cut in cuts]) for i in (0, 1))
        self.began = np.concatenate(
            [np.full(threads, trace.start, dtype=np.int64), ops.rows["start"], self.passed]
        )
        limit = np.concatenate([np.array(self.thread_ends, dtype=np.int64), ops.end, self.passed])
        valid = (end > self.began[activity]) & (end <= limit[activity]) | (end == limit[activity])
        self.times = np.unique(end[valid])
        self.keys = np.unique(self._key(activity[valid], end[valid]))
        self.activity = self.keys // (len(self.times) + 1)
        self.end = self.times[self.keys % (len(self.times) + 1)]
        self.is_first = np.diff(self.activity, prepend=-1) != 0
        self.start = np.where(self.is_first, self.began[self.activity], np.roll(self.end, 1))

    def _key(self, activity: Ints, end: Ints) -> Ints:
        key: Ints = activity * (len(self.times) + 1) + np.searchsorted(self.times, end)
        return key

    def _piece(self, activity: Ints, end: Ints) -> Ints:
        """Return the pieces of activities that end at these times; -1 for none."""
        if not len(self.keys):
            return np.full(len(end), -1, dtype=np.int64)
        key = self._key(activity, end)
        at = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        exact = (self.keys[at] == key) & (self.end[at] == end) & (activity >= 0)
        return np.where(exact, at, -1)

    def graph(self) -> DependencyGraph:
        """Return the graph."""
        threads, count = len(self.segments), len(self.keys)
        waiting = np.zeros(count, dtype=bool)
        waits = self._piece(self.activity_of[self.waits["thread"]], self.waits["end"])
        waiting[waits[waits >= 0]] = True
        order = np.lexsort((np.arange(count), self.start, waiting, self.end))
        node = np.empty(count + 1, dtype=np.int64)
        node[order] = 1 + np.arange(count)
        node[-1] = 0  # no piece: the start of the trace
        first = np.where(self.is_first, -1, np.arange(count) - 1)
        second = np.full(count, -1, dtype=np.int64)
        self._connect_waits(waits, second)
        heads = np.flatnonzero(self.is_first & self._is_op())
        op = self.activity[heads] - threads
        behind = np.where(self.behind[op] >= 0, threads + self.behind[op], -1)
        first[heads] = self._piece(behind, self.free[op])
        second[heads] = self._piece(
            self.activity_of[self.launched_by[op]],
            self.launched_at[op],
        )
        self._connect_streams(first, second, heads)
        return self._assemble(node, order, first, second, waiting, heads)

    def _is_op(self) -> Mask:
        """Mark the pieces of GPU operations."""
        threads = len(self.segments)
        return (self.activity >= threads) & (self.activity < threads + len(self.ops))

    def _connect_streams(self, first: Ints, second: Ints, heads: Ints) -> None:
        """Put the waits for other streams between an operation and the one before it."""
        threads, waits = len(self.segments), self.syncs.waits
        head_of = np.full(len(self.ops), -1, dtype=np.int64)
        head_of[self.activity[heads] - threads] = heads
        at = self._piece(threads + len(self.ops) + np.arange(len(waits)), self.passed)
        second[at] = self._piece(threads + waits["awaited"], self.ops.end[waits["awaited"]])
        for op, piece in zip(waits["op"].tolist(), at.tolist(), strict=True):
            head = head_of[op]
            first[piece], first[head] = first[head], piece

    def _connect_waits(self, pieces: Ints, second: Ints) -> None:
        """Let each waiting piece depend on the piece that it waits for."""
        waits, threads = self.waits, len(self.segments)
        source = np.where(waits["op"] >= 0, threads + waits["op"], self.activity_of[waits["by"]])
        sources = self._piece(source, waits["until"])
        connected = (pieces >= 0) & (sources >= 0)
        second[pieces[connected]] = sources[connected]

    def _assemble(
        self, node: Ints, order: Ints, first: Ints, second: Ints, waiting: Mask, heads: Ints
    ) -> DependencyGraph:
        """Return the graph of pieces in the `order` of its nodes, with their work."""
        origin, count = self.trace.start, len(order)
        end = np.concatenate([[0], self.end[order] - origin])
        start = np.concatenate([[0], self.start[order] - origin])
        may_end = np.concatenate([[False], waiting[order]])
        is_head = np.zeros(count + 1, dtype=bool)
        is_head[node[heads]] = True
        before = [np.concatenate([[0], node[edge[order]]]) for edge in (first, second)]
        for edge in before:  # what ends later cannot be what a node had waited for
            late = (end[edge] > np.where(may_end, end, start)) | (edge >= np.arange(count + 1))
            edge[late] = 0
        work = self._work(node, waiting)
        lag = np.where(is_head & (before[1] > 0), start - end[before[1]], 0)
        idle = is_head & (before[1] > 0) & (end[before[0]] <= end[before[1]])
        usual = int(np.median(lag[idle])) if idle.any() else 0
        lag = np.minimum(lag, usual)
        own = np.bincount(work["node"], work["ns"], minlength=count + 1).astype(np.int64)
        bound = np.maximum(end[before[0]], end[before[1]] + lag)
        long = start - end[before[1]] > LONGEST_LAUNCH_DELAY_NS
        gap_kind = np.where(is_head & ~long, LAUNCH_DELAY, UNEXPLAINED)
        gap_kind = np.where(may_end, SYNCHRONIZE, gap_kind).astype(np.int32)
        rest = end - bound - own
        rest[0] = 0
        counts = (len(self.syncs.waits), self.syncs.ignored)
        return DependencyGraph(end, before[0], before[1], lag, rest, work, gap_kind, *counts)

    def _work(self, node: Ints, waiting: Mask) -> npt.NDArray[np.void]:
        """Return the time of every node but those that wait, by paths of tags and operations."""
        threads, parts = len(self.segments), [np.empty(0, WORK)]
        bounds = np.searchsorted(self.activity, np.arange(threads + 1))
        for activity, segments in enumerate(self.segments):
            low, high = int(bounds[activity]), int(bounds[activity + 1])
            ends = self.end[low:high]
            split = segments.split(ends)
            ns = np.diff(split.start)
            piece = low + np.searchsorted(ends, split.start[:-1], "right")
            counts = (ns > 0) & ~waiting[piece]
            group, kind = split.group[:-1][counts], split.kind[:-1][counts]
            parts.append(_summed(node[piece[counts]], group, kind, ns[counts]))
        on_gpu = np.flatnonzero(self._is_op())
        rows = np.empty(len(on_gpu), WORK)
        rows["node"], rows["op"] = node[on_gpu], self.activity[on_gpu] - threads
        rows["group"] = np.append(self.tree.by_name.of, -1)[self.ops.tag[rows["op"]]]
        rows["kind"], rows["ns"] = GPU, self.end[on_gpu] - self.start[on_gpu]
        return np.concatenate([*parts, rows])


def _summed(node: Ints, group: Codes, kind: Codes, ns: Ints) -> npt.NDArray[np.void]:
    """Return rows of work on the CPU, one per node, group and kind."""
    groups = int(group.max(initial=-1)) + 2
    keys, which = np.unique((node * groups + group + 1) * KINDS + kind, return_inverse=True)
    rows = np.empty(len(keys), WORK)
    rows["node"], rows["group"] = keys // KINDS // groups, keys // KINDS % groups - 1
    rows["kind"], rows["op"] = keys % KINDS, -1
    rows["ns"] = np.bincount(which, ns, minlength=len(keys))
    return rows


def _stream_order(trace: Trace, ops: DeviceOps) -> tuple[Ints, Ints]:
    """Return the operation of its stream that each one follows (-1: none).

    Where that one is still running, the second array has the time at which the next one started
    beside it; else -1.
    """
    behind = np.full(len(ops), -1, dtype=np.int64)
    since = np.full(len(ops), -1, dtype=np.int64)
    _, lane = np.unique(trace.streams(ops.rows), return_inverse=True)
    order = np.lexsort((ops.end, ops.rows["start"], lane))
    for members in np.split(order, np.flatnonzero(np.diff(lane[order])) + 1) if len(ops) else ():
        start, end = ops.rows["start"][members], ops.end[members]
        latest = np.maximum.accumulate(end)
        holder = np.maximum.accumulate(np.where(end == latest, np.arange(len(end)), 0))
        previous = np.concatenate([[-1], holder[:-1]])
        beside = (previous >= 0) & (end[previous] > start)
        beside_since = np.where(beside & (start[previous] < start), start, -1)
        previous = np.where(beside & (beside_since < 0), -1, previous)  # both start together
        behind[members] = np.where(previous >= 0, members[previous], -1)
        since[members] = beside_since
    return behind, since
