"""Which kernels a steady block's time goes to; on a CPU, which operators."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from glassworld.bench.steady_state import idle
from glassworld.engine.world import Session

BLOCKS = 2
SHOWN = 60
LONGEST_NAME = 120


@dataclass(frozen=True)
class Kernel:
    """What one kind of kernel takes of a block, and how often it is launched."""

    name: str
    ms: float
    count: float


@dataclass(frozen=True)
class BlockKernels:
    """The kernels of a block: what its time is longer than their sum, the device stood still."""

    kernels_ms: float
    span_ms: float  # a block's share of the time from the first kernel to the last
    launches: float
    kernels: list[Kernel]  # those that take longest, the longest first


def block_kernels(session: Session, shown: int = SHOWN) -> BlockKernels:
    """Of a session's next blocks; those in captured graphs are seen too."""
    cuda = session.world.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    with profile(activities=activities) as recorded:
        for _ in range(BLOCKS):
            session.step(idle(session.world))
    took: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    starts, ends = [], []
    for event in recorded.events():
        # Annotations are shown on the device too, over the kernels that they hold.
        if (event.device_type.name == "CUDA") is cuda and not event.is_user_annotation:
            name = event.name[:LONGEST_NAME]
            took[name] += event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
            count[name] += 1
            starts.append(event.time_range.start)
            ends.append(event.time_range.end)
    order = sorted(took, key=took.__getitem__, reverse=True)
    return BlockKernels(
        sum(took.values()) / 1e3 / BLOCKS,
        (max(ends) - min(starts)) / 1e3 / BLOCKS,
        sum(count.values()) / BLOCKS,
        [Kernel(name, took[name] / 1e3 / BLOCKS, count[name] / BLOCKS) for name in order[:shown]],
    )
