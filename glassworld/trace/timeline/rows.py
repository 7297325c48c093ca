"""What an analysis says of a trace, as rows and figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Coverage:
    """How much of the GPU's work found its tag."""

    gpu_ops: int
    launched: int
    attributed: int


@dataclass(frozen=True)
class GpuFacts:
    """What the GPU did in all; times in nanoseconds of the trace's clock, medians over operations.

    `since` is when the first tag with GPU work began, `until` the end of the last operation;
    `first_delay_ns` is how long the first operation waited after its launch.
    """

    busy_ns: int
    since: int
    until: int
    first_delay_ns: int
    delay_ns: float
    duration_ns: float


@dataclass(frozen=True)
class Call:
    """A function of the GPU's runtime over all its calls."""

    count: int
    ns: int


@dataclass(frozen=True)
class TagRow:
    """A tag with all its instances at one place of the tree; milliseconds.

    `path` runs from the root to the tag itself; `name` is its last part, or in rows by pattern
    the name itself where all instances bear the same. GPU figures include the tags inside, but for
    `gpu_self_ms`. `gpu_span_ms` and `gpu_idle_ms` are summed over the instances.
    """

    path: tuple[str, ...]
    name: str
    pattern: str
    instances: int
    cpu_ms: float
    self_cpu_ms: float
    gpu_busy_ms: float
    gpu_self_ms: float
    gpu_sum_ms: float
    gpu_span_ms: float
    gpu_idle_ms: float
    gpu_kernels: int
    gpu_copies: int
    gpu_copy_ms: float
    gpu_collectives: int
    gpu_collective_ms: float
    launch_delay_ms: float


@dataclass(frozen=True)
class Numbered:
    """All instances of a pattern that bear one number: how many, and their time."""

    count: int
    ms: float
    cpu_ms: float
