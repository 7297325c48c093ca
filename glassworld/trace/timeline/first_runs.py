"""Tell the first run of each kernel from its later ones, over all chunks of a trace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Trace
from glassworld.trace.timeline.attribution import DeviceOps

_SUMS = ("runs", "call_ns", "dur_ns", "added_ns")

_FIRST = ("first_call_ns", "first_gap", "first_held_ns", "first_dur_ns", "first_added_ns")

KERNEL_RUNS = np.dtype(
    [
        ("name", "<i4"),
        ("first_call", "<i4"),
        *((column, "<i8") for column in ("first", "last", *_SUMS, *_FIRST)),
    ]
)
"""A kernel over all its runs.

`call_ns` is the time of its launch calls, `dur_ns` its durations, `added_ns` the busy time it adds
to operations that started before. `first` and `last` are when its first and its last run was
launched. Of the first run: the name of the launch call (-1: none), its times, when the idle time
before it began (`first_gap`), and how much of that the launch call took (`first_held_ns`).
"""

Rows = npt.NDArray[np.void]


def kernel_runs(trace: Trace, ops: DeviceOps) -> Rows:
    """Return one row (dtype `KERNEL_RUNS`) per name of a GPU operation."""
    rows = np.zeros(len(ops), KERNEL_RUNS)
    called = ops.launch >= 0
    calls = trace.launches[ops.launch[called]]
    rows["name"], rows["runs"] = ops.rows["name"], 1
    rows["dur_ns"] = rows["first_dur_ns"] = ops.rows["dur"]
    rows["added_ns"] = rows["first_added_ns"] = ops.exclusive
    rows["first_held_ns"], rows["first_gap"] = ops.idle, ops.rows["start"] - ops.idle
    rows["first"], rows["first_call"] = ops.rows["start"], -1
    rows["first"][called], rows["first_call"][called] = calls["start"], calls["name"]
    rows["call_ns"][called] = rows["first_call_ns"][called] = calls["dur"]
    held_from = np.maximum(calls["start"], rows["first_gap"][called])
    held_until = np.minimum(calls["start"] + calls["dur"], ops.rows["start"][called])
    rows["first_held_ns"][called] = np.maximum(0, held_until - held_from)
    rows["last"] = rows["first"]
    return merge_runs(rows)


def merge_runs(rows: Rows) -> Rows:
    """Merge the rows of each kernel, of several chunks or of single runs."""
    if not len(rows):
        return rows
    rows = rows[np.lexsort((rows["first_gap"], rows["first"], rows["name"]))]
    start = np.flatnonzero(np.diff(rows["name"], prepend=-1))
    merged = rows[start]
    for column in _SUMS:
        merged[column] = np.add.reduceat(rows[column], start)
    merged["last"] = np.maximum.reduceat(rows["last"], start)
    return merged
