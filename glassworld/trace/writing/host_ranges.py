"""All ranges of a trace's CPU threads as one forest, from tags down to launch calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import RANGE, Trace
from glassworld.trace.timeline.intervals import IntervalForest, nest_intervals


@dataclass(frozen=True)
class HostRanges:
    """Ranges (dtype `RANGE`) and how they nest; of equal ranges, tags are the outer ones."""

    rows: npt.NDArray[np.void]
    forest: IntervalForest


def host_ranges(trace: Trace) -> HostRanges:
    """Return all ranges of the CPU threads, nested."""
    tables = (trace.tag_rows, trace.python, trace.ops, trace.launch_rows)
    fields = list(RANGE.names or ())
    rows = np.concatenate([table.to_array()[fields].astype(RANGE) for table in tables])
    return HostRanges(rows, nest_intervals(rows))
