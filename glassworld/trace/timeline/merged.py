"""Analyze a trace of any size: a large one in chunks, whose sums are merged.

A trace whose instances all fit is analyzed at once. Else each chunk is analyzed in memory and added
to the sums, which are exactly those of the whole. Single instances are kept of a sample: the first
chunk and those with the largest excesses and gaps, so that unusual ones can be named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import MEMORY, RANGE, Codes, EventTable, Ints, Trace
from glassworld.trace.reading.reader import ProgressCallback, read_trace
from glassworld.trace.timeline.analysis import (
    INDEXED_PATTERNS,
    Analysis,
    analyze_in_memory,
    longest_first,
    module_trace,
)
from glassworld.trace.timeline.chunks import spanning_tags, split_trace
from glassworld.trace.timeline.first_runs import KERNEL_RUNS, merge_runs
from glassworld.trace.timeline.graph_kernels import EagerPasses, GraphNaming, find_passes
from glassworld.trace.timeline.idle import (
    GAP,
    IdleTime,
    idle_ns_within,
    longest_gaps,
    most_important,
    queued_ns,
)
from glassworld.trace.timeline.intervals import union_ns
from glassworld.trace.timeline.memory import (
    InstanceMemory,
    TagMemory,
    by_peak,
    instance_memory,
    run_memory,
)
from glassworld.trace.timeline.operator_totals import (
    KernelTotals,
    KeyedSums,
    OperatorSums,
    OperatorTotals,
)
from glassworld.trace.timeline.path_sums import PathSums, SpanningInstances
from glassworld.trace.timeline.rows import (
    Coverage,
    GpuSummary,
    IndexTotals,
    LongOperation,
    RuntimeCall,
    TagRow,
    exact_ms,
)
from glassworld.trace.timeline.stats import GroupedMedians, group_excess
from glassworld.trace.timeline.tag_tree import TagTree, build_tree
from glassworld.trace.timeline.torch_compile.regions import CompiledSums, CompiledTotals
from glassworld.trace.timeline.training_steps import PARTS, StepClock, TrainingStep, find_steps

SAMPLED_ROWS = 500_000
"""Most tags whose instances are kept; launches and GPU operations count as `CALL_ROWS` each."""

CALL_ROWS = 4


@dataclass(frozen=True)
class MergedAnalysis(Analysis):
    """An analysis whose sums are those of all chunks of the trace `whole`; see `Analysis`."""

    whole: Trace = field(kw_only=True)
    sums: AnalysisSums = field(kw_only=True)

    @property
    def on_gpu(self) -> bool:
        """True if anything ran on a GPU; if not, CPU time is the time that counts."""
        return self.sums.gpu is not None

    @cached_property
    def tagged_ns(self) -> int:
        """How long a tag was open, on whichever thread."""
        return union_ns(self.whole.tag_rows)

    @property
    def coverage(self) -> Coverage:
        """Counts of GPU operations: all, with a launch in the trace, with a tag."""
        return self.sums.coverage

    @property
    def clipped(self) -> int:
        """How many tags outlast the tag they began in."""
        return self.sums.clipped

    @cached_property
    def gpu(self) -> GpuSummary | None:
        """The GPU's work over the whole trace; None where nothing ran on one."""
        return self.sums.gpu_summary()

    @cached_property
    def calls(self) -> dict[str, RuntimeCall]:
        """The calls of the GPU's runtime, by name."""
        return self.sums.calls

    @cached_property
    def operators(self) -> OperatorTotals:
        """Operators under every pattern group."""
        totals = self.sums.operators.totals()
        return replace(totals, group=self._positions(totals.group))

    @cached_property
    def kernels(self) -> KernelTotals:
        """Kernels under every pattern group."""
        sums = self.sums.kernels
        group, name = sums.groups_and_names(len(self.whole.names))
        return KernelTotals(self._positions(group), name, *sums.sums.T)

    def _positions(self, numbers: Codes) -> Codes:
        """Return the row of `patterns` for each number of a path; -1 for none."""
        positions = self.sums.patterns.positions(self.sums.pattern_numbers)
        return np.append(positions, -1)[numbers].astype(np.int32)

    def iter_tags(self) -> Iterator[TagRow]:
        """Yield the rows of `tags` one by one: there may be nearly as many as instances."""
        numbers = {name: i for i, name in enumerate(self.whole.names)}
        yield from self.sums.tags.rows(numbers)

    @property
    def dropped_path_instances(self) -> int:
        """Tag instances whose path of names has no row in `tags`: there were too many paths."""
        return self.sums.tags.dropped

    @cached_property
    def by_index(self) -> dict[tuple[str, str], dict[int, IndexTotals]]:
        """For each of `INDEXED_PATTERNS`, the totals of its instances by index."""
        if self.on_gpu:
            return self.sums.by_index
        return {
            key: {index: replace(total, ms=total.cpu_ms) for index, total in totals.items()}
            for key, totals in self.sums.by_index.items()
        }

    @cached_property
    def patterns(self) -> list[TagRow]:
        """One row per path of patterns, parents before children."""
        return list(self.sums.patterns.rows(self.sums.pattern_numbers))

    @cached_property
    def idle_time(self) -> IdleTime:
        """The gaps, in which no GPU operation ran."""
        return IdleTime.of(self.whole, self.sums.gaps, self.sums.queued_ns)

    @cached_property
    def memory(self) -> list[TagMemory]:
        """The memory of every pattern of tags that touched any, else of operators."""
        return self.sums.memory.rows() or run_memory(self.whole)

    @cached_property
    def modules(self) -> list[TagRow]:
        """One row per path of modules, parents before children."""
        trace, passes = module_trace(self.whole, self.passes)
        return analyze_trace(trace, passes).tags if trace else []

    @cached_property
    def training_steps(self) -> list[TrainingStep]:
        """The training steps with their forward pass, backward pass and optimizer."""
        return self.sums.clock.steps(self.sums.step_sums, self.origin_ns)

    @property
    def step_clock(self) -> StepClock:
        """When which part of a training step ran."""
        return self.sums.clock

    @property
    def loading_idle_ns(self) -> Ints:
        """How long the GPU idles in each call of `data_loading`, up to its last operation."""
        return self.sums.loading_idle_ns

    @cached_property
    def compiled(self) -> CompiledTotals:
        """What ran in compiled regions, and the kernels that Inductor fused."""
        totals = self.sums.compiled.totals()
        outside = replace(totals.outside, group=self._positions(totals.outside.group))
        return replace(totals, outside=outside)

    @cached_property
    def kernel_runs(self) -> npt.NDArray[np.void]:
        """One row (dtype `KERNEL_RUNS`) per kernel: its first run, and sums over all."""
        return self.sums.kernel_runs

    @cached_property
    def longest_ops(self) -> list[LongOperation]:
        """The longest GPU operations, longest first."""
        return self.sums.longest_ops


class AnalysisSums:
    """The parts of an analysis that can be added up over chunks."""

    def __init__(self, trace: Trace) -> None:
        self.clock = find_steps(trace)
        self.step_sums = np.zeros((3, len(PARTS) * len(self.clock)), dtype=np.int64)
        self.loading_idle_ns = np.zeros(len(self.clock.loader_calls), dtype=np.int64)
        self.tags, self.patterns = PathSums(), PathSums()
        self.pattern_numbers: dict[str, int] = {}
        self.by_index: dict[tuple[str, str], dict[int, IndexTotals]] = {}
        self.operators, self.kernels = OperatorSums(len(trace.names)), KeyedSums(2)
        self.compiled = CompiledSums(trace)
        self.coverage = Coverage(0, 0, 0)
        self.gpu: GpuSummary | None = None
        self._delays, self._durations = GroupedMedians(), GroupedMedians()
        self.calls: dict[str, RuntimeCall] = {}
        self.gaps = np.empty(0, GAP)
        self.queued_ns = 0
        self.clipped = 0
        self.graphs = GraphNaming()
        self._spanning = SpanningInstances()
        self.memory = _MemorySums()
        self.longest_ops: list[LongOperation] = []
        self.kernel_runs = np.empty(0, KERNEL_RUNS)

    def add_spanning(self, trace: Trace) -> None:
        """Add what is of the tags longer than a chunk, which no chunk has whole."""
        tree = build_tree(replace(trace, tag_rows=EventTable.from_rows(spanning_tags(trace))))
        self.clipped += tree.forest.clipped
        self.memory.add(instance_memory(trace, tree), tree)

    def add(self, chunk: Analysis) -> None:
        """Add the sums of a chunk, later than those before."""
        tree, ops = chunk.tree, chunk.ops
        self.tags.add(chunk, tree.by_name, tree.names, chunk.iter_tags())
        numbers = self.patterns.add(chunk, tree.by_pattern, tree.patterns, chunk.patterns)
        first = np.full(len(tree.patterns), len(tree.names))
        np.minimum.at(first, tree.pattern, tree.rows["name"])
        for pattern, number in zip(tree.patterns, first.tolist(), strict=True):
            known = self.pattern_numbers.get(pattern, number)
            self.pattern_numbers[pattern] = min(known, number)
        self._add_by_index(chunk)
        self.operators.add(chunk.trace, tree, ops, numbers)
        self.compiled.add(chunk.trace, tree, ops, numbers)
        kernels = chunk.kernels
        keys = (numbers[kernels.group + 1] + 1) * len(tree.names) + kernels.name
        self.kernels.add(keys, np.stack([kernels.calls, kernels.total], axis=1))
        self.step_sums += self.clock.device_sums(chunk.trace, ops)
        if len(self.loading_idle_ns):
            self.loading_idle_ns += idle_ns_within(chunk.trace, ops, self.clock.loader_calls)
        self._add_gpu(chunk)
        self.clipped += tree.forest.clipped
        self.graphs = self.graphs.plus(chunk.graphs)
        self.memory.add(instance_memory(chunk.trace, tree), tree, chunk.trace.pieces)

    def _add_gpu(self, chunk: Analysis) -> None:
        before, coverage, ops = self.coverage, chunk.coverage, chunk.ops
        self.coverage = Coverage(
            before.gpu_ops + coverage.gpu_ops,
            before.launched + coverage.launched,
            before.attributed + coverage.attributed,
        )
        self.gpu = _sum_gpu(self.gpu, chunk.gpu)
        delays = ops.delay[ops.launch >= 0]
        self._delays.add(np.zeros_like(delays), delays)
        self._durations.add(np.zeros_like(ops.end), ops.rows["dur"])
        for name, call in chunk.calls.items():
            total = self.calls.get(name, RuntimeCall(0, 0))
            self.calls[name] = RuntimeCall(total.count + call.count, total.ns + call.ns)
        self.queued_ns += queued_ns(chunk.trace, ops)
        self.gaps = most_important(np.concatenate([self.gaps, longest_gaps(chunk.trace, ops)]))
        self.kernel_runs = merge_runs(np.concatenate([self.kernel_runs, chunk.kernel_runs]))
        self.longest_ops = longest_first([*self.longest_ops, *chunk.longest_ops])

    def gpu_summary(self) -> GpuSummary | None:
        """Return the GPU's work in all chunks."""
        if self.gpu is None:
            return None
        delay = self._delays.middle().get(0)
        return replace(
            self.gpu,
            delay_ns=sum(delay) / 2 if delay else None,
            op_duration_ns=sum(self._durations.middle()[0]) / 2,
        )

    def _add_by_index(self, chunk: Analysis) -> None:
        """Add the totals by index; `ms` is GPU busy time, 0 in a chunk without any."""
        for key, totals in chunk.by_index.items():
            sums = self.by_index.setdefault(key, {})
            for index, more in totals.items():
                total = sums.get(index, IndexTotals(0, 0.0, 0.0))
                sums[index] = IndexTotals(
                    total.count + more.count,
                    exact_ms(total.ms + (more.ms if chunk.on_gpu else 0.0)),
                    exact_ms(total.cpu_ms + more.cpu_ms),
                )
        tree = chunk.tree
        for piece, ns in self._spanning.counted_before(chunk).items():
            for key in INDEXED_PATTERNS:
                if ns and tree.patterns[tree.pattern[piece]] == key[0]:
                    index = int(tree.dims[key[1]][piece])
                    total = self.by_index[key][index]
                    self.by_index[key][index] = replace(total, ms=exact_ms(total.ms - ns / 1e6))


class _MemorySums:
    """The memory of the instances of each pattern on each device, over chunks."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._peak: dict[int, int] = {}
        self._kept = GroupedMedians()

    def add(self, memory: dict[int, InstanceMemory], tree: TagTree, first: int = 0) -> None:
        """Add the memory of the instances from the `first` on."""
        for device, of in memory.items():
            mine = of.instances >= first
            pattern = tree.pattern[of.instances[mine]]
            number = np.zeros(len(tree.patterns), dtype=np.int64)
            for p in np.unique(pattern).tolist():
                key = (tree.patterns[p], device)
                number[p] = self._numbers.setdefault(key, len(self._numbers))
                peak = int(of.peak[mine][pattern == p].max())
                self._peak[int(number[p])] = max(self._peak.get(int(number[p]), peak), peak)
            self._kept.add(number[pattern], of.kept[mine])

    def rows(self) -> list[TagMemory]:
        """Return the rows of `Analysis.memory`."""
        kept = self._kept.middle()
        return by_peak(
            [
                TagMemory(tag, device, self._peak[i] / 2**20, sum(kept[i]) / 2 / 2**20)
                for (tag, device), i in self._numbers.items()
            ]
        )


def _sum_gpu(a: GpuSummary | None, b: GpuSummary | None) -> GpuSummary | None:
    """Add two summaries, but for their medians."""
    if a is None or b is None:
        return a or b
    return replace(
        min((a, b), key=lambda gpu: (gpu.since, -gpu.first_delay_ns)),
        busy_ns=a.busy_ns + b.busy_ns,
        overlap_ns=a.overlap_ns + b.overlap_ns,
        covered_ops=a.covered_ops + b.covered_ops,
        until=max(a.until, b.until),
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


def merge_chunks(trace: Trace, passes: EagerPasses | None = None) -> MergedAnalysis:
    """Merge the analyses of the chunks of `trace`; its graphs are named after `passes`."""
    sums, instances = AnalysisSums(trace), 0
    sampled: list[_SampledChunk] = []
    chunks = (analyze_in_memory(chunk, passes) for chunk in split_trace(trace))
    for position, chunk in enumerate(chunks):
        sums.add(chunk)
        if chunk.trace is not trace and not position:
            sums.add_spanning(trace)
        instances += len(chunk.tree) - chunk.trace.carried
        unusual = _unusual_ms(chunk) if position else float("inf")
        bare = replace(chunk.trace, memory=trace.memory, ops=trace.ops, python=trace.python)
        sampled = _most_unusual([*sampled, _SampledChunk(unusual, position, bare)])
    sample = analyze_in_memory(_sample(trace, sampled), passes)
    dropped = max(0, instances - len(sample.tree))
    return MergedAnalysis(
        sample.trace,
        sample.tree,
        sample.ops,
        sample.device,
        dropped,
        graphs=sums.graphs,
        passes=passes,
        whole=trace,
        sums=sums,
    )


def _unusual_ms(chunk: Analysis) -> float:
    """Return the longest unexplained gap, or the largest excess of a tag's self time if larger."""
    gaps = longest_gaps(chunk.trace, chunk.ops)
    gaps = gaps[~gaps["queued"]]
    gap = float((gaps["end"] - gaps["start"]).max(initial=0)) / 1e6
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


def _most_unusual(chunks: list[_SampledChunk]) -> list[_SampledChunk]:
    """Return as many of the most unusual chunks as `SAMPLED_ROWS` allows; at least the first."""
    chunks = sorted(chunks, key=lambda chunk: -chunk.unusual_ms)
    while len(chunks) > 1 and sum(chunk.rows for chunk in chunks) > SAMPLED_ROWS:
        chunks.pop()
    return chunks


def analyze(
    path: str | Path,
    progress: ProgressCallback | None = None,
    tags_only: bool = False,
    graph_capture: str | Path | None = None,
) -> Analysis:
    """Read the trace at `path` and attribute its GPU time to its tags.

    Accepts any JSON that `torch.profiler` exports, plain or gzip, of any size, and the files of
    other profilers that `docs/trace.md` lists. `progress` is called with the bytes read so far;
    `tags_only` reads the tags' CPU times alone, several times faster. `graph_capture` is a trace in
    which the passes of replayed graphs run without graphs. Raises `TraceError` if there is no trace
    to read.
    """
    return analyze_trace(*_with_passes(read_trace(path, progress, tags_only), graph_capture))


def analyze_at_once(path: str | Path, graph_capture: str | Path | None = None) -> Analysis:
    """Analyze a trace with all its instances in memory, however many there are."""
    return analyze_in_memory(*_with_passes(read_trace(path), graph_capture))


def _with_passes(
    trace: Trace, graph_capture: str | Path | None
) -> tuple[Trace, EagerPasses | None]:
    """Return a trace and the passes that name its graphs, in it and in that of the capture.

    What the capture could not give is said among what could not be read.
    """
    if graph_capture is None:
        return find_passes(trace)
    capture = read_trace(graph_capture)
    trace, passes = find_passes(trace, capture)
    losses = [f"{graph_capture}: {loss}" for loss in capture.losses]
    if passes is None:
        losses.append(f"{graph_capture} names nothing: no GPU graph is replayed")
    return replace(trace, losses=[*trace.losses, *losses]), passes


def analyze_trace(trace: Trace, passes: EagerPasses | None = None) -> Analysis:
    """Analyze a trace: in memory if all its instances fit, else in chunks.

    Its graphs are named after `passes`.
    """
    calls = len(trace.launch_rows) + len(trace.device_rows)
    if len(trace.tag_rows) + CALL_ROWS * calls <= SAMPLED_ROWS:
        return analyze_in_memory(trace, passes)
    return merge_chunks(trace, passes)


def operator_stacks(analysis: Analysis) -> list[TagRow]:
    """Return one row per path of operators, from the outermost call on; parents before children."""
    trace = analysis.whole if isinstance(analysis, MergedAnalysis) else analysis.trace
    operators = replace(
        trace,
        tag_rows=trace.ops,
        ops=EventTable(RANGE),
        python=EventTable(RANGE),
        memory=EventTable(MEMORY),
        carried=0,
        pieces=0,
    )
    return analyze_trace(operators).tags
