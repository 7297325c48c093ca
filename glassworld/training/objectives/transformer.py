"""Train the transformer: the target is the truth, whatever history the model sees.

In the last steps a discriminator also judges long rollouts, whose truth nobody knows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from glassworld.engine.sampling import DenoisingStep, FlowSchedule
from glassworld.specs import ActionModuleSpec, DiTSpec, VisionSpec, WorldSpec
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.adversarial import AdversarialTrainer, DiscriminatorRecipe
from glassworld.training.objectives.fixed_shapes import (
    StepLosses,
    compiled_losses,
    fixed_batch,
    most_frames,
)
from glassworld.training.objectives.history_augmentation import (
    HistoryMix,
    TrainingBatch,
    draw_training_batch,
)
from glassworld.training.objectives.world_model import (
    WorldModel,
    add_training_noise,
    noise_like,
    predict,
)
from glassworld.training.sources.source import WorldFormat
from glassworld.training.trainer import CosineSchedule, Trainer, autocast, generator

WARMUP_STEPS = 100
LOG_EVERY = 20
FIRST_FRAMES = 3
"""Latent frames of the examples at the start of an episode."""

Preview = Callable[[WorldModel, tuple[DenoisingStep, ...], Path], None]
"""Called now and then with the model, the steps of the sampler and the folder of the run."""


@dataclass(frozen=True)
class DiTRecipe:
    """Size of the transformer and of the image tower, and how they are trained.

    Parameters
    ----------
    format
        What the world looks like: its mode, its frames and its blocks.
    dim
        Width of the tokens.
    ffn_dim
        Hidden units of the feed-forward networks.
    layers
        Number of layers.
    heads
        Attention heads.
    action_layers
        Number of first layers with an action module.
    action_heads
        Heads of an action module, 64 wide each.
    window
        Latent frames of the attention window.
    vision_width
        Width of the image tower.
    vision_layers
        Its layers.
    vision_patch
        Side of its patches in pixels.
    denoising_steps
        Timesteps of the sampler.
    steps
        Optimizer steps.
    batch_size
        Examples per step from anywhere in an episode.
    first_blocks
        Examples per step that are the first three latent frames of an episode.
    rate
        Highest learning rate.
    history_mix
        Shares of the kinds of history.
    history_noise
        Highest noise added to the history, in standard deviations.
    location_weight
        Weight of the auxiliary loss of locations.
    discriminator
        How to train and weigh the discriminator.
    ema_decay
        Decay of the averaged weights.
    gradient_checkpointing
        Recompute activations, to save memory.
    compiled
        Compile the step (see `fixed_shapes.py`), without gradient checkpointing.
    preview_every
        Steps between previews.
    seed
        Seed of weights and batches.
    start
        World whose sizes the transformer and the image tower have. None: those above.
    """

    format: WorldFormat = field(
        default_factory=lambda: WorldFormat("universal", frames_per_block=3)
    )
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
    batch_size: int = 8
    first_blocks: int = 16
    rate: float = 1.5e-3
    history_mix: HistoryMix = field(default_factory=HistoryMix)
    history_noise: float = 0.3
    location_weight: float = 0.1
    discriminator: DiscriminatorRecipe = field(default_factory=DiscriminatorRecipe)
    ema_decay: float = 0.998
    gradient_checkpointing: bool = False
    compiled: bool = False
    preview_every: int = 250
    seed: int = 0
    start: WorldSpec | None = None

    @property
    def spec(self) -> DiTSpec:
        """Shape of the transformer."""
        if self.start is not None:
            return self.start.dit
        width = 64 * self.action_heads
        action = ActionModuleSpec(
            layers=tuple(range(self.action_layers)),
            keyboard_dim=len(self.format.space.keyboard),
            mouse_dim=2 if self.format.space.has_mouse else 0,
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
        """Shape of the image tower."""
        if self.start is not None:
            return self.start.vision
        return VisionSpec(
            width=self.vision_width,
            layers=self.vision_layers,
            heads=max(1, self.vision_width // 32),
            patch=self.vision_patch,
            mlp_width=4 * self.vision_width,
        )

    @property
    def sampler(self) -> tuple[DenoisingStep, ...]:
        """Steps of the sampler in rollouts."""
        return FlowSchedule().steps(self.denoising_steps, warp=True)


def train_transformer(
    episodes: LatentEpisodes,
    recipe: DiTRecipe,
    folder: Path,
    model: WorldModel,
    preview: Preview,
    seconds: float | None = None,
) -> None:
    """Train the model; resumes from `folder`, leaves the averaged weights in `model`.

    Parameters
    ----------
    episodes
        To learn from.
    recipe
        How to train.
    folder
        Takes the checkpoint, the curves and the discriminator.
    model
        To train.
    preview
        Shows what the model can do.
    seconds
        Length of the training; None: as many steps as the recipe says.
    """
    episodes = episodes.to(model.device)
    schedule = CosineSchedule(recipe.steps, recipe.rate, WARMUP_STEPS, seconds=seconds)
    trainer = Trainer(folder, model, schedule, recipe.ema_decay)
    trainer.resume()
    adversarial: AdversarialTrainer | None = None
    losses = compiled_losses(model.device) if recipe.compiled else None
    for step in trainer.steps("transformer"):
        if adversarial is None and recipe.steps - trainer.position <= recipe.discriminator.steps:
            adversarial = _start_adversarial(episodes, model, recipe, trainer)
        random = generator(recipe.seed, step)
        if losses is not None:
            torch.compiler.cudagraph_mark_step_begin()
        with autocast(model.device):
            flow_loss, location_loss = training_losses(model, episodes, recipe, random, losses)
        loss = flow_loss + recipe.location_weight * location_loss
        if adversarial is not None and step % recipe.discriminator.every == 0:
            loss = loss + adversarial.loss(recipe.sampler, random)
        trainer.update(loss)
        if step % LOG_EVERY == 0:
            trainer.log(loss=flow_loss.item(), place=location_loss.item())
        if step % recipe.preview_every == 0:
            preview(model, recipe.sampler, folder)
    if adversarial is not None:
        adversarial.save()
    trainer.use_average()


def _start_adversarial(
    episodes: LatentEpisodes, model: WorldModel, recipe: DiTRecipe, trainer: Trainer
) -> AdversarialTrainer:
    """Start or resume the discriminator, whose folder is in the transformer's."""
    expected = None
    if trainer.schedule.seconds is not None:
        expected = _expected_steps(trainer, recipe.discriminator)
    return AdversarialTrainer(
        episodes,
        model,
        recipe.discriminator,
        recipe.batch_size,
        trainer.folder / "critic",
        expected,
    )


def _expected_steps(trainer: Trainer, recipe: DiscriminatorRecipe) -> int:
    """Estimate the steps of the discriminator from the speed so far; its steps take twice long."""
    speed = trainer.step / max(1, trainer.position)
    return max(2, int(speed * recipe.steps / recipe.every / 2))


def training_losses(
    model: WorldModel,
    episodes: LatentEpisodes,
    recipe: DiTRecipe,
    random: torch.Generator,
    compiled: StepLosses | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared errors of flow and locations of one step.

    They are summed over a batch from anywhere, whose history gets a little noise, and a batch of
    first blocks. With `compiled` each kind of batch has one shape.
    """
    batch = draw_training_batch(
        model, episodes, recipe.batch_size, recipe.history_mix, recipe.sampler, random
    )
    level = recipe.history_noise * torch.rand(recipe.batch_size, 1, 1, 1, 1, generator=random)
    noisy_history = batch.history + level.to(model.device) * noise_like(batch.history, random)
    count = FIRST_FRAMES // episodes.frames_per_block
    segment = draw_segment(episodes, recipe.first_blocks, 0, count, random).to(model.device)
    first_blocks = TrainingBatch(segment, segment.known, 0)
    batch = batch._replace(history=noisy_history)
    if compiled is None:
        results = [plain_losses(model, part, random) for part in (batch, first_blocks)]
    else:
        size = episodes.frames_per_block
        shapes = (most_frames(model.history, size), (FIRST_FRAMES - size, FIRST_FRAMES))
        results = [
            compiled(model, fixed_batch(model, part, random, shape))
            for part, shape in zip((batch, first_blocks), shapes, strict=True)
        ]
    return results[0][0] + results[1][0], results[0][1] + results[1][1]


def plain_losses(
    model: WorldModel, batch: TrainingBatch, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared errors of the flow, at random noise levels, and of the locations."""
    segment, history, first = batch
    start = first * segment.frames_per_block
    truth = segment.latents[:, :, start:]
    noisy = add_training_noise(truth, FlowSchedule(), random, segment.frames_per_block)
    prediction = predict(model, segment, history, first, noisy)
    location_error = (prediction.locations - segment.locations[:, start:]).square()
    location_loss = location_error.mean() if model.locate is not None else location_error.sum()
    return noisy.loss(prediction.flow, truth), location_loss
