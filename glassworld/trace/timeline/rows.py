"""The result types of an analysis: one row per tag, and totals over the trace."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE_RUN = "(the whole run)"
"""What stands for a tag where no single one is meant."""

_DECIMALS = 6  # of milliseconds: nanoseconds


def exact_ms(ms: float) -> float:
    """Return the float64 next to a whole number of nanoseconds.

    A sum of several times is then the same number whichever of them were added first.
    """
    return round(ms, _DECIMALS)


def largest_first(value: float, *names: object) -> tuple[object, ...]:
    """Return a sort key: the largest value first; equal ones in the order of their names.

    Values (milliseconds, shares) that differ by rounding alone are equal, so that an order does
    not depend on the order in which a file, or its chunks, added them up.
    """
    return (-round(value, _DECIMALS), *names)


@dataclass(frozen=True)
class Coverage:
    """Numbers of GPU operations: all, those with a launch in the trace, those with a tag."""

    gpu_ops: int
    launched: int
    attributed: int


@dataclass(frozen=True)
class GpuSummary:
    """The GPU's work over the whole trace; nanoseconds of the trace's clock.

    `busy_ns` is the union of the operations' intervals, `overlap_ns` the time that operations take
    beside others of their own stream, `covered_ops` how many do so all the time. `since` is the
    start of the first operation, `until` the end of the last one; `first_delay_ns` is how long
    the first was queued (of several that start together, the longest). `delay_ns`, the time
    queued (None: no launches), and `op_duration_ns` are medians over the operations.
    """

    busy_ns: int
    overlap_ns: int
    covered_ops: int
    since: int
    until: int
    first_delay_ns: int
    delay_ns: float | None
    op_duration_ns: float


@dataclass(frozen=True)
class RuntimeCall:
    """A function of the GPU's runtime over all its calls."""

    count: int
    ns: int


@dataclass(frozen=True)
class LongOperation:
    """One of the longest GPU operations: its name, its innermost tag ("" for none), its time."""

    name: str
    tag: str
    start_ms: float
    ms: float


@dataclass(frozen=True)
class TagRow:
    """A tag with all its instances at one place of the tree; milliseconds.

    `path` runs from the root to the tag itself; `name` is its last part, or in rows by pattern
    the name itself where all instances have the same. GPU figures include the tags inside, except
    `gpu_self_ms`. `gpu_span_ms` is the union of the instances' spans, `gpu_idle_ms` is span minus
    busy.
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
class IndexTotals:
    """All instances of a pattern with one index, e.g. one layer: their number and time."""

    count: int
    ms: float
    cpu_ms: float
