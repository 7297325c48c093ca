"""Batches for the transformer: stretches of blocks with everything it is told about them."""

from typing import NamedTuple

import torch
from torch import Tensor

from glassworld.models.action import ActionWindows
from glassworld.training.latents import NEAR_FRAMES, LatentPlay

BLOCK = 3
MASK_CHANNELS = 4
FAR_SHARE = 0.5
"""How many of the stretches that begin inside an episode are told nothing of its beginning, as
after minutes of play: grey at its limit, and the picture of some other episode."""


class Stretch(NamedTuple):
    """Consecutive blocks of B episodes, from latent frame `start` of each on.

    latents: [B, C, F, h, w]; condition: [B, 4 + C, F, h, w]; windows: the actions that each
    latent frame sees; pictures: [B, 3, H, W] in [-1, 1].
    """

    start: int
    latents: Tensor
    condition: Tensor
    windows: ActionWindows
    pictures: Tensor

    def to(self, device: torch.device) -> "Stretch":
        """The same on another device."""
        mouse = self.windows.mouse
        assert mouse is not None
        return Stretch(
            self.start,
            self.latents.to(device),
            self.condition.to(device),
            ActionWindows(self.windows.keyboard.to(device), mouse.to(device)),
            self.pictures.to(device),
        )

    def blocks(self, first: int, last: int) -> "Stretch":
        """Blocks `first` to `last` (not included) of this stretch."""
        part = slice(first * BLOCK, last * BLOCK)
        mouse = self.windows.mouse
        assert mouse is not None
        return Stretch(
            self.start + first * BLOCK,
            self.latents[:, :, part],
            self.condition[:, :, part],
            ActionWindows(self.windows.keyboard[:, part], mouse[:, part]),
            self.pictures,
        )


def draw(
    play: LatentPlay, batch: int, start_block: int, blocks: int, random: torch.Generator
) -> Stretch:
    """Stretches of random episodes that begin at the same block."""
    chosen = torch.randint(len(play.latents), (batch,), generator=random)
    strangers = torch.randint(len(play.latents), (batch,), generator=random)
    far = torch.rand(batch, generator=random) < (FAR_SHARE if start_block else 0.0)
    start, count = start_block * BLOCK, blocks * BLOCK
    frames = torch.arange(start, start + count)
    return Stretch(
        start,
        play.latents[chosen, start : start + count].float().transpose(1, 2),
        _condition(play, chosen, far, frames),
        windows(play.keyboard[chosen], play.mouse[chosen], frames),
        to_pictures(play.pictures[torch.where(far, strangers, chosen)]),
    )


def to_pictures(pictures: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _condition(play: LatentPlay, chosen: Tensor, far: Tensor, frames: Tensor) -> Tensor:
    near = (frames < NEAR_FRAMES)[None] & ~far[:, None]
    grey = play.grey[chosen][:, frames.clamp(max=NEAR_FRAMES - 1)].float()
    grey = torch.where(near[..., None, None, None], grey, play.far.float())
    mask = (frames == 0).float().view(1, -1, 1, 1, 1)
    mask = mask.expand(*grey.shape[:2], MASK_CHANNELS, *grey.shape[3:])
    return torch.cat([mask, grey], 2).transpose(1, 2)


def windows(keyboard: Tensor, mouse: Tensor, frames: Tensor, rows: int = 12) -> ActionWindows:
    """The rows each latent frame f sees, 4f - rows to 4f - 1, those before the first as it."""
    index = (4 * frames[:, None] - rows + torch.arange(rows)).clamp(min=0)
    return ActionWindows(keyboard[:, index], mouse[:, index])
