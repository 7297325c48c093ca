"""Train the transformer: true blocks are the target, whatever history it is shown; at last a
critic judges where it plays on and nobody knows the truth."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from glassworld.engine.sampling import DenoisingStep, FlowSchedule
from glassworld.specs import ActionModuleSpec, DiTSpec, VisionSpec
from glassworld.training.data.latents import LatentPlay
from glassworld.training.data.segments import BLOCK, draw
from glassworld.training.eval.samples import Show
from glassworld.training.objectives.adversarial import AdversarialTrainer, DiscriminatorRecipe
from glassworld.training.objectives.history_augmentation import Shares, TrainingBatch, draw_lesson
from glassworld.training.objectives.world_model import (
    WorldModel,
    draw_noise,
    forward,
    training_noise,
)
from glassworld.training.trainer import Run, Schedule, autocast, generator


@dataclass(frozen=True)
class DiTRecipe:
    """The transformer's size and how it is trained.

    Args:
        batch: of lessons from anywhere in an episode.
        openings: first blocks, which know a picture and nothing else, beside each such batch.
    """

    dim: int = 192
    ffn_dim: int = 1024
    layers: int = 10
    heads: int = 4
    action_layers: int = 3
    action_heads: int = 2
    window: int = 9
    vision_width: int = 64
    vision_layers: int = 2
    vision_patch: int = 32
    denoising_steps: tuple[int, ...] = (1000, 666, 333, 100)
    steps: int = 16_500
    batch: int = 8
    openings: int = 16
    rate: float = 1.5e-3
    shares: Shares = field(default_factory=Shares)
    history_noise: float = 0.3
    place_weight: float = 0.1
    critic: DiscriminatorRecipe = field(default_factory=DiscriminatorRecipe)
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
    def sampler(self) -> tuple[DenoisingStep, ...]:
        return FlowSchedule().steps(self.denoising_steps, warp=True)


def train_transformer(
    play: LatentPlay, recipe: DiTRecipe, folder: Path, model: WorldModel, show: Show
) -> None:
    """Resumed from `folder` if it began there; leaves the averaged weights in `model`."""
    play = play.to(model.device)
    run = Run(folder, model, Schedule(recipe.steps, recipe.rate, 100), recipe.decay)
    run.resume()
    rivalry: AdversarialTrainer | None = None
    for step in run.steps("transformer"):
        if rivalry is None and recipe.steps - step <= recipe.critic.steps:
            rivalry = AdversarialTrainer(
                play, model, recipe.critic, recipe.batch, folder / "critic"
            )
        random = generator(recipe.seed, step)
        with autocast(model.device):
            loss, lost = losses(model, play, recipe, random)
        total = loss + recipe.place_weight * lost
        if rivalry is not None and step % recipe.critic.every == 0:
            total = total + rivalry.loss(recipe.sampler, random)
        run.learn(total)
        if step % 20 == 0:
            run.note(loss=loss.item(), place=lost.item())
        if step % recipe.show_every == 0:
            show(model, recipe.sampler, folder)
    model.load_state_dict(run.average)


def losses(
    model: WorldModel, play: LatentPlay, recipe: DiTRecipe, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one batch, given a slightly noised history of some kind, and of as many first blocks as
    the recipe says: the flow's squared error and that of where the model takes itself to be."""
    lesson = draw_lesson(model, play, recipe.batch, recipe.shares, recipe.sampler, random)
    level = recipe.history_noise * torch.rand(recipe.batch, 1, 1, 1, 1, generator=random)
    blurred = lesson.history + level.to(model.device) * draw_noise(lesson.history, random)
    stretch = draw(play, recipe.openings, 0, 1, random).to(model.device)
    opening = TrainingBatch(stretch, stretch.latents[:, :, :0], 0)
    loss, lost = _errors(model, lesson._replace(history=blurred), random)
    loss_at_first, lost_at_first = _errors(model, opening, random)
    return loss + loss_at_first, lost + lost_at_first


def _errors(
    model: WorldModel, lesson: TrainingBatch, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The flow's, at noise of any level, and that of the places."""
    stretch, history, first = lesson
    truth = stretch.latents[:, :, first * BLOCK :]
    noisy = training_noise(truth, FlowSchedule(), random)
    answer = forward(model, stretch, history, first, noisy)
    lost = (answer.whereabouts - stretch.whereabouts[:, first * BLOCK :]).square().mean()
    return noisy.loss(answer.flow, truth), lost
