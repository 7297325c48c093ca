"""Evaluate a world against the source it was trained on.

From held-out start images the source and the model get the same actions. Scores are given by
second: a second is one block of three latent frames, or three blocks of one.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from glassworld.engine.actions.track import Action
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.specs import TIME_FACTOR, WorldSpec
from glassworld.training.data.dataset import to_pixels
from glassworld.training.eval.metrics import (
    distance_to_real,
    frame_psnr,
    motion,
    sharpness,
    split_seconds,
    ssim,
    thumbnails,
    turn_pixels,
)
from glassworld.training.sources.source import LATENT_FRAMES_PER_SECOND, Frame, Source

SAME_VIEW_DB = 35.0
"""Images with a PSNR above this show one view: the player stood still, or faced a wall."""
DRIFT_SECONDS = 5
"""Seconds at each end of a minute that are compared."""
ACTION_SEED_OFFSET, DRIFT_SEED_OFFSET = 5_000, 9_000
VAE_CLIPS, VAE_FRAMES = 16, 61


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
    """

    starts: int = 24
    seconds: int = 10
    drift_starts: int = 4
    drift_seconds: int = 60
    seed: int = 90_000


class BlockScores(TypedDict):
    """Means over the starts, one entry per second.

    `_start_picture` is the baseline that repeats the start image, `_wrong_actions` the model under
    the opposite actions. `_moving` averages over the starts alone whose view has moved away from
    the start image; None where none has. `psnr_gain` is the gain over repeating the start image,
    `psnr_gain_95` half the width of its 95 % confidence interval over the starts.
    """

    psnr: list[float]
    ssim: list[float]
    psnr_start_picture: list[float]
    ssim_start_picture: list[float]
    psnr_wrong_actions: list[float]
    ssim_wrong_actions: list[float]
    psnr_moving: list[float | None]
    psnr_start_picture_moving: list[float | None]
    psnr_wrong_actions_moving: list[float | None]
    psnr_gain: list[float]
    psnr_gain_95: list[float]


def check_comparable(spec: WorldSpec, source: Source) -> None:
    """Raise `InputError` unless a world has the frame size, the mode and the blocks of a source."""
    format = source.format
    if (spec.height, spec.width) != (format.height, format.width):
        raise InputError(
            f"eval compares with a source of {format.width}x{format.height} pixels; this world has "
            f"{spec.width}x{spec.height}"
        )
    if spec.mode != format.mode:
        raise InputError(
            f"eval compares with a source of mode {format.mode}; this world has mode {spec.mode}"
        )
    if spec.frames_per_block != format.frames_per_block:
        raise InputError(
            f"eval compares with a source of {format.frames_per_block} latent frames per block; "
            f"this world has {spec.frames_per_block}"
        )


def blocks_in(source: Source, seconds: int) -> int:
    """Return the number of blocks in so many seconds."""
    return seconds * LATENT_FRAMES_PER_SECOND // source.format.frames_per_block


def play_script(
    source: Source, seed: int, rng: np.random.Generator, seconds: int
) -> tuple[list[Action], Frame]:
    """Play the evaluation's actions of `rng` from the start of a seed.

    Returns
    -------
    The actions, one per block, and the frames [N, H, W, 3].
    """
    source.reset(seed)
    script = source.evaluation_actions(rng)
    actions, blocks = [], []
    for _ in range(blocks_in(source, seconds)):
        actions.append(next(script))
        blocks.append(source.step(actions[-1]))
    return actions, np.concatenate(blocks)


def simulate(source: Source, seed: int, actions: list[Action]) -> Frame:
    """Return the frames [N, H, W, 3] of the source from the start of a seed."""
    source.reset(seed)
    return np.concatenate([source.step(action) for action in actions])


def rollout_frames(world: World, start_image: Frame, actions: list[Action]) -> Frame:
    """Return the frames [N, H, W, 3] of the model from a start image."""
    session: Session = world.start(Image.fromarray(start_image))
    return np.concatenate([session.step(action) for action in actions])


def score_blocks(world: World, source: Source, config: EvalConfig) -> BlockScores:
    """Score the model second by second, beside two baselines (see `BlockScores`)."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for index in track(range(config.starts), description="scoring seconds"):
        rng = np.random.default_rng((config.seed, index))
        actions, truth = play_script(source, config.seed + index, rng, config.seconds)
        start_image = truth[0]
        mismatched = [source.mismatched(action) for action in actions]
        candidates = {
            "": rollout_frames(world, start_image, actions),
            "_wrong_actions": rollout_frames(world, start_image, mismatched),
            "_start_picture": np.broadcast_to(start_image, truth.shape),
        }
        for suffix, frames in candidates.items():
            pairs = list(zip(split_seconds(frames), split_seconds(truth), strict=True))
            rows["psnr" + suffix].append([frame_psnr(*pair) for pair in pairs])
            rows["ssim" + suffix].append([ssim(*pair) for pair in pairs])
    means = {name: np.mean(values, 0).round(3).tolist() for name, values in rows.items()}
    moved = np.array(rows["psnr_start_picture"]) < SAME_VIEW_DB
    for name in ("psnr", "psnr_start_picture", "psnr_wrong_actions"):
        means[name + "_moving"] = [
            round(float(column[mask].mean()), 3) if mask.any() else None
            for column, mask in zip(np.array(rows[name]).T, moved.T, strict=True)
        ]
    gain = np.array(rows["psnr"]) - np.array(rows["psnr_start_picture"])
    means["psnr_gain"] = gain.mean(0).round(3).tolist()
    means["psnr_gain_95"] = (1.96 * gain.std(0) / len(gain) ** 0.5).round(3).tolist()
    return BlockScores(**means)  # type: ignore[typeddict-item]


def score_actions(world: World, source: Source, config: EvalConfig) -> dict[str, float]:
    """Score how well the model tells two actions apart.

    After a first second each action of a pair is held for a second. The model is right if its
    frames have a higher PSNR against the truth of its own action than against that of the other.

    Parameters
    ----------
    world
        The world to evaluate.
    source
        The source that shows the truth, and names the pairs.
    config
        How much to evaluate.

    Returns
    -------
    The share that is right by pair, and for turns the share with the right sign (`turn_sign`) and
    the mean size divided by the true one (`turn_size`).
    """
    right: dict[str, list[bool]] = {name: [] for name in source.action_pairs}
    turns: list[tuple[float, float]] = []
    blocks = blocks_in(source, 1)
    for index in track(range(config.starts), description="telling actions apart"):
        seed = config.seed + ACTION_SEED_OFFSET + index
        for name, pair in source.action_pairs.items():
            scripts = [
                [pair.before] * blocks + [action] * blocks for action in (pair.one, pair.other)
            ]
            simulated = [simulate(source, seed, script) for script in scripts]
            truths = [split_seconds(frames)[1] for frames in simulated]
            model = [rollout_frames(world, simulated[0][0], script) for script in scripts]
            answers = [split_seconds(frames)[1] for frames in model]
            if pair.turns:
                turns += [
                    (turn_pixels(answer), turn_pixels(truth))
                    for answer, truth in zip(answers, truths, strict=True)
                ]
            if frame_psnr(*truths) > SAME_VIEW_DB:
                continue
            for own in (0, 1):
                own_psnr = frame_psnr(answers[own], truths[own])
                right[name].append(own_psnr > frame_psnr(answers[own], truths[1 - own]))
    scores = {name: float(np.mean(values)) for name, values in right.items() if values}
    if turns:
        scores["turn_sign"] = float(np.mean([turn * true_turn > 0 for turn, true_turn in turns]))
        size, true_size = np.abs(turns).sum(0)
        scores["turn_size"] = float(size / max(true_size, 1.0))
    return {name: round(value, 3) for name, value in scores.items()}


def measure_drift(
    world: World, source: Source, config: EvalConfig, real: Frame
) -> dict[str, dict[str, float]]:
    """Compare the first five seconds of a minute with the last five, with input and without.

    Parameters
    ----------
    world
        The world to evaluate.
    source
        The source that shows the truth.
    config
        How much to evaluate.
    real
        Frames of the source [N, H, W, 3] to measure the distance to.

    Returns
    -------
    The metrics by kind of session. The prefix `true_` marks those of the source under the same
    actions, which may well lead to a plain wall.
    """
    real_thumbnails = thumbnails(real)
    scores = {}
    for name in ("playing", "standing"):
        clips: dict[str, list[Frame]] = defaultdict(list)
        for index in track(range(config.drift_starts), description=f"one minute, {name}"):
            seed = config.seed + DRIFT_SEED_OFFSET + index
            if name == "standing":
                actions = [source.format.idle] * blocks_in(source, config.drift_seconds)
                truth = simulate(source, seed, actions)
            else:
                rng = np.random.default_rng((config.seed, 1, index))
                actions, truth = play_script(source, seed, rng, config.drift_seconds)
            generated = rollout_frames(world, truth[0], actions)
            for prefix, frames in (("", generated), ("true_", truth)):
                length = DRIFT_SECONDS * TIME_FACTOR * LATENT_FRAMES_PER_SECOND
                clips[f"{prefix}first"].append(frames[: length - TIME_FACTOR + 1])
                clips[f"{prefix}last"].append(frames[-length:])
        scores[name] = _drift_metrics(clips, real_thumbnails)
        scores[name]["real_sharpness"] = round(sharpness(real), 3)
    return scores


def _drift_metrics(
    clips: dict[str, list[Frame]], real_thumbnails: NDArray[np.float32]
) -> dict[str, float]:
    """Average the metrics over the clips of each end of a minute."""
    row: dict[str, float] = {}
    for end, frames in clips.items():
        row[f"{end}_distance"] = mean(distance_to_real(clip, real_thumbnails) for clip in frames)
        row[f"{end}_sharpness"] = mean(sharpness(clip) for clip in frames)
        row[f"{end}_motion"] = mean(motion(clip) for clip in frames)
    return {key: round(value, 3) for key, value in row.items()}


@torch.no_grad()
def score_vae(world: World, clips: NDArray[np.uint8]) -> dict[str, float]:
    """Return the PSNR of clips [E, N, H, W, 3] after the VAE alone."""
    networks = world.networks
    values = []
    for clip in clips:
        pixels = to_pixels(torch.from_numpy(clip[None])).to(networks.encoder.conv1.weight)
        rebuilt = networks.decoder(networks.encoder(pixels))
        frames = ((rebuilt[0].permute(1, 2, 3, 0).float() + 1) * 127.5).clamp(0, 255)
        values.append(frame_psnr(frames.byte().cpu().numpy(), clip))
    return {"psnr": round(float(np.mean(values)), 3)}


def evaluate_world(
    world: World, source: Source, config: EvalConfig, held_out: NDArray[np.uint8]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Run all measurements and yield the name and the scores of each when it is done.

    Parameters
    ----------
    world
        The world to evaluate.
    source
        The source that shows the truth.
    config
        How much to evaluate.
    held_out
        Clips [E, N, H, W, 3] of another seed than the training's.
    """
    real = held_out.reshape(-1, *held_out.shape[2:])
    yield "vae", {**score_vae(world, held_out[:VAE_CLIPS, :VAE_FRAMES])}
    yield "blocks", {**score_blocks(world, source, config)}
    yield "actions", {**score_actions(world, source, config)}
    yield "drift", {**measure_drift(world, source, config, real[::3])}


def side_by_side(
    world: World, source: Source, config: EvalConfig, count: int = 3
) -> Iterator[tuple[Frame, Frame]]:
    """Yield the frames [N, H, W, 3] of the truth and of the model for each start."""
    for index in range(count):
        rng = np.random.default_rng((config.seed, index))
        actions, truth = play_script(source, config.seed + index, rng, config.seconds)
        yield truth, rollout_frames(world, truth[0], actions)
