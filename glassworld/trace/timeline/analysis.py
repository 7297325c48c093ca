"""The analysis of one trace: columns, tag tree, attribution and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from glassworld.profiling import registry
from glassworld.trace.reading.columns import Codes, Floats, Ints, Trace
from glassworld.trace.timeline.attribution import DeviceOps, DeviceTime, attribute, device_time
from glassworld.trace.timeline.idle import IdleGap, IdleTotals, idle_gaps
from glassworld.trace.timeline.memory import TagMemory, tag_memory
from glassworld.trace.timeline.operator_totals import Kernels, Operators, kernels, operators
from glassworld.trace.timeline.rows import Call, Coverage, GpuFacts, Numbered, TagRow
from glassworld.trace.timeline.tag_tree import Groups, TagTree, build_tree

NUMBERED = (
    (registry.DENOISING_STEP, "block"),
    (registry.UPDATE_CACHE, "block"),
    (registry.VAE_DECODE, "block"),
    (registry.LAYER, "layer"),
)
"""What work and layers are counted by."""


@dataclass(frozen=True)
class Analysis:
    """Everything known of a trace. Arrays over tag instances run parallel to `tree.rows`.

    Of a very large trace only some instances are at hand, the most unusual among them (see
    `large`); everything but `tree`, `ops` and `device` is of the whole trace all the same.
    """

    trace: Trace
    tree: TagTree
    ops: DeviceOps
    device: DeviceTime

    left_out: int = 0
    """Tag instances that are in the sums but not at hand."""

    @property
    def paths_left_out(self) -> int:
        """Tag instances whose path of names has no row in `tags`: there were too many paths."""
        return 0

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
    def gpu(self) -> GpuFacts | None:
        """What the GPU did in all; None where nothing ran on one."""
        ops = self.ops
        if not len(ops):
            return None
        working = np.flatnonzero(self.device.kernels)
        first, began = int(ops.rows["start"][0]), self.tree.rows["start"][working]
        launched = ops.delay[ops.launch >= 0]
        return GpuFacts(
            busy_ns=int(ops.exclusive.sum()),
            since=int(began.min(initial=first)),
            until=int(ops.end.max()),
            first_delay_ns=max(0, int(ops.delay[0])),
            delay_ns=float(np.median(launched)) if len(launched) else 0.0,
            duration_ns=float(np.median(ops.rows["dur"])),
        )

    @cached_property
    def calls(self) -> dict[str, Call]:
        """The calls of the GPU's runtime, by name."""
        rows = self.trace.launches
        names, of = np.unique(rows["name"], return_inverse=True)
        count, spent = np.bincount(of), np.bincount(of, rows["dur"])
        return {
            self.trace.names[name]: Call(int(count[i]), int(spent[i]))
            for i, name in enumerate(names)
        }

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
        return list(self.each_tag())

    def each_tag(self) -> Iterator[TagRow]:
        """The rows of `tags` one by one: there may be nearly as many as instances."""
        return self._rows(self.tree.by_name, self.tree.names)

    @cached_property
    def patterns(self) -> list[TagRow]:
        """One row per path of patterns, parents before children."""
        return list(self._rows(self.tree.by_pattern, self.tree.patterns))

    @cached_property
    def numbered(self) -> dict[tuple[str, str], dict[int, Numbered]]:
        """For each of `NUMBERED`, the instances of the pattern by their number."""
        made, tree = {}, self.tree
        for pattern, dimension in NUMBERED:
            found = tree.where(pattern)
            number, of = np.unique(tree.dims[dimension][found], return_inverse=True)
            count = np.bincount(of, found >= self.trace.carried, minlength=len(number))
            ms = _total_ms(of, self.time_ns(found), len(number))
            cpu = _total_ms(of, tree.cpu_ns[found], len(number))
            made[pattern, dimension] = {
                int(n): Numbered(int(count[i]), float(ms[i]), float(cpu[i]))
                for i, n in enumerate(number)
            }
        return made

    @cached_property
    def gaps(self) -> list[IdleGap]:
        """The longest times in which no GPU operation ran, longest first."""
        if self.gpu is None:
            return []
        return idle_gaps(self.trace, self.tree, self.ops, self.gpu.since)

    @cached_property
    def idle(self) -> IdleTotals:
        """Sums over the gaps."""
        return IdleTotals.from_gaps(self.gaps)

    @cached_property
    def memory(self) -> list[TagMemory]:
        """The memory of every pattern of tags that touched any, the highest peak first."""
        return tag_memory(self.trace, self.tree)

    @cached_property
    def pattern_parents(self) -> list[int]:
        """For each row of `patterns`, the row it lies in; -1 at the root."""
        number = {row.path: i for i, row in enumerate(self.patterns)}
        return [number.get(row.path[:-1], -1) for row in self.patterns]

    def time_ns(self, instances: Ints) -> Ints:
        """The time that counts: GPU busy where there is a GPU, else CPU time."""
        values: Ints = self.device.busy if self.on_gpu else self.tree.cpu_ns
        return values[instances]

    def own_ns(self, instances: Ints) -> Ints:
        """The time that counts and lies in no tag inside."""
        values: Ints = self.device.own if self.on_gpu else self.tree.self_ns
        return values[instances]

    def ms(self, row: TagRow) -> float:
        """The time that counts of all instances of a row."""
        return row.gpu_busy_ms if self.on_gpu else row.cpu_ms

    def own_ms(self, row: TagRow) -> float:
        """The time that counts of a row outside the tags inside it."""
        return row.gpu_self_ms if self.on_gpu else row.self_cpu_ms

    def _rows(self, groups: Groups, labels: list[str]) -> Iterator[TagRow]:
        count, tree = len(groups), self.tree
        time = device_time(self.ops, tree.forest, groups.of, count)
        number = np.bincount(groups.of[self.trace.carried :], minlength=count)
        span = _total_ms(groups.of, self.device.span, count)
        busy = time.busy / 1e6
        milliseconds = {
            "cpu_ms": _total_ms(groups.of, tree.cpu_ns, count),
            "self_cpu_ms": _total_ms(groups.of, tree.self_ns, count),
            "gpu_busy_ms": busy,
            "gpu_self_ms": time.own / 1e6,
            "gpu_sum_ms": time.total / 1e6,
            "gpu_span_ms": span,
            "gpu_idle_ms": np.maximum(0.0, span - busy),
            "gpu_copy_ms": time.copy / 1e6,
            "gpu_collective_ms": time.collective / 1e6,
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
                instances=int(number[g]),
                gpu_kernels=int(time.kernels[g]),
                gpu_copies=int(time.copies[g]),
                gpu_collectives=int(time.collectives[g]),
                **{name: float(values[g]) for name, values in milliseconds.items()},
            )


def _total_ms(of: Codes | Ints, nanoseconds: Ints, count: int) -> Floats:
    return np.bincount(of, nanoseconds, minlength=count) / 1e6


def analyze_stretch(trace: Trace) -> Analysis:
    """The analysis of a trace, or a stretch of one, in memory."""
    tree = build_tree(trace)
    ops = attribute(trace, tree)
    each = np.arange(len(tree), dtype=np.int32)
    return Analysis(trace, tree, ops, device_time(ops, tree.forest, each, len(tree)))
