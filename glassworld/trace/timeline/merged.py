"""A very large trace: sums over all of it, instances of the stretches that stand out.

Each stretch is analysed in memory and folded into the sums. Instances are kept of the first
stretch and of those with the largest excesses and gaps, so that what is unusual can be named;
where the instances of all stretches fit, all are kept and nothing is lost.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from glassworld.trace.reading.columns import Spool, Trace
from glassworld.trace.reading.reader import Progress, read
from glassworld.trace.timeline.analysis import Analysis, analyze_stretch
from glassworld.trace.timeline.chunks import parts
from glassworld.trace.timeline.idle import MOST_GAPS, IdleGap, IdleTotals
from glassworld.trace.timeline.memory import TagMemory
from glassworld.trace.timeline.operator_totals import Kernels, Operators, Totals
from glassworld.trace.timeline.rows import Call, Coverage, GpuFacts, Numbered, TagRow
from glassworld.trace.timeline.stats import group_excess

KEPT_ROWS = 500_000
"""Of so many tags the instances are kept; launches and GPU operations take their room too."""

CALL_WEIGHT = 4

MOST_PATHS = 20_000
"""So many paths of names are summed up each by itself where not all instances are kept."""

TagPath = tuple[str, ...]


@dataclass(frozen=True)
class MergedAnalysis(Analysis):
    """An analysis whose sums were folded from stretches; see `Analysis`."""

    sums: Sums = field(kw_only=True)

    @property
    def on_gpu(self) -> bool:
        return self.sums.gpu is not None

    @cached_property
    def coverage(self) -> Coverage:
        return self.sums.coverage

    @cached_property
    def gpu(self) -> GpuFacts | None:
        return self.sums.gpu

    @cached_property
    def calls(self) -> dict[str, Call]:
        return self.sums.calls

    @cached_property
    def operators(self) -> Operators:
        sums = self.sums
        return Operators(*sums.operators.groups_and_names(sums.names), *sums.operators.sums.T)

    @cached_property
    def kernels(self) -> Kernels:
        sums = self.sums
        return Kernels(*sums.kernels.groups_and_names(sums.names), *sums.kernels.sums.T)

    def each_tag(self) -> Iterator[TagRow]:
        yield from self.sums.tags.values() if self.left_out else super().each_tag()

    @property
    def paths_left_out(self) -> int:
        return self.sums.paths_left_out if self.left_out else 0

    @cached_property
    def numbered(self) -> dict[tuple[str, str], dict[int, Numbered]]:
        return self.sums.numbered

    @cached_property
    def patterns(self) -> list[TagRow]:
        return list(self.sums.patterns.values())

    @cached_property
    def gaps(self) -> list[IdleGap]:
        return self.sums.gaps

    @cached_property
    def idle(self) -> IdleTotals:
        return self.sums.idle

    @cached_property
    def memory(self) -> list[TagMemory]:
        return sorted(self.sums.memory.values(), key=lambda row: -row.peak_mib)


class Sums:
    """What can be added up over stretches."""

    def __init__(self, names: int) -> None:
        self.names = names
        self.tags: dict[TagPath, TagRow] = {}
        self.paths_left_out = 0
        self.numbered: dict[tuple[str, str], dict[int, Numbered]] = {}
        self.patterns: dict[TagPath, TagRow] = {}
        self.operators, self.kernels = Totals(6), Totals(2)
        self.coverage = Coverage(0, 0, 0)
        self.gpu: GpuFacts | None = None
        self.calls: dict[str, Call] = {}
        self.gaps: list[IdleGap] = []
        self.idle = IdleTotals()
        self.memory: dict[tuple[str, int], TagMemory] = {}

    def add(self, part: Analysis) -> None:
        """Take in a stretch."""
        self.paths_left_out += _join(self.tags, part.each_tag(), MOST_PATHS)
        _join(self.patterns, part.patterns, MOST_PATHS)
        for key, numbers in part.numbered.items():
            known = self.numbered.setdefault(key, {})
            for number, more in numbers.items():
                old = known.get(number, Numbered(0, 0.0, 0.0))
                known[number] = Numbered(
                    old.count + more.count, old.ms + more.ms, old.cpu_ms + more.cpu_ms
                )
        place = {path: i for i, path in enumerate(self.patterns)}
        group = np.array([-1, *(place.get(row.path, -1) for row in part.patterns)], dtype=np.int64)
        for totals, table in ((self.operators, part.operators), (self.kernels, part.kernels)):
            columns = [getattr(table, field.name) for field in fields(table)[2:]]
            totals.add((group[table.group + 1] + 1) * self.names + table.name, np.stack(columns, 1))
        before, here = self.coverage, part.coverage
        self.coverage = Coverage(
            before.gpu_ops + here.gpu_ops,
            before.launched + here.launched,
            before.attributed + here.attributed,
        )
        self.gpu = _joined_gpu(self.gpu, before.gpu_ops, part.gpu, here.gpu_ops)
        for name, call in part.calls.items():
            before_call = self.calls.get(name, Call(0, 0))
            self.calls[name] = Call(before_call.count + call.count, before_call.ns + call.ns)
        self.idle += part.idle
        self.gaps = heapq.nlargest(MOST_GAPS, [*self.gaps, *part.gaps], key=lambda gap: gap.ms)
        for row in part.memory:
            known_row = self.memory.get((row.tag, row.device), row)
            peak = max(row.peak_mib, known_row.peak_mib)
            self.memory[row.tag, row.device] = replace(known_row, peak_mib=peak)


def _join(known: dict[TagPath, TagRow], rows: Iterable[TagRow], most: int) -> int:
    """Add rows to those of the same path; how many instances found no room for a new path."""
    left_out = 0
    for row in rows:
        if row.path in known:
            known[row.path] = _joined(known[row.path], row)
        elif len(known) < most:
            known[row.path] = row
        else:
            left_out += row.instances
    return left_out


_ADDED = [field.name for field in fields(TagRow) if field.type in ("int", "float")]


def _joined(a: TagRow, b: TagRow) -> TagRow:
    added = {name: getattr(a, name) + getattr(b, name) for name in _ADDED}
    delay = a.launch_delay_ms * a.gpu_kernels + b.launch_delay_ms * b.gpu_kernels
    added["launch_delay_ms"] = delay / max(1, a.gpu_kernels + b.gpu_kernels)
    return TagRow(
        path=a.path,
        name=a.name if a.name == b.name else a.path[-1],
        pattern=a.pattern,
        **added,
    )


def _joined_gpu(a: GpuFacts | None, weight: int, b: GpuFacts | None, other: int) -> GpuFacts | None:
    """The medians of both become a mean, weighted by the operations."""
    if a is None or b is None:
        return a or b
    share = weight / (weight + other)
    return GpuFacts(
        busy_ns=a.busy_ns + b.busy_ns,
        since=min(a.since, b.since),
        until=max(a.until, b.until),
        first_delay_ns=a.first_delay_ns,
        delay_ns=share * a.delay_ns + (1 - share) * b.delay_ns,
        duration_ns=share * a.duration_ns + (1 - share) * b.duration_ns,
    )


@dataclass
class _Kept:
    """The rows of a stretch whose instances are kept, and how unusual they are."""

    unusual_ms: float
    place: int
    trace: Trace

    @property
    def rows(self) -> int:
        calls = len(self.trace.launches) + len(self.trace.device_ops)
        return len(self.trace.tags) + CALL_WEIGHT * calls


def fold(trace: Trace, first: Analysis, others: Iterable[Trace]) -> MergedAnalysis:
    """The analysis of `trace` from those of its stretches."""
    sums, instances, places = Sums(len(trace.names)), 0, 0
    kept: list[_Kept] = []
    for place, part in enumerate(_analyses(first, others)):
        sums.add(part)
        places += 1
        instances += len(part.tree) - part.trace.carried
        unusual = _unusual_ms(part) if place else float("inf")
        bare = replace(part.trace, memory=trace.memory, ops=trace.ops, python=trace.python)
        kept = _most_unusual([*kept, _Kept(unusual, place, bare)])
    sample = analyze_stretch(trace if len(kept) == places else _sample(trace, kept))
    left_out = max(0, instances - len(sample.tree))
    return MergedAnalysis(sample.trace, sample.tree, sample.ops, sample.device, left_out, sums=sums)


def _unusual_ms(part: Analysis) -> float:
    """Return the longest unexplained gap, or the largest excess of a tag's self time if larger."""
    gap = max((gap.ms for gap in part.gaps if not gap.queued), default=0.0)
    tree = part.tree
    self_ms = part.own_ns(np.arange(len(tree))) / 1e6
    excess = group_excess(self_ms, tree.by_pattern.of, tree.dims["block"] != 0).excess
    return max(gap, float(excess.max(initial=0.0)))


def _sample(trace: Trace, kept: list[_Kept]) -> Trace:
    """The trace with the rows of the kept stretches alone."""
    chosen = [each.trace for each in sorted(kept, key=lambda each: each.place)]
    return replace(
        trace,
        tag_rows=Spool.of(np.concatenate([part.tags for part in chosen])),
        launch_rows=Spool.of(np.concatenate([part.launches for part in chosen])),
        device_rows=Spool.of(np.concatenate([part.device_ops for part in chosen])),
    )


def _analyses(first: Analysis, others: Iterable[Trace]) -> Iterable[Analysis]:
    yield first
    yield from map(analyze_stretch, others)


def _most_unusual(kept: list[_Kept]) -> list[_Kept]:
    """As many of the most unusual stretches as may be kept; at least the first."""
    kept = sorted(kept, key=lambda each: -each.unusual_ms)
    while len(kept) > 1 and sum(each.rows for each in kept) > KEPT_ROWS:
        kept.pop()
    return kept


def analyze(
    path: str | Path, progress: Progress | None = None, tags_only: bool = False
) -> Analysis:
    """Read the trace at `path` and attribute its GPU time to its tags.

    Works on any JSON that `torch.profiler` exports, plain or gzip. `progress` is called with the
    bytes read so far; `tags_only` reads the tags' CPU times alone, several times faster. Raises
    `TraceError` where there is no trace to read.
    """
    trace = read(path, progress, tags_only)
    stretches = parts(trace)
    first = analyze_stretch(next(stretches))
    return first if first.trace is trace else fold(trace, first, stretches)
