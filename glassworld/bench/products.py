"""How near the transformer's dense products come to what such products reach on their own."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from glassworld.bench.ceilings import median_seconds
from glassworld.bench.steady import idle
from glassworld.engine.world import Session

PRODUCTS = {"aten::addmm": 1, "aten::mm": 0}
"""The operators a linear layer ends in, and at which argument their two matrices begin."""

REPEATS = 5
Shape = tuple[int, int, int]


def products_share(session: Session) -> dict[str, float] | None:
    """Of one steady block: GFLOP of its products, their time in it and alone, and the quotient.

    None where the products are hidden in captured graphs.
    """
    device = session.world.device
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, record_shapes=True) as recorded:
        session.step(idle(session.world))
    counted: dict[Shape, int] = defaultdict(int)
    microseconds = 0.0
    for event in recorded.events():
        if event.name in PRODUCTS:
            counted[_shape(event, PRODUCTS[event.name])] += 1
            own: Any = event.self_device_time_total if device.type == "cuda" else None
            microseconds += event.self_cpu_time_total if own is None else own
    if not counted or not microseconds:
        return None
    alone = sum(n * _seconds_alone(shape, session) for shape, n in counted.items())
    flops = sum(2 * n * rows * inner * columns for (rows, inner, columns), n in counted.items())
    return {
        "gflop": flops / 1e9,
        "in_block_ms": microseconds / 1e3,
        "alone_ms": 1e3 * alone,
        "share": alone / (microseconds / 1e6),
    }


def _shape(event: Any, first: int) -> Shape:
    left, right = event.input_shapes[first : first + 2]
    return left[0], left[1], right[1]


@torch.inference_mode()
def _seconds_alone(shape: Shape, session: Session) -> float:
    """One product, its matrices as fresh in the caches as a block's: layers have their own."""
    rows, inner, columns = shape
    like = session.world.networks.dit.head.head.weight
    left, bias = like.new_ones(rows, inner), like.new_ones(columns)
    weights = like.new_ones(len(session.world.networks.dit.blocks), columns, inner)

    def layer_by_layer() -> None:
        for weight in weights:
            torch.addmm(bias, left, weight.T)

    seconds = median_seconds(layer_by_layer, session.world.device, REPEATS)
    return seconds / len(weights)
