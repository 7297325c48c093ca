"""What each tag holds in memory, from the allocator's own record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.trace.analysis import Analysis
from glassworld.trace.tables import Trace


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
    rows = trace.memory
    return {
        int(device): int(rows["total"][rows["device"] == device].max())
        for device in np.unique(rows["device"])
    }


def held(analysis: Analysis) -> list[Held]:
    """The memory of every pattern of tags that touched any, the highest peak first."""
    rows = analysis.trace.memory
    made = []
    for device in np.unique(rows["device"]):
        mine = rows[rows["device"] == device]
        mine = mine[np.argsort(mine["at"], kind="stable")]
        for pattern in range(len(analysis.tree.patterns)):
            found = np.flatnonzero(analysis.tree.pattern == pattern)
            start = analysis.tree.rows["start"][found]
            low = np.searchsorted(mine["at"], start)
            high = np.searchsorted(mine["at"], start + analysis.tree.rows["dur"][found])
            touched = high > low
            if not touched.any():
                continue
            low, high = low[touched], high[touched]
            before = np.where(low > 0, mine["total"][np.maximum(low - 1, 0)], 0)
            kept = mine["total"][high - 1] - before
            padded = np.append(mine["total"], 0)
            peak = np.maximum.reduceat(padded, np.stack([low, high], 1).ravel())[::2].max()
            made.append(
                Held(
                    analysis.tree.patterns[pattern],
                    int(device),
                    float(peak) / 2**20,
                    float(np.median(kept)) / 2**20,
                )
            )
    return sorted(made, key=lambda row: -row.peak_mib)
