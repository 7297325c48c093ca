"""Profile of the kernels of a steady block; of its operators on a CPU."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from glassworld.bench.steady_state import idle_action
from glassworld.engine.session import Session

BLOCKS = 2
MAX_KERNELS = 60
MAX_NAME_LENGTH = 120


@dataclass(frozen=True)
class KernelTotal:
    """Milliseconds and launches of one kind of kernel in a block."""

    name: str
    ms: float
    count: float


@dataclass(frozen=True)
class BlockKernels:
    """Kernels of a block. The device was idle for the part of `span_ms` beyond `kernels_ms`."""

    kernels_ms: float
    span_ms: float  # per block, from the first kernel to the last
    launches: float
    kernels: list[KernelTotal]  # slowest first


def profile_kernels(session: Session, max_kernels: int = MAX_KERNELS) -> BlockKernels:
    """Profile a session's next blocks, kernels in captured graphs included."""
    on_gpu = session.world.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities) as recorded:
        for _ in range(BLOCKS):
            session.step(idle_action(session.world))
    microseconds: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    starts, ends = [], []
    for event in recorded.events():
        # Annotations appear on the device too, around the kernels inside them.
        if (event.device_type.name == "CUDA") is on_gpu and not event.is_user_annotation:
            name = event.name[:MAX_NAME_LENGTH]
            busy = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            microseconds[name] += busy
            count[name] += 1
            starts.append(event.time_range.start)
            ends.append(event.time_range.end)
    slowest = sorted(microseconds, key=microseconds.__getitem__, reverse=True)[:max_kernels]
    per_block_ms = 1 / 1e3 / BLOCKS
    return BlockKernels(
        sum(microseconds.values()) * per_block_ms,
        (max(ends) - min(starts)) * per_block_ms,
        sum(count.values()) / BLOCKS,
        [
            KernelTotal(name, microseconds[name] * per_block_ms, count[name] / BLOCKS)
            for name in slowest
        ],
    )
