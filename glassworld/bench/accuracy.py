"""How far a world that was made quicker is from the world it was made of."""

from __future__ import annotations

import math

import numpy as np

from glassworld.bench.steady_state import idle
from glassworld.engine.media.images import psnr
from glassworld.engine.world import Picture, World

BLOCKS = 5
MOST_DB = 100.0  # JSON knows no infinity


def distance(world: World, exact: World, picture: Picture) -> dict[str, float]:
    """Of the first blocks: of latents in spreads of the exact ones, of frames as PSNR in decibels.

    The distances are root mean squares. `MOST_DB` stands for frames that are the same.
    """
    sessions = [each.start(picture, seed=1) for each in (world, exact)]
    latents, spreads, errors = [], [], []
    for _ in range(BLOCKS):
        for session in sessions:
            session.hold(idle(session.world))
        (frames, made), (wanted, expected) = (session.advance() for session in sessions)
        latents.append(float((made.float() - expected.float()).square().mean()))
        spreads.append(float(expected.float().var()))
        errors.append(float(np.square(frames.astype(np.float64) - wanted).mean()))
    error = sum(errors) / BLOCKS
    return {
        "latents_in_spreads": math.sqrt(sum(latents) / sum(spreads)),
        "psnr_db": min(MOST_DB, psnr(error)),
    }
