"""Batches for the transformer: stretches of blocks with everything it is told about them."""

from typing import NamedTuple

import torch
from torch import Tensor

from glassworld.models.transformer.action import ActionWindows
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.latents import NEAR_FRAMES, LatentPlay

BLOCK = 3
MASK_CHANNELS = 4
FAR_SHARE = 0.5
"""How many of the stretches that begin inside an episode are told nothing of its beginning, as
after minutes of play: grey at its limit, and the picture of some other episode."""


MAZE_CENTRE, MAZE_SPREAD = (620.0, -175.0), 230.0
"""Of the places that play visits, in map units."""
SETTLED = 7
"""Latent frames without a key after which the view and its latents no longer change."""


class Segment(NamedTuple):
    """Consecutive blocks of B episodes, from latent frame `start` of each on.

    latents: [B, C, F, h, w]; condition: [B, 4 + C, F, h, w]; windows: the actions that each
    latent frame sees; pictures: [B, 3, H, W] in [-1, 1]; whereabouts: [B, F, 4], see `locate`.
    """

    start: int
    latents: Tensor
    condition: Tensor
    windows: ActionWindows
    pictures: Tensor
    whereabouts: Tensor

    def to(self, device: torch.device) -> "Segment":
        """The same on another device."""
        mouse = self.windows.mouse
        assert mouse is not None
        return Segment(
            self.start,
            self.latents.to(device),
            self.condition.to(device),
            ActionWindows(self.windows.keyboard.to(device), mouse.to(device)),
            self.pictures.to(device),
            self.whereabouts.to(device),
        )

    def blocks(self, first: int, last: int) -> "Segment":
        """Blocks `first` to `last` (not included) of this stretch."""
        part = slice(first * BLOCK, last * BLOCK)
        mouse = self.windows.mouse
        assert mouse is not None
        return Segment(
            self.start + first * BLOCK,
            self.latents[:, :, part],
            self.condition[:, :, part],
            ActionWindows(self.windows.keyboard[:, part], mouse[:, part]),
            self.pictures,
            self.whereabouts[:, part],
        )


def draw(
    play: LatentPlay, batch: int, start_block: int, blocks: int, random: torch.Generator
) -> Segment:
    """Stretches of random episodes that begin at the same block, where the play is."""
    chosen, strangers = _episodes(play, batch, random), _episodes(play, batch, random)
    far = torch.rand(batch, generator=random) < (FAR_SHARE if start_block else 0.0)
    far = far.to(chosen.device)
    start, count = start_block * BLOCK, blocks * BLOCK
    frames = torch.arange(start, start + count, device=chosen.device)
    return Segment(
        start,
        play.latents[chosen, start : start + count].float().transpose(1, 2),
        _condition(play, chosen, far, frames),
        windows(play.keyboard[chosen], play.mouse[chosen], frames),
        to_pictures(play.pictures[torch.where(far, strangers, chosen)]),
        locate(play.pose[chosen][:, TIME_FACTOR * frames]),
    )


def at_rest(play: LatentPlay, batch: int, blocks: int, random: torch.Generator) -> Segment | None:
    """Stretches of any length without a key: views that have settled, held on.

    None if nobody ever stood still for that long.
    """
    still = (play.keyboard == 0).all(-1) & (play.mouse == 0).all(-1)
    settled = still[:, 1:].unfold(1, TIME_FACTOR * SETTLED, TIME_FACTOR).all(-1).nonzero()
    if not len(settled):
        return None
    chosen, frame = settled[torch.randint(len(settled), (batch,), generator=random)].unbind(1)
    strangers = _episodes(play, batch, random)
    far = (torch.rand(batch, generator=random) < FAR_SHARE).to(chosen.device)
    count = blocks * BLOCK
    frames = torch.arange(NEAR_FRAMES, NEAR_FRAMES + count, device=chosen.device)
    view = play.latents[chosen, frame + SETTLED].float()
    return Segment(
        NEAR_FRAMES,
        view.unsqueeze(2).expand(-1, -1, count, -1, -1),
        _condition(play, chosen, far, frames),
        ActionWindows(
            play.keyboard.new_zeros(batch, count, 12, play.keyboard.shape[-1]),
            play.mouse.new_zeros(batch, count, 12, play.mouse.shape[-1]),
        ),
        to_pictures(play.pictures[torch.where(far, strangers, chosen)]),
        locate(play.pose[chosen, TIME_FACTOR * (frame + SETTLED)])[:, None].expand(-1, count, -1),
    )


def onward(
    play: LatentPlay,
    history: Tensor,
    keyboard: Tensor,
    mouse: Tensor,
    pictures: Tensor,
    blocks: int,
) -> Segment:
    """The latents of some blocks [B, C, F, h, w] and then `blocks` whose truth nobody knows.

    `keyboard`, `mouse`: the actions from the first row on that the first frame sees;
    `pictures`: uint8 [B, H, W, 3]. The episodes' beginning is long forgotten.
    """
    batch, count = len(history), history.shape[2] + blocks * BLOCK
    frames = torch.arange(NEAR_FRAMES, NEAR_FRAMES + count, device=history.device)
    everyone = torch.zeros_like(frames[:1]).expand(batch)
    unknown = history.new_zeros(*history.shape[:2], blocks * BLOCK, *history.shape[3:])
    return Segment(
        NEAR_FRAMES,
        torch.cat([history, unknown], 2),
        _condition(play, everyone, everyone == 0, frames),
        windows(keyboard, mouse, frames - NEAR_FRAMES + 3),
        to_pictures(pictures),
        history.new_zeros(batch, count, 4),
    )


def _episodes(play: LatentPlay, count: int, random: torch.Generator) -> Tensor:
    """The numbers of random episodes: the same wherever the play is."""
    return torch.randint(len(play.latents), (count,), generator=random).to(play.latents.device)


def locate(pose: Tensor) -> Tensor:
    """x, y and degrees [..., 3] as what a network can tell: x and y of about unit spread over
    the maze, cosine and sine of the heading [..., 4]."""
    place = (pose[..., :2] - pose.new_tensor(MAZE_CENTRE)) / MAZE_SPREAD
    heading = pose[..., 2:].deg2rad()
    return torch.cat([place, heading.cos(), heading.sin()], -1)


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
    row = torch.arange(rows, device=frames.device)
    index = (4 * frames[:, None] - rows + row).clamp(min=0)
    return ActionWindows(keyboard[:, index], mouse[:, index])
