"""Compute the memory allocated while each tag or operator runs, from the allocator's record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Ints, Trace
from glassworld.trace.timeline.intervals import innermost_ranges, nest_intervals
from glassworld.trace.timeline.rows import WHOLE_RUN
from glassworld.trace.timeline.tag_tree import TagTree


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
        for device in np.unique(rows["device"]).tolist():
            most = int(rows["total"][rows["device"] == device].max())
            highest[device] = max(highest.get(device, most), most)
    return highest


@dataclass(frozen=True)
class InstanceMemory:
    """Bytes of one device for each tag instance that touched it: the most, and those kept."""

    instances: Ints
    peak: Ints
    kept: Ints


def instance_memory(trace: Trace, tree: TagTree) -> dict[int, InstanceMemory]:
    """Return the memory of the tag instances that touched any, by device."""
    by_device: dict[int, _Allocations] = {}
    for rows in trace.memory.in_time():
        for device in np.unique(rows["device"]).tolist():
            allocations = by_device.setdefault(device, _Allocations(tree))
            allocations.add(rows[rows["device"] == device])
    return {device: allocations.touched() for device, allocations in by_device.items()}


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
    memory: list[TagMemory] = []
    for device, peak in peak_bytes(trace).items():
        whole, kept = _MemoryOfNames(len(trace.names)), 0
        for rows in trace.memory.in_time():
            whole.add(rows[rows["device"] == device], trace)
        kept = whole.last - (whole.first or 0)
        memory.append(TagMemory(WHOLE_RUN, device, peak / 2**20, kept / 2**20))
        for name in np.flatnonzero(whole.calls).tolist():
            mean = float(whole.kept[name] / whole.calls[name])
            peak_mib = float(whole.peak[name]) / 2**20
            row = TagMemory(trace.names[name], device, peak_mib, mean / 2**20)
            memory.append(row)
    return by_peak(memory)


class _MemoryOfNames:
    """The bytes allocated on one device by operators of each name."""

    def __init__(self, names: int) -> None:
        self.peak, self.kept = np.zeros(names, np.int64), np.zeros(names, np.int64)
        self.calls = np.zeros(names, np.int64)
        self.first: int | None = None
        self.last = 0
        self._still_open: set[tuple[int, int, int, int]] = set()

    def add(self, rows: npt.NDArray[np.void], trace: Trace) -> None:
        """Take in rows of the allocator's record, in order and later than those before."""
        if not len(rows):
            return
        before = self.last if self.first is not None else int(rows["total"][0])
        self.first = before if self.first is None else self.first
        change = np.diff(rows["total"], prepend=before)
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
        np.maximum.at(self.peak, name, rows["total"][inside])
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
    """The bytes allocated on one device before, during (-1: no event) and after each instance."""

    def __init__(self, tree: TagTree) -> None:
        self.start = tree.rows["start"]
        self.end = tree.rows["start"] + tree.rows["dur"]
        self.peak = np.full(len(tree), -1, dtype=np.int64)
        self.before, self.after = np.zeros_like(self.peak), np.zeros_like(self.peak)
        self._last_total = 0

    def add(self, rows: npt.NDArray[np.void]) -> None:
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
            bounds = np.stack([low[touched] + 1, high[touched] + 1], 1).ravel()
            highest = np.maximum.reduceat(np.append(totals, 0), bounds)[::2]
            self.peak[touched] = np.maximum(self.peak[touched], highest)
        self._last_total = int(totals[-1])

    def touched(self) -> InstanceMemory:
        """Return the instances in which memory was allocated or released."""
        instances = np.flatnonzero(self.peak >= 0)
        kept = self.after[instances] - self.before[instances]
        return InstanceMemory(instances, self.peak[instances], kept)
