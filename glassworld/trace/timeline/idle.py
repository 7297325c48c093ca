"""Find the gaps in which the GPU idles, and the CPU code to blame for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import innermost_ranges
from glassworld.trace.timeline.tag_tree import TagTree

SHORTEST_GAP_NS = 10_000  # shorter gaps are the space between two kernels
LAUNCHING_MS = 1.0  # in shorter gaps the CPU only launches one operation after another
MOST_GAPS = 256
CULPRIT_SHARE = 0.5  # a culprit fills at least this share of the gap


@dataclass(frozen=True)
class IdleGap:
    """A time in which the GPU had nothing to do, and what the CPU did meanwhile; milliseconds.

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

    @property
    def host_works(self) -> bool:
        """True if the gap is long and the CPU neither launched work nor waited for the GPU."""
        waits = "Synchronize" in self.culprit or "Memcpy" in self.culprit
        return self.ms > LAUNCHING_MS and bool(self.culprit) and not waits


@dataclass(frozen=True)
class HostWork:
    """CPU code that ran in long gaps: their sum, their number, the tag around one of them."""

    ms: float
    gaps: int
    tag: str


@dataclass(frozen=True)
class IdleTotals:
    """Sums over the gaps: waiting for queued operations, and CPU work by culprit."""

    queued_ms: float = 0.0
    host: dict[str, HostWork] = field(default_factory=dict)

    @classmethod
    def from_gaps(cls, gaps: list[IdleGap]) -> IdleTotals:
        """Sum up the gaps."""
        totals = cls(sum(gap.ms for gap in gaps if gap.queued))
        for gap in gaps:
            if gap.host_works:
                totals += cls(host={gap.culprit: HostWork(gap.ms, 1, gap.tag)})
        return totals

    @property
    def host_ms(self) -> float:
        """All time in which the CPU did work of its own."""
        return sum(work.ms for work in self.host.values())

    def __add__(self, other: IdleTotals) -> IdleTotals:
        host = dict(self.host)
        for culprit, more in other.host.items():
            work = host.get(culprit, HostWork(0.0, 0, more.tag))
            host[culprit] = HostWork(work.ms + more.ms, work.gaps + more.gaps, work.tag)
        return IdleTotals(self.queued_ms + other.queued_ms, host)


@dataclass
class _OpenGap:
    """A gap whose culprit is still sought; nanoseconds of the trace's clock."""

    start: int
    end: int
    next_op: int
    thread: int = -1
    launched: int = 0
    shortest: int = 2**62
    culprit: int = -1
    overlap: int = 0

    @property
    def queued(self) -> bool:
        """True if the next operation was launched before half the gap had passed."""
        return 0 < self.launched < (self.start + self.end) / 2


def idle_gaps(trace: Trace, tree: TagTree, ops: DeviceOps, since: int) -> list[IdleGap]:
    """Return the longest times after `since` in which no GPU operation ran, longest first.

    The time before the first operation counts up to its launch.
    """
    gaps = _longest_gaps(trace, ops, since) if len(ops) else []
    if gaps:
        sought = [gap for gap in gaps if not gap.queued and gap.launched > gap.start]
        shortest = min((gap.launched - gap.start for gap in sought), default=0)
        for rows in (trace.tags, trace.launches, *trace.ops.slices(), *trace.python.slices()):
            _find_culprits(sought, rows[rows["dur"] >= CULPRIT_SHARE * shortest])
    return [_close_gap(trace, tree, ops, gap) for gap in gaps]


def _longest_gaps(trace: Trace, ops: DeviceOps, since: int) -> list[_OpenGap]:
    latest = np.concatenate([[since], np.maximum.accumulate(ops.end)[:-1]])
    length = ops.rows["start"] - latest
    if ops.launch[0] >= 0:
        length[0] = trace.launches["start"][ops.launch[0]] - latest[0]
    longest = np.argsort(-length, kind="stable")[:MOST_GAPS]
    gaps = []
    for i in longest[length[longest] >= SHORTEST_GAP_NS].tolist():
        gap = _OpenGap(int(latest[i]), int(latest[i] + length[i]), i)
        if ops.launch[i] >= 0:
            call = trace.launches[ops.launch[i]]
            gap.thread, gap.launched = int(call["thread"]), min(gap.end, int(call["start"]))
        gaps.append(gap)
    return gaps


def _find_culprits(gaps: list[_OpenGap], rows: npt.NDArray[np.void]) -> None:
    """Let each gap take the shortest range of `rows` that fills most of it."""
    if not len(rows):
        return
    ends = rows["start"] + rows["dur"]
    for gap in gaps:
        overlap = np.minimum(ends, gap.launched) - np.maximum(rows["start"], gap.start)
        least = CULPRIT_SHARE * (gap.launched - gap.start)
        fills = (rows["thread"] == gap.thread) & (overlap >= least)
        for i in np.flatnonzero(fills & (rows["dur"] < gap.shortest)):
            if rows["dur"][i] < gap.shortest:
                gap.shortest, gap.culprit = int(rows["dur"][i]), int(rows["name"][i])
                gap.overlap = int(overlap[i])


def _close_gap(trace: Trace, tree: TagTree, ops: DeviceOps, gap: _OpenGap) -> IdleGap:
    tag = -1
    if gap.thread >= 0:
        middle = np.array([(gap.start + max(gap.start, gap.launched)) // 2])
        thread = np.array([gap.thread], dtype=np.int32)
        tag = int(innermost_ranges(tree.rows, tree.forest, thread, middle)[0])
    return IdleGap(
        start_ms=(gap.start - trace.start) / 1e6,
        ms=(gap.end - gap.start) / 1e6,
        tag=tree.instance_name(tag) if tag >= 0 else "",
        next_op=trace.names[int(ops.rows["name"][gap.next_op])],
        culprit=trace.names[gap.culprit] if gap.culprit >= 0 else "",
        culprit_ms=gap.overlap / 1e6,
        queued=gap.queued,
    )
