"""Compute the memory allocated while each tag or operator runs, from the allocator's record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import EVERY_PROCESS, Ints, Mask, Trace
from glassworld.trace.timeline.intervals import innermost_ranges, nest_intervals
from glassworld.trace.timeline.rows import WHOLE_RUN
from glassworld.trace.timeline.tag_tree import TagTree

Rows = npt.NDArray[np.void]
Owner = tuple[int, object]
"""A device, and a process with a record of its own there, as each rank has in a merged trace."""


@dataclass(frozen=True)
class TagMemory:
    """A tag's memory over its instances, in MiB; `device` -1 is the CPU.

    In a run without tags, `tag` is an operator, or `WHOLE_RUN`.
    """

    tag: str
    device: int
    peak_mib: float
    """The most that was allocated while the tag ran, by anyone."""
    kept_mib: float
    """What the tag's instances allocated and did not release before they ended, in the median."""


def peak_bytes(trace: Trace) -> dict[int, int]:
    """Return the bytes allocated at the peak of each device."""
    highest: dict[int, int] = {}
    for rows in trace.memory.slices():
        totals = np.maximum(rows["total"], _before(rows))
        for device in np.unique(rows["device"]).tolist():
            most = int(totals[rows["device"] == device].max())
            highest[device] = max(highest.get(device, most), most)
    return highest


def by_owner(trace: Trace, rows: Rows) -> Iterator[tuple[Owner, Rows]]:
    """Yield the rows of the allocator's record of each device and process, in their order."""
    pids = [pid for pid, _ in trace.threads]
    for device in np.unique(rows["device"]).tolist():
        on_device = rows[rows["device"] == device]
        threads = np.unique(on_device["thread"]).tolist()
        for pid in dict.fromkeys(pids[thread] for thread in threads):
            of_process = [thread for thread in threads if pids[thread] == pid]
            yield (device, pid), on_device[np.isin(on_device["thread"], of_process)]


def _before(rows: Rows) -> Ints:
    """Return the total before each row; that behind it where the trace lacks the change."""
    before: Ints = rows["total"] - rows["change"]
    return before


@dataclass(frozen=True)
class InstanceMemory:
    """Bytes of one device for each tag instance that touched it: the most, and those kept."""

    instances: Ints
    peak: Ints
    kept: Ints

    def and_also(self, others: InstanceMemory) -> InstanceMemory:
        """Return these instances and others."""
        return InstanceMemory(
            np.concatenate([self.instances, others.instances]),
            np.concatenate([self.peak, others.peak]),
            np.concatenate([self.kept, others.kept]),
        )


def instance_memory(trace: Trace, tree: TagTree) -> dict[int, InstanceMemory]:
    """Return the memory of the tag instances that touched any, by device."""
    by_process: dict[Owner, _Allocations] = {}
    for rows in trace.memory.in_time():
        for owner, own_rows in by_owner(trace, rows):
            if owner not in by_process:
                by_process[owner] = _Allocations(tree, own_rows)
            by_process[owner].add(own_rows)
    by_device: dict[int, InstanceMemory] = {}
    for (device, pid), allocations in by_process.items():
        own = allocations.touched(_tags_of(trace, tree, pid))
        others = by_device.get(device)
        by_device[device] = others.and_also(own) if others else own
    return by_device


def _tags_of(trace: Trace, tree: TagTree, pid: object) -> Mask:
    """Mark the tag instances that ran in a process."""
    wanted = [process == pid or pid == EVERY_PROCESS for process, _ in trace.threads]
    of_process: Mask = np.array(wanted, dtype=bool)[tree.rows["thread"]]
    return of_process


def tag_memory(trace: Trace, tree: TagTree) -> list[TagMemory]:
    """Return the memory of every pattern of tags that touched any, the highest peak first."""
    memory = []
    for device, of in instance_memory(trace, tree).items():
        pattern = tree.pattern[of.instances]
        for number in np.unique(pattern).tolist():
            mine = pattern == number
            peak, kept = float(of.peak[mine].max()), float(np.median(of.kept[mine]))
            memory.append(TagMemory(tree.patterns[number], device, peak / 2**20, kept / 2**20))
    return by_peak(memory)


def by_peak(memory: list[TagMemory]) -> list[TagMemory]:
    """Return rows in order: the highest peak first."""
    return sorted(memory, key=lambda row: (-row.peak_mib, row.device, row.tag))


def run_memory(trace: Trace) -> list[TagMemory]:
    """Return the memory of the whole run and of its outermost operators, the highest peak first.

    What an operator kept is the mean over its calls that touched memory.
    """
    by_process: dict[Owner, _MemoryOfNames] = {}
    for rows in trace.memory.in_time():
        for owner, own_rows in by_owner(trace, rows):
            if owner not in by_process:
                by_process[owner] = _MemoryOfNames(len(trace.names), own_rows)
            by_process[owner].add(own_rows, trace)
    memory: list[TagMemory] = []
    for device, peak in peak_bytes(trace).items():
        of_device = [own for (number, _), own in by_process.items() if number == device]
        whole = sum(own.last - own.first for own in of_device)
        memory.append(TagMemory(WHOLE_RUN, device, peak / 2**20, whole / 2**20))
        calls = np.add.reduce([own.calls for own in of_device])
        kept = np.add.reduce([own.kept for own in of_device])
        peaks = np.maximum.reduce([own.peak for own in of_device])
        for name in np.flatnonzero(calls).tolist():
            mean, peak_mib = float(kept[name] / calls[name]), float(peaks[name]) / 2**20
            memory.append(TagMemory(trace.names[name], device, peak_mib, mean / 2**20))
    return by_peak(memory)


class _MemoryOfNames:
    """The bytes allocated on one device, in one process, by operators of each name.

    `first` and `last` are the totals before and after all rows.
    """

    def __init__(self, names: int, first_rows: Rows) -> None:
        self.peak, self.kept = np.zeros(names, np.int64), np.zeros(names, np.int64)
        self.calls = np.zeros(names, np.int64)
        self.first = self.last = int(_before(first_rows)[0])
        self._still_open: set[tuple[int, int, int, int]] = set()

    def add(self, rows: Rows, trace: Trace) -> None:
        """Take in rows of the allocator's record, in order and later than those before."""
        before = np.concatenate([[self.last], rows["total"][:-1]])
        change, highest = rows["total"] - before, np.maximum(rows["total"], before)
        self.last = int(rows["total"][-1])
        start, end = int(rows["at"][0]), int(rows["at"][-1])
        near = np.concatenate(
            [np.empty(0, trace.ops.dtype)]
            + [
                ops[(ops["start"] <= end) & (ops["start"] + ops["dur"] >= start)]
                for ops in trace.ops.slices()
            ]
        )
        forest = nest_intervals(near)
        call = innermost_ranges(near, forest, rows["thread"], rows["at"])
        inside = np.flatnonzero(call >= 0)
        outermost = call[inside]
        while (forest.depth[outermost] > 0).any():
            deeper = forest.depth[outermost] > 0
            outermost[deeper] = forest.parent[outermost[deeper]]
        name = near["name"][outermost]
        np.maximum.at(self.peak, name, highest[inside])
        np.add.at(self.kept, name, change[inside])
        self._count_calls(near[np.unique(outermost)], end)

    def _count_calls(self, calls: npt.NDArray[np.void], until: int) -> None:
        """Count the calls that earlier rows have not touched already."""
        before = self._still_open
        self._still_open = set()
        for call in calls.tolist():
            name, _, start, dur = call
            self.calls[name] += call not in before
            if start + dur >= until:
                self._still_open.add(call)


class _Allocations:
    """The bytes allocated on one device, in one process, around each instance.

    They are those before it, the most while it ran (-1: no event) and those after it.
    """

    def __init__(self, tree: TagTree, first_rows: Rows) -> None:
        self.start = tree.rows["start"]
        self.end = tree.rows["start"] + tree.rows["dur"]
        self.peak = np.full(len(tree), -1, dtype=np.int64)
        self._last_total = int(_before(first_rows)[0])
        self.before = np.full_like(self.peak, self._last_total)
        self.after = self.before.copy()

    def add(self, rows: Rows) -> None:
        """Take in rows of the allocator's record, in order and later than those before."""
        totals = np.concatenate([[self._last_total], rows["total"]])
        first, last = int(rows["at"][0]), int(rows["at"][-1])
        low = np.searchsorted(rows["at"], self.start)
        high = np.searchsorted(rows["at"], self.end)
        for moments, index, allocated in (
            (self.start, low, self.before),
            (self.end, high, self.after),
        ):
            reached = moments > first
            allocated[reached] = totals[index[reached]]
        touched = np.flatnonzero((high > low) & (self.start <= last))
        if len(touched):
            bounds = np.stack([low[touched], high[touched] + 1], 1).ravel()
            highest = np.maximum.reduceat(np.append(totals, 0), bounds)[::2]
            self.peak[touched] = np.maximum(self.peak[touched], highest)
        self._last_total = int(totals[-1])

    def touched(self, among: Mask) -> InstanceMemory:
        """Return those instances `among` some in which memory was allocated or released."""
        instances = np.flatnonzero(among & (self.peak >= 0))
        kept = self.after[instances] - self.before[instances]
        return InstanceMemory(instances, self.peak[instances], kept)
