"""Find the gaps in which the GPU idles, and the CPU code to blame for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import EventTable, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import covered_ns

SHORTEST_GAP_NS = 10_000  # shorter gaps are the space between two kernels
LAUNCHING_MS = 1.0  # in shorter gaps the CPU only launches one operation after another
MOST_GAPS = 256  # that are listed; all longer than `LAUNCHING_MS` count in the sums
CULPRIT_SHARE = 0.5  # a culprit fills at least this share of the gap
_MOST_PAIRS = 1 << 20

Rows = npt.NDArray[np.void]


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
    """Sums over all gaps: waiting for queued operations, CPU work in long gaps by culprit."""

    queued_ms: float = 0.0
    host: dict[str, HostWork] = field(default_factory=dict)

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
class IdleTime:
    """The longest gaps, longest first, and sums over all of them."""

    gaps: list[IdleGap]
    totals: IdleTotals

    @classmethod
    def of(cls, trace: Trace, gaps: Rows, queued_ns: int) -> IdleTime:
        """Name the gaps (dtype `GAP`, the longest first) and sum them up."""
        longest: list[IdleGap] = []
        host: dict[str, HostWork] = {}
        for gap in name_gaps(trace, gaps):
            if len(longest) < MOST_GAPS:
                longest.append(gap)
            if gap.host_works:
                work = host.get(gap.culprit, HostWork(0.0, 0, gap.tag))
                host[gap.culprit] = HostWork(work.ms + gap.ms, work.gaps + 1, work.tag)
        return cls(longest, IdleTotals(queued_ns / 1e6, host))


GAP = np.dtype(
    [
        *(("start", "<i8"), ("end", "<i8"), ("launched", "<i8")),
        *(("thread", "<i4"), ("next_op", "<i4"), ("queued", "?")),
    ]
)
"""A gap whose tag and culprit are still sought; nanoseconds of the trace's clock.

`launched` is when the launch call behind it ended, on `thread` (-1: there is none, and `launched`
is the gap's start); `next_op` is the name of the operation behind it.
"""


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


def idle_ns_within(trace: Trace, ops: DeviceOps, ranges: Rows) -> Ints:
    """Return for how long the GPU idles in each range, up to its last operation.

    Gaps at whose end an operation starts that had long been launched do not count.
    """
    every = _all_gaps(trace, ops)
    waits = ~every.queued & (every.end > every.start)
    gaps = np.stack([every.start[waits], every.end[waits]], axis=1)
    return covered_ns(gaps, ranges["start"], ranges["start"] + ranges["dur"])


def longest_gaps(trace: Trace, ops: DeviceOps) -> Rows:
    """Return the gaps (dtype `GAP`) that are listed or summed up, the longest first."""
    every = _all_gaps(trace, ops)
    at = np.flatnonzero(every.end - every.start >= SHORTEST_GAP_NS)
    launch = ops.launch[at]
    known = launch >= 0
    gaps = np.empty(len(at), GAP)
    gaps["start"], gaps["end"], gaps["queued"] = every.start[at], every.end[at], every.queued[at]
    gaps["next_op"] = ops.rows["name"][at]
    gaps["launched"] = np.where(known, every.launched[at], gaps["start"])
    gaps["thread"] = -1
    gaps["thread"][known] = trace.launches["thread"][launch[known]]
    return most_important(gaps)


def most_important(gaps: Rows) -> Rows:
    """Return the longest gaps first: `MOST_GAPS`, and all others that the sums may count."""
    length = gaps["end"] - gaps["start"]
    order = np.lexsort((gaps["start"], -length))
    counted = int((length / 1e6 > LAUNCHING_MS).sum())
    return gaps[order[: max(MOST_GAPS, counted)]]


def name_gaps(trace: Trace, gaps: Rows) -> Iterator[IdleGap]:
    """Find the tag and the culprit of each gap among all ranges of the trace."""
    search = _Search(gaps)
    for rows in trace.tag_rows.slices():
        search.look_for_tags(rows)
    tables = (trace.tag_rows, trace.launch_rows, trace.ops, trace.python)
    search.look_for_culprits(tables, anywhere=False)
    search.look_for_culprits((trace.tag_rows, trace.ops), anywhere=True)
    columns = (gaps["start"], gaps["end"], gaps["next_op"], gaps["queued"])
    found = (search.tag, search.culprit, search.overlap)
    names = trace.names
    for start, end, next_op, queued, tag, culprit, overlap in zip(
        *(column.tolist() for column in (*columns, *found)), strict=True
    ):
        yield IdleGap(
            start_ms=(start - trace.start) / 1e6,
            ms=(end - start) / 1e6,
            tag=names[tag] if tag >= 0 else "",
            next_op=names[next_op],
            culprit=names[culprit] if culprit >= 0 else "",
            culprit_ms=overlap / 1e6,
            queued=queued,
        )


class _Search:
    """Looks for the innermost tag in the middle of each gap, and for the range to blame.

    `tag` and `culprit` are names, -1 for none; `overlap` is how much of the gap the culprit fills.
    """

    def __init__(self, gaps: Rows) -> None:
        self._gaps = gaps
        self.tag, self.culprit = np.full(len(gaps), -1), np.full(len(gaps), -1)
        self.overlap = np.zeros(len(gaps), dtype=np.int64)
        self._began = np.full(len(gaps), -(2**62))
        self._ended = np.zeros(len(gaps), dtype=np.int64)
        self._shortest = np.full(len(gaps), 2**62)

    def look_for_tags(self, rows: Rows) -> None:
        """Let each gap take the tag of its thread that begins last of those around its middle."""
        start = self._gaps["start"]
        middle = (start + self._gaps["launched"]) // 2
        order = np.argsort(middle, kind="stable")
        for row, gap in _pairs(rows, middle[order], middle[order]):
            gap = order[gap]
            mine = rows["thread"][row] == self._gaps["thread"][gap]
            row, gap = row[mine], gap[mine]
            began, ended = rows["start"][row], rows["start"][row] + rows["dur"][row]
            inner = np.lexsort((row, -ended, began, gap))
            last = inner[np.diff(gap[inner], append=-1) != 0]
            gap, began, ended = gap[last], began[last], ended[last]
            before = (began == self._began[gap]) & (ended <= self._ended[gap])
            deeper = (began > self._began[gap]) | before
            gap = gap[deeper]
            self._began[gap], self._ended[gap] = began[deeper], ended[deeper]
            self.tag[gap] = rows["name"][row[last][deeper]]

    def look_for_culprits(self, tables: Iterable[EventTable], anywhere: bool) -> None:
        """Let each gap without a culprit take the shortest range that fills most of it.

        It must be of the gap's thread, or be `anywhere`.
        """
        gaps = self._gaps
        waits = ~gaps["queued"] & (gaps["launched"] > gaps["start"])
        sought = np.flatnonzero((self.culprit < 0) & waits)
        if not len(sought):
            return
        sought = sought[np.argsort(gaps["start"][sought], kind="stable")]
        start, until = gaps["start"][sought], gaps["launched"][sought]
        least = CULPRIT_SHARE * int((until - start).min())
        for table in tables:
            for rows in table.slices():
                long = rows[rows["dur"] >= least]
                for row, gap in _pairs(long, start, until):
                    self._blame(long[row], sought[gap], anywhere)

    def _blame(self, rows: Rows, gap: Ints, anywhere: bool) -> None:
        """Take the shortest of these rows as the culprit of each gap, if it is shorter."""
        gaps = self._gaps[gap]
        ends = np.minimum(rows["start"] + rows["dur"], gaps["launched"])
        overlap = ends - np.maximum(rows["start"], gaps["start"])
        fills = overlap >= CULPRIT_SHARE * (gaps["launched"] - gaps["start"])
        if not anywhere:
            fills &= (rows["thread"] == gaps["thread"]) | (gaps["thread"] < 0)
        fills &= rows["dur"] < self._shortest[gap]
        at = np.flatnonzero(fills)
        at = at[np.lexsort((rows["dur"][at], gap[at]))]
        at = at[np.diff(gap[at], prepend=-1) != 0]
        self._shortest[gap[at]], self.culprit[gap[at]] = rows["dur"][at], rows["name"][at]
        self.overlap[gap[at]] = overlap[at]


def _pairs(rows: Rows, starts: Ints, ends: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the indices of rows and of the disjoint intervals that they reach into, in order.

    The intervals are sorted.
    """
    first = np.searchsorted(ends, rows["start"], "left")
    behind = np.searchsorted(starts, rows["start"] + rows["dur"], "right")
    count = np.maximum(0, behind - first)
    touching = np.flatnonzero(count)
    batch = np.cumsum(count[touching]) // _MOST_PAIRS
    for part in np.split(touching, np.flatnonzero(np.diff(batch)) + 1) if len(touching) else ():
        row = np.repeat(part, count[part])
        begins = np.cumsum(count[part]) - count[part]
        yield row, first[row] + np.arange(len(row)) - np.repeat(begins, count[part])
