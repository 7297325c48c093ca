"""How near the transformer's dense products come to what such products reach on their own."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from glassworld.bench.peak_rates import median_seconds
from glassworld.bench.steady_state import idle
from glassworld.engine.world import Session
from glassworld.models.ops.linear import PackedLinear

PRODUCTS = {
    "aten::addmm": 1,
    "aten::_addmm_activation": 1,
    "aten::mm": 0,
    "mkldnn::_linear_pointwise": 0,
}
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
            counted[_shape(event)] += 1
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


def _shape(event: Any) -> Shape:
    """Rows, inner width and columns of a product."""
    first = PRODUCTS[event.name]
    left, right = event.input_shapes[first : first + 2]
    columns = right[1] if event.name.startswith("aten") else right[0]  # as `[out, in]`
    return math.prod(left[:-1]), left[-1], columns


@torch.inference_mode()
def _seconds_alone(shape: Shape, session: Session) -> float:
    """One product, its matrices as fresh in the caches as a block's: layers have their own.

    By torch's operator or as our layers do it, whichever is the quicker.
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

    ways = (by_layers, by_operator)
    seconds = min(median_seconds(way, session.world.device, REPEATS) for way in ways)
    return seconds / len(layers)
