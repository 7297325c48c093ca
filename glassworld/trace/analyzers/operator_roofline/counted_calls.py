"""Find the calls of operators whose work is counted, and the time that each took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import match_launches
from glassworld.trace.timeline.chunks import split_trace
from glassworld.trace.timeline.intervals import IntervalForest, innermost_ranges, nest_intervals

Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class CountedCalls:
    """Calls whose work is counted (dtype `SHAPED_OP`); nanoseconds.

    `ns` is the sum of the durations of the GPU operations that a call, or what it called,
    launched; on a CPU it is the call's duration. `without_gpu_work` counts the calls left out
    because nothing ran on the GPU for them.
    """

    rows: Rows
    ns: Ints
    without_gpu_work: int


def counted_calls(trace: Trace, countable: Mask) -> CountedCalls:
    """Return the innermost of the countable calls; `countable` marks rows of `shaped_ops`.

    So the work of nested operators (a linear layer that calls a matmul) counts once.
    """
    rows = trace.shaped_ops.to_array()
    forest = nest_intervals(rows)
    counted = countable & ~_around(forest, countable)
    if not len(trace.device_rows) or not counted.any():
        return CountedCalls(rows[counted], (forest.end - rows["start"])[counted], 0)
    ns, operations = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for chunk in split_trace(trace):
        ops = chunk.device_ops
        launch = match_launches(ops, chunk.launches)
        calls, dur = chunk.launches[launch[launch >= 0]], ops["dur"][launch >= 0]
        caller = _counted_callers(rows, forest, counted, calls)
        np.add.at(ns, caller[caller >= 0], dur[caller >= 0])
        np.add.at(operations, caller[caller >= 0], 1)
    ran = counted & (operations > 0)
    return CountedCalls(rows[ran], ns[ran], int((counted & ~ran).sum()))


def _counted_callers(rows: Rows, forest: IntervalForest, counted: Mask, calls: Rows) -> Codes:
    """Return the counted call around each launch call, -1 for none; one that ends then is not."""
    at = calls["start"]
    caller = innermost_ranges(rows, forest, calls["thread"], at)
    while True:
        is_open = (forest.end[caller] > at) | (rows["start"][caller] == at)
        outwards = (caller >= 0) & ~(counted[caller] & is_open)
        if not outwards.any():
            return caller
        caller[outwards] = forest.parent[caller[outwards]]


def _around(forest: IntervalForest, calls: Mask) -> Mask:
    """Mark the ranges around any of these calls, however far out."""
    around = np.zeros(len(calls), dtype=bool)
    for depth in range(int(forest.depth.max(initial=0)), 0, -1):
        level = np.flatnonzero((forest.depth == depth) & (calls | around))
        around[forest.parent[level]] = True
    return around
