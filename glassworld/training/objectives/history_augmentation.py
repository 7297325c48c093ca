"""Training batches whose history is the truth, the truth redrawn, or the model's own rollout.

A model that only ever saw a true history never meets its own errors, and in a rollout they feed on
themselves: rooms fade, artifacts spread. The target is the truth under any history. So the model
learns to draw sharply what it remembers blurred, and to remove the artifacts that it left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep, FlowSchedule
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.data.segments import Segment, draw_at_rest, draw_segment
from glassworld.training.objectives.world_model import (
    ModelRollout,
    WorldModel,
    add_training_noise,
    predict,
)

TRAINED_FRAMES = 9
"""Noisy latent frames per example; a block more at the start of an episode: it has no history."""
ROLLOUT_FRAMES = (6, 15)
"""Shortest and longest rollouts in latent frames: later the truth shows another place."""
REST_FRAMES = (6, 36)
"""The same for rollouts without input, where the truth stays the same."""


@dataclass(frozen=True)
class HistoryMix:
    """How often an example starts with its episode, and shares of each history; else the truth.

    Parameters
    ----------
    from_start
        Share that starts with the episode, of the examples that are not at rest.
    redrawn
        The truth, noised and denoised by the model in one step.
    rollout
        Blocks that the model generated after the truth, or from the episode's start on.
    at_rest
        The same without input, after a view that has settled.
    """

    from_start: float = 0.3
    redrawn: float = 0.15
    rollout: float = 0.2
    at_rest: float = 0.05


class TrainingBatch(NamedTuple):
    """A batch of one step: the truth of a segment from block `first` on is the target.

    The history [B, C, F, h, w] has all blocks of the segment but the last.
    """

    segment: Segment
    history: Tensor
    first: int


def draw_training_batch(
    model: WorldModel,
    episodes: LatentEpisodes,
    batch_size: int,
    mix: HistoryMix,
    steps: tuple[DenoisingStep, ...],
    random: torch.Generator,
) -> TrainingBatch:
    """Draw a batch with one kind of history.

    Parameters
    ----------
    model
        Generates the histories that are its own.
    episodes
        To draw from.
    batch_size
        Number of examples.
    mix
        Shares of the histories.
    steps
        Steps of the sampler in rollouts.
    random
        Decides all of it.
    """
    kind = float(torch.rand((), generator=random))
    if kind < mix.at_rest:
        blocks = model.history + _choose_blocks(REST_FRAMES, episodes, random) + 1
        segment = draw_at_rest(episodes, batch_size, blocks, random)
        if segment is not None:
            return _roll_out(model, segment.to(model.device), model.history, steps, random)
    from_start = float(torch.rand((), generator=random)) < mix.from_start
    past = 0 if from_start else model.history
    if kind < mix.at_rest + mix.rollout:
        blocks = past + _choose_blocks(ROLLOUT_FRAMES, episodes, random) + 1
        segment = _draw_truth(episodes, batch_size, from_start, blocks, random)
        return _roll_out(model, segment.to(model.device), past, steps, random)
    blocks = past + TRAINED_FRAMES // episodes.frames_per_block + int(from_start)
    segment = _draw_truth(episodes, batch_size, from_start, blocks, random).to(model.device)
    if kind < mix.at_rest + mix.rollout + mix.redrawn:
        return TrainingBatch(segment, redraw_history(model, segment, random), past)
    return TrainingBatch(segment, segment.known, past)


def _choose_blocks(
    frames: tuple[int, int], episodes: LatentEpisodes, random: torch.Generator
) -> int:
    """Draw a number of blocks between two numbers of latent frames."""
    low, high = (count // episodes.frames_per_block for count in frames)
    return low + int(torch.randint(high - low + 1, (), generator=random))


def _draw_truth(
    episodes: LatentEpisodes,
    batch_size: int,
    from_start: bool,
    blocks: int,
    random: torch.Generator,
) -> Segment:
    start = 0
    if not from_start:
        start = 1 + int(torch.randint(episodes.blocks - blocks, (), generator=random))
    return draw_segment(episodes, batch_size, start, blocks, random)


def _roll_out(
    model: WorldModel,
    segment: Segment,
    prefill: int,
    steps: tuple[DenoisingStep, ...],
    random: torch.Generator,
) -> TrainingBatch:
    """Continue the true first blocks by a rollout; keep what the last blocks see of it."""
    rollout = ModelRollout(model, segment, steps)
    rollout.prefill(prefill)
    blocks = rollout.remaining + prefill
    rollout.generate(rollout.remaining - 1, random)
    first = max(prefill, blocks - TRAINED_FRAMES // segment.frames_per_block)
    oldest = max(0, first - model.history)
    history = torch.cat(rollout.blocks[oldest:], 2)
    return TrainingBatch(segment.blocks(oldest, blocks), history, first - oldest)


@torch.no_grad()
def redraw_history(model: WorldModel, segment: Segment, random: torch.Generator) -> Tensor:
    """Add noise to the history of a segment and let the model remove it in one step.

    The result is as washed out as the history of a rollout, yet shows the truth. Inside an episode
    the first block stays the truth, because the model does not know what came before it.
    """
    first = 1 if segment.start else 0
    size = segment.frames_per_block
    past = segment.blocks(0, segment.latents.shape[2] // size - 1)
    known, truth = past.latents[:, :, : first * size], past.latents[:, :, first * size :]
    noisy = add_training_noise(truth, FlowSchedule(), random, size)
    prediction = predict(model, past, past.known, first, noisy)
    return torch.cat([known, noisy.x0(prediction.flow)], 2)
