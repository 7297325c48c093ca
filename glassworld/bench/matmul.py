"""Matmuls of the transformer: their time in a block against the same shapes alone."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from glassworld.bench.peak_rates import fastest_seconds
from glassworld.bench.steady_state import fork, idle_action
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.session import Session
from glassworld.models.ops.linear import PackedLinear

MATMULS = {
    "aten::addmm": 1,
    "aten::_addmm_activation": 1,
    "aten::mm": 0,
    "mkldnn::_linear_pointwise": 0,
}
"""Operators that a linear layer ends in, and the index of the first of their two matrices."""

BLOCKS = 3
REPEATS = 5
Shape = tuple[int, int, int]  # rows, inner width, columns


def matmul_share(session: Session) -> dict[str, float] | None:
    """Compare the matmuls of a steady block with the same shapes alone.

    Returns their GFLOP, their time in the fastest of a few blocks and alone, and the quotient; None
    where captured graphs hide them. `session` stays where it is.
    """
    session = fork(session)
    blocks = [_matmuls_of_block(session) for _ in range(BLOCKS)]
    counts, block_seconds = min(blocks, key=lambda block: block[1])
    if not counts or not block_seconds:
        return None
    alone = sum(count * _seconds_alone(shape, session) for shape, count in counts.items())
    flops = sum(2 * count * math.prod(shape) for shape, count in counts.items())
    return {
        "gflop": flops / 1e9,
        "in_block_ms": 1e3 * block_seconds,
        "alone_ms": 1e3 * alone,
        "share": alone / block_seconds,
    }


def _matmuls_of_block(session: Session) -> tuple[dict[Shape, int], float]:
    """Count the matmuls of the next block by shape, and sum up their seconds."""
    on_gpu = session.world.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities, record_shapes=True) as recorded:
        session.step(idle_action(session.world))
        synchronize(session.world.device)  # the profiler waits for the current GPU alone
    counts: dict[Shape, int] = defaultdict(int)
    microseconds = 0.0
    for event in recorded.events():
        if event.name in MATMULS:
            counts[_shape(event)] += 1
            self_us: Any = event.self_device_time_total if on_gpu else None
            microseconds += event.self_cpu_time_total if self_us is None else self_us
    return counts, microseconds / 1e6


def _shape(event: Any) -> Shape:
    first = MATMULS[event.name]
    left, right = event.input_shapes[first : first + 2]
    columns = right[1] if event.name.startswith("aten") else right[0]  # stored as [out, in]
    return math.prod(left[:-1]), left[-1], columns


@torch.inference_mode()
def _seconds_alone(shape: Shape, session: Session) -> float:
    """Time one matmul by torch's operator and by our layer, and return the faster.

    Every layer has its own weight, as in a block, so that weights are as cold in the caches.
    """
    rows, inner, columns = shape
    dit = session.world.networks.dit
    like = dit.head.head.weight
    left = like.new_ones(rows, inner)
    layers = [PackedLinear(inner, columns).to(like) for _ in dit.blocks]

    def by_layers() -> None:
        for layer in layers:
            layer(left)

    def by_operator() -> None:
        for layer in layers:
            torch.addmm(layer.bias, left, layer.weight.T)

    variants = (by_layers, by_operator)
    device = session.world.device
    seconds = min(fastest_seconds(variant, device, REPEATS) for variant in variants)
    return seconds / len(layers)
