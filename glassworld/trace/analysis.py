"""The analysis of one trace: columns, tag tree, attribution and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from glassworld.trace.attribution import DeviceOps, DeviceTime, attribute, device_time
from glassworld.trace.operators import Kernels, Operators, kernels, operators
from glassworld.trace.reader import Progress, read
from glassworld.trace.tables import Codes, Ints, Trace
from glassworld.trace.tree import Groups, TagTree, build_tree


@dataclass(frozen=True)
class Coverage:
    """How much of the GPU's work found its tag."""

    gpu_ops: int
    launched: int
    attributed: int


@dataclass(frozen=True)
class TagRow:
    """A tag with all its instances at one place of the tree; milliseconds.

    `path` runs from the root to the tag itself. GPU figures include the tags inside.
    """

    path: tuple[str, ...]
    name: str
    pattern: str
    instances: int
    cpu_ms: float
    self_cpu_ms: float
    gpu_busy_ms: float
    gpu_sum_ms: float
    gpu_span_ms: float
    gpu_idle_ms: float
    gpu_kernels: int
    gpu_copies: int
    gpu_collectives: int
    launch_delay_ms: float


@dataclass(frozen=True)
class Analysis:
    """Everything known of a trace. Arrays over tag instances run parallel to `tree.rows`."""

    trace: Trace
    tree: TagTree
    ops: DeviceOps
    device: DeviceTime

    @property
    def on_gpu(self) -> bool:
        """Whether anything ran on a GPU; if not, CPU time is the time that counts."""
        return len(self.ops) > 0

    @property
    def origin_ns(self) -> int:
        """The moment that reports call 0."""
        return self.trace.start

    @property
    def window_ns(self) -> int:
        """From the first range's start to the last one's end."""
        return self.trace.end - self.trace.start

    @cached_property
    def coverage(self) -> Coverage:
        """Counts of GPU operations: all, with a launch in the trace, with a tag."""
        return Coverage(
            len(self.ops), int((self.ops.launch >= 0).sum()), int((self.ops.tag >= 0).sum())
        )

    @cached_property
    def operators(self) -> Operators:
        """Operators under every pattern group."""
        return operators(self.trace, self.tree, self.ops)

    @cached_property
    def kernels(self) -> Kernels:
        """Kernels under every pattern group."""
        return kernels(self.trace, self.tree, self.ops)

    @cached_property
    def tags(self) -> list[TagRow]:
        """One row per path of names, parents before children."""
        return self._rows(self.tree.by_name, self.tree.names)

    @cached_property
    def patterns(self) -> list[TagRow]:
        """One row per path of patterns, parents before children."""
        return self._rows(self.tree.by_pattern, self.tree.patterns)

    def instance_name(self, instance: int) -> str:
        """The name of a tag instance."""
        return self.tree.names[int(self.tree.rows["name"][instance])]

    def time_ns(self, instances: Ints) -> Ints:
        """The time that counts: GPU busy where there is a GPU, else CPU time."""
        values: Ints = self.device.busy if self.on_gpu else self.tree.rows["dur"]
        return values[instances]

    def _rows(self, groups: Groups, labels: list[str]) -> list[TagRow]:
        count = len(groups)
        time = device_time(self.ops, self.tree.forest, groups.of, count)
        number = np.bincount(groups.of, minlength=count)
        cpu = _total(groups.of, self.tree.rows["dur"], count)
        own = _total(groups.of, self.tree.self_ns, count)
        member = np.zeros(count, dtype=np.int64)
        member[groups.of] = np.arange(len(groups.of))
        rows = []
        for g in range(count):
            path = groups.path(g, labels)
            rows.append(
                TagRow(
                    path=path,
                    name=path[-1],
                    pattern=self.tree.patterns[self.tree.pattern[member[g]]],
                    instances=int(number[g]),
                    cpu_ms=float(cpu[g]) / 1e6,
                    self_cpu_ms=float(own[g]) / 1e6,
                    gpu_busy_ms=float(time.busy[g]) / 1e6,
                    gpu_sum_ms=float(time.total[g]) / 1e6,
                    gpu_span_ms=float(time.span[g]) / 1e6,
                    gpu_idle_ms=float(time.idle[g]) / 1e6,
                    gpu_kernels=int(time.kernels[g]),
                    gpu_copies=int(time.copies[g]),
                    gpu_collectives=int(time.collectives[g]),
                    launch_delay_ms=float(time.delay[g]) / 1e6,
                )
            )
        return rows


def _total(of: Codes, values: Ints, count: int) -> Ints:
    return np.bincount(of, values, minlength=count).astype(np.int64)


def analyze(
    path: str | Path, progress: Progress | None = None, tags_only: bool = False
) -> Analysis:
    """Read the trace at `path` and attribute its GPU time to its tags.

    Works on any JSON that `torch.profiler` exports, plain or gzip. `progress` is called with the
    bytes read so far; `tags_only` reads the tags' CPU times alone, several times faster. Raises
    `TraceError` where there is no trace to read.
    """
    trace = read(path, progress, tags_only)
    tree = build_tree(trace)
    ops = attribute(trace, tree)
    each = np.arange(len(tree), dtype=np.int32)
    return Analysis(trace, tree, ops, device_time(ops, tree.forest, each, len(tree)))
