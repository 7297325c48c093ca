"""Measure drift: how a world looks beside its source after a minute, in play and at rest."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glassworld.engine.world import World
from glassworld.progress import show_progress
from glassworld.specs import TIME_FACTOR
from glassworld.training.eval.driving import (
    SteeringRegressor,
    drive_source,
    drive_world,
    learn_to_drive,
)
from glassworld.training.eval.metrics import (
    distance_to_real,
    half_width_95,
    motion,
    sharpness,
    thumbnails,
)
from glassworld.training.eval.sessions import (
    EvalConfig,
    blocks_in,
    play_script,
    rollout_frames,
    simulate,
)
from glassworld.training.sources.drive import DriveSource
from glassworld.training.sources.source import LATENT_FRAMES_PER_SECOND, Frame, Source

DRIFT_FRAMES = 5 * TIME_FACTOR * LATENT_FRAMES_PER_SECOND
"""Frames of five seconds, compared at each end of a minute (at the start three fewer)."""
DRIFT_SEED_OFFSET = 9_000
SHARP_WITHIN = 0.2
"""Of the source's sharpness: a session within it counts as sharp."""

OnSession = Callable[[str, Frame, Frame], object]
"""Takes the kind of a session and the frames [N, H, W, 3] of the source and of the world."""


def measure_drift(
    world: World,
    source: Source,
    config: EvalConfig,
    real: Frame,
    on_session: OnSession | None = None,
) -> dict[str, dict[str, float | None]]:
    """Compare the first five seconds of a minute with the last five, with input and without.

    On the road a driver steers, by the pose in the source and by the frames in the world: under one
    script the world's car would soon be elsewhere than the source's. In other sources both get the
    same script.

    Parameters
    ----------
    world, source, config
        See `score_actions`.
    real
        Frames of the source [N, H, W, 3] to measure the distance to.
    on_session
        Called after each session.

    Returns
    -------
    The metrics by kind of session. The prefix `true_` marks those of the source, which may well
    face a plain wall. The suffix `_95` marks half the width of the 95 % confidence interval over
    the sessions; it is None of a single one. `sharp` is the share of the sessions whose sharpness
    at the end is within a fifth of the source's.
    """
    real_thumbnails = thumbnails(real)
    driver = None
    if isinstance(source, DriveSource):
        driver = learn_to_drive(source, config.driver_frames, config.driver_steps, config.seed)
    scores = {}
    for name in ("playing", "standing"):
        clips: dict[str, list[Frame]] = defaultdict(list)
        sessions = range(config.drift_starts)
        for index in show_progress(sessions, f"one minute, {name}", len(sessions)):
            truth, generated = _long_session(world, source, config, name, index, driver)
            if on_session is not None:
                on_session(name, truth, generated)
            for prefix, frames in (("", generated), ("true_", truth)):
                clips[f"{prefix}first"].append(frames[: DRIFT_FRAMES - TIME_FACTOR + 1])
                clips[f"{prefix}last"].append(frames[-DRIFT_FRAMES:])
        scores[name] = _drift_metrics(clips, real_thumbnails)
        scores[name]["real_sharpness"] = round(sharpness(real), 3)
    return scores


def _long_session(
    world: World,
    source: Source,
    config: EvalConfig,
    kind: str,
    index: int,
    driver: SteeringRegressor | None,
) -> tuple[Frame, Frame]:
    """Return the frames [N, H, W, 3] of the source and of the world in a session of a kind.

    It is shorter if the source ends the episode.
    """
    seed = config.seed + DRIFT_SEED_OFFSET + index
    blocks = blocks_in(source, config.drift_seconds)
    if kind == "standing":
        actions = [source.format.idle] * blocks
        truth = simulate(source, seed, actions)
    elif driver is not None and isinstance(source, DriveSource):
        truth = drive_source(source, seed, blocks)
        return truth, drive_world(world, truth[0], driver, blocks)
    else:
        rng = np.random.default_rng((config.seed, 1, index))
        actions, truth = play_script(source, seed, rng, config.drift_seconds)
    return truth, rollout_frames(world, truth[0], actions)[: len(truth)]


def _drift_metrics(
    clips: dict[str, list[Frame]], real_thumbnails: NDArray[np.float32]
) -> dict[str, float | None]:
    """Average the metrics over the clips of each end of a minute."""
    row: dict[str, float | None] = {}
    metrics: dict[str, Callable[[Frame], float]] = {
        "distance": lambda clip: distance_to_real(clip, real_thumbnails),
        "sharpness": sharpness,
        "motion": motion,
    }
    values = {
        f"{end}_{name}": np.array([metric(clip) for clip in frames])
        for end, frames in clips.items()
        for name, metric in metrics.items()
    }
    for name, measured in values.items():
        row[name] = round(float(measured.mean()), 3)
        row[f"{name}_95"] = half_width_95(measured)
    ratio = values["last_sharpness"] / np.maximum(values["true_last_sharpness"], 1e-6)
    row["sharp"] = round(float((np.abs(ratio - 1) <= SHARP_WITHIN).mean()), 3)
    return row
