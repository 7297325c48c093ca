"""Attribute GPU operations to tags, and compute how long each tag kept the GPU busy.

An operation belongs to the innermost tag around its *launch* on the launching thread (found by
correlation id), and to every tag around that one. Busy time is the union of the operations'
intervals over streams, so neither streams nor nested tags are counted twice. The operations of
one stream run one after another: where their timestamps overlap (a dependent launch starts while
its predecessor ends), each counts with its own duration.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import COLLECTIVE, COPY, FILL, Codes, Ints, Mask, Trace
from glassworld.trace.timeline.intervals import IntervalForest, innermost_ranges
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class DeviceOps:
    """GPU operations sorted by start (dtype `DEVICE_OP`), with their launches and tags.

    `launch` is a row of `Trace.launches` (-1: launched outside the trace), `tag` an instance of
    the tag tree (-1: outside any tag), `delay` nanoseconds from launch to start. `exclusive` is
    the busy time an operation adds to those started before it: it sums to the GPU's busy time.
    """

    rows: npt.NDArray[np.void]
    end: Ints
    launch: Codes
    tag: Codes
    delay: Ints
    exclusive: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class DeviceTime:
    """Per group of tag instances: nanoseconds of GPU time, and numbers of operations.

    `busy` is the union of the operations' intervals, `total` the sum of their durations (more
    where some ran side by side), `span` from the first one's start to the last one's end.
    `self_busy` is the busy time that operations launched directly in the group add to the GPU's:
    over all groups, and with what lies outside every tag, it adds up to the GPU's busy time.
    `kernels` counts all operations, copies and collectives among them.
    """

    busy: Ints
    self_busy: Ints
    total: Ints
    span: Ints
    kernels: Ints
    copies: Ints
    copy_time: Ints
    collectives: Ints
    collective_time: Ints
    delay: Ints
    """The median time from launch to start, of the operations launched directly in the group."""


def attribute_ops(trace: Trace, tree: TagTree) -> DeviceOps:
    """Find the launch and the tag of every GPU operation."""
    rows = trace.device_ops[np.argsort(trace.device_ops["start"], kind="stable")]
    launch = match_launches(rows, trace.launches)
    launched = launch >= 0
    tag = np.full(len(rows), -1, dtype=np.int32)
    calls = trace.launches[launch[launched]]
    tag[launched] = innermost_ranges(tree.rows, tree.forest, calls["thread"], calls["start"])
    delay = np.full(len(rows), -1, dtype=np.int64)
    delay[launched] = rows["start"][launched] - calls["start"]
    end = rows["start"] + rows["dur"]
    exclusive = _added_busy_time(rows, end, np.zeros(len(rows), dtype=np.int32))
    return DeviceOps(rows, end, launch, tag, delay, exclusive)


def match_launches(ops: npt.NDArray[np.void], launches: npt.NDArray[np.void]) -> Codes:
    """Return the launch with each operation's correlation id, -1 for none.

    Of several with the same id, it is the last that began before the operation.
    """
    launch = np.full(len(ops), -1, dtype=np.int32)
    candidates = np.flatnonzero(launches["correlation"] > 0)
    calls = launches[candidates]
    order = candidates[np.lexsort((calls["start"], calls["correlation"]))]
    if not len(order) or not len(ops):
        return launch
    ids = launches["correlation"][order]
    low = np.searchsorted(ids, ops["correlation"], "left")
    high = np.searchsorted(ids, ops["correlation"], "right")
    launch[high > low] = order[low[high > low]]
    for i in np.flatnonzero(high - low > 1):  # several ranks in one file, or repeated ids
        starts = launches["start"][order[low[i] : high[i]]]
        before = int(np.searchsorted(starts, ops["start"][i], "right"))
        launch[i] = order[low[i] + max(0, before - 1)]
    return launch


def _added_to_union(start: Ints, end: Ints, group: Codes) -> Ints:
    """Return what each interval adds to the union of its group's earlier ones; sorted by start."""
    if not len(start):
        return np.empty(0, dtype=np.int64)
    by_group = np.argsort(group, kind="stable")
    starts, ends, groups = start[by_group], end[by_group], group[by_group]
    sorted_ends = np.sort(ends)
    rank = np.searchsorted(sorted_ends, ends)
    latest = np.maximum.accumulate(groups.astype(np.int64) * len(ends) + rank) % len(ends)
    before = np.empty(len(ends), dtype=np.int64)
    before[0], before[1:] = starts[0], sorted_ends[latest[:-1]]
    first = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    before[first] = starts[first]
    added = np.empty(len(ends), dtype=np.int64)
    added[by_group] = np.maximum(0, ends - np.maximum(starts, before))
    return added


def _added_busy_time(rows: npt.NDArray[np.void], end: Ints, group: Codes) -> Ints:
    """Return what each operation adds to its group's busy time; `rows` are sorted by start."""
    start = rows["start"]
    _, device = np.unique(rows["device"], return_inverse=True)
    _, stream = np.unique(rows["stream"], return_inverse=True)
    lane = device * (stream.max(initial=0) + 1) + stream
    _, within = np.unique(group * (lane.max(initial=0) + 1) + lane, return_inverse=True)
    overlap = end - start - _added_to_union(start, end, within.astype(np.int32))
    busy: Ints = _added_to_union(start, end, group) + overlap
    return busy


def device_time(ops: DeviceOps, forest: IntervalForest, group_of: Codes, groups: int) -> DeviceTime:
    """Return the GPU time per group of tag instances, children included.

    `group_of` maps instances to groups; instances of one group must not contain one another.
    """
    sums = {field.name: np.zeros(groups, dtype=np.int64) for field in fields(DeviceTime)}
    direct = ops.tag >= 0
    sums["self_busy"] = _sum(group_of[ops.tag[direct]], ops.exclusive[direct], groups)
    sums["delay"] = _median_delay(ops, group_of, groups)
    current = ops.tag.copy()
    for depth in range(int(forest.depth.max(initial=-1)), -1, -1):
        at_depth = np.flatnonzero((current >= 0) & (forest.depth[current] == depth))
        if not len(at_depth):
            continue
        group = group_of[current[at_depth]]
        start, end = ops.rows["start"][at_depth], ops.end[at_depth]
        sums["busy"] += _sum(group, _added_busy_time(ops.rows[at_depth], end, group), groups)
        sums["total"] += _sum(group, end - start, groups)
        sums["kernels"] += np.bincount(group, minlength=groups)
        kind = ops.rows["kind"][at_depth]
        for count, time, of_kind in (
            ("copies", "copy_time", (kind == COPY) | (kind == FILL)),
            ("collectives", "collective_time", kind == COLLECTIVE),
        ):
            sums[count] += np.bincount(group[of_kind], minlength=groups)
            sums[time] += _sum(group[of_kind], (end - start)[of_kind], groups)
        first, last = np.full(groups, 2**62), np.full(groups, -(2**62))
        np.minimum.at(first, group, start)
        np.maximum.at(last, group, end)
        sums["span"] += np.where(last > first, last - first, 0)
        current[at_depth] = forest.parent[current[at_depth]]
    return DeviceTime(**sums)


def _sum(group: Codes, values: Ints, groups: int) -> Ints:
    return np.bincount(group, values, minlength=groups).astype(np.int64)


def _median_delay(ops: DeviceOps, group_of: Codes, groups: int) -> Ints:
    """Return the median launch-to-start delay per group; 0 without direct launches."""
    tagged: Mask = ops.tag >= 0
    median = np.zeros(groups, dtype=np.int64)
    if not tagged.any():
        return median
    group, delay = group_of[ops.tag[tagged]], ops.delay[tagged]
    order = np.lexsort((delay, group))
    distinct, first, count = np.unique(group[order], return_index=True, return_counts=True)
    median[distinct] = delay[order][first + count // 2]
    return median
