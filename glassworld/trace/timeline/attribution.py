"""Which tag a GPU operation belongs to, and how long each tag kept the GPU busy.

An operation belongs to the innermost tag around the *launch* on the launching thread (found by
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
from glassworld.trace.timeline.intervals import Forest, innermost
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class DeviceOps:
    """GPU operations sorted by start (dtype `DEVICE_OP`), with where they came from.

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
    `own` is the busy time that operations launched directly in the group add to the GPU's:
    over all groups, and with what lies outside every tag, it adds up to the GPU's busy time.
    `kernels` counts all operations, copies and collectives among them.
    """

    busy: Ints
    own: Ints
    total: Ints
    span: Ints
    kernels: Ints
    copies: Ints
    copy: Ints
    collectives: Ints
    collective: Ints
    delay: Ints
    """The median time from launch to start, of the operations launched directly in the group."""


def attribute(trace: Trace, tree: TagTree) -> DeviceOps:
    """Find the launch and the tag of every GPU operation."""
    rows = trace.device_ops[np.argsort(trace.device_ops["start"], kind="stable")]
    launch = match(rows, trace.launches)
    known = launch >= 0
    tag = np.full(len(rows), -1, dtype=np.int32)
    calls = trace.launches[launch[known]]
    tag[known] = innermost(tree.rows, tree.forest, calls["thread"], calls["start"])
    delay = np.full(len(rows), -1, dtype=np.int64)
    delay[known] = rows["start"][known] - calls["start"]
    end = rows["start"] + rows["dur"]
    exclusive = _keeps_busy(rows, end, np.zeros(len(rows), dtype=np.int32))
    return DeviceOps(rows, end, launch, tag, delay, exclusive)


def match(ops: npt.NDArray[np.void], launches: npt.NDArray[np.void]) -> Codes:
    """The launch with each operation's correlation id; of several, the last that began before."""
    found = np.full(len(ops), -1, dtype=np.int32)
    candidates = np.flatnonzero(launches["correlation"] > 0)
    calls = launches[candidates]
    order = candidates[np.lexsort((calls["start"], calls["correlation"]))]
    if not len(order) or not len(ops):
        return found
    ids = launches["correlation"][order]
    low = np.searchsorted(ids, ops["correlation"], "left")
    high = np.searchsorted(ids, ops["correlation"], "right")
    found[high > low] = order[low[high > low]]
    for i in np.flatnonzero(high - low > 1):  # several ranks in one file, or repeated ids
        starts = launches["start"][order[low[i] : high[i]]]
        found[i] = order[
            low[i] + max(0, int(np.searchsorted(starts, ops["start"][i], "right")) - 1)
        ]
    return found


def _added(start: Ints, end: Ints, group: Codes) -> Ints:
    """What each interval adds to the union of its group's earlier ones; sorted by start."""
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


def _keeps_busy(rows: npt.NDArray[np.void], end: Ints, group: Codes) -> Ints:
    """What each operation adds to its group's busy time; `rows` sorted by start."""
    start = rows["start"]
    _, device = np.unique(rows["device"], return_inverse=True)
    _, stream = np.unique(rows["stream"], return_inverse=True)
    lane = device * (stream.max(initial=0) + 1) + stream
    _, within = np.unique(group * (lane.max(initial=0) + 1) + lane, return_inverse=True)
    overlap = end - start - _added(start, end, within.astype(np.int32))
    busy: Ints = _added(start, end, group) + overlap
    return busy


def device_time(ops: DeviceOps, forest: Forest, group_of: Codes, groups: int) -> DeviceTime:
    """GPU time per group of tag instances, children included.

    `group_of` maps instances to groups; instances of one group must not contain one another.
    """
    made = {field.name: np.zeros(groups, dtype=np.int64) for field in fields(DeviceTime)}
    direct = ops.tag >= 0
    made["own"] = _sum(group_of[ops.tag[direct]], ops.exclusive[direct], groups)
    made["delay"] = _median_delay(ops, group_of, groups)
    current = ops.tag.copy()
    for depth in range(int(forest.depth.max(initial=-1)), -1, -1):
        chosen = np.flatnonzero((current >= 0) & (forest.depth[current] == depth))
        if not len(chosen):
            continue
        group = group_of[current[chosen]]
        start, end = ops.rows["start"][chosen], ops.end[chosen]
        made["busy"] += _sum(group, _keeps_busy(ops.rows[chosen], end, group), groups)
        made["total"] += _sum(group, end - start, groups)
        made["kernels"] += np.bincount(group, minlength=groups)
        kind = ops.rows["kind"][chosen]
        for number, time, mine in (
            ("copies", "copy", (kind == COPY) | (kind == FILL)),
            ("collectives", "collective", kind == COLLECTIVE),
        ):
            made[number] += np.bincount(group[mine], minlength=groups)
            made[time] += _sum(group[mine], (end - start)[mine], groups)
        first, last = np.full(groups, 2**62), np.full(groups, -(2**62))
        np.minimum.at(first, group, start)
        np.maximum.at(last, group, end)
        made["span"] += np.where(last > first, last - first, 0)
        current[chosen] = forest.parent[current[chosen]]
    return DeviceTime(**made)


def _sum(group: Codes, values: Ints, groups: int) -> Ints:
    return np.bincount(group, values, minlength=groups).astype(np.int64)


def _median_delay(ops: DeviceOps, group_of: Codes, groups: int) -> Ints:
    """The median launch-to-start delay per group, 0 where nothing was launched directly."""
    known: Mask = ops.tag >= 0
    median = np.zeros(groups, dtype=np.int64)
    if not known.any():
        return median
    group, delay = group_of[ops.tag[known]], ops.delay[known]
    order = np.lexsort((delay, group))
    distinct, first, count = np.unique(group[order], return_index=True, return_counts=True)
    median[distinct] = delay[order][first + count // 2]
    return median
