"""The ways to make a whole world faster, each held against the plain world first.

One that should make the same is timed only if it does.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from glassworld.bench.gpu.context import BenchContext, Figures, reason
from glassworld.bench.gpu.kernel_profile import block_kernels
from glassworld.bench.latency import key_to_frame_ms
from glassworld.bench.steady_state import Blocks, frames_per_block, idle, warm
from glassworld.engine.acceleration.parts import QUANTIZED, accelerate
from glassworld.engine.acceleration.tiny_decoder import with_tiny_decoder
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.world import World

TINY = "tiny decoder"
FAST = ("kernels", "graphs")
WAYS = (  # what one would want to know first comes first: the time may be up before the last
    FAST,
    (*FAST, "float8", TINY),
    (*FAST, TINY),
    (*FAST, "float8"),
    (),
    ("kernels",),
    (*FAST, "int8"),
)
COMPARED_BLOCKS = 12  # until every pass over a full window has been launched as a captured graph
MOST_DISTANCE = 0.05
"""Of the latents' spread: what rounding in half precision makes of a block, with room."""


def ways_to_be_faster(rig: BenchContext, ways: Sequence[tuple[str, ...]] = WAYS) -> Figures:
    """Each way: how far its latents are from the plain world's, and frames per second."""
    expected, found = walk(rig.make(), rig), Figures()
    for parts in ways:
        try:
            row = _way(rig, parts, expected)
        except Exception as error:
            row = reason(error)
        name = "+".join(parts) or "plain"
        found[name] = row
        rig.keep(found)
        rig.say(f"  {name}: {_summary(row)}")
    return found


def _summary(row: Figures) -> str:
    if "error" in row:
        return str(row["error"])
    return (
        f"{row['block_ms_median']:.1f} ms a block, {row['kernels_ms']:.1f} of them in kernels, "
        f"{row['fps_median']:.1f} frames per second, "
        f"{max(row['distance_in_spreads']):.4f} spreads away, {row['seconds']:.1f} s to set up"
    )


def _way(rig: BenchContext, parts: tuple[str, ...], expected: list[Tensor]) -> Figures:
    world, seconds = _made_faster(rig.make(), parts)
    distance = distances(walk(world, rig), expected)
    exact = not QUANTIZED.keys() & set(parts)
    if exact and max(distance) >= MOST_DISTANCE:
        return {"distance_in_spreads": distance, "error": "makes something else: not timed"}
    _forget_memory(world)
    lane = Blocks(warm(world, rig.picture))
    lane.run(rig.blocks)
    return {
        **_peak_memory(world),
        "seconds": seconds,
        "distance_in_spreads": distance,
        "block_ms_median": 1e3 * lane.median,
        "fps_median": frames_per_block(world) / lane.median,
        "key_to_frame_ms": key_to_frame_ms(world, rig.picture),
        **asdict(block_kernels(lane.session)),
    }


def _made_faster(world: World, parts: tuple[str, ...]) -> tuple[World, float]:
    """The world with these parts, and how many seconds it took to set them up."""
    if TINY in parts:
        world = with_tiny_decoder(world, None)
    synchronize(world.device)
    began = time.perf_counter()
    accelerate(world, [part for part in parts if part != TINY])
    synchronize(world.device)
    return world, time.perf_counter() - began


def _forget_memory(world: World) -> None:
    """Have the peak of the GPU's memory begin with what is needed now."""
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(world: World) -> Figures:
    if world.device.type != "cuda":
        return {}
    return {
        "peak_memory_mb": torch.cuda.max_memory_reserved() / 1e6,
        "peak_allocated_mb": torch.cuda.max_memory_allocated() / 1e6,
    }


def walk(world: World, rig: BenchContext) -> list[Tensor]:
    """The latents of the first blocks, on the host."""
    session, blocks = world.start(rig.picture, seed=1), []
    for _ in range(COMPARED_BLOCKS):
        session.hold(idle(world))
        blocks.append(session.advance()[1].float().cpu())
    return blocks


def distances(made: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Block by block, the root of the mean square difference in spreads of the expected."""
    return [
        float((a - b).square().mean().sqrt() / b.std()) for a, b in zip(made, expected, strict=True)
    ]
