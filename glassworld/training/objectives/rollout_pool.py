"""Long rollouts of the model that continue from training step to training step.

A rollout starts with a true view and true actions. After a few blocks the model is on its own, and
nobody knows what the simulator would have shown. Only the last blocks are kept: all that the
window sees.
"""

import torch
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.data.segments import (
    WINDOW_ROWS,
    continue_segment,
    draw_at_rest,
    draw_segment,
)
from glassworld.training.objectives.discriminator import CLIP_FRAMES, LatentClip
from glassworld.training.objectives.world_model import (
    ModelRollout,
    NoisyLatents,
    WorldModel,
    predict,
)


class RolloutPool:
    """A batch of rollouts of different ages. Every few steps the oldest one is restarted.

    Parameters
    ----------
    episodes
        Provide the starts and the actions.
    model
        Continues the rollouts.
    batch_size
        Number of rollouts.
    frames
        Length of a rollout in latent frames.
    rest_share
        Share of the rollouts without input.
    random
        Draws the first starts.

    Attributes
    ----------
    history
        Latents [B, C, F, h, w] that the next block sees.
    position
        Latent frame of each rollout's first history frame, counted over all episodes.
    at_rest
        The rollouts without input, bool [B].
    start_images
        uint8 [B, H, W, 3].
    """

    def __init__(
        self,
        episodes: LatentEpisodes,
        model: WorldModel,
        batch_size: int,
        frames: int,
        rest_share: float,
        random: torch.Generator,
    ) -> None:
        self.episodes, self.model, self.rest_share = episodes, model, rest_share
        self.clip_blocks = CLIP_FRAMES // episodes.frames_per_block
        self.restart_every = max(1, frames // (CLIP_FRAMES * batch_size))
        self.keyboard = episodes.keyboard[:, 1:].flatten(0, 1)
        self.mouse = episodes.mouse[:, 1:].flatten(0, 1)
        channels, height, width = episodes.latents.shape[2:]
        past = model.history * episodes.frames_per_block
        like = episodes.keyboard
        self.history = like.new_zeros(batch_size, channels, past, height, width)
        self.position = like.new_zeros(batch_size, dtype=torch.long)
        self.at_rest = like.new_zeros(batch_size, dtype=torch.bool)
        images = episodes.start_images
        self.start_images = images.new_zeros(batch_size, *images.shape[1:])
        self.advances = 0
        for row in range(batch_size):
            self._restart(row, random)

    def _restart(self, row: int, random: torch.Generator) -> None:
        """Start a rollout inside a random episode, or at rest from a view that has settled."""

        def choose(end: int) -> int:
            return int(torch.randint(end, (), generator=random))

        episodes, frames = self.episodes, self.history.shape[2]
        length = episodes.latents.shape[1]
        episode = choose(len(episodes.latents))
        frame = 1 + choose(length - frames)
        self.start_images[row] = episodes.start_images[choose(len(episodes.start_images))]
        self.position[row] = episode * (length - 1) + frame
        history = episodes.latents[episode, frame : frame + frames].float().transpose(0, 1)
        self.history[row] = history
        rest = None
        if float(torch.rand((), generator=random)) < self.rest_share:
            rest = draw_at_rest(episodes, 1, self.model.history, random)
        self.at_rest[row] = rest is not None
        if rest is not None:
            self.history[row] = rest.latents[0]

    def _actions(self) -> tuple[Tensor, Tensor]:
        """Return the rows of actions that the history and the next frames see.

        See `segments.action_windows` for which rows a frame sees.
        """
        frames = self.history.shape[2] + CLIP_FRAMES
        # Frame f sees the rows from 4f - 12 on; row 0 of each episode is left out here.
        first = TIME_FACTOR * self.position[:, None] - WINDOW_ROWS - 1
        rows = first + torch.arange(TIME_FACTOR * (frames + 2), device=first.device)
        rows = rows % len(self.keyboard)
        has_input = (~self.at_rest)[:, None, None]
        return self.keyboard[rows] * has_input, self.mouse[rows] * has_input

    def advance(self, steps: tuple[DenoisingStep, ...], random: torch.Generator) -> LatentClip:
        """Generate the next blocks of every rollout.

        They carry a gradient through one denoising step each: the last step for all blocks but the
        last block, a random step for the last block.
        """
        if self.advances and self.advances % self.restart_every == 0:
            self._restart((self.advances // self.restart_every - 1) % len(self.history), random)
        self.advances += 1
        segment = continue_segment(
            self.episodes, self.history, *self._actions(), self.start_images, self.clip_blocks
        )
        segment = segment.to(self.model.device)
        past = self.model.history
        rollout = ModelRollout(self.model, segment, steps)
        rollout.prefill(past)
        rollout.generate(self.clip_blocks, random)
        latents = torch.cat(rollout.blocks, 2)
        self.history = latents[:, :, -self.history.shape[2] :].to(self.history.device)
        self.position += CLIP_FRAMES

        noisy = _choose_step_inputs(rollout, self.clip_blocks, steps, random)
        known = latents[:, :, : -segment.frames_per_block]
        flow = predict(self.model, segment, known, past, noisy).flow
        return LatentClip(noisy.x0(flow), segment.blocks(past, past + self.clip_blocks).windows)

    def true_clips(self, random: torch.Generator) -> LatentClip:
        """Draw as many clips of the simulator, at rest in the rows where the rollouts rest."""
        start = 1 + int(
            torch.randint(self.episodes.blocks - self.clip_blocks, (), generator=random)
        )
        truth = draw_segment(self.episodes, len(self.history), start, self.clip_blocks, random)
        mouse = truth.windows.mouse
        assert mouse is not None
        if self.at_rest.any():
            rest = draw_at_rest(self.episodes, int(self.at_rest.sum()), self.clip_blocks, random)
            assert rest is not None
            truth.latents[self.at_rest] = rest.latents
            truth.windows.keyboard[self.at_rest] = 0
            mouse[self.at_rest] = 0
        truth = truth.to(self.model.device)
        return LatentClip(truth.latents, truth.windows)


def _choose_step_inputs(
    rollout: ModelRollout,
    blocks: int,
    steps: tuple[DenoisingStep, ...],
    random: torch.Generator,
) -> NoisyLatents:
    """Choose one denoising step for each of the last blocks; return the latents it began with.

    It is the last step for all blocks but the last block, a random step for the last block.
    """
    inputs = rollout.step_inputs[-blocks:]
    batch_size = len(inputs[0][0])
    index = torch.full((batch_size, blocks), len(steps) - 1)
    index[:, -1] = torch.randint(len(steps), (batch_size,), generator=random)
    x = torch.cat(
        [
            torch.stack([block[int(choice)][row] for row, choice in enumerate(column)])
            for block, column in zip(inputs, index.T, strict=True)
        ],
        2,
    )
    index = index.repeat_interleave(rollout.segment.frames_per_block, 1)
    timesteps = torch.tensor([step.timestep for step in steps])[index]
    sigmas = torch.tensor([step.sigma for step in steps])[index]
    return NoisyLatents(x, timesteps.to(x.device), sigmas.to(x.device))
