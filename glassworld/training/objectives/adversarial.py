"""The model's long play against a critic that learns beside it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep
from glassworld.training.data.latents import LatentPlay
from glassworld.training.objectives.discriminator import Discriminator, critic_loss, generator_loss
from glassworld.training.objectives.rollout_pool import RolloutPool
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.trainer import Run, Schedule, autocast, generator

SAVE_EVERY = 100


@dataclass(frozen=True)
class DiscriminatorRecipe:
    """How the critic is trained, and what it counts.

    Args:
        steps: the last of the transformer's steps.
        every: one of how many of these the critic takes part in.
        alone: its own first steps, in which it learns and the model does not yet listen.
        weight: of its verdict, in the transformer's loss.
        penalty: on the slopes of its verdict.
        journey: after how many blocks of play a journey ends.
    """

    steps: int = 3000
    every: int = 2
    alone: int = 150
    rate: float = 2e-4
    weight: float = 0.02
    penalty: float = 1.0
    journey: int = 64
    width: int = 128


class AdversarialTrainer:
    """Journeys of the model and the critic that judges them.

    The critic resumes from `folder`; journeys that were interrupted begin anew.
    """

    def __init__(
        self,
        play: LatentPlay,
        model: WorldModel,
        recipe: DiscriminatorRecipe,
        batch: int,
        folder: Path,
    ) -> None:
        self.recipe = recipe
        torch.manual_seed(0)
        critic = Discriminator(play.latents.shape[2], width=recipe.width).to(model.device)
        optimizer = torch.optim.Adam(critic.parameters(), betas=(0.0, 0.99))
        schedule = Schedule(recipe.steps // recipe.every, recipe.rate)
        self.run = Run(folder, critic, schedule, optimizers=[optimizer])
        self.run.resume()
        self.critic = critic
        self.journeys = RolloutPool(play, model, batch, recipe.journey, generator(1, self.run.step))

    def loss(self, steps: tuple[DenoisingStep, ...], random: torch.Generator) -> Tensor:
        """Play on, let the critic learn from it, and say what the model is to lower."""
        device = self.journeys.model.device
        with autocast(device):
            made = self.journeys.advance(steps, random)
        made = made._replace(latents=made.latents.float())
        real = self.journeys.true_clips(random)
        loss = critic_loss(self.critic, real, made, self.recipe.penalty)
        self.run.learn(loss)
        if self.run.step % 20 == 0:
            self.run.note(critic=loss.item())
        if self.run.step % SAVE_EVERY == 0:
            self.run.save()
        heard = self.run.step > self.recipe.alone
        return self.recipe.weight * heard * generator_loss(self.critic, real, made)
