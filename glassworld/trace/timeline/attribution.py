"""Attribute GPU operations to tags, and compute how long each tag kept the GPU busy.

An operation belongs to the innermost tag around its *launch* on the launching thread (found by
correlation id), and to every tag around that one. Busy time is the union of the operations'
intervals, over streams and within each, so busy <= span <= window for every tag. An operation is
queued from the end of its launch call to its own start.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import (
    COLLECTIVE,
    COPY,
    DEVICE_OP,
    FILL,
    Codes,
    Floats,
    Ints,
    Mask,
    Trace,
)
from glassworld.trace.timeline.intervals import IntervalForest, innermost_ranges, merge_intervals
from glassworld.trace.timeline.tag_tree import TagTree

TIMED_OP = np.dtype(
    [*DEVICE_OP.descr, ("added", "<i8"), ("added_to_stream", "<i8"), ("idle", "<i8")]
)
"""A GPU operation with the busy time it adds to those started before, and the idle time before."""

_NEVER = -(2**62)


@dataclass(frozen=True)
class DeviceOps:
    """GPU operations sorted by start (dtype `DEVICE_OP`), with their launches and tags.

    `launch` is a row of `Trace.launches` (-1: launched outside the trace), `tag` an instance of
    the tag tree (-1: outside any tag), `delay` the nanoseconds queued (-1: no launch).
    `exclusive` is the busy time an operation adds to those started before it: it sums to the
    GPU's busy time. `idle` is the idle time right before it.
    """

    rows: npt.NDArray[np.void]
    end: Ints
    launch: Codes
    tag: Codes
    delay: Ints
    exclusive: Ints
    idle: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class DeviceTime:
    """Per group of tag instances: nanoseconds of GPU time, and numbers of operations.

    `busy` is the union of the operations' intervals, `total` the sum of their durations (more
    where some ran side by side), `span` the union of the instances' times from the first one's
    start to the last one's end (`first` and `last`, per group).
    `self_busy` is the busy time that operations launched directly in the group add to the GPU's:
    over all groups, and with what lies outside every tag, it adds up to the GPU's busy time.
    `kernels` counts all operations, copies and collectives among them.
    """

    busy: Ints
    self_busy: Ints
    total: Ints
    first: Ints
    last: Ints
    kernels: Ints
    copies: Ints
    copy_time: Ints
    collectives: Ints
    collective_time: Ints
    delay: Floats
    """The median time queued, of the operations launched directly in the group."""

    @property
    def span(self) -> Ints:
        """The time from the first operation's start to the last one's end; 0 without any."""
        span: Ints = np.maximum(0, self.last - self.first)
        return span


def timed_ops(trace: Trace) -> npt.NDArray[np.void]:
    """Return the GPU operations (dtype `TIMED_OP`) sorted by start."""
    rows = trace.device_ops
    if rows.dtype == TIMED_OP:
        return rows[np.argsort(rows["start"], kind="stable")]
    return DeviceClock(trace).timed(rows)


def attribute_ops(
    trace: Trace, tree: TagTree, rows: npt.NDArray[np.void], moment: Ints | None = None
) -> DeviceOps:
    """Find the launch and the tag of every GPU operation of `timed_ops`.

    An operation has the tag that is open at its `moment`: -1 is the start of its launch call.
    """
    launch = match_launches(rows, trace.launches)
    launched = launch >= 0
    tag = np.full(len(rows), -1, dtype=np.int32)
    calls = trace.launches[launch[launched]]
    at = calls["start"]
    if moment is not None:
        at = np.where(moment[launched] >= 0, moment[launched], at)
    tag[launched] = innermost_ranges(tree.rows, tree.forest, calls["thread"], at)
    delay = np.full(len(rows), -1, dtype=np.int64)
    delay[launched] = np.maximum(0, rows["start"][launched] - calls["start"] - calls["dur"])
    end = rows["start"] + rows["dur"]
    return DeviceOps(rows, end, launch, tag, delay, rows["added"], rows["idle"])


class DeviceClock:
    """Finds what each operation adds to the busy time, of rows that come in order of time."""

    def __init__(self, trace: Trace) -> None:
        self._trace, self._until = trace, trace.start
        self._until_of_stream: dict[tuple[int, int, int], int] = {}

    def timed(self, rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Return operations sorted by start, later than those before, with their added times."""
        timed = np.empty(len(rows), TIMED_OP)
        order = np.argsort(rows["start"], kind="stable")
        for name in DEVICE_OP.names or ():
            timed[name] = rows[name][order]
        end = timed["start"] + timed["dur"]
        latest = np.maximum.accumulate(np.concatenate([[self._until], end]))
        timed["added"] = np.maximum(0, end - np.maximum(timed["start"], latest[:-1]))
        timed["idle"] = np.maximum(0, timed["start"] - latest[:-1])
        streams, lane = np.unique(self._trace.streams(timed), return_inverse=True)
        before = np.array([self._until_of_stream.get(s, _NEVER) for s in streams.tolist()])
        timed["added_to_stream"] = _added_to_union(
            timed["start"], end, lane.astype(np.int32), before
        )
        until = before.copy()
        np.maximum.at(until, lane, end)
        self._until_of_stream.update(zip(streams.tolist(), until.tolist(), strict=True))
        self._until = int(latest[-1])
        return timed


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


def _added_to_union(start: Ints, end: Ints, group: Codes, covered: Ints | None = None) -> Ints:
    """Return what each interval adds to the union of its group's earlier ones; sorted by start.

    Each group's intervals before these ended by `covered`.
    """
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
    if covered is not None:
        before = np.maximum(before, covered[groups])
    added = np.empty(len(ends), dtype=np.int64)
    added[by_group] = np.maximum(0, ends - np.maximum(starts, before))
    return added


def stream_overlap(ops: DeviceOps) -> tuple[int, int]:
    """Return the time that operations take beside another one of the same stream.

    The second number counts the operations that lie within others for all their time.
    """
    dur, added = ops.rows["dur"], ops.rows["added_to_stream"]
    return int((dur - added).sum()), int(((added == 0) & (dur > 0)).sum())


def union_by_group(start: Ints, end: Ints, group: Codes, groups: int) -> Ints:
    """Return the length of the union of each group's intervals."""
    order = np.argsort(start, kind="stable")
    added = _added_to_union(start[order], end[order], group[order])
    return _sum(group[order], added, groups)


def device_time(ops: DeviceOps, forest: IntervalForest, group_of: Codes, groups: int) -> DeviceTime:
    """Return the GPU time per group of tag instances, children included.

    `group_of` maps instances to groups; instances of one group must not contain one another.
    """
    names = [field.name for field in fields(DeviceTime) if field.name != "delay"]
    sums = {name: np.zeros(groups, dtype=np.int64) for name in names}
    sums["first"], sums["last"] = np.full(groups, 2**62), np.full(groups, -(2**62))
    direct = ops.tag >= 0
    sums["self_busy"] = _sum(group_of[ops.tag[direct]], ops.exclusive[direct], groups)
    current = ops.tag.copy()
    for depth in range(int(forest.depth.max(initial=-1)), -1, -1):
        at_depth = np.flatnonzero((current >= 0) & (forest.depth[current] == depth))
        if not len(at_depth):
            continue
        group = group_of[current[at_depth]]
        start, end = ops.rows["start"][at_depth], ops.end[at_depth]
        sums["busy"] += _sum(group, _added_to_union(start, end, group), groups)
        sums["total"] += _sum(group, end - start, groups)
        sums["kernels"] += np.bincount(group, minlength=groups)
        kind = ops.rows["kind"][at_depth]
        for count, time, of_kind in (
            ("copies", "copy_time", (kind == COPY) | (kind == FILL)),
            ("collectives", "collective_time", kind == COLLECTIVE),
        ):
            sums[count] += np.bincount(group[of_kind], minlength=groups)
            sums[time] += _sum(group[of_kind], (end - start)[of_kind], groups)
        np.minimum.at(sums["first"], group, start)
        np.maximum.at(sums["last"], group, end)
        current[at_depth] = forest.parent[current[at_depth]]
    return DeviceTime(**sums, delay=_median_delay(ops, group_of, groups))


def _sum(group: Codes, values: Ints, groups: int) -> Ints:
    return np.bincount(group, values, minlength=groups).astype(np.int64)


def _median_delay(ops: DeviceOps, group_of: Codes, groups: int) -> Floats:
    """Return the median launch-to-start delay per group; 0 without direct launches."""
    tagged: Mask = ops.tag >= 0
    median = np.zeros(groups)
    if not tagged.any():
        return median
    group, delay = group_of[ops.tag[tagged]], ops.delay[tagged]
    order = np.lexsort((delay, group))
    distinct, first, count = np.unique(group[order], return_index=True, return_counts=True)
    low, high = (delay[order][first + at] for at in ((count - 1) // 2, count // 2))
    median[distinct] = (low + high) / 2
    return median


def busy_by_device(trace: Trace) -> dict[str, int]:
    """Return the busy nanoseconds of each device by its name; none of a single device.

    Ranks of a merged trace have devices of their own.
    """
    if _device_count(trace) < 2:
        return {}
    busy: Counter[tuple[int, int]] = Counter()
    until: dict[tuple[int, int], int] = {}
    for rows in trace.device_rows.in_time():
        devices, which = np.unique(trace.streams(rows)[_DEVICE], return_inverse=True)
        for i, device in enumerate(devices.tolist()):
            mine, before = rows[which == i], until.get(device, _NEVER)
            spans = np.stack([mine["start"], mine["start"] + mine["dur"]], axis=1)
            spans = merge_intervals(np.maximum(spans, before))
            busy[device] += int((spans[:, 1] - spans[:, 0]).sum())
            until[device] = int(spans[-1, 1])
    processes = list(dict.fromkeys(str(pid) for pid, _ in trace.threads))
    alone = len({number for _, number in busy}) == len(busy)
    return {
        f"device {number}" + ("" if alone else f" (process {processes[process]})"): ns
        for (process, number), ns in sorted(busy.items(), key=lambda item: item[0][::-1])
    }


_DEVICE = ["process", "device"]


def _device_count(trace: Trace) -> int:
    devices: set[tuple[int, int]] = set()
    for rows in trace.device_rows.slices():
        devices.update(np.unique(trace.streams(rows)[_DEVICE]).tolist())
    return len(devices)
