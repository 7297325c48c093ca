"""A critic of latents: is this how the simulator goes on under these actions, or made up?

What learns by squared errors alone answers doubt with the mean of all that is possible, and a
plain wall is the mean of many rooms. The critic judges what comes out instead, wherever play has
led, so that there need be no truth to compare it with: adversarial post-training (Lin et al.,
2025), here of a model that plays from its own history. Losses are relativistic, with the gradient
penalty at real and at made latents that makes them converge (R3GAN, Huang et al., 2024).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.transformer.action import ActionWindows
from glassworld.training.data.segments import BLOCK

CLIP_BLOCKS = 2
"""Blocks that are judged together, so that the second has to go on where the first ended."""
MOUSE_UNITS = 10.0
"""A mouse unit is 0.1 a frame; keys are 0 or 1."""


class Clip(NamedTuple):
    """Latents [B, C, F, h, w] of consecutive blocks and the actions that each frame sees."""

    latents: Tensor
    windows: ActionWindows


class _Residual(nn.Module):
    """Two convolutions around a shortcut; the actions scale and shift what lies between."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.told = nn.Linear(told, 2 * width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        scale, shift = self.told(actions)[..., None, None].chunk(2, 1)
        inner = self.first(F.silu(self.norm(x)))
        return x + self.second(F.silu(inner * (1 + scale) + shift))


class Discriminator(nn.Module):
    """Frames side by side as channels, at two scales; a score for each place, then their mean.

    Args:
        channels: of a latent frame.
        actions: numbers in one row of actions, keys and mouse.
        window: rows that a latent frame sees.
    """

    def __init__(
        self, channels: int = 16, actions: int = 6, window: int = 12, width: int = 128
    ) -> None:
        super().__init__()
        frames, told = CLIP_BLOCKS * BLOCK, 64
        self.tell = nn.Sequential(
            nn.Linear(frames * window * actions, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU()
        )
        self.enter = nn.Conv2d(frames * channels, width, 3, padding=1)
        self.near = nn.ModuleList(_Residual(width, told) for _ in range(2))
        self.reduce = nn.Conv2d(width, width, 2, stride=2)
        self.far = nn.ModuleList(_Residual(width, told) for _ in range(2))
        self.score = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(2))

    def forward(self, clip: Clip) -> Tensor:
        """How real each clip looks, [B]; only differences of two scores mean anything."""
        mouse = clip.windows.mouse
        assert mouse is not None
        rows = torch.cat([clip.windows.keyboard, MOUSE_UNITS * mouse], -1)
        actions = self.tell(rows.flatten(1))
        x = self.enter(clip.latents.flatten(1, 2))
        for layer in self.near:
            x = layer(x, actions)
        scores = self.score[0](x).mean((1, 2, 3))
        x = self.reduce(x)
        for layer in self.far:
            x = layer(x, actions)
        return scores + self.score[1](F.silu(x)).mean((1, 2, 3))


def critic_loss(critic: Discriminator, real: Clip, made: Clip, penalty: float) -> Tensor:
    """What the critic lowers: made clips that score like real ones, and steep slopes at both."""
    at_real, at_made = (_leaf(clip) for clip in (real, made))
    for_real, for_made = critic(at_real), critic(at_made)
    slopes = torch.autograd.grad(
        for_real.sum() + for_made.sum(), [at_real.latents, at_made.latents], create_graph=True
    )
    steepness = sum(slope.square().sum((1, 2, 3, 4)).mean() for slope in slopes)
    return F.softplus(for_made - for_real).mean() + penalty / 2 * steepness


def generator_loss(critic: Discriminator, real: Clip, made: Clip) -> Tensor:
    """What the maker of clips lowers: real clips that score above its own."""
    critic.requires_grad_(False)  # it is not the one who learns, and its gradients cost time
    loss = F.softplus(critic(real) - critic(made)).mean()
    critic.requires_grad_(True)
    return loss


def _leaf(clip: Clip) -> Clip:
    return clip._replace(latents=clip.latents.detach().requires_grad_())
