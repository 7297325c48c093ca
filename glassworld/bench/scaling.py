"""How a block's time grows with frame size, window, steps and sessions, and over a run."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from glassworld.bench.steady_state import Blocks, warm
from glassworld.engine.world import Networks, Picture, World
from glassworld.specs import SPACE_FACTOR, WorldSpec

BLOCKS = 5
SIZES = (0.5, 1.0, 1.5, 2.0)  # of the world's own frame, each way
WINDOWS = (1, 2, 3, 4, 5)  # in blocks
STEPS = (1000, 750, 500, 250)


def scaling(
    world: World, picture: Picture, say: Callable[[str], object]
) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds a block, by axis: pairs of the axis's value and the median of a few blocks."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for axis, value, spec in _variants(world.spec):
        say(f"scaling: {axis} {value:g}")
        blocks = Blocks(warm(_with_spec(world, spec), picture))
        blocks.run(BLOCKS)
        curves.setdefault(axis, []).append((value, 1e3 * blocks.median))
        if axis == TOKENS:
            size = (spec.height * spec.width, 1e3 * blocks.median)
            curves.setdefault("pixels of a frame", []).append(size)
    return curves


TOKENS = "tokens of a block"


def _variants(spec: WorldSpec) -> Iterator[tuple[str, float, WorldSpec]]:
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
    """The same weights under another spec; of the transformer a shallow copy that knows it."""
    dit = copy.copy(world.networks.dit)
    dit.spec = spec.dit
    own = world.networks
    networks = Networks(dit, own.encoder, own.decoder, own.vision)
    return World(spec, networks, world.name, decoding=world.pipeline.decoder_dtype)


def over_the_run(block_ms: list[float], parts: int = 12) -> list[tuple[float, float]]:
    """A run's blocks as the median of each of `parts` stretches: flat where nothing piles up."""
    length = max(1, len(block_ms) // parts)
    starts = range(0, len(block_ms) - length + 1, length)
    return [(s + length / 2, statistics.median(block_ms[s : s + length])) for s in starts]


def of_sessions(rows: list[dict[str, Any]], frames: int) -> list[tuple[float, float]]:
    """A block of all sessions together, from the benchmark's rows."""
    return [(row["sessions"], 1e3 * frames / row["fps_each_together"]) for row in rows]
