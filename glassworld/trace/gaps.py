"""Where the GPU idles, and which CPU code is to blame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.analysis import Analysis
from glassworld.trace.nesting import innermost

LEAST_NS = 10_000  # shorter gaps are the space between two kernels
KEPT = 64
COVERS = 0.5  # a culprit fills at least this share of the gap


@dataclass(frozen=True)
class Gap:
    """A stretch in which the GPU had nothing to do, and what the CPU did meanwhile; ms.

    `culprit` is the shortest range on the launching thread that fills most of it, from the
    gap's start to the launch that ended it. There is none where the operation behind the gap was
    `queued`, launched before half the gap had passed: then the GPU waited for itself, or for
    work that is not in the trace.
    """

    start_ms: float
    ms: float
    tag: str
    next_op: str
    culprit: str
    culprit_ms: float
    queued: bool


@dataclass
class _Open:
    """A gap whose culprit is still sought."""

    start: int
    end: int
    following: int
    thread: int = -1
    launched: int = 0
    shortest: int = 2**62
    name: int = -1
    overlap: int = 0

    @property
    def queued(self) -> bool:
        """Whether the GPU had been given the operation before half the gap had passed."""
        return 0 < self.launched < (self.start + self.end) / 2


def idle_gaps(analysis: Analysis) -> list[Gap]:
    """The longest stretches in which no GPU operation ran, longest first.

    The stretch before the first operation counts up to its launch, where a tag with GPU work has
    begun by then.
    """
    open_gaps = _longest(analysis)
    if open_gaps:
        trace = analysis.trace
        blamed = [gap for gap in open_gaps if not gap.queued and gap.launched > gap.start]
        shortest = min((gap.launched - gap.start for gap in blamed), default=0)
        batches = [trace.tags, trace.launches]
        for rows in (*batches, *trace.ops.slices(), *trace.python.slices()):
            _blame(blamed, rows[rows["dur"] >= COVERS * shortest])
    return [_closed(analysis, gap) for gap in open_gaps]


def _longest(analysis: Analysis) -> list[_Open]:
    ops = analysis.ops
    if analysis.gpu is None:
        return []
    latest = np.concatenate([[analysis.gpu.since], np.maximum.accumulate(ops.end)[:-1]])
    length = ops.rows["start"] - latest
    if ops.launch[0] >= 0:
        length[0] = analysis.trace.launches["start"][ops.launch[0]] - latest[0]
    longest = np.argsort(-length, kind="stable")[:KEPT]
    made = []
    for i in longest[length[longest] >= LEAST_NS].tolist():
        gap = _Open(int(latest[i]), int(latest[i] + length[i]), i)
        if ops.launch[i] >= 0:
            call = analysis.trace.launches[ops.launch[i]]
            gap.thread, gap.launched = int(call["thread"]), min(gap.end, int(call["start"]))
        made.append(gap)
    return made


def _blame(gaps: list[_Open], rows: npt.NDArray[np.void]) -> None:
    """Let each gap take the shortest range of `rows` that fills most of it."""
    if not len(rows):
        return
    ends = rows["start"] + rows["dur"]
    for gap in gaps:
        overlap = np.minimum(ends, gap.launched) - np.maximum(rows["start"], gap.start)
        fills = (rows["thread"] == gap.thread) & (overlap >= COVERS * (gap.launched - gap.start))
        for i in np.flatnonzero(fills & (rows["dur"] < gap.shortest)):
            if rows["dur"][i] < gap.shortest:
                gap.shortest, gap.name = int(rows["dur"][i]), int(rows["name"][i])
                gap.overlap = int(overlap[i])


def _closed(analysis: Analysis, gap: _Open) -> Gap:
    trace, tree = analysis.trace, analysis.tree
    around = -1
    if gap.thread >= 0:
        middle = np.array([(gap.start + max(gap.start, gap.launched)) // 2])
        thread = np.array([gap.thread], dtype=np.int32)
        around = int(innermost(tree.rows, tree.forest, thread, middle)[0])
    return Gap(
        start_ms=(gap.start - analysis.origin_ns) / 1e6,
        ms=(gap.end - gap.start) / 1e6,
        tag=analysis.instance_name(around) if around >= 0 else "",
        next_op=trace.names[int(analysis.ops.rows["name"][gap.following])],
        culprit=trace.names[gap.name] if gap.name >= 0 else "",
        culprit_ms=gap.overlap / 1e6,
        queued=gap.queued,
    )
