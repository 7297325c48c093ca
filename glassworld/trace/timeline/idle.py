"""Where the GPU idles, and which CPU code is to blame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.intervals import innermost

LEAST_NS = 10_000  # shorter gaps are the space between two kernels
LAUNCHING_MS = 1.0  # in shorter gaps the CPU only launches one operation after another
LONGEST = 256
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

    @property
    def host_works(self) -> bool:
        """Whether the CPU did something else in a long gap than launch, or wait for the GPU."""
        waits = "Synchronize" in self.culprit or "Memcpy" in self.culprit
        return self.ms > LAUNCHING_MS and bool(self.culprit) and not waits


@dataclass(frozen=True)
class HostWork:
    """CPU code that ran in long gaps: their sum, their number, the tag around one of them."""

    ms: float
    gaps: int
    tag: str


@dataclass(frozen=True)
class Idle:
    """What the gaps come to: waiting for queued operations, and CPU work by culprit."""

    queued_ms: float = 0.0
    host: dict[str, HostWork] = field(default_factory=dict)

    @property
    def host_ms(self) -> float:
        """All time in which the CPU did work of its own."""
        return sum(work.ms for work in self.host.values())

    def __add__(self, other: Idle) -> Idle:
        host = dict(self.host)
        for culprit, more in other.host.items():
            known = host.get(culprit, HostWork(0.0, 0, more.tag))
            host[culprit] = HostWork(known.ms + more.ms, known.gaps + more.gaps, known.tag)
        return Idle(self.queued_ms + other.queued_ms, host)


def idle_of(gaps: list[Gap]) -> Idle:
    """The gaps summed up."""
    made = Idle(sum(gap.ms for gap in gaps if gap.queued))
    for gap in gaps:
        if gap.host_works:
            made += Idle(host={gap.culprit: HostWork(gap.ms, 1, gap.tag)})
    return made


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
    longest = np.argsort(-length, kind="stable")[:LONGEST]
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
