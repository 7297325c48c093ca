"""Accelerations of a whole world, each first compared with the unaccelerated model.

A combination that should give the same results is timed only if it does.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from glassworld.bench.accuracy import first_blocks, relative_errors
from glassworld.bench.gpu.context import BenchContext, error_row
from glassworld.bench.gpu.kernel_profile import profile_kernels
from glassworld.bench.latency import key_to_frame_ms
from glassworld.bench.section_runner import Figures
from glassworld.bench.steady_state import BlockTimes, frames_per_block, warm_session
from glassworld.engine.acceleration.parts import QUANTIZED, accelerate
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.world import World

Parts = tuple[str, ...]

TINY = "tiny decoder"
FAST = ("kernels", "graphs")
ACCELERATIONS: tuple[Parts, ...] = (  # most important first: the time may be up before the last
    FAST,
    (*FAST, "float8", TINY),
    (*FAST, TINY),
    (*FAST, "float8"),
    (),
    ("kernels",),
    (*FAST, "int8"),
)
COMPARED_BLOCKS = 12
"""Blocks until every pass over a full window has been launched as a captured graph."""

MAX_ERROR = 0.05
"""Standard deviations of the latents: rounding in half precision, with a margin."""


def compare_accelerations(
    context: BenchContext, accelerations: Sequence[Parts] = ACCELERATIONS
) -> Figures:
    """Measure each combination: latent error against the unaccelerated model, and speed."""
    exact, figures = _latents(context.build_world(), context), Figures()
    for parts in accelerations:
        try:
            row = _measure(context, parts, exact)
        except Exception as error:
            row = error_row(error)
        name = "+".join(parts) or "plain"
        figures[name] = row
        context.save(figures)
        context.report(f"  {name}: {_summary(row)}")
    return figures


def _latents(world: World, context: BenchContext) -> list[Tensor]:
    blocks = first_blocks(world, context.start_image, COMPARED_BLOCKS)
    return [latents for _, latents in blocks]


def _summary(row: Figures) -> str:
    if "error" in row:
        return str(row["error"])
    return (
        f"{row['block_ms_median']:.1f} ms a block, {row['kernels_ms']:.1f} of them in kernels, "
        f"{row['fps_median']:.1f} frames per second, "
        f"error {max(row['distance_in_spreads']):.4f} std, {row['seconds']:.1f} s to set up"
    )


def _measure(context: BenchContext, parts: Parts, exact: list[Tensor]) -> Figures:
    world, seconds = _accelerated(context.build_world(), parts)
    errors = relative_errors(_latents(world, context), exact)
    if max(errors) >= MAX_ERROR and not QUANTIZED.keys() & set(parts):
        return {"distance_in_spreads": errors, "error": "results differ: not timed"}
    _reset_peak_memory(world)
    blocks = BlockTimes(warm_session(world, context.start_image))
    blocks.run_live(context.blocks)
    return {
        **_peak_memory(world),
        "seconds": seconds,
        "distance_in_spreads": errors,
        "block_ms_median": 1e3 * blocks.median,
        "fps_median": frames_per_block(world) / blocks.median,
        "key_to_frame_ms": key_to_frame_ms(blocks.session),
        **asdict(profile_kernels(blocks.session)),
    }


def _accelerated(world: World, parts: Parts) -> tuple[World, float]:
    """Return the world with these parts, and the seconds to set them up."""
    if TINY in parts:
        world = with_tiny_decoder(world, None)
    synchronize(world.device)
    began = time.perf_counter()
    world = accelerate(world, [part for part in parts if part != TINY])
    synchronize(world.device)
    return world, time.perf_counter() - began


def _reset_peak_memory(world: World) -> None:
    """Let the peak of the GPU's memory start from what is needed now."""
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
