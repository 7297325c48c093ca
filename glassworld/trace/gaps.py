"""Where the GPU idles, and which CPU code is to blame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glassworld.trace.analysis import Analysis
from glassworld.trace.nesting import innermost
from glassworld.trace.questions import Gap
from glassworld.trace.tables import Ints

LEAST_NS = 10_000  # shorter gaps are the space between two kernels


def idle_gaps(analysis: Analysis, most: int = 20) -> list[Gap]:
    """The longest stretches in which no GPU operation ran, longest first."""
    ops = analysis.ops
    if len(ops) < 2:
        return []
    latest = np.maximum.accumulate(ops.end)[:-1]
    length = ops.rows["start"][1:] - latest
    longest = np.argsort(-length)[:most]
    longest = longest[length[longest] >= LEAST_NS]
    return [_gap(analysis, int(latest[i]), int(i) + 1) for i in longest]


def _gap(analysis: Analysis, start: int, following: int) -> Gap:
    """The gap from `start` to the GPU operation `following`."""
    trace, tree, ops = analysis.trace, analysis.tree, analysis.ops
    end = int(ops.rows["start"][following])
    launch = int(ops.launch[following])
    tag, culprit, busy = "", "", 0
    if launch >= 0:
        call = trace.launches[launch]
        thread, launched = int(call["thread"]), int(call["start"])
        until = min(end, max(launched, start + 1))
        culprit, busy = _culprit(analysis, thread, start, until)
        middle = np.array([(start + until) // 2])
        around = int(innermost(tree.rows, tree.forest, np.array([thread]), middle)[0])
        tag = analysis.instance_name(around) if around >= 0 else ""
    return Gap(
        start_ms=(start - analysis.origin_ns) / 1e6,
        ms=(end - start) / 1e6,
        tag=tag,
        next_op=trace.names[int(ops.rows["name"][following])],
        culprit=culprit,
        culprit_ms=busy / 1e6,
    )


def _culprit(analysis: Analysis, thread: int, start: int, end: int) -> tuple[str, int]:
    """The shortest range that fills most of the time from `start` to `end` on a thread."""
    trace = analysis.trace
    best: tuple[int, str, int] | None = None
    batches = [trace.tags, trace.launches, *trace.ops.slices(), *trace.python.slices()]
    for rows in batches:
        found = _overlapping(rows, thread, start, end)
        for i in found:
            row_start, dur = int(rows["start"][i]), int(rows["dur"][i])
            overlap = min(end, row_start + dur) - max(start, row_start)
            if overlap >= 0.5 * (end - start) and (best is None or dur < best[0]):
                best = (dur, trace.names[int(rows["name"][i])], overlap)
    return (best[1], best[2]) if best else ("", 0)


def _overlapping(rows: npt.NDArray[np.void], thread: int, start: int, end: int) -> Ints:
    long_enough = rows["dur"] >= (end - start) // 2
    return np.flatnonzero(
        long_enough
        & (rows["thread"] == thread)
        & (rows["start"] < end)
        & (rows["start"] + rows["dur"] > start)
    )
