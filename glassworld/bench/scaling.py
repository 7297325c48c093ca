"""Scaling: how the time of a block grows with frame size, window, steps, sessions and length."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from glassworld.bench.steady_state import BlockTimes, warm_session
from glassworld.engine.media.images import ImageSource
from glassworld.engine.world import World
from glassworld.specs import SPACE_FACTOR, WorldSpec

Curve = list[tuple[float, float]]
"""Pairs of the value on an axis and the milliseconds of a block."""

BLOCKS = 5
SIZES = (0.5, 1.0, 1.5, 2.0)  # factors of the world's height and width
WINDOWS = (1, 2, 3, 4, 5)  # in blocks
STEPS = (1000, 750, 500, 250)
TOKENS = "tokens of a block"


def scaling_curves(
    world: World, start_image: ImageSource, report: Callable[[str], object]
) -> dict[str, Curve]:
    """Measure the median milliseconds of a few blocks along each axis."""
    curves: dict[str, Curve] = {}
    for axis, value, spec in _variants(world.spec):
        report(f"scaling: {axis} {value:g}")
        blocks = BlockTimes(warm_session(_with_spec(world, spec), start_image))
        blocks.run_live(BLOCKS)
        curves.setdefault(axis, []).append((value, 1e3 * blocks.median))
        if axis == TOKENS:
            point = (spec.height * spec.width, 1e3 * blocks.median)
            curves.setdefault("pixels of a frame", []).append(point)
    return curves


def _variants(spec: WorldSpec) -> Iterator[tuple[str, float, WorldSpec]]:
    """Yield the axis, its value and the spec of every world to measure."""
    grid, step = SPACE_FACTOR * spec.dit.patch, spec.frames_per_block
    for factor in SIZES:
        height, width = (
            max(grid, round(side * factor / grid) * grid) for side in (spec.height, spec.width)
        )
        sized = replace(spec, height=height, width=width)
        yield TOKENS, step * sized.tokens_per_frame, sized
    for blocks in WINDOWS:
        window = spec.dit.sink + blocks * step
        windowed = replace(spec, dit=replace(spec.dit, window=window))
        yield "latent frames of the window", window, windowed
    for count in range(1, len(STEPS) + 1):
        yield "denoising steps", count, replace(spec, denoising_steps=STEPS[:count])


def _with_spec(world: World, spec: WorldSpec) -> World:
    """Return a world with the same weights and another spec, by a shallow copy of the model."""
    dit = copy.copy(world.networks.dit)
    dit.spec = spec.dit
    networks = replace(world.networks, dit=dit)
    return replace(world, spec=spec, networks=networks)


def curve_along_run(block_ms: list[float], parts: int = 12) -> Curve:
    """Return the median of each of `parts` sections of a run: flat where nothing accumulates."""
    length = max(1, len(block_ms) // parts)
    starts = range(0, len(block_ms) - length + 1, length)
    return [(s + length / 2, statistics.median(block_ms[s : s + length])) for s in starts]


def curve_of_sessions(rows: list[dict[str, Any]], frames: int) -> Curve:
    """Return the time of a batch of all sessions against their number, from measured rows."""
    return [(row["sessions"], 1e3 * frames / row["fps_each_together"]) for row in rows]
