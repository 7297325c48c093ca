"""Adversarial training: long rollouts of the model against a discriminator trained beside it."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.objectives.discriminator import (
    Discriminator,
    discriminator_loss,
    generator_loss,
)
from glassworld.training.objectives.rollout_pool import RolloutPool
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.trainer import (
    SAVE_EVERY_SECONDS,
    CosineSchedule,
    Trainer,
    autocast,
    generator,
)

LOG_EVERY = 20


@dataclass(frozen=True)
class DiscriminatorRecipe:
    """How the discriminator is trained, and its weight in the loss of the transformer.

    Parameters
    ----------
    steps
        How many of the transformer's last steps it may take part in. Under a time limit these are
        steps of the recipe, not those taken: 400 of 7,000 are the last seventeenth of the time.
    every
        It takes part in one of `every` of these.
    warmup_steps
        Its own first steps, in which the transformer ignores it.
    rate
        Highest learning rate.
    weight
        Weight of the adversarial loss in the loss of the transformer.
    gradient_penalty
        Weight of the penalty on its gradients.
    rollout_frames
        Length of a rollout in latent frames.
    rest_share
        Share of the rollouts without input.
    width
        Channels of its convolutions.
    """

    steps: int = 3000
    every: int = 2
    warmup_steps: int = 150
    rate: float = 2e-4
    weight: float = 0.02
    gradient_penalty: float = 1.0
    rollout_frames: int = 192
    rest_share: float = 0.25
    width: int = 128


class AdversarialTrainer:
    """Rollouts of the model and the discriminator that judges them.

    The discriminator resumes from `folder`. Interrupted rollouts start over.

    Parameters
    ----------
    episodes
        Real clips, starts and actions.
    model
        Generates the rollouts.
    recipe
        How to train the discriminator.
    batch_size
        Number of rollouts.
    folder
        Folder of the discriminator's checkpoint.
    steps
        Steps of the discriminator to expect; None: those of the recipe.
    """

    def __init__(
        self,
        episodes: LatentEpisodes,
        model: WorldModel,
        recipe: DiscriminatorRecipe,
        batch_size: int,
        folder: Path,
        steps: int | None = None,
    ) -> None:
        self.recipe = recipe
        steps = steps or recipe.steps // recipe.every
        self.warmup_steps = min(recipe.warmup_steps, steps // 2)
        torch.manual_seed(0)
        channels = episodes.latents.shape[2]
        actions = episodes.keyboard.shape[-1] + episodes.mouse.shape[-1]
        discriminator = Discriminator(channels, actions, width=recipe.width)
        self.discriminator = discriminator.to(model.device)
        optimizer = torch.optim.Adam(self.discriminator.parameters(), betas=(0.0, 0.99))
        schedule = CosineSchedule(steps, recipe.rate)
        self.trainer = Trainer(folder, self.discriminator, schedule, optimizers=[optimizer])
        self.trainer.resume()
        self._saved = time.monotonic()
        random = generator(1, self.trainer.step)
        self.pool = RolloutPool(
            episodes, model, batch_size, recipe.rollout_frames, recipe.rest_share, random
        )

    def save(self) -> None:
        """Write the discriminator's checkpoint; `loss` also does so, as often as the model's."""
        self.trainer.save()
        self._saved = time.monotonic()

    def loss(self, steps: tuple[DenoisingStep, ...], random: torch.Generator) -> Tensor:
        """Continue the rollouts, train the discriminator on them, return the model's loss."""
        with autocast(self.pool.model.device):
            generated = self.pool.advance(steps, random)
        generated = generated._replace(latents=generated.latents.float())
        real = self.pool.true_clips(random)
        loss = discriminator_loss(self.discriminator, real, generated, self.recipe.gradient_penalty)
        self.trainer.update(loss)
        if self.trainer.step % LOG_EVERY == 0:
            self.trainer.log(critic=loss.item())
        if time.monotonic() - self._saved >= SAVE_EVERY_SECONDS:
            self.save()
        is_active = self.trainer.step > self.warmup_steps
        return self.recipe.weight * is_active * generator_loss(self.discriminator, real, generated)
