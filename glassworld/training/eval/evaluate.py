"""How good a world is: the simulator is the truth.

From held-out starting pictures the same actions are played in the simulator and in the model.
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
from glassworld.engine.world import Session, World
from glassworld.training.data.dataset import to_pixels
from glassworld.training.eval.metrics import (
    distance_to_real,
    psnr,
    sharpness,
    ssim,
    thumbs,
    turn_pixels,
)
from glassworld.training.sources.maze import Frame, MazeEnvironment

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
_SAME_DB = 35.0
"""Two pictures nearer than this show the same view: the player stood, or stood against a wall."""


@dataclass(frozen=True)
class Plan:
    """How much to evaluate; `seed` keeps it apart from what was trained on."""

    starts: int = 24
    blocks: int = 10
    drift_starts: int = 4
    drift_blocks: int = 60
    seed: int = 90_000


class BlockScores(TypedDict):
    """Means over the starts, one entry a block.

    `_moving`: over the starts whose view has moved away from the start picture alone, which a
    held picture cannot follow; None where none has.
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


def play_truth(simulator: MazeEnvironment, actions: list[Action]) -> list[Frame]:
    """The simulator's blocks from a fresh reset."""
    simulator.reset()
    return [simulator.step(action) for action in actions]


def play_model(session: Session, actions: list[Action]) -> list[Frame]:
    """The model's blocks."""
    return [session.step(action) for action in actions]


def random_actions(rng: np.random.Generator, blocks: int) -> list[Action]:
    """One action a block, walking and turning more than anything else."""
    choices = list(OPPOSITE)
    weights = np.array([1, 3, 1, 1, 1, 2, 2, 2, 2], np.float64)
    picks = rng.choice(len(choices), blocks, p=weights / weights.sum())
    return [choices[pick] for pick in picks]


def following(world: World, plan: Plan) -> BlockScores:
    """Per block: the model against the truth, beside the start picture held and a model given
    the opposite of every action."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for index in track(range(plan.starts), description="following the simulator"):
        rng = np.random.default_rng((plan.seed, index))
        actions = random_actions(rng, plan.blocks)
        simulator = MazeEnvironment(plan.seed + index)
        truth = play_truth(simulator, actions)
        simulator.close()
        picture = truth[0][0]
        made = {
            "": play_model(world.start(Image.fromarray(picture)), actions),
            "_wrong_actions": play_model(
                world.start(Image.fromarray(picture)), [OPPOSITE[action] for action in actions]
            ),
            "_start_picture": [np.broadcast_to(picture, block.shape) for block in truth],
        }
        for suffix, blocks in made.items():
            pairs = list(zip(blocks, truth, strict=True))
            rows["psnr" + suffix].append([psnr(*_new(pair)) for pair in pairs])
            rows["ssim" + suffix].append([ssim(*_new(pair)) for pair in pairs])
    means = {name: np.mean(values, 0).round(3).tolist() for name, values in rows.items()}
    moved = np.array(rows["psnr_start_picture"]) < _SAME_DB
    for name in ("psnr", "psnr_start_picture", "psnr_wrong_actions"):
        means[name + "_moving"] = [
            round(float(column[here].mean()), 3) if here.any() else None
            for column, here in zip(np.array(rows[name]).T, moved.T, strict=True)
        ]
    return BlockScores(**means)  # type: ignore[typeddict-item]


def _new(pair: tuple[Frame, Frame]) -> tuple[Frame, Frame]:
    """Without the first block's first frame: it is the picture both were given."""
    made, truth = pair
    return (made[1:], truth[1:]) if len(truth) % 12 else pair


def choices(world: World, plan: Plan) -> dict[str, float]:
    """Action following where it can be right or wrong: after the first block each of two actions
    is held for one more; right if the model's is nearer to its own truth than to the other's.

    Returns the share that is right by pair, and for turns the share with the right sign and the
    mean size against the truth's, from the shift of the pictures.
    """
    right: dict[str, list[bool]] = {name: [] for name in PAIRS}
    signs: list[bool] = []
    made_turns, true_turns = 0.0, 0.0
    for index in track(range(plan.starts), description="telling actions apart"):
        seed = plan.seed + 5_000 + index
        for name, pair in PAIRS.items():
            truths = [_second_block(MazeEnvironment(seed), action) for action in pair]
            picture = Image.fromarray(truths[0][0][0])
            mades = [play_model(world.start(picture), [STILL, action])[1] for action in pair]
            if name == "turn":
                for made, (_, truth) in zip(mades, truths, strict=True):
                    made_turn, true_turn = turn_pixels(made), turn_pixels(truth)
                    signs.append(made_turn * true_turn > 0)
                    made_turns += abs(made_turn)
                    true_turns += abs(true_turn)
            if psnr(truths[0][1], truths[1][1]) > _SAME_DB:
                continue
            for own in (0, 1):
                to_own = psnr(mades[own], truths[own][1])
                right[name].append(to_own > psnr(mades[own], truths[1 - own][1]))
    scores = {name: float(np.mean(values)) for name, values in right.items() if values}
    scores["turn_sign"] = float(np.mean(signs))
    scores["turn_size"] = made_turns / max(true_turns, 1.0)
    return {name: round(value, 3) for name, value in scores.items()}


def _second_block(simulator: MazeEnvironment, action: Action) -> tuple[Frame, Frame]:
    """The still first block and one under the action."""
    first, second = play_truth(simulator, [STILL, action])
    simulator.close()
    return first, second


def drift(world: World, plan: Plan, real: Frame) -> dict[str, dict[str, float]]:
    """A minute of play and a minute without a key: the first five seconds against the last five.

    `true_`: the simulator's own under the same actions, which may well lead to a plain wall.
    `real`: frames of the simulator [N, H, W, 3] to measure the distance to.
    """
    thumbnails = thumbs(real)
    scores = {}
    for name in ("playing", "standing"):
        ends: dict[str, list[Frame]] = defaultdict(list)
        for index in track(range(plan.drift_starts), description=f"a minute, {name}"):
            rng = np.random.default_rng((plan.seed, 1, index))
            actions = random_actions(rng, plan.drift_blocks)
            if name == "standing":
                actions = [STILL] * plan.drift_blocks
            simulator = MazeEnvironment(plan.seed + 9_000 + index)
            truth = play_truth(simulator, actions)
            simulator.close()
            made = play_model(world.start(Image.fromarray(truth[0][0])), actions)
            for prefix, blocks in (("", made), ("true_", truth)):
                ends[f"{prefix}first"].append(np.concatenate(blocks[:5]))
                ends[f"{prefix}last"].append(np.concatenate(blocks[-5:]))
        scores[name] = _ends(ends, thumbnails)
        scores[name]["real_sharpness"] = round(sharpness(real), 3)
    return scores


def _ends(ends: dict[str, list[Frame]], thumbnails: NDArray[np.float32]) -> dict[str, float]:
    """Means over the runs of what is measured at each end of a minute."""
    row: dict[str, float] = {}
    for end, runs in ends.items():
        row[f"{end}_distance"] = mean(distance_to_real(run, thumbnails) for run in runs)
        row[f"{end}_sharpness"] = mean(sharpness(run) for run in runs)
        row[f"{end}_motion"] = mean(_motion(run) for run in runs)
    return {key: round(value, 3) for key, value in row.items()}


def _motion(frames: Frame) -> float:
    """Mean absolute difference of successive frames, 0..255."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean())


@torch.no_grad()
def reconstruction(world: World, frames: NDArray[np.uint8]) -> dict[str, float]:
    """The VAE alone, on held-out clips [E, N, H, W, 3]."""
    networks = world.networks
    values = []
    for clip in frames:
        pixels = to_pixels(torch.from_numpy(clip[None])).to(networks.encoder.conv1.weight)
        rebuilt = networks.decoder(networks.encoder(pixels))
        made = ((rebuilt[0].permute(1, 2, 3, 0).float() + 1) * 127.5).clamp(0, 255)
        values.append(psnr(made.byte().cpu().numpy(), clip))
    return {"psnr": round(float(np.mean(values)), 3)}


def evaluate(
    world: World, plan: Plan, held_out: NDArray[np.uint8]
) -> Iterator[tuple[str, dict[str, object]]]:
    """All of it, measure by measure: each one's name and its scores when it is done.

    `held_out`: clips [E, N, H, W, 3] of another seed than the training's.
    """
    real = held_out.reshape(-1, *held_out.shape[2:])
    yield "vae", {**reconstruction(world, held_out[:16, :61])}
    yield "blocks", {**following(world, plan)}
    yield "actions", {**choices(world, plan)}
    yield "drift", {**drift(world, plan, real[::3])}


def side_by_side(world: World, plan: Plan, count: int = 3) -> Iterator[Frame]:
    """Truth on the left, the model on the right: uint8 [N, H, 2 W, 3] for each start."""
    for index in range(count):
        actions = random_actions(np.random.default_rng((plan.seed, index)), plan.blocks)
        simulator = MazeEnvironment(plan.seed + index)
        truth = play_truth(simulator, actions)
        simulator.close()
        made = play_model(world.start(Image.fromarray(truth[0][0])), actions)
        yield np.concatenate([np.concatenate(truth), np.concatenate(made)], axis=2)


def strip(pairs: list[Frame], columns: int = 12) -> Image.Image:
    """One row of truth and one of the model for each start, evenly through its time."""
    rows = []
    for pair in pairs:
        moments = np.linspace(0, len(pair) - 1, columns).astype(int)
        width = pair.shape[2] // 2
        for half in (pair[:, :, :width], pair[:, :, width:]):
            rows.append(np.concatenate(list(half[moments]), axis=1))
    return Image.fromarray(np.concatenate(rows))
