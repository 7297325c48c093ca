"""Find the bottleneck of a run on a GPU: the GPU, the launches, the host or waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.critical_path.waits import is_synchronizing
from glassworld.trace.timeline.intervals import merge_intervals
from glassworld.trace.timeline.merged import MergedAnalysis
from glassworld.trace.timeline.rows import GpuSummary, largest_first

IDLE_SHARE = 0.20  # a GPU that idles more is not the bottleneck
BUSY_SHARE = 0.95  # one that is busy more is
PROMPT_MS = 0.05  # operations that start sooner after their launch had no queue before them
SYNC_SHARE = 0.20
HOST_SHARE = 0.5  # of the idle time, in long gaps in which the CPU works
LEAST_OPERATIONS = 5  # fewer say nothing about a run


@dataclass(frozen=True)
class GpuUse:
    """How much of the trace's window the GPU worked; milliseconds.

    `busy_ms` and `idle_ms` add up to `window_ms`; `first_op_ms` is when the first operation began.
    """

    window_ms: float
    busy_ms: float
    idle_ms: float
    busy_share: float
    first_op_ms: float


def gpu_use(analysis: Analysis) -> GpuUse | None:
    """Return how much of the window the GPU worked; None without GPU operations."""
    gpu, window = analysis.gpu, analysis.duration_ns
    if gpu is None:
        return None
    return GpuUse(
        window_ms=window / 1e6,
        busy_ms=gpu.busy_ns / 1e6,
        idle_ms=(window - gpu.busy_ns) / 1e6,
        busy_share=gpu.busy_ns / window if window else 0.0,
        first_op_ms=(gpu.since - analysis.origin_ns) / 1e6,
    )


@dataclass(frozen=True)
class Bottleneck:
    """The bottleneck of a run; `kind` is gpu, host, launch, sync or mixed.

    Shares are of the trace's window. Idle time in which the next operation was queued does not
    count as idle: the GPU then waited for itself or for work that is not in the trace.
    `delay_ms` is the median time queued (None: no launch is in the trace), `sync_ms` the CPU's
    time in synchronizing calls, `sync_call` the one that took the most.
    """

    kind: str
    idle_share: float
    idle_ms: float
    delay_ms: float | None
    sync_ms: float
    sync_call: str
    sentence: str


class _Facts(NamedTuple):
    """What the verdict is drawn from; `host_share` is of the idle time, `sync_share` of all."""

    idle: float
    host_share: float
    sync_share: float
    delay_ms: float | None
    queued: bool


def find_bottleneck(analysis: Analysis) -> Bottleneck | None:
    """Return the bottleneck of the whole trace; None of fewer than five GPU operations."""
    gpu, window = analysis.gpu, analysis.duration_ns
    if gpu is None or window <= 0 or analysis.coverage.gpu_ops < LEAST_OPERATIONS:
        return None
    idle_ns = max(0.0, window - gpu.busy_ns - _queued_ns(analysis, gpu))
    sync_ms, call = _sync_time(analysis)
    delay_ms = None if gpu.delay_ns is None else gpu.delay_ns / 1e6
    host_ns = analysis.idle.host_ms * 1e6 + (analysis.trace.end - gpu.until)
    facts = _Facts(
        idle=idle_ns / window,
        host_share=host_ns / idle_ns if idle_ns else 0.0,
        sync_share=sync_ms * 1e6 / window,
        delay_ms=delay_ms,
        queued=gpu.delay_ns is not None and gpu.delay_ns > gpu.op_duration_ns,
    )
    kind = _kind(facts)
    culprit = analysis.idle.main_culprit
    sentence = {
        "gpu": f"GPU-bound: the GPU idles {share(facts.idle)} of the time, and work queues for it",
        "host": f"Host-bound: the GPU idles {share(facts.idle)} of the time, most of it while the "
        + (f"CPU is in {culprit}" if culprit else "CPU does work of its own"),
        "sync": f"Sync-bound: the GPU idles {share(facts.idle)} of the time, and the CPU waits "
        f"{sync_ms:,.0f} ms in {call}",
        "launch": f"Launch-bound: the GPU idles {share(facts.idle)} of the time, and operations "
        f"start {1e3 * (delay_ms or 0.0):.0f} µs after their launch: the CPU cannot launch fast "
        "enough",
        "mixed": "Neither launch-bound nor sync-bound: the GPU idles "
        f"{share(facts.idle)} of the time",
    }[kind]
    return Bottleneck(kind, facts.idle, idle_ns / 1e6, delay_ms, sync_ms, call, sentence)


def _kind(facts: _Facts) -> str:
    if facts.idle < 1 - BUSY_SHARE and facts.queued:
        return "gpu"
    if facts.idle > IDLE_SHARE and facts.host_share > HOST_SHARE:
        return "host"
    if facts.idle > IDLE_SHARE and facts.sync_share > SYNC_SHARE:
        return "sync"
    prompt = facts.delay_ms is not None and facts.delay_ms < PROMPT_MS
    return "launch" if facts.idle > IDLE_SHARE and prompt else "mixed"


def _queued_ns(analysis: Analysis, gpu: GpuSummary) -> float:
    """Return the idle time in which the next operation was queued."""
    return 1e6 * analysis.idle.queued_ms + gpu.first_delay_ns


def share(value: float) -> str:
    """Return a share as a percentage, with a decimal next to 0 and 100."""
    return f"{value:.0%}" if 0.01 <= value <= 0.99 or value in (0.0, 1.0) else f"{value:.1%}"


def _sync_time(analysis: Analysis) -> tuple[float, str]:
    """Return the milliseconds in synchronizing calls, and which of them takes the most.

    Calls at the same time, of several threads or one within another, count once.
    """
    spent = {name: call.ns / 1e6 for name, call in analysis.calls.items() if is_synchronizing(name)}
    if not spent:
        return 0.0, ""
    most = min(spent, key=lambda name: largest_first(spent[name], name))
    trace = analysis.whole if isinstance(analysis, MergedAnalysis) else analysis.trace
    calls = trace.launch_rows.named(np.array([name in spent for name in trace.names], dtype=bool))
    spans = merge_intervals(np.stack([calls["start"], calls["start"] + calls["dur"]], axis=1))
    return float((spans[:, 1] - spans[:, 0]).sum()) / 1e6, most
