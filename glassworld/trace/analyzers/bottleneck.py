"""Find the bottleneck of a run on a GPU: the GPU, the launches, the host or waiting."""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.trace.timeline.analysis import Analysis

IDLE_SHARE = 0.20  # a GPU that idles more is not the bottleneck
BUSY_SHARE = 0.95  # one that is busy more is
PROMPT_MS = 0.05  # operations that start sooner after their launch had no queue before them
SYNC_SHARE = 0.20
HOST_SHARE = 0.5  # of the idle time, in long gaps in which the CPU works


@dataclass(frozen=True)
class Bottleneck:
    """The bottleneck of a run; `kind` is gpu, host, launch, sync or mixed.

    Shares are of the time from the first tag with GPU work to the last operation's end.
    Idle time in which the next operation had long been launched does not count as idle: the GPU
    then waited for itself or for work that is not in the trace.
    `delay_ms` is the median time from launch to start, `sync_ms` the CPU's time in synchronizing
    calls, `sync_call` the one that took the most.
    """

    kind: str
    idle_share: float
    idle_ms: float
    delay_ms: float
    sync_ms: float
    sync_call: str
    sentence: str


def find_bottleneck(analysis: Analysis) -> Bottleneck | None:
    """Return the bottleneck of the whole trace; None without GPU operations."""
    gpu = analysis.gpu
    span = gpu.until - gpu.since if gpu else 0
    if gpu is None or span <= 0:
        return None
    queued_ns = 1e6 * analysis.idle.queued_ms + gpu.first_delay_ns
    idle = max(0.0, 1 - (gpu.busy_ns + queued_ns) / span)
    delay = gpu.delay_ns / 1e6
    sync_ms, call = _sync_time(analysis)
    queued = gpu.delay_ns > gpu.op_duration_ns
    facts = f"the GPU idles {idle:.0%} of the time"
    if idle < 1 - BUSY_SHARE and queued:
        kind, sentence = "gpu", f"GPU-bound: {facts} and work queues for it"
    elif idle > IDLE_SHARE and analysis.idle.host_ms * 1e6 > HOST_SHARE * idle * span:
        kind = "host"
        sentence = f"Host-bound: {facts}, most of it while the CPU does work of its own"
    elif idle > IDLE_SHARE and sync_ms * 1e6 > SYNC_SHARE * span:
        kind = "sync"
        sentence = f"Sync-bound: {facts} and the CPU waits {sync_ms:,.0f} ms in {call}"
    elif idle > IDLE_SHARE and delay < PROMPT_MS:
        kind = "launch"
        sentence = (
            f"Launch-bound: {facts}, and what is launched starts within {delay * 1e3:.0f} us: "
            "the CPU cannot launch fast enough"
        )
    else:
        kind, sentence = "mixed", f"Neither launch-bound nor sync-bound: {facts}"
    return Bottleneck(kind, idle, idle * span / 1e6, delay, sync_ms, call, sentence)


def _sync_time(analysis: Analysis) -> tuple[float, str]:
    """Return the milliseconds in synchronizing calls, and which of them takes the most."""
    spent = {name: call.ns / 1e6 for name, call in analysis.calls.items() if _synchronizes(name)}
    return sum(spent.values()), max(spent, key=spent.__getitem__, default="")


def _synchronizes(name: str) -> bool:
    return "Synchronize" in name or name in ("cudaMemcpy", "hipMemcpy", "hipMemcpyWithStream")
