"""Find the gaps in which the GPU idles, and the CPU code to blame for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import EventTable, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import DeviceOps

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
    def from_gaps(cls, gaps: list[IdleGap], queued_ns: int) -> IdleTotals:
        """Sum up the gaps."""
        host: dict[str, HostWork] = {}
        for gap in gaps:
            if gap.host_works:
                work = host.get(gap.culprit, HostWork(0.0, 0, gap.tag))
                host[gap.culprit] = HostWork(work.ms + gap.ms, work.gaps + 1, work.tag)
        return cls(queued_ns / 1e6, host)

    @property
    def host_ms(self) -> float:
        """All time in which the CPU did work of its own."""
        return sum(work.ms for work in self.host.values())

    @property
    def main_culprit(self) -> str:
        """The CPU code with most of that time, if it has more than half; else empty."""
        culprit = max(self.host, key=lambda name: self.host[name].ms, default="")
        return culprit if culprit and self.host[culprit].ms > self.host_ms / 2 else ""


@dataclass(frozen=True)
class UnnamedGap:
    """A gap whose tag and culprit are still sought; nanoseconds of the trace's clock.

    `launched` is when the launch call behind it ended, on `thread` (-1: there is none); `next_op`
    is the name of the operation behind it.
    """

    start: int
    end: int
    next_op: int
    thread: int
    launched: int
    queued: bool

    @property
    def length(self) -> int:
        """How long the GPU idled."""
        return self.end - self.start


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


def queued_ns(trace: Trace, ops: DeviceOps) -> int:
    """Return the time of all gaps at whose end an operation starts that had long been launched."""
    gaps = _all_gaps(trace, ops)
    length = gaps.end - gaps.start
    return int(length[gaps.queued & (length >= SHORTEST_GAP_NS)].sum())


def longest_gaps(trace: Trace, ops: DeviceOps) -> list[UnnamedGap]:
    """Return the longest times before an operation in which none ran, longest first."""
    every = _all_gaps(trace, ops)
    length = every.end - every.start
    longest = np.argsort(-length, kind="stable")[:MOST_GAPS]
    gaps = []
    for i in longest[length[longest] >= SHORTEST_GAP_NS].tolist():
        known = ops.launch[i] >= 0
        gap = UnnamedGap(
            start=int(every.start[i]),
            end=int(every.end[i]),
            next_op=int(ops.rows["name"][i]),
            thread=int(trace.launches["thread"][ops.launch[i]]) if known else -1,
            launched=int(every.launched[i]) if known else 0,
            queued=bool(every.queued[i]),
        )
        gaps.append(gap)
    return gaps


def name_gaps(trace: Trace, gaps: list[UnnamedGap]) -> list[IdleGap]:
    """Find the tag and the culprit of each gap among all ranges of the trace."""
    search = _Search(gaps)
    for rows in trace.tag_rows.slices():
        search.look_for_tags(rows)
    tables = (trace.tag_rows, trace.launch_rows, trace.ops, trace.python)
    search.look_for_culprits(tables, anywhere=False)
    search.look_for_culprits((trace.tag_rows, trace.ops), anywhere=True)
    return [
        IdleGap(
            start_ms=(gap.start - trace.start) / 1e6,
            ms=gap.length / 1e6,
            tag=trace.names[search.tag[i]] if search.tag[i] >= 0 else "",
            next_op=trace.names[gap.next_op],
            culprit=trace.names[search.culprit[i]] if search.culprit[i] >= 0 else "",
            culprit_ms=search.overlap[i] / 1e6,
            queued=gap.queued,
        )
        for i, gap in enumerate(gaps)
    ]


class _Search:
    """Looks for the innermost tag in the middle of each gap, and for the range to blame."""

    def __init__(self, gaps: list[UnnamedGap]) -> None:
        self._gaps = gaps
        self.tag = [-1] * len(gaps)
        self.culprit = [-1] * len(gaps)
        self.overlap = [0] * len(gaps)
        self._innermost = [(-(2**62), 0)] * len(gaps)
        self._shortest = [2**62] * len(gaps)

    def look_for_tags(self, rows: npt.NDArray[np.void]) -> None:
        """Let each gap take the tag of its thread that begins last of those around its middle."""
        middles = [(gap.start + max(gap.start, gap.launched)) // 2 for gap in self._gaps]
        rows, ends = _touching(rows, middles, middles)
        for i, (gap, middle) in enumerate(zip(self._gaps, middles, strict=True)):
            around = (rows["start"] <= middle) & (ends >= middle) & (rows["thread"] == gap.thread)
            for row in np.flatnonzero(around).tolist():
                inner = (int(rows["start"][row]), -int(ends[row]))
                if inner >= self._innermost[i]:
                    self._innermost[i], self.tag[i] = inner, int(rows["name"][row])

    def look_for_culprits(self, tables: tuple[EventTable, ...], anywhere: bool) -> None:
        """Let each gap without a culprit take the shortest range that fills most of it.

        It must be of the gap's thread, or be `anywhere`.
        """
        sought = [
            i
            for i, gap in enumerate(self._gaps)
            if self.culprit[i] < 0 and not gap.queued and gap.launched > gap.start
        ]
        if not sought:
            return
        starts, ends = ([getattr(self._gaps[i], name) for i in sought] for name in _SOUGHT)
        shortest = min(end - start for start, end in zip(starts, ends, strict=True))
        for table in tables:
            for part in table.slices():
                long = part[part["dur"] >= CULPRIT_SHARE * shortest]
                rows, row_ends = _touching(long, starts, ends)
                for i in sought:
                    self._blame(i, rows, row_ends, anywhere)

    def _blame(self, i: int, rows: npt.NDArray[np.void], ends: Ints, anywhere: bool) -> None:
        gap = self._gaps[i]
        overlap = np.minimum(ends, gap.launched) - np.maximum(rows["start"], gap.start)
        fills = overlap >= CULPRIT_SHARE * (gap.launched - gap.start)
        if not anywhere and gap.thread >= 0:
            fills &= rows["thread"] == gap.thread
        for row in np.flatnonzero(fills & (rows["dur"] < self._shortest[i])).tolist():
            if rows["dur"][row] < self._shortest[i]:
                self._shortest[i], self.culprit[i] = int(rows["dur"][row]), int(rows["name"][row])
                self.overlap[i] = int(overlap[row])


_SOUGHT = ("start", "launched")
"""The part of a gap that a culprit must fill: up to the launch call that ended it."""


def _touching(
    rows: npt.NDArray[np.void], starts: list[int], ends: list[int]
) -> tuple[npt.NDArray[np.void], Ints]:
    """Return the rows that reach into one of the disjoint intervals at least, and their ends."""
    row_ends = rows["start"] + rows["dur"]
    begun = np.searchsorted(np.sort(starts), row_ends, "right")
    over = np.searchsorted(np.sort(ends), rows["start"], "left")
    touches = begun > over
    return rows[touches], row_ends[touches]
