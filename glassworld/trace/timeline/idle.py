"""Find the gaps in which the GPU idles, and the CPU code to blame for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Ints, Mask, Trace
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

    `culprit` is the shortest range on the launching thread (else on any) that fills most of it,
    from the gap's start to the end of the launch call that ended it. There is none where the
    operation behind the gap was `queued`: its launch call had ended before half the gap had
    passed, so the GPU waited for itself, or for work that is not in the trace.
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


def launches(name: str) -> bool:
    """Return True for a call of the GPU's runtime that launches work."""
    return "launch" in name.lower() and name.startswith(("cuda", "cu", "hip", "Launch", "ze", "ur"))


@dataclass(frozen=True)
class HostWork:
    """CPU code that ran in long gaps: their sum, their number, the tag around one of them."""

    ms: float
    gaps: int
    tag: str


@dataclass(frozen=True)
class IdleTotals:
    """Sums over gaps: waiting for queued operations (over all gaps), CPU work by culprit."""

    queued_ms: float = 0.0
    host: dict[str, HostWork] = field(default_factory=dict)

    @classmethod
    def from_gaps(cls, gaps: list[IdleGap], queued_ms: float) -> IdleTotals:
        """Sum up the gaps."""
        totals = cls(queued_ms)
        for gap in gaps:
            if gap.host_works:
                totals += cls(host={gap.culprit: HostWork(gap.ms, 1, gap.tag)})
        return totals

    @property
    def host_ms(self) -> float:
        """All time in which the CPU did work of its own."""
        return sum(work.ms for work in self.host.values())

    @property
    def main_culprit(self) -> str:
        """The CPU code with most of that time, if it has more than half; else empty."""
        culprit = max(self.host, key=lambda name: self.host[name].ms, default="")
        return culprit if culprit and self.host[culprit].ms > self.host_ms / 2 else ""

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
    queued: bool = False
    shortest: int = 2**62
    culprit: int = -1
    overlap: int = 0


@dataclass(frozen=True)
class _Gaps:
    """The idle time before every operation; nanoseconds of the trace's clock.

    Before the trace's first operation it counts up to the end of its launch call, or to its start
    if that is earlier. `launched` is when the launch call ended, or the gap if that was earlier.
    """

    start: Ints
    end: Ints
    launched: Ints
    queued: Mask


def _all_gaps(trace: Trace, ops: DeviceOps) -> _Gaps:
    start = ops.rows["start"] - ops.idle
    end, known = ops.rows["start"].copy(), ops.launch >= 0
    launched = end.copy()
    calls = trace.launches[ops.launch[known]]
    launched[known] = np.clip(calls["start"] + calls["dur"], start[known], end[known])
    first = (start == trace.start) & known
    end[first] = launched[first]
    return _Gaps(start, end, launched, known & (launched < (start + end) / 2))


def queued_ms(trace: Trace, ops: DeviceOps) -> float:
    """Return the time of all gaps at whose end an operation starts that had long been launched."""
    gaps = _all_gaps(trace, ops)
    length = gaps.end - gaps.start
    return float(length[gaps.queued & (length >= SHORTEST_GAP_NS)].sum()) / 1e6


def idle_gaps(trace: Trace, tree: TagTree, ops: DeviceOps) -> list[IdleGap]:
    """Return the longest times before an operation in which none ran, longest first."""
    gaps = _longest_gaps(trace, ops) if len(ops) else []
    if gaps:
        sought = [gap for gap in gaps if not gap.queued and gap.launched > gap.start]
        shortest = min((gap.launched - gap.start for gap in sought), default=0)
        for rows in (trace.tags, trace.launches, *trace.ops.slices(), *trace.python.slices()):
            _find_culprits(sought, rows[rows["dur"] >= CULPRIT_SHARE * shortest])
        elsewhere = [gap for gap in sought if gap.culprit < 0]
        for gap in elsewhere:
            gap.thread = -1
        for rows in (trace.tags, *trace.ops.slices()) if elsewhere else ():
            _find_culprits(elsewhere, rows[rows["dur"] >= CULPRIT_SHARE * shortest])
    return [_close_gap(trace, tree, ops, gap) for gap in gaps]


def _longest_gaps(trace: Trace, ops: DeviceOps) -> list[_OpenGap]:
    every = _all_gaps(trace, ops)
    length = every.end - every.start
    longest = np.argsort(-length, kind="stable")[:MOST_GAPS]
    gaps = []
    for i in longest[length[longest] >= SHORTEST_GAP_NS].tolist():
        gap = _OpenGap(int(every.start[i]), int(every.end[i]), i, queued=bool(every.queued[i]))
        if ops.launch[i] >= 0:
            gap.thread = int(trace.launches["thread"][ops.launch[i]])
            gap.launched = int(every.launched[i])
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
        fills = overlap >= least
        if gap.thread >= 0:
            fills &= rows["thread"] == gap.thread
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
