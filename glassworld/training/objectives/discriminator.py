"""A discriminator of latents: it tells continuations by the simulator from generated ones.

A model trained on squared errors alone answers uncertainty with the mean of all possibilities: the
mean of many rooms is a plain wall. The discriminator instead judges what a rollout shows, wherever
it has led, without a truth to compare with: adversarial post-training (Lin et al., 2025), here of
a model that continues its own history. The losses are relativistic, with the gradient penalty on
real and on generated latents that makes them converge (R3GAN, Huang et al., 2024).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.transformer.action import ActionWindows
from glassworld.training.data.segments import WINDOW_ROWS

CLIP_FRAMES = 6
"""Latent frames that are judged together, so that the later ones have to continue the others."""
MOUSE_GAIN = 10.0
"""A mouse value is 0.1 per frame; keys are 0 or 1."""


class LatentClip(NamedTuple):
    """Latents [B, C, F, h, w] of consecutive blocks and the actions that each frame sees."""

    latents: Tensor
    windows: ActionWindows


class _ResidualBlock(nn.Module):
    """Two convolutions with a shortcut. The actions scale and shift the features in between."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.told = nn.Linear(embedding, 2 * width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        scale, shift = self.told(actions)[..., None, None].chunk(2, 1)
        inner = self.first(F.silu(self.norm(x)))
        return x + self.second(F.silu(inner * (1 + scale) + shift))


class Discriminator(nn.Module):
    """A convolutional network with the frames side by side as channels, at two scales.

    Its score is the sum of the means over the positions of each scale. The names of its layers are
    keys of checkpoints (`critic/state.pt`).

    Parameters
    ----------
    channels
        Channels of a latent frame.
    actions
        Numbers in one row of actions, keys and mouse.
    rows
        Rows of actions that a latent frame sees.
    width
        Channels of the convolutions.
    """

    def __init__(
        self, channels: int = 16, actions: int = 6, rows: int = WINDOW_ROWS, width: int = 128
    ) -> None:
        super().__init__()
        frames, embedding = CLIP_FRAMES, 64
        self.tell = nn.Sequential(
            nn.Linear(frames * rows * actions, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.enter = nn.Conv2d(frames * channels, width, 3, padding=1)
        self.near = nn.ModuleList(_ResidualBlock(width, embedding) for _ in range(2))
        self.reduce = nn.Conv2d(width, width, 2, stride=2)
        self.far = nn.ModuleList(_ResidualBlock(width, embedding) for _ in range(2))
        self.score = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(2))

    def forward(self, clip: LatentClip) -> Tensor:
        """Score how real each clip looks, [B]. Only differences of two scores have a meaning."""
        mouse = clip.windows.mouse
        assert mouse is not None
        rows = torch.cat([clip.windows.keyboard, MOUSE_GAIN * mouse], -1)
        actions = self.tell(rows.flatten(1))
        x = self.enter(clip.latents.flatten(1, 2))
        for layer in self.near:
            x = layer(x, actions)
        scores = self.score[0](x).mean((1, 2, 3))
        x = self.reduce(x)
        for layer in self.far:
            x = layer(x, actions)
        return scores + self.score[1](F.silu(x)).mean((1, 2, 3))


def discriminator_loss(
    discriminator: Discriminator,
    real: LatentClip,
    generated: LatentClip,
    gradient_penalty: float,
) -> Tensor:
    """Return the loss of the discriminator: relativistic, with a penalty on steep gradients."""
    real, generated = _with_input_gradient(real), _with_input_gradient(generated)
    real_score, generated_score = discriminator(real), discriminator(generated)
    gradients = torch.autograd.grad(
        real_score.sum() + generated_score.sum(),
        [real.latents, generated.latents],
        create_graph=True,
    )
    steepness = sum(gradient.square().sum((1, 2, 3, 4)).mean() for gradient in gradients)
    return F.softplus(generated_score - real_score).mean() + gradient_penalty / 2 * steepness


def generator_loss(discriminator: Discriminator, real: LatentClip, generated: LatentClip) -> Tensor:
    """Return the loss of the model that generated the clips: they should outscore real ones."""
    discriminator.requires_grad_(False)  # It is not trained by this loss, and gradients cost time.
    loss = F.softplus(discriminator(real) - discriminator(generated)).mean()
    discriminator.requires_grad_(True)
    return loss


def _with_input_gradient(clip: LatentClip) -> LatentClip:
    return clip._replace(latents=clip.latents.detach().requires_grad_())
