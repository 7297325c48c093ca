"""What each tag holds in memory, from the allocator's own record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Trace
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class Held:
    """A tag's memory over its instances, in MiB; `device` -1 is the CPU."""

    tag: str
    device: int
    peak_mib: float
    """The most that was allocated while the tag ran, by anyone."""
    kept_mib: float
    """What the tag's instances allocated and did not release before they ended, in the median."""


def peaks(trace: Trace) -> dict[int, int]:
    """Bytes allocated at the peak of each device."""
    highest: dict[int, int] = {}
    for rows in trace.memory.slices():
        for device in np.unique(rows["device"]).tolist():
            most = int(rows["total"][rows["device"] == device].max())
            highest[device] = max(highest.get(device, most), most)
    return highest


class _Watch:
    """What the allocator of one device held around and during each tag instance; bytes."""

    def __init__(self, tree: TagTree) -> None:
        self.start = tree.rows["start"]
        self.end = tree.rows["start"] + tree.rows["dur"]
        self.peak = np.full(len(tree), -1, dtype=np.int64)
        self.before, self.after = np.zeros_like(self.peak), np.zeros_like(self.peak)
        self._last = 0

    def add(self, rows: npt.NDArray[np.void]) -> None:
        """Take in later rows."""
        rows = rows[np.argsort(rows["at"], kind="stable")]
        totals = np.concatenate([[self._last], rows["total"]])
        first, last = int(rows["at"][0]), int(rows["at"][-1])
        low = np.searchsorted(rows["at"], self.start)
        high = np.searchsorted(rows["at"], self.end)
        for moments, places, kept in ((self.start, low, self.before), (self.end, high, self.after)):
            here = moments > first
            kept[here] = totals[places[here]]
        touched = np.flatnonzero((high > low) & (self.start <= last))
        if len(touched):
            bounds = np.stack([low[touched] + 1, high[touched] + 1], 1).ravel()
            highest = np.maximum.reduceat(np.append(totals, 0), bounds)[::2]
            self.peak[touched] = np.maximum(self.peak[touched], highest)
        self._last = int(totals[-1])


def held_by_tags(analysis: Analysis) -> list[Held]:
    """What `Analysis.held` gives, counted."""
    tree = analysis.tree
    watches: dict[int, _Watch] = {}
    for rows in analysis.trace.memory.slices():
        for device in np.unique(rows["device"]).tolist():
            watch = watches.setdefault(device, _Watch(tree))
            watch.add(rows[rows["device"] == device])
    made = []
    for device, watch in watches.items():
        for pattern, name in enumerate(tree.patterns):
            found = np.flatnonzero((tree.pattern == pattern) & (watch.peak >= 0))
            if len(found):
                kept = np.median(watch.after[found] - watch.before[found])
                peak = watch.peak[found].max()
                made.append(Held(name, device, float(peak) / 2**20, float(kept) / 2**20))
    return sorted(made, key=lambda row: -row.peak_mib)
