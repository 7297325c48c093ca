"""Sessions of a source and of a world under the same actions, and how many to evaluate."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.training.data.collect import MOST_ATTEMPTS
from glassworld.training.sources.source import LATENT_FRAMES_PER_SECOND, Frame, Source


@dataclass(frozen=True)
class EvalConfig:
    """How much to evaluate.

    Parameters
    ----------
    starts
        Number of held-out start images.
    seconds
        Seconds generated from each.
    drift_starts
        Number of long sessions of each kind.
    drift_seconds
        Their length in seconds.
    seed
        Seed of the start images, none of which was trained on.
    driver_frames
        Frames that the driver of worlds of the road learns to steer from.
    driver_steps
        Its training steps.
    """

    starts: int = 24
    seconds: int = 10
    drift_starts: int = 4
    drift_seconds: int = 60
    seed: int = 90_000
    driver_frames: int = 1200
    driver_steps: int = 300


def blocks_in(source: Source, seconds: int) -> int:
    """Return the number of blocks in so many seconds."""
    return seconds * LATENT_FRAMES_PER_SECOND // source.format.frames_per_block


def play_script(
    source: Source, seed: int, rng: np.random.Generator, seconds: int
) -> tuple[list[Action], Frame]:
    """Play the evaluation's actions of `rng` from the start of a seed.

    Returns
    -------
    The actions, one per block, and the frames [N, H, W, 3]; fewer if the source ends the episode.
    """
    source.reset(seed)
    script = source.evaluation_actions(rng)
    return _play(source, islice(script, blocks_in(source, seconds)))


def simulate(source: Source, seed: int, actions: list[Action]) -> Frame:
    """Return the frames [N, H, W, 3] of the source from the start of a seed.

    They are fewer if the source ends the episode.
    """
    source.reset(seed)
    return _play(source, iter(actions))[1]


def _play(source: Source, script: Iterator[Action]) -> tuple[list[Action], Frame]:
    """Play actions until the source ends the episode; return those and the frames."""
    actions, blocks = [], []
    for action in script:
        actions.append(action)
        blocks.append(source.step(action))
        if source.ended:
            break
    return actions, np.concatenate(blocks)


def scored_sessions(
    source: Source, config: EvalConfig, count: int
) -> Iterator[tuple[list[Action], Frame]]:
    """Yield actions and frames of sessions from the first start images.

    Starts from which the source ends the episode before `config.seconds` are left out.

    Raises
    ------
    InputError
        The source ends almost every episode before.
    """
    blocks, found = blocks_in(source, config.seconds), 0
    for index in range(MOST_ATTEMPTS * count):
        rng = np.random.default_rng((config.seed, index))
        actions, truth = play_script(source, config.seed + index, rng, config.seconds)
        if len(actions) == blocks:
            yield actions, truth
            found += 1
            if found == count:
                return
    raise InputError(
        f"eval: only {found} of {MOST_ATTEMPTS * count} episodes last {config.seconds} s; use a "
        "source that lasts longer"
    )


def rollout_frames(world: World, start_image: Frame, actions: list[Action]) -> Frame:
    """Return the frames [N, H, W, 3] of the model from a start image."""
    session: Session = world.start(Image.fromarray(start_image))
    return np.concatenate([session.step(action) for action in actions])
