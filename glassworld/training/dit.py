"""Train the transformer: teacher forcing until it knows the world, then self forcing until its
own steps and its own history do not lead it astray."""

from dataclasses import dataclass
from pathlib import Path

import torch

from glassworld.engine.scheduler import FlowSchedule, Step
from glassworld.specs import ActionModuleSpec, DiTSpec, VisionSpec
from glassworld.training.forcing import (
    Player,
    WorldModel,
    draw_noise,
    forward,
    teacher_noise,
)
from glassworld.training.latents import LatentPlay
from glassworld.training.run import Run, Schedule, autocast, generator
from glassworld.training.samples import BLOCK, Stretch, draw
from glassworld.training.showing import Show

TRAINED_BLOCKS = 3
"""Noisy blocks of a stretch; four where it begins with the episode, whose first has no past."""


@dataclass(frozen=True)
class DiTRecipe:
    """The transformer's size and how it is trained."""

    dim: int = 192
    ffn_dim: int = 512
    layers: int = 6
    heads: int = 4
    action_layers: int = 3
    action_heads: int = 2
    window: int = 9
    vision_width: int = 64
    vision_layers: int = 2
    vision_patch: int = 32
    denoising_steps: tuple[int, ...] = (1000, 666, 333, 100)
    steps: int = 11_500
    batch: int = 8
    rate: float = 1.5e-3
    start_share: float = 0.3
    history_noise: float = 0.3
    redrawn_share: float = 0.5
    self_steps: int = 1500
    self_rate: float = 4e-4
    decay: float = 0.998
    gradient_checkpointing: bool = False
    show_every: int = 250
    seed: int = 0

    @property
    def spec(self) -> DiTSpec:
        width = 64 * self.action_heads
        action = ActionModuleSpec(
            layers=tuple(range(self.action_layers)),
            keyboard_dim=4,
            embed_width=32,
            keyboard_width=width,
            mouse_width=width,
            heads=self.action_heads,
        )
        return DiTSpec(
            action=action,
            dim=self.dim,
            ffn_dim=self.ffn_dim,
            num_layers=self.layers,
            num_heads=self.heads,
            context_dim=self.vision_width,
            window=self.window,
        )

    @property
    def vision(self) -> VisionSpec:
        return VisionSpec(
            width=self.vision_width,
            layers=self.vision_layers,
            heads=max(1, self.vision_width // 32),
            patch=self.vision_patch,
            mlp_width=4 * self.vision_width,
        )

    @property
    def sampler(self) -> tuple[Step, ...]:
        return FlowSchedule().steps(self.denoising_steps, warp=True)


def train_teacher_forcing(
    play: LatentPlay, recipe: DiTRecipe, folder: Path, model: WorldModel, show: Show
) -> None:
    """The first stage, resumed from `folder` if it began there; leaves the averaged weights."""
    run = Run(folder, model, Schedule(recipe.steps, recipe.rate, 100), recipe.decay)
    run.resume()
    for step in run.steps("transformer, teacher forcing"):
        random = generator(recipe.seed, step)
        with autocast(model.device):
            loss = teacher_loss(model, play, recipe, random)
        run.learn(loss)
        if step % 20 == 0:
            run.note(loss=loss.item())
        if step % recipe.show_every == 0:
            show(model, recipe.sampler, folder)
    model.load_state_dict(run.average)


def teacher_loss(
    model: WorldModel, play: LatentPlay, recipe: DiTRecipe, random: torch.Generator
) -> torch.Tensor:
    """The loss of one batch with the truth, redrawn or not and slightly noised, as history."""
    past = model.history
    start = 0
    if float(torch.rand((), generator=random)) >= recipe.start_share:
        last = play.blocks - past - TRAINED_BLOCKS
        start = int(torch.randint(1, last + 1, (), generator=random))
    first, blocks = (past, past + TRAINED_BLOCKS) if start else (0, TRAINED_BLOCKS + 1)
    stretch = draw(play, recipe.batch, start, blocks, random).to(model.device)
    truth = stretch.latents[:, :, first * BLOCK :]
    history = stretch.latents[:, :, : (blocks - 1) * BLOCK]
    if float(torch.rand((), generator=random)) < recipe.redrawn_share:
        history = redrawn(model, stretch.blocks(0, blocks - 1), random)
    level = recipe.history_noise * torch.rand(len(history), 1, 1, 1, 1, generator=random)
    history = history + level.to(history.device) * draw_noise(history, random)
    noisy = teacher_noise(truth, FlowSchedule(), random)
    return noisy.loss(forward(model, stretch, history, first, noisy), truth)


@torch.no_grad()
def redrawn(model: WorldModel, stretch: Stretch, random: torch.Generator) -> torch.Tensor:
    """The latents of a stretch as the model takes them for after one step from noise.

    As history they are as washed out as what it will remember in play, and yet show the truth:
    it learns to draw sharply again what it sees blurred, not to blur. The first block stays as
    it is where the model does not know what came before.
    """
    first = 1 if stretch.start else 0
    kept, truth = stretch.latents[:, :, : first * BLOCK], stretch.latents[:, :, first * BLOCK :]
    noisy = teacher_noise(truth, FlowSchedule(), random)
    flow = forward(model, stretch, stretch.latents[:, :, :-BLOCK], first, noisy)
    return torch.cat([kept, noisy.x0(flow)], 2)


def train_self_forcing(
    play: LatentPlay, recipe: DiTRecipe, folder: Path, model: WorldModel, show: Show
) -> None:
    """The second stage, from a taught model; leaves the averaged weights.

    A round is several steps on the same stretch: the model plays three blocks and learns from
    them, then plays on from where it got to and learns again, to the end of the episode.
    """
    run = Run(folder, model, Schedule(recipe.self_steps, recipe.self_rate, 50), recipe.decay)
    run.resume()
    player: Player | None = None
    for step in run.steps("transformer, self forcing"):
        random = generator(recipe.seed + 1, step)
        with autocast(model.device):
            if player is None or player.left < TRAINED_BLOCKS:
                player = _new_player(model, play, recipe, random)
            age = len(player.made)
            loss = self_loss(model, player, random)
        run.learn(loss)
        if step % 10 == 0:
            run.note(**{f"loss_after_{age}_blocks": loss.item()})
        if step % recipe.show_every == 0:
            show(model, recipe.sampler, folder)
    model.load_state_dict(run.average)


def _new_player(
    model: WorldModel, play: LatentPlay, recipe: DiTRecipe, random: torch.Generator
) -> Player:
    """From the start picture, or from within an episode with the true past of one block."""
    start, given = 0, 0
    if float(torch.rand((), generator=random)) >= recipe.start_share:
        start, given = int(torch.randint(0, play.blocks // 2, (), generator=random)), model.history
    stretch = draw(play, recipe.batch, start, play.blocks - start, random).to(model.device)
    player = Player(model, stretch, recipe.sampler)
    player.given(given)
    return player


def self_loss(model: WorldModel, player: Player, random: torch.Generator) -> torch.Tensor:
    """Play the next blocks and repeat their steps with gradients, against the truth."""
    begin = len(player.made)
    end = begin + TRAINED_BLOCKS
    player.play(TRAINED_BLOCKS, random)
    oldest = max(0, begin - model.history)
    stretch = player.stretch.blocks(oldest, end)
    noisy = player.replay(begin, end, random)
    history = torch.cat(player.made[oldest : end - 1], 2)
    flow = forward(model, stretch, history, begin - oldest, noisy)
    return noisy.loss(flow, player.stretch.latents[:, :, begin * BLOCK : end * BLOCK])
