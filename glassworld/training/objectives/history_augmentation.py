"""What a noisy block is shown of its past: the truth, the truth redrawn, or the model's own play.

With the truth alone the model never meets its own faults, and in play they feed on themselves:
rooms fade, marks spread. The target stays the truth, whatever the history, so the model learns to
draw sharply what it remembers blurred, and to take away the marks that it left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep, FlowSchedule
from glassworld.training.data.latents import LatentPlay
from glassworld.training.data.segments import BLOCK, Segment, at_rest, draw
from glassworld.training.objectives.world_model import Player, WorldModel, forward, training_noise

TRAINED_BLOCKS = 3
"""Noisy blocks of a lesson; four where it begins with the episode, whose first has no past."""
PLAYED_BLOCKS = range(2, 6)
"""How many blocks the model plays of its own; after more the truth is somewhere else."""
RESTED_BLOCKS = range(2, 13)
"""The same where nothing moves, so that the truth stays where it is."""


@dataclass(frozen=True)
class Shares:
    """How often a lesson begins with its episode, and which history it has; else the truth.

    Args:
        begin: of the lessons that are not at rest.
        redrawn: the truth as the model takes it for after one step from noise.
        played: the model's own blocks, after the truth where it does not begin the episode.
        rested: its own blocks without a key, from a view that has settled.
    """

    begin: float = 0.3
    redrawn: float = 0.15
    played: float = 0.2
    rested: float = 0.05


class TrainingBatch(NamedTuple):
    """What one step learns from: the truth of a stretch from its block `first` on, given the
    history [B, C, F, h, w] of all its blocks but the last."""

    stretch: Segment
    history: Tensor
    first: int


def draw_lesson(
    model: WorldModel,
    play: LatentPlay,
    batch: int,
    shares: Shares,
    steps: tuple[DenoisingStep, ...],
    random: torch.Generator,
) -> TrainingBatch:
    """A lesson of some kind; `steps` are those the model plays with."""
    kind = float(torch.rand((), generator=random))
    if kind < shares.rested:
        blocks = model.history + _pick(RESTED_BLOCKS, random) + 1
        stretch = at_rest(play, batch, blocks, random)
        if stretch is not None:
            return _played(model, stretch.to(model.device), model.history, steps, random)
    begin = float(torch.rand((), generator=random)) < shares.begin
    past = 0 if begin else model.history
    if kind < shares.rested + shares.played:
        stretch = _draw(play, batch, begin, past + _pick(PLAYED_BLOCKS, random) + 1, random)
        return _played(model, stretch.to(model.device), past, steps, random)
    stretch = _draw(play, batch, begin, past + TRAINED_BLOCKS + int(begin), random)
    stretch = stretch.to(model.device)
    if kind < shares.rested + shares.played + shares.redrawn:
        return TrainingBatch(stretch, redrawn(model, stretch, random), past)
    return TrainingBatch(stretch, stretch.latents[:, :, :-BLOCK], past)


def _pick(choices: range, random: torch.Generator) -> int:
    return choices[int(torch.randint(len(choices), (), generator=random))]


def _draw(
    play: LatentPlay, batch: int, begin: bool, blocks: int, random: torch.Generator
) -> Segment:
    start = 0
    if not begin:
        start = 1 + int(torch.randint(play.blocks - blocks, (), generator=random))
    return draw(play, batch, start, blocks, random)


def _played(
    model: WorldModel,
    stretch: Segment,
    given: int,
    steps: tuple[DenoisingStep, ...],
    random: torch.Generator,
) -> TrainingBatch:
    """The truth of the first blocks, then what the model plays; of it all what the last see."""
    player = Player(model, stretch, steps)
    player.given(given)
    blocks = player.left + given
    player.play(player.left - 1, random)
    first = max(given, blocks - TRAINED_BLOCKS)
    oldest = max(0, first - model.history)
    history = torch.cat(player.made[oldest:], 2)
    return TrainingBatch(stretch.blocks(oldest, blocks), history, first - oldest)


@torch.no_grad()
def redrawn(model: WorldModel, stretch: Segment, random: torch.Generator) -> Tensor:
    """The history of a stretch as the model takes it for after one step from noise.

    It is as washed out as what the model will remember in play, and yet shows the truth. The
    first block stays as it is where the model does not know what came before.
    """
    first = 1 if stretch.start else 0
    past = stretch.blocks(0, stretch.latents.shape[2] // BLOCK - 1)
    kept, truth = past.latents[:, :, : first * BLOCK], past.latents[:, :, first * BLOCK :]
    noisy = training_noise(truth, FlowSchedule(), random)
    answer = forward(model, past, past.latents[:, :, :-BLOCK], first, noisy)
    return torch.cat([kept, noisy.x0(answer.flow)], 2)
