"""Evaluate a world against the source it was trained on.

From held-out start images the source and the model get the same actions. Scores are given by
second: a second is one block of three latent frames, or three blocks of one.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.progress import show_progress
from glassworld.specs import TIME_FACTOR, WorldSpec
from glassworld.training.data.dataset import to_pixels
from glassworld.training.eval.drift import OnSession, measure_drift
from glassworld.training.eval.keys import score_keys
from glassworld.training.eval.metrics import (
    frame_psnr,
    half_width_95,
    share_interval,
    split_seconds,
    ssim,
    turn_pixels,
)
from glassworld.training.eval.sessions import (
    EvalConfig,
    blocks_in,
    rollout_frames,
    scored_sessions,
    simulate,
)
from glassworld.training.sources.run import RunSource
from glassworld.training.sources.source import (
    LATENT_FRAMES_PER_SECOND,
    ActionPair,
    Frame,
    Source,
)

SAME_VIEW_DB = 35.0
"""Images with a PSNR above this show one view: the player stood still, or faced a wall."""
ACTION_SEED_OFFSET = 5_000
RESAMPLES = 1000
"""Of the turns, for the interval of their size."""
VAE_CLIPS, VAE_FRAMES = 16, 61


class BlockScores(TypedDict):
    """Means over the starts, one entry per second.

    `_start_picture` is the baseline that repeats the start image, `_wrong_actions` the model under
    the opposite actions. `_moving` averages over the starts alone whose view has moved away from
    the start image; None where none has. `psnr_gain` is the gain over repeating the start image.
    `_95` is half the width of a mean's 95 % confidence interval over the starts; None of one start.
    """

    psnr: list[float]
    psnr_95: list[float | None]
    ssim: list[float]
    ssim_95: list[float | None]
    psnr_start_picture: list[float]
    ssim_start_picture: list[float]
    psnr_wrong_actions: list[float]
    ssim_wrong_actions: list[float]
    psnr_moving: list[float | None]
    psnr_start_picture_moving: list[float | None]
    psnr_wrong_actions_moving: list[float | None]
    psnr_gain: list[float]
    psnr_gain_95: list[float | None]


def check_comparable(spec: WorldSpec, source: Source) -> None:
    """Raise `InputError` unless a world has the frame size and the mode of a source.

    Its blocks may have another length than the source's, as long as they fill a second.
    """
    format = source.format
    for own, expected in (
        (f"{spec.width}x{spec.height} pixels", f"{format.width}x{format.height} pixels"),
        (f"mode {spec.mode}", f"mode {format.mode}"),
    ):
        if own != expected:
            raise InputError(
                f"eval compares with a source of {expected}; this world has {own}; "
                "name its own source with --source"
            )
    if LATENT_FRAMES_PER_SECOND % spec.frames_per_block:
        raise InputError(
            f"eval scores whole seconds, which are {LATENT_FRAMES_PER_SECOND} latent frames; "
            f"this world has {spec.frames_per_block} in a block; use a world with 1 or 3"
        )


def score_blocks(world: World, source: Source, config: EvalConfig) -> BlockScores:
    """Score the model second by second, beside two baselines (see `BlockScores`)."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    played = scored_sessions(source, config, config.starts)
    for actions, truth in show_progress(played, "scoring seconds", config.starts):
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
    samples = {"psnr": np.array(rows["psnr"]), "ssim": np.array(rows["ssim"]), "psnr_gain": gain}
    for name, sample in samples.items():
        means[f"{name}_95"] = [half_width_95(column) for column in sample.T]
    return BlockScores(**means)  # type: ignore[typeddict-item]


def score_actions(world: World, source: Source, config: EvalConfig) -> dict[str, Any]:
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
    the mean size divided by the true one (`turn_size`). `intervals_95` has the confidence
    interval of each, by the same names.
    """
    right: dict[str, list[bool]] = {name: [] for name in source.action_pairs}
    turns: list[tuple[float, float]] = []
    for index in show_progress(range(config.starts), "telling actions apart", config.starts):
        seed = config.seed + ACTION_SEED_OFFSET + index
        for name, pair in source.action_pairs.items():
            seconds = _answer_pair(world, source, seed, pair)
            if seconds is None:
                continue
            answers, truths = seconds
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
    if turns:
        right["turn_sign"] = [turn * true_turn > 0 for turn, true_turn in turns]
    tried = {name: values for name, values in right.items() if values}
    scores: dict[str, Any] = {
        name: round(float(np.mean(values)), 3) for name, values in tried.items()
    }
    intervals = {name: share_interval(sum(values), len(values)) for name, values in tried.items()}
    if turns:
        scores["turn_size"], intervals["turn_size"] = _turn_size(np.abs(turns))
    return {**scores, "intervals_95": intervals}


def _answer_pair(
    world: World, source: Source, seed: int, pair: ActionPair
) -> tuple[list[Frame], list[Frame]] | None:
    """Return the second in which each action of a pair is held, of the world and of the source.

    None if the source ends the episode before.
    """
    blocks = blocks_in(source, 1)
    scripts = [[pair.before] * blocks + [action] * blocks for action in (pair.one, pair.other)]
    simulated = [simulate(source, seed, script) for script in scripts]
    if min(map(len, simulated)) < 2 * TIME_FACTOR * LATENT_FRAMES_PER_SECOND - TIME_FACTOR + 1:
        return None
    model = [rollout_frames(world, simulated[0][0], script) for script in scripts]
    answers, truths = (
        [split_seconds(frames)[1] for frames in clips] for clips in (model, simulated)
    )
    return answers, truths


def _turn_size(sizes: NDArray[np.float64]) -> tuple[float, list[float]]:
    """Return the mean size of turns divided by that of the true ones, with its interval.

    `sizes` is [n, 2], the world's and the true ones. The interval is that of the ratio over
    resampled turns (percentile bootstrap).
    """
    rows = np.random.default_rng(0).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    ratios = [turn / max(true_turn, 1.0) for turn, true_turn in sizes[rows].sum(1)]
    size, true_size = sizes.sum(0)
    interval = [round(float(end), 3) for end in np.percentile(ratios, [2.5, 97.5])]
    return round(float(size / max(true_size, 1.0)), 3), interval


@torch.no_grad()
def score_vae(world: World, clips: NDArray[np.uint8]) -> dict[str, float]:
    """Return the PSNR of clips [E, N, H, W, 3] after the VAE alone, decoded as blocks are."""
    networks = world.networks
    values = []
    for clip in clips:
        pixels = to_pixels(torch.from_numpy(clip[None])).to(networks.encoder.conv1.weight)
        latents = networks.encoder(pixels).to(networks.decoder_dtype)
        stream = networks.decoder.stream(latents, FeatureCache(), at_once=latents.shape[2])
        values.append(frame_psnr(torch.cat(list(stream), 1)[0].cpu().numpy(), clip))
    return {"psnr": round(float(np.mean(values)), 3)}


def evaluate_world(
    world: World,
    source: Source,
    config: EvalConfig,
    held_out: NDArray[np.uint8],
    on_session: OnSession | None = None,
) -> Iterator[tuple[str, dict[str, object]]]:
    """Run all measurements and yield the name and the scores of each when it is done.

    Parameters
    ----------
    world, source, config
        See `score_actions`.
    held_out
        Clips [E, N, H, W, 3] of another seed than the training's.
    on_session
        Takes the frames of each long session (see `measure_drift`).
    """
    real = held_out.reshape(-1, *held_out.shape[2:])
    yield "vae", {**score_vae(world, held_out[:VAE_CLIPS, :VAE_FRAMES])}
    yield "blocks", {**score_blocks(world, source, config)}
    yield "actions", {**score_actions(world, source, config)}
    if isinstance(source, RunSource):
        yield "keys", {**score_keys(world, source, config)}
    yield "drift", {**measure_drift(world, source, config, real[::3], on_session)}


def side_by_side(
    world: World, source: Source, config: EvalConfig, count: int = 3
) -> Iterator[tuple[Frame, Frame]]:
    """Yield the frames [N, H, W, 3] of the truth and of the model for each start."""
    for actions, truth in scored_sessions(source, config, count):
        yield truth, rollout_frames(world, truth[0], actions)
