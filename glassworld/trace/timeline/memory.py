"""Compute the memory allocated while each tag runs, from the allocator's own record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Trace
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class TagMemory:
    """A tag's memory over its instances, in MiB; `device` -1 is the CPU."""

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
