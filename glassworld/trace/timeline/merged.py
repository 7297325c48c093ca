"""Analyze a trace of any size: a large one in chunks, whose sums are merged.

Each chunk is analyzed in memory and added to the sums. Single instances are kept of a sample: the
first chunk and those with the largest excesses and gaps, so that unusual ones can be named. Where
the instances of all chunks fit, all are kept and nothing is lost.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from glassworld.trace.reading.columns import EventTable, Trace
from glassworld.trace.reading.reader import ProgressCallback, read_trace
from glassworld.trace.timeline.analysis import MOST_LONG_OPS, Analysis, analyze_in_memory
from glassworld.trace.timeline.boundaries import SharedTime
from glassworld.trace.timeline.chunks import split_trace
from glassworld.trace.timeline.idle import MOST_GAPS, IdleGap, IdleTotals
from glassworld.trace.timeline.memory import TagMemory, run_memory, tag_memory
from glassworld.trace.timeline.operator_totals import KernelTotals, KeyedSums, OperatorTotals
from glassworld.trace.timeline.rows import (
    Coverage,
    GpuSummary,
    IndexTotals,
    LongOperation,
    RuntimeCall,
    TagRow,
)
from glassworld.trace.timeline.stats import group_excess
from glassworld.trace.timeline.training_steps import PARTS, StepClock, TrainingStep, find_steps

SAMPLED_ROWS = 500_000
"""Most tags whose instances are kept; launches and GPU operations count as `CALL_ROWS` each."""

CALL_ROWS = 4

MOST_PATHS = 20_000
"""Most paths of names that are summed up where not all instances are kept."""

TagPath = tuple[str, ...]


@dataclass(frozen=True)
class MergedAnalysis(Analysis):
    """An analysis whose sums are those of all chunks; see `Analysis`."""

    sums: AnalysisSums = field(kw_only=True)

    @property
    def on_gpu(self) -> bool:
        """True if anything ran on a GPU; if not, CPU time is the time that counts."""
        return self.sums.gpu is not None

    @cached_property
    def coverage(self) -> Coverage:
        """Counts of GPU operations: all, with a launch in the trace, with a tag."""
        return self.sums.coverage

    @cached_property
    def gpu(self) -> GpuSummary | None:
        """The GPU's work over the whole trace; None where nothing ran on one."""
        return self.sums.gpu

    @cached_property
    def calls(self) -> dict[str, RuntimeCall]:
        """The calls of the GPU's runtime, by name."""
        return self.sums.calls

    @cached_property
    def operators(self) -> OperatorTotals:
        """Operators under every pattern group."""
        sums = self.sums
        return OperatorTotals(*sums.operators.groups_and_names(sums.names), *sums.operators.sums.T)

    @cached_property
    def kernels(self) -> KernelTotals:
        """Kernels under every pattern group."""
        sums = self.sums
        return KernelTotals(*sums.kernels.groups_and_names(sums.names), *sums.kernels.sums.T)

    def iter_tags(self) -> Iterator[TagRow]:
        """Yield the rows of `tags` one by one: there may be nearly as many as instances."""
        yield from self.sums.tags.values() if self.dropped_instances else super().iter_tags()

    @property
    def dropped_path_instances(self) -> int:
        """Tag instances whose path of names has no row in `tags`: there were too many paths."""
        return self.sums.dropped_path_instances if self.dropped_instances else 0

    @cached_property
    def by_index(self) -> dict[tuple[str, str], dict[int, IndexTotals]]:
        """For each of `INDEXED_PATTERNS`, the totals of its instances by index."""
        return self.sums.by_index

    @cached_property
    def patterns(self) -> list[TagRow]:
        """One row per path of patterns, parents before children."""
        return list(self.sums.patterns.values())

    @cached_property
    def gaps(self) -> list[IdleGap]:
        """The longest times in which no GPU operation ran, longest first."""
        return self.sums.gaps

    @cached_property
    def idle(self) -> IdleTotals:
        """Sums over the gaps."""
        return self.sums.idle

    @cached_property
    def memory(self) -> list[TagMemory]:
        """The memory of every pattern of tags that touched any, else of operators."""
        rows = sorted(self.sums.memory.values(), key=lambda row: -row.peak_mib)
        return rows or run_memory(self.trace)

    @cached_property
    def modules(self) -> list[TagRow]:
        """One row per path of modules, parents before children."""
        return list(self.sums.modules.values())

    @cached_property
    def training_steps(self) -> list[TrainingStep]:
        """The training steps with their forward pass, backward pass and optimizer."""
        return self.sums.clock.steps(self.sums.step_sums, self.origin_ns)

    @cached_property
    def longest_ops(self) -> list[LongOperation]:
        """The longest GPU operations, longest first."""
        return self.sums.longest_ops


class AnalysisSums:
    """The parts of an analysis that can be added up over chunks."""

    def __init__(self, names: int, clock: StepClock) -> None:
        self.names, self.clock = names, clock
        self.step_sums = np.zeros((3, len(PARTS) * len(clock)), dtype=np.int64)
        self.tags: dict[TagPath, TagRow] = {}
        self.dropped_path_instances = 0
        self.by_index: dict[tuple[str, str], dict[int, IndexTotals]] = {}
        self.patterns: dict[TagPath, TagRow] = {}
        self.operators, self.kernels = KeyedSums(7), KeyedSums(2)
        self.coverage = Coverage(0, 0, 0)
        self._shared_by_name, self._shared = SharedTime(), SharedTime()
        self.gpu: GpuSummary | None = None
        self.calls: dict[str, RuntimeCall] = {}
        self.gaps: list[IdleGap] = []
        self.idle = IdleTotals()
        self.memory: dict[tuple[str, int], TagMemory] = {}
        self.longest_ops: list[LongOperation] = []
        self.modules: dict[TagPath, TagRow] = {}

    def add(self, chunk: Analysis) -> None:
        """Add the sums of a chunk."""
        tree = chunk.tree
        tags = self._shared_by_name.correct(chunk, tree.by_name, tree.names, chunk.iter_tags())
        self.dropped_path_instances += _add_rows(self.tags, tags, MOST_PATHS)
        patterns = self._shared.correct(chunk, tree.by_pattern, tree.patterns, chunk.patterns)
        _add_rows(self.patterns, patterns, MOST_PATHS)
        self._add_by_index(chunk)
        self._add_operators(chunk)
        self.step_sums += self.clock.device_sums(chunk.trace, chunk.ops)
        before, coverage = self.coverage, chunk.coverage
        self.coverage = Coverage(
            before.gpu_ops + coverage.gpu_ops,
            before.launched + coverage.launched,
            before.attributed + coverage.attributed,
        )
        self.gpu = _sum_gpu(self.gpu, before.launched, chunk.gpu, coverage.launched)
        for name, call in chunk.calls.items():
            total = self.calls.get(name, RuntimeCall(0, 0))
            self.calls[name] = RuntimeCall(total.count + call.count, total.ns + call.ns)
        self.idle += chunk.idle
        self.gaps = heapq.nlargest(MOST_GAPS, [*self.gaps, *chunk.gaps], key=lambda gap: gap.ms)
        _add_rows(self.modules, chunk.modules, MOST_PATHS)
        self.longest_ops = heapq.nlargest(
            MOST_LONG_OPS, [*self.longest_ops, *chunk.longest_ops], key=lambda op: op.ms
        )
        for row in tag_memory(chunk.trace, chunk.tree):
            earlier = self.memory.get((row.tag, row.device), row)
            peak = max(row.peak_mib, earlier.peak_mib)
            self.memory[row.tag, row.device] = replace(earlier, peak_mib=peak)

    def _add_by_index(self, chunk: Analysis) -> None:
        for key, totals in chunk.by_index.items():
            sums = self.by_index.setdefault(key, {})
            for index, more in totals.items():
                total = sums.get(index, IndexTotals(0, 0.0, 0.0))
                sums[index] = IndexTotals(
                    total.count + more.count, total.ms + more.ms, total.cpu_ms + more.cpu_ms
                )

    def _add_operators(self, chunk: Analysis) -> None:
        index = {path: i for i, path in enumerate(self.patterns)}
        paths = (index.get(row.path, -1) for row in chunk.patterns)
        group = np.array([-1, *paths], dtype=np.int64)
        for sums, table in ((self.operators, chunk.operators), (self.kernels, chunk.kernels)):
            columns = [getattr(table, field.name) for field in fields(table)[2:]]
            sums.add((group[table.group + 1] + 1) * self.names + table.name, np.stack(columns, 1))


def _add_rows(sums: dict[TagPath, TagRow], rows: Iterable[TagRow], most: int) -> int:
    """Add rows to those of the same path; return how many instances had no room for a new path."""
    dropped = 0
    for row in rows:
        if row.path in sums:
            sums[row.path] = _sum_rows(sums[row.path], row)
        elif len(sums) < most:
            sums[row.path] = row
        else:
            dropped += row.instances
    return dropped


_NUMBERS = [field.name for field in fields(TagRow) if field.type in ("int", "float")]


def _sum_rows(a: TagRow, b: TagRow) -> TagRow:
    """Add two rows of one path; the launch delay becomes a mean, weighted by the operations."""
    numbers = {name: getattr(a, name) + getattr(b, name) for name in _NUMBERS}
    delay = a.launch_delay_ms * a.gpu_kernels + b.launch_delay_ms * b.gpu_kernels
    numbers["launch_delay_ms"] = delay / max(1, a.gpu_kernels + b.gpu_kernels)
    return TagRow(
        path=a.path,
        name=a.name if a.name == b.name else a.path[-1],
        pattern=a.pattern,
        **numbers,
    )


def _sum_gpu(
    a: GpuSummary | None, weight: int, b: GpuSummary | None, other: int
) -> GpuSummary | None:
    """Add two summaries; medians become a mean, weighted by the operations."""
    if a is None or b is None:
        return a or b
    share = weight / (weight + other) if weight + other else 0.5
    delays = [(a.delay_ns, share), (b.delay_ns, 1 - share)]
    known = [delay * part for delay, part in delays if delay is not None]
    return GpuSummary(
        busy_ns=a.busy_ns + b.busy_ns,
        overlap_ns=a.overlap_ns + b.overlap_ns,
        covered_ops=a.covered_ops + b.covered_ops,
        since=min(a.since, b.since),
        until=max(a.until, b.until),
        first_delay_ns=min((a, b), key=lambda gpu: gpu.since).first_delay_ns,
        delay_ns=sum(known) if known else None,
        op_duration_ns=share * a.op_duration_ns + (1 - share) * b.op_duration_ns,
    )


@dataclass
class _SampledChunk:
    """The rows of a chunk whose instances are kept, and how unusual they are."""

    unusual_ms: float
    position: int
    trace: Trace

    @property
    def rows(self) -> int:
        calls = len(self.trace.launches) + len(self.trace.device_ops)
        return len(self.trace.tags) + CALL_ROWS * calls


def merge_chunks(trace: Trace, first: Analysis, others: Iterable[Trace]) -> MergedAnalysis:
    """Merge the analyses of the chunks of `trace`: that of the first, and those of the others."""
    sums, instances, count = AnalysisSums(len(trace.names), find_steps(trace)), 0, 0
    sampled: list[_SampledChunk] = []
    for position, chunk in enumerate(_analyses(first, others)):
        sums.add(chunk)
        count += 1
        instances += len(chunk.tree) - chunk.trace.carried
        unusual = _unusual_ms(chunk) if position else float("inf")
        bare = replace(chunk.trace, memory=trace.memory, ops=trace.ops, python=trace.python)
        sampled = _most_unusual([*sampled, _SampledChunk(unusual, position, bare)])
    sample = analyze_in_memory(trace if len(sampled) == count else _sample(trace, sampled))
    dropped = max(0, instances - len(sample.tree))
    return MergedAnalysis(sample.trace, sample.tree, sample.ops, sample.device, dropped, sums=sums)


def _unusual_ms(chunk: Analysis) -> float:
    """Return the longest unexplained gap, or the largest excess of a tag's self time if larger."""
    gap = max((gap.ms for gap in chunk.gaps if not gap.queued), default=0.0)
    tree = chunk.tree
    self_ms = chunk.self_ns(np.arange(len(tree))) / 1e6
    excess = group_excess(self_ms, tree.by_pattern.of, tree.dims["block"] != 0).excess
    return max(gap, float(excess.max(initial=0.0)))


def _sample(trace: Trace, sampled: list[_SampledChunk]) -> Trace:
    """Return the trace with the rows of the sampled chunks alone."""
    chunks = [chunk.trace for chunk in sorted(sampled, key=lambda chunk: chunk.position)]
    return replace(
        trace,
        tag_rows=EventTable.from_rows(np.concatenate([chunk.tags for chunk in chunks])),
        launch_rows=EventTable.from_rows(np.concatenate([chunk.launches for chunk in chunks])),
        device_rows=EventTable.from_rows(np.concatenate([chunk.device_ops for chunk in chunks])),
    )


def _analyses(first: Analysis, others: Iterable[Trace]) -> Iterable[Analysis]:
    yield first
    yield from map(analyze_in_memory, others)


def _most_unusual(chunks: list[_SampledChunk]) -> list[_SampledChunk]:
    """Return as many of the most unusual chunks as `SAMPLED_ROWS` allows; at least the first."""
    chunks = sorted(chunks, key=lambda chunk: -chunk.unusual_ms)
    while len(chunks) > 1 and sum(chunk.rows for chunk in chunks) > SAMPLED_ROWS:
        chunks.pop()
    return chunks


def analyze(
    path: str | Path, progress: ProgressCallback | None = None, tags_only: bool = False
) -> Analysis:
    """Read the trace at `path` and attribute its GPU time to its tags.

    Accepts any JSON that `torch.profiler` exports, plain or gzip, of any size. `progress` is
    called with the bytes read so far; `tags_only` reads the tags' CPU times alone, several times
    faster. Raises `TraceError` if there is no trace to read.
    """
    trace = read_trace(path, progress, tags_only)
    chunks = split_trace(trace)
    first = analyze_in_memory(next(chunks))
    return first if first.trace is trace else merge_chunks(trace, first, chunks)
