"""Accuracy: how far the latents and frames of an accelerated world are from the exact one's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from glassworld.bench.steady_state import idle_action
from glassworld.engine.media.images import Frames, ImageSource, psnr
from glassworld.engine.world import World

BLOCKS = 5
MAX_PSNR_DB = 100.0
"""Stands for identical frames, because JSON has no infinity."""

Block = tuple[Frames, Tensor]


def first_blocks(world: World, start_image: ImageSource, count: int) -> list[Block]:
    """Generate the first blocks of a session: their frames and their latents on the host."""
    session, blocks = world.start(start_image, seed=1), []
    for _ in range(count):
        session.hold(idle_action(world))
        frames, latents = session.advance()
        blocks.append((frames, latents.float().cpu()))
    return blocks


def relative_errors(latents: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """Return each block's root mean square error, in standard deviations of the exact latents."""
    pairs = zip(latents, exact, strict=True)
    return [float((a - b).square().mean().sqrt() / b.std()) for a, b in pairs]


def error_against(world: World, exact: World, start_image: ImageSource) -> dict[str, float]:
    """Compare the first blocks of two worlds.

    Returns the root mean square error of the latents in standard deviations of the exact ones, and
    the PSNR of the frames in decibels, at most `MAX_PSNR_DB`.
    """
    blocks = first_blocks(world, start_image, BLOCKS)
    expected = first_blocks(exact, start_image, BLOCKS)
    latent_errors, variances, pixel_errors = [], [], []
    for (frames, latents), (exact_frames, exact_latents) in zip(blocks, expected, strict=True):
        latent_errors.append(float((latents - exact_latents).square().mean()))
        variances.append(float(exact_latents.var()))
        pixel_errors.append(float(np.square(frames.astype(np.float64) - exact_frames).mean()))
    return {
        "latents_in_spreads": math.sqrt(sum(latent_errors) / sum(variances)),
        "psnr_db": min(MAX_PSNR_DB, psnr(sum(pixel_errors) / BLOCKS)),
    }
