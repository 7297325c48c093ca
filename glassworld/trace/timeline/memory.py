"""Compute the memory allocated while each tag or operator runs, from the allocator's record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Trace
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


def tag_memory(trace: Trace, tree: TagTree) -> list[TagMemory]:
    """Return the memory of every pattern of tags that touched any, the highest peak first."""
    by_device: dict[int, _InstanceMemory] = {}
    for rows in trace.memory.slices():
        for device in np.unique(rows["device"]).tolist():
            instances = by_device.setdefault(device, _InstanceMemory(tree))
            instances.add(rows[rows["device"] == device])
    memory = []
    for device, instances in by_device.items():
        for pattern, name in enumerate(tree.patterns):
            touched = np.flatnonzero((tree.pattern == pattern) & (instances.peak >= 0))
            if len(touched):
                kept = np.median(instances.after[touched] - instances.before[touched])
                peak = instances.peak[touched].max()
                memory.append(TagMemory(name, device, float(peak) / 2**20, float(kept) / 2**20))
    return sorted(memory, key=lambda row: -row.peak_mib)


def run_memory(trace: Trace) -> list[TagMemory]:
    """Return the memory of the whole run and of its outermost operators, the highest peak first.

    What an operator kept is the mean over its calls that touched memory.
    """
    memory: list[TagMemory] = []
    for device, peak in peak_bytes(trace).items():
        whole, kept = _MemoryOfNames(len(trace.names)), 0
        for rows in trace.memory.slices():
            whole.add(rows[rows["device"] == device], trace)
        kept = whole.last - (whole.first or 0)
        memory.append(TagMemory(WHOLE_RUN, device, peak / 2**20, kept / 2**20))
        for name in np.flatnonzero(whole.calls).tolist():
            mean = whole.kept[name] / whole.calls[name]
            row = TagMemory(trace.names[name], device, whole.peak[name] / 2**20, mean / 2**20)
            memory.append(row)
    return sorted(memory, key=lambda row: -row.peak_mib)


class _MemoryOfNames:
    """The bytes allocated on one device by operators of each name."""

    def __init__(self, names: int) -> None:
        self.peak, self.kept = np.zeros(names, np.int64), np.zeros(names, np.int64)
        self.calls = np.zeros(names, np.int64)
        self.first: int | None = None
        self.last = 0

    def add(self, rows: npt.NDArray[np.void], trace: Trace) -> None:
        """Take in rows of the allocator's record, later than those before."""
        if not len(rows):
            return
        rows = rows[np.argsort(rows["at"], kind="stable")]
        before = self.last if self.first is not None else int(rows["total"][0])
        self.first = before if self.first is None else self.first
        change = np.diff(rows["total"], prepend=before)
        self.last = int(rows["total"][-1])
        start, end = int(rows["at"][0]), int(rows["at"][-1])
        for ops in trace.ops.slices():
            near = ops[(ops["start"] <= end) & (ops["start"] + ops["dur"] >= start)]
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
            np.add.at(self.calls, near["name"][np.unique(outermost)], 1)


class _InstanceMemory:
    """The bytes allocated on one device before, during (-1: no event) and after each instance."""

    def __init__(self, tree: TagTree) -> None:
        self.start = tree.rows["start"]
        self.end = tree.rows["start"] + tree.rows["dur"]
        self.peak = np.full(len(tree), -1, dtype=np.int64)
        self.before, self.after = np.zeros_like(self.peak), np.zeros_like(self.peak)
        self._last_total = 0

    def add(self, rows: npt.NDArray[np.void]) -> None:
        """Take in rows of the allocator's record, later than those before."""
        rows = rows[np.argsort(rows["at"], kind="stable")]
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
