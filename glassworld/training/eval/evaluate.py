"""Evaluate a world against the simulator it was trained on.

From held-out start images the simulator and the model get the same actions.
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
from glassworld.specs import WorldSpec
from glassworld.training.data.dataset import to_pixels
from glassworld.training.eval.metrics import (
    distance_to_real,
    frame_psnr,
    motion,
    sharpness,
    ssim,
    thumbnails,
    turn_pixels,
)
from glassworld.training.sources.maze import (
    FIRST_BLOCK_FRAMES,
    HEIGHT,
    WIDTH,
    Frame,
    VizdoomMaze,
)

STILL = Action((0.0, 0.0, 0.0, 0.0), (0.0, 0.0))
FORWARD = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.0))
BACK = Action((0.0, 1.0, 0.0, 0.0), (0.0, 0.0))
LEFT = Action((0.0, 0.0, 1.0, 0.0), (0.0, 0.0))
RIGHT = Action((0.0, 0.0, 0.0, 1.0), (0.0, 0.0))
TURN_LEFT = Action((0.0, 0.0, 0.0, 0.0), (0.0, -0.1))
TURN_RIGHT = Action((0.0, 0.0, 0.0, 0.0), (0.0, 0.1))
CURVE_LEFT = Action((1.0, 0.0, 0.0, 0.0), (0.0, -0.1))
CURVE_RIGHT = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.1))

OPPOSITE = {
    STILL: FORWARD,
    FORWARD: BACK,
    BACK: FORWARD,
    LEFT: RIGHT,
    RIGHT: LEFT,
    TURN_LEFT: TURN_RIGHT,
    TURN_RIGHT: TURN_LEFT,
    CURVE_LEFT: CURVE_RIGHT,
    CURVE_RIGHT: CURVE_LEFT,
}
PAIRS = {
    "turn": (TURN_LEFT, TURN_RIGHT),
    "forward_back": (FORWARD, BACK),
    "strafe": (LEFT, RIGHT),
    "still_moving": (STILL, FORWARD),
}
SAME_VIEW_DB = 35.0
"""Images with a PSNR above this show one view: the player stood still, or faced a wall."""
DRIFT_BLOCKS = 5
"""Blocks at each end of a minute that are compared."""
ACTION_SEED_OFFSET, DRIFT_SEED_OFFSET = 5_000, 9_000
VAE_CLIPS, VAE_FRAMES = 16, 61


@dataclass(frozen=True)
class EvalConfig:
    """How much to evaluate.

    Parameters
    ----------
    starts
        Number of held-out start images.
    blocks
        Blocks generated from each.
    drift_starts
        Number of long sessions of each kind.
    drift_blocks
        Their length in blocks.
    seed
        Seed of the start images, none of which was trained on.
    """

    starts: int = 24
    blocks: int = 10
    drift_starts: int = 4
    drift_blocks: int = 60
    seed: int = 90_000


class BlockScores(TypedDict):
    """Means over the starts, one entry per block.

    `_start_picture` is the baseline that repeats the start image, `_wrong_actions` the model under
    the opposite actions. `_moving` averages over the starts alone whose view has moved away from
    the start image; None where none has.
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


def check_comparable(spec: WorldSpec) -> None:
    """Raise `InputError` unless a world has the frame size and the actions of the simulator."""
    action = spec.dit.action
    if (spec.height, spec.width) != (HEIGHT, WIDTH):
        raise InputError(
            f"eval compares with a simulator of {WIDTH}x{HEIGHT} pixels; this world has "
            f"{spec.width}x{spec.height}"
        )
    if (action.keyboard_dim, action.mouse_dim) != (4, 2):
        raise InputError("eval needs a world with four keys and a mouse, as its simulator has")


def simulate(simulator: VizdoomMaze, seed: int, actions: list[Action]) -> list[Frame]:
    """Return the blocks of the simulator from the start of a seed."""
    simulator.reset(seed)
    return [simulator.step(action) for action in actions]


def rollout_blocks(world: World, start_image: Frame, actions: list[Action]) -> list[Frame]:
    """Return the blocks of the model from a start image."""
    session: Session = world.start(Image.fromarray(start_image))
    return [session.step(action) for action in actions]


def random_actions(rng: np.random.Generator, blocks: int) -> list[Action]:
    """Draw one action per block, mostly walking and turning."""
    choices = list(OPPOSITE)
    weights = np.array([1, 3, 1, 1, 1, 2, 2, 2, 2], np.float64)
    picks = rng.choice(len(choices), blocks, p=weights / weights.sum())
    return [choices[pick] for pick in picks]


def score_blocks(world: World, simulator: VizdoomMaze, config: EvalConfig) -> BlockScores:
    """Score the model block by block, beside two baselines (see `BlockScores`)."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for index in track(range(config.starts), description="scoring blocks"):
        rng = np.random.default_rng((config.seed, index))
        actions = random_actions(rng, config.blocks)
        truth = simulate(simulator, config.seed + index, actions)
        start_image = truth[0][0]
        opposite = [OPPOSITE[action] for action in actions]
        candidates = {
            "": rollout_blocks(world, start_image, actions),
            "_wrong_actions": rollout_blocks(world, start_image, opposite),
            "_start_picture": [np.broadcast_to(start_image, block.shape) for block in truth],
        }
        for suffix, blocks in candidates.items():
            pairs = [_without_start_image(*pair) for pair in zip(blocks, truth, strict=True)]
            rows["psnr" + suffix].append([frame_psnr(*pair) for pair in pairs])
            rows["ssim" + suffix].append([ssim(*pair) for pair in pairs])
    means = {name: np.mean(values, 0).round(3).tolist() for name, values in rows.items()}
    moved = np.array(rows["psnr_start_picture"]) < SAME_VIEW_DB
    for name in ("psnr", "psnr_start_picture", "psnr_wrong_actions"):
        means[name + "_moving"] = [
            round(float(column[mask].mean()), 3) if mask.any() else None
            for column, mask in zip(np.array(rows[name]).T, moved.T, strict=True)
        ]
    return BlockScores(**means)  # type: ignore[typeddict-item]


def _without_start_image(block: Frame, truth: Frame) -> tuple[Frame, Frame]:
    """Drop the first frame of the first block: it is the start image in both."""
    return (block[1:], truth[1:]) if len(truth) == FIRST_BLOCK_FRAMES else (block, truth)


def score_actions(world: World, simulator: VizdoomMaze, config: EvalConfig) -> dict[str, float]:
    """Score how well the model tells two actions apart.

    After a still first block each action of a pair is held for one block. The model is right if its
    block has a higher PSNR against the truth of its own action than against that of the other.

    Parameters
    ----------
    world
        The world to evaluate.
    simulator
        The simulator that shows the truth.
    config
        How much to evaluate.

    Returns
    -------
    The share that is right by pair, and for turns the share with the right sign (`turn_sign`) and
    the mean size divided by the true one (`turn_size`).
    """
    right: dict[str, list[bool]] = {name: [] for name in PAIRS}
    turns: list[tuple[float, float]] = []
    for index in track(range(config.starts), description="telling actions apart"):
        seed = config.seed + ACTION_SEED_OFFSET + index
        for name, pair in PAIRS.items():
            simulated = [simulate(simulator, seed, [STILL, action]) for action in pair]
            start_image = simulated[0][0][0]
            truths = [second for _, second in simulated]
            blocks = [rollout_blocks(world, start_image, [STILL, action])[1] for action in pair]
            if name == "turn":
                turns += [
                    (turn_pixels(block), turn_pixels(truth))
                    for block, truth in zip(blocks, truths, strict=True)
                ]
            if frame_psnr(*truths) > SAME_VIEW_DB:
                continue
            for own in (0, 1):
                own_psnr = frame_psnr(blocks[own], truths[own])
                right[name].append(own_psnr > frame_psnr(blocks[own], truths[1 - own]))
    scores = {name: float(np.mean(values)) for name, values in right.items() if values}
    scores["turn_sign"] = float(np.mean([turn * true_turn > 0 for turn, true_turn in turns]))
    size, true_size = np.abs(turns).sum(0)
    scores["turn_size"] = float(size / max(true_size, 1.0))
    return {name: round(value, 3) for name, value in scores.items()}


def measure_drift(
    world: World, simulator: VizdoomMaze, config: EvalConfig, real: Frame
) -> dict[str, dict[str, float]]:
    """Compare the first five seconds of a minute with the last five, with input and without.

    Parameters
    ----------
    world
        The world to evaluate.
    simulator
        The simulator that shows the truth.
    config
        How much to evaluate.
    real
        Frames of the simulator [N, H, W, 3] to measure the distance to.

    Returns
    -------
    The metrics by kind of session. The prefix `true_` marks those of the simulator under the same
    actions, which may well lead to a plain wall.
    """
    real_thumbnails = thumbnails(real)
    scores = {}
    for name in ("playing", "standing"):
        clips: dict[str, list[Frame]] = defaultdict(list)
        for index in track(range(config.drift_starts), description=f"one minute, {name}"):
            rng = np.random.default_rng((config.seed, 1, index))
            actions = random_actions(rng, config.drift_blocks)
            if name == "standing":
                actions = [STILL] * config.drift_blocks
            truth = simulate(simulator, config.seed + DRIFT_SEED_OFFSET + index, actions)
            generated = rollout_blocks(world, truth[0][0], actions)
            for prefix, blocks in (("", generated), ("true_", truth)):
                clips[f"{prefix}first"].append(np.concatenate(blocks[:DRIFT_BLOCKS]))
                clips[f"{prefix}last"].append(np.concatenate(blocks[-DRIFT_BLOCKS:]))
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
    world: World, simulator: VizdoomMaze, config: EvalConfig, held_out: NDArray[np.uint8]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Run all measurements and yield the name and the scores of each when it is done.

    Parameters
    ----------
    world
        The world to evaluate.
    simulator
        The simulator that shows the truth.
    config
        How much to evaluate.
    held_out
        Clips [E, N, H, W, 3] of another seed than the training's.
    """
    real = held_out.reshape(-1, *held_out.shape[2:])
    yield "vae", {**score_vae(world, held_out[:VAE_CLIPS, :VAE_FRAMES])}
    yield "blocks", {**score_blocks(world, simulator, config)}
    yield "actions", {**score_actions(world, simulator, config)}
    yield "drift", {**measure_drift(world, simulator, config, real[::3])}


def side_by_side(
    world: World, simulator: VizdoomMaze, config: EvalConfig, count: int = 3
) -> Iterator[Frame]:
    """Yield uint8 [N, H, 2 W, 3] for each start: truth on the left, model on the right."""
    for index in range(count):
        actions = random_actions(np.random.default_rng((config.seed, index)), config.blocks)
        truth = simulate(simulator, config.seed + index, actions)
        generated = rollout_blocks(world, truth[0][0], actions)
        yield np.concatenate([np.concatenate(truth), np.concatenate(generated)], axis=2)


def comparison_strip(pairs: list[Frame], columns: int = 12) -> Image.Image:
    """Draw a row of truth and a row of the model for each start, evenly spaced frames."""
    rows = []
    for pair in pairs:
        indices = np.linspace(0, len(pair) - 1, columns).astype(int)
        width = pair.shape[2] // 2
        for half in (pair[:, :, :width], pair[:, :, width:]):
            rows.append(np.concatenate(list(half[indices]), axis=1))
    return Image.fromarray(np.concatenate(rows))
