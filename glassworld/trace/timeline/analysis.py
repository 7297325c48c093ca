"""The analysis of a trace in memory: columns, tag tree, attribution and all that follows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from glassworld.profiling import registry
from glassworld.trace.inline_html import IcicleBox, icicle_html, table_html
from glassworld.trace.reading.columns import (
    LABELED_OP,
    MEMORY,
    RANGE,
    Codes,
    EventTable,
    Floats,
    Ints,
    Trace,
)
from glassworld.trace.timeline.attribution import (
    DeviceOps,
    DeviceTime,
    attribute_ops,
    device_time,
    stream_overlap,
    timed_ops,
    union_by_group,
)
from glassworld.trace.timeline.first_runs import kernel_runs
from glassworld.trace.timeline.graph_kernels import EagerPasses, GraphNaming
from glassworld.trace.timeline.idle import (
    IdleGap,
    IdleTime,
    IdleTotals,
    idle_ns_within,
    longest_gaps,
    queued_ns,
)
from glassworld.trace.timeline.intervals import covered_ns, union_ns
from glassworld.trace.timeline.memory import TagMemory, run_memory, tag_memory
from glassworld.trace.timeline.operator_totals import (
    KernelTotals,
    OperatorTotals,
    kernel_totals,
    operator_totals,
)
from glassworld.trace.timeline.rows import (
    Coverage,
    GpuSummary,
    IndexTotals,
    LongOperation,
    RuntimeCall,
    TagRow,
)
from glassworld.trace.timeline.tag_tree import PathGroups, TagTree, build_tree
from glassworld.trace.timeline.torch_compile.regions import CompiledSums, CompiledTotals
from glassworld.trace.timeline.training_steps import (
    DataLoading,
    StepClock,
    TrainingStep,
    find_steps,
)

INDEXED_PATTERNS = (
    (registry.DENOISING_STEP, "block"),
    (registry.UPDATE_CACHE, "block"),
    (registry.VAE_DECODE, "block"),
    (registry.LAYER, "layer"),
)
"""Patterns whose instances are summed up by index, and by which dimension."""


MOST_LONG_OPS = 16
MOST_SHOWN = 10  # rows of the table in a notebook
_MODULE = re.compile(r"nn\.Module: (.+?)(?:_\d+)?$")


@dataclass(frozen=True)
class Analysis:
    """Everything known of a trace. Arrays over tag instances run parallel to `tree.rows`.

    Of a very large trace, `tree`, `ops` and `device` hold only some chunks, the most unusual
    among them (see `merged`). Everything else is of the whole trace all the same.
    """

    trace: Trace
    tree: TagTree
    ops: DeviceOps
    device: DeviceTime

    dropped_instances: int = 0
    """Tag instances that are in the sums but not in `tree`."""

    graphs: GraphNaming = field(default_factory=GraphNaming)
    """How many replayed graphs have tags."""

    passes: EagerPasses | None = None
    """What graphs are named after; None where none is replayed."""

    derived: dict[str, object] = field(default_factory=dict)
    """Results that are asked for more than once, by name."""

    @property
    def dropped_path_instances(self) -> int:
        """Tag instances whose path of names has no row in `tags`: there were too many paths."""
        return 0

    @property
    def on_gpu(self) -> bool:
        """True if anything ran on a GPU; if not, CPU time is the time that counts."""
        return len(self.ops) > 0

    @property
    def origin_ns(self) -> int:
        """The time that reports call 0."""
        return self.trace.start

    @property
    def duration_ns(self) -> int:
        """From the first range's start to the last one's end."""
        return self.trace.end - self.trace.start

    @cached_property
    def tagged_ns(self) -> int:
        """How long a tag was open, on whichever thread."""
        return union_ns(self.trace.tag_rows)

    @cached_property
    def coverage(self) -> Coverage:
        """Counts of GPU operations: all, with a launch in the trace, with a tag."""
        return Coverage(
            len(self.ops), int((self.ops.launch >= 0).sum()), int((self.ops.tag >= 0).sum())
        )

    @cached_property
    def gpu(self) -> GpuSummary | None:
        """The GPU's work over the whole trace; None where nothing ran on one."""
        ops = self.ops
        if not len(ops):
            return None
        launched = ops.delay[ops.launch >= 0]
        first = ops.rows["start"] == ops.rows["start"][0]
        overlap, covered = stream_overlap(ops)
        return GpuSummary(
            busy_ns=int(ops.exclusive.sum()),
            overlap_ns=overlap,
            covered_ops=covered,
            since=int(ops.rows["start"][0]),
            until=int(ops.end.max()),
            first_delay_ns=int(ops.delay[first].max(initial=0)),
            delay_ns=float(np.median(launched)) if len(launched) else None,
            op_duration_ns=float(np.median(ops.rows["dur"])),
        )

    @cached_property
    def calls(self) -> dict[str, RuntimeCall]:
        """The calls of the GPU's runtime, by name."""
        rows = self.trace.launches
        names, index = np.unique(rows["name"], return_inverse=True)
        count, spent = np.bincount(index), np.bincount(index, rows["dur"])
        return {
            self.trace.names[name]: RuntimeCall(int(count[i]), int(spent[i]))
            for i, name in enumerate(names)
        }

    @cached_property
    def operators(self) -> OperatorTotals:
        """Operators under every pattern group."""
        return operator_totals(self.trace, self.tree, self.ops)

    @cached_property
    def kernels(self) -> KernelTotals:
        """Kernels under every pattern group."""
        return kernel_totals(self.trace, self.tree, self.ops)

    @cached_property
    def tags(self) -> list[TagRow]:
        """One row per path of names, parents before children."""
        return list(self.iter_tags())

    def iter_tags(self) -> Iterator[TagRow]:
        """Yield the rows of `tags` one by one: there may be nearly as many as instances."""
        return self._rows(self.tree.by_name, self.tree.names)

    @cached_property
    def patterns(self) -> list[TagRow]:
        """One row per path of patterns, parents before children."""
        return list(self._rows(self.tree.by_pattern, self.tree.patterns))

    @cached_property
    def by_index(self) -> dict[tuple[str, str], dict[int, IndexTotals]]:
        """For each of `INDEXED_PATTERNS`, the totals of its instances by index."""
        totals, tree = {}, self.tree
        for pattern, dimension in INDEXED_PATTERNS:
            instances = tree.where(pattern)
            indices, of = np.unique(tree.dims[dimension][instances], return_inverse=True)
            count = np.bincount(of, instances >= self.trace.carried, minlength=len(indices))
            ms = _total_ms(of, self.time_ns(instances), len(indices))
            cpu = _total_ms(of, tree.cpu_ns[instances], len(indices))
            totals[pattern, dimension] = {
                int(index): IndexTotals(int(count[i]), float(ms[i]), float(cpu[i]))
                for i, index in enumerate(indices)
            }
        return totals

    @cached_property
    def idle_time(self) -> IdleTime:
        """The gaps, in which no GPU operation ran."""
        gaps = longest_gaps(self.trace, self.ops)
        return IdleTime.of(self.trace, gaps, queued_ns(self.trace, self.ops))

    @property
    def gaps(self) -> list[IdleGap]:
        """The longest times in which no GPU operation ran, longest first."""
        return self.idle_time.gaps

    @property
    def idle(self) -> IdleTotals:
        """Sums over all gaps."""
        return self.idle_time.totals

    @cached_property
    def memory(self) -> list[TagMemory]:
        """The memory of every pattern of tags that touched any, else of operators."""
        return tag_memory(self.trace, self.tree) or run_memory(self.trace)

    @cached_property
    def modules(self) -> list[TagRow]:
        """One row per path of modules, parents before children; mostly of the Python stacks."""
        trace, passes = module_trace(self.trace, self.passes)
        return analyze_in_memory(trace, passes).tags if trace else []

    @property
    def clipped(self) -> int:
        """How many tags outlast the tag they began in."""
        return self.tree.forest.clipped

    @cached_property
    def training_steps(self) -> list[TrainingStep]:
        """The training steps with their forward pass, backward pass and optimizer."""
        clock = self.step_clock
        return clock.steps(clock.device_sums(self.trace, self.ops), self.origin_ns)

    @cached_property
    def step_clock(self) -> StepClock:
        """When which part of a training step ran."""
        return find_steps(self.trace)

    @cached_property
    def data_loading(self) -> DataLoading:
        """The calls of DataLoaders, and the time that each costs."""
        calls = self.step_clock.loader_calls
        if self.gpu is None:
            return DataLoading(calls, calls["dur"])
        behind = np.array([[self.gpu.until, self.origin_ns + self.duration_ns]])
        end = calls["start"] + calls["dur"]
        lost = self.loading_idle_ns + covered_ns(behind, calls["start"], end)
        return DataLoading(calls, lost)

    @property
    def loading_idle_ns(self) -> Ints:
        """How long the GPU idles in each call of `data_loading`, up to its last operation."""
        return idle_ns_within(self.trace, self.ops, self.step_clock.loader_calls)

    @cached_property
    def compiled(self) -> CompiledTotals:
        """What ran in compiled regions, and the kernels that Inductor fused."""
        sums = CompiledSums(self.trace)
        sums.add(self.trace, self.tree, self.ops)
        return sums.totals()

    @cached_property
    def kernel_runs(self) -> npt.NDArray[np.void]:
        """One row (dtype `KERNEL_RUNS`) per kernel: its first run, and sums over all."""
        return kernel_runs(self.trace, self.ops)

    @cached_property
    def longest_ops(self) -> list[LongOperation]:
        """The longest GPU operations, longest first."""
        dur, start = self.ops.rows["dur"], self.ops.rows["start"]
        order = np.lexsort((start, -dur))
        last = order[:MOST_LONG_OPS][-1:]  # of equally long ones that start together, all compete
        competes = (dur > dur[last]) | ((dur == dur[last]) & (start <= start[last]))
        longest = np.flatnonzero(competes) if len(last) else last
        return longest_first(
            LongOperation(
                name=self.trace.names[int(self.ops.rows["name"][i])],
                tag=self.tree.instance_name(int(self.ops.tag[i])) if self.ops.tag[i] >= 0 else "",
                start_ms=(int(self.ops.rows["start"][i]) - self.trace.start) / 1e6,
                ms=int(self.ops.rows["dur"][i]) / 1e6,
            )
            for i in longest.tolist()
        )

    @cached_property
    def pattern_parents(self) -> list[int]:
        """For each row of `patterns`, the row it lies in; -1 at the root."""
        index = {row.path: i for i, row in enumerate(self.patterns)}
        return [index.get(row.path[:-1], -1) for row in self.patterns]

    def time_ns(self, instances: Ints) -> Ints:
        """Return the time that counts: GPU busy where there is a GPU, else CPU time."""
        values: Ints = self.device.busy if self.on_gpu else self.tree.cpu_ns
        return values[instances]

    def self_ns(self, instances: Ints) -> Ints:
        """Return the self time: the time that counts outside the tags inside."""
        values: Ints = self.device.self_busy if self.on_gpu else self.tree.self_ns
        return values[instances]

    def ms(self, row: TagRow) -> float:
        """Return the time that counts of all instances of a row."""
        return row.gpu_busy_ms if self.on_gpu else row.cpu_ms

    def self_ms(self, row: TagRow) -> float:
        """Return the self time of all instances of a row."""
        return row.gpu_self_ms if self.on_gpu else row.self_cpu_ms

    def _repr_html_(self) -> str:
        """Return the slowest tags and an icicle chart of all, for a notebook."""
        rows = self.patterns
        boxes = [
            IcicleBox(row.name, parent, self.ms(row), tag_color(row.pattern))
            for row, parent in zip(rows, self.pattern_parents, strict=True)
        ]
        total = sum(box.ms for box in boxes if box.parent < 0) or 1.0
        slowest = sorted(rows, key=lambda row: -self.self_ms(row))[:MOST_SHOWN]
        table = []
        for row in slowest:
            own, ms = self.self_ms(row), self.ms(row)
            share = f"{own / total:.1%}"
            table.append((row.name, str(row.instances), f"{own:.1f}", f"{ms:.1f}", share))
        clock = "GPU busy" if self.on_gpu else "CPU"
        head = ("slowest tags", "count", f"self, {clock} ms", f"{clock} ms", "self, share")
        return table_html(head, table) + icicle_html(boxes)

    def _rows(self, groups: PathGroups, labels: list[str]) -> Iterator[TagRow]:
        count, tree = len(groups), self.tree
        time = device_time(self.ops, tree.forest, groups.of, count)
        instances = np.bincount(groups.of[self.trace.carried :], minlength=count)
        began = np.flatnonzero(self.device.kernels)
        span = union_by_group(
            self.device.first[began], self.device.last[began], groups.of[began], count
        )
        milliseconds = {
            "cpu_ms": _total_ms(groups.of, tree.cpu_ns, count),
            "self_cpu_ms": _total_ms(groups.of, tree.self_ns, count),
            "gpu_busy_ms": time.busy / 1e6,
            "gpu_self_ms": time.self_busy / 1e6,
            "gpu_sum_ms": time.total / 1e6,
            "gpu_span_ms": span / 1e6,
            "gpu_idle_ms": (span - time.busy) / 1e6,
            "gpu_copy_ms": time.copy_time / 1e6,
            "gpu_collective_ms": time.collective_time / 1e6,
            "launch_delay_ms": time.delay / 1e6,
        }
        member = np.zeros(count, dtype=np.int64)
        member[groups.of] = np.arange(len(groups.of))
        alike = np.ones(count, dtype=bool)
        alike[groups.of[tree.rows["name"] != tree.rows["name"][member[groups.of]]]] = False
        for g in range(count):
            path = groups.path(g, labels)
            yield TagRow(
                path=path,
                name=tree.instance_name(int(member[g])) if alike[g] else path[-1],
                pattern=tree.patterns[tree.pattern[member[g]]],
                instances=int(instances[g]),
                gpu_kernels=int(time.kernels[g]),
                gpu_copies=int(time.copies[g]),
                gpu_collectives=int(time.collectives[g]),
                **{name: float(values[g]) for name, values in milliseconds.items()},
            )


def longest_first(ops: Iterable[LongOperation]) -> list[LongOperation]:
    """Return the longest operations in order; of equal ones, the earlier first."""
    return sorted(ops, key=lambda op: (-op.ms, op.start_ms, op.name, op.tag))[:MOST_LONG_OPS]


def tag_color(pattern: str) -> str:
    """Return the color of a tag's family."""
    tag = registry.REGISTRY.get(pattern)
    return (tag.family if tag else registry.OTHER).light


def _total_ms(of: Codes | Ints, nanoseconds: Ints, count: int) -> Floats:
    return np.bincount(of, nanoseconds, minlength=count) / 1e6


def module_trace(
    trace: Trace, passes: EagerPasses | None
) -> tuple[Trace | None, EagerPasses | None]:
    """Return a trace whose tags are the calls of modules, by their class; passes likewise.

    A call is a range such as `nn.Module: Linear_3`, mostly of the Python stacks. None where there
    are no such ranges.
    """
    classes: dict[str, int] = {}
    class_of = np.full(len(trace.names) + 1, -1, dtype=np.int32)
    for i, name in enumerate(trace.names):
        if module := _MODULE.match(name):
            class_of[i] = classes.setdefault(module[1], len(trace.names) + len(classes))
    if not classes:
        return None, None
    modules, no_ranges = EventTable(RANGE), EventTable(RANGE)
    for table in (trace.python, trace.tag_rows, trace.ops):
        for rows in table.slices():
            calls = rows[class_of[rows["name"]] >= 0]
            calls["name"] = class_of[calls["name"]]
            modules.append(calls)
    names = [*trace.names, *classes]
    in_graphs = passes.of_modules(class_of, names) if passes else None
    only_modules = replace(
        trace,
        names=names,
        tag_rows=modules,
        ops=no_ranges,
        python=no_ranges,
        labeled_ops=EventTable(LABELED_OP),
        memory=EventTable(MEMORY),
        carried=0,
        pieces=0,
    )
    return only_modules, in_graphs


def analyze_in_memory(trace: Trace, passes: EagerPasses | None = None) -> Analysis:
    """Analyze a trace, or a chunk of one, in memory; its graphs are named after `passes`."""
    rows = timed_ops(trace)
    inside = passes.expand(trace, rows) if passes else None
    tree = build_tree(trace, inside.tags if inside else None)
    ops = attribute_ops(trace, tree, rows, inside.moment if inside else None)
    own_group = np.arange(len(tree), dtype=np.int32)
    return Analysis(
        trace,
        tree,
        ops,
        device_time(ops, tree.forest, own_group, len(tree)),
        graphs=inside.naming if inside else GraphNaming(),
        passes=passes,
    )
