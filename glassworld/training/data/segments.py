"""Batches of segments for the transformer: latents of consecutive blocks and their conditions."""

from typing import NamedTuple

import torch
from torch import Tensor

from glassworld.models.transformer.action import ActionWindows
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.dataset import to_pixels
from glassworld.training.data.latents import NEAR_FRAMES, LatentEpisodes

MASK_CHANNELS = 4
WINDOW_ROWS = 12
"""Rows of actions that a latent frame sees."""
FAR_SHARE = 0.5
"""Share of the segments from inside an episode that know nothing of its start.

Their condition is the limit, as after minutes of play, and their start image is another one's.
"""
SETTLED_FRAMES = 7
"""Latent frames without input after which the view and its latents no longer change."""


class Segment(NamedTuple):
    """Consecutive blocks of B episodes.

    Attributes
    ----------
    start
        Latent frame of the episode at which the segment starts.
    latents
        [B, C, F, h, w].
    condition
        [B, 4 + C, F, h, w], mask and encoded condition.
    windows
        The actions that each latent frame sees; no mouse columns in modes without a mouse.
    start_images
        [B, 3, H, W] in [-1, 1].
    locations
        [B, F, P], see `Source.pose`.
    frames_per_block
        Latent frames per block.
    """

    start: int
    latents: Tensor
    condition: Tensor
    windows: ActionWindows
    start_images: Tensor
    locations: Tensor
    frames_per_block: int

    def to(self, device: torch.device) -> "Segment":
        """Copy to another device."""
        mouse = self.windows.mouse
        assert mouse is not None
        return Segment(
            self.start,
            self.latents.to(device),
            self.condition.to(device),
            ActionWindows(self.windows.keyboard.to(device), mouse.to(device)),
            self.start_images.to(device),
            self.locations.to(device),
            self.frames_per_block,
        )

    @property
    def known(self) -> Tensor:
        """Latents of all blocks but the last: the true history."""
        return self.latents[:, :, : -self.frames_per_block]

    def blocks(self, first: int, end: int) -> "Segment":
        """Return blocks `first` to `end` (exclusive)."""
        part = slice(first * self.frames_per_block, end * self.frames_per_block)
        mouse = self.windows.mouse
        assert mouse is not None
        return Segment(
            self.start + first * self.frames_per_block,
            self.latents[:, :, part],
            self.condition[:, :, part],
            ActionWindows(self.windows.keyboard[:, part], mouse[:, part]),
            self.start_images,
            self.locations[:, part],
            self.frames_per_block,
        )


def draw_segment(
    episodes: LatentEpisodes,
    batch_size: int,
    start_block: int,
    blocks: int,
    random: torch.Generator,
) -> Segment:
    """Draw segments of random episodes that start at one block, on the episodes' device."""
    rows = _random_episodes(episodes, batch_size, random)
    other_rows = _random_episodes(episodes, batch_size, random)
    far = torch.rand(batch_size, generator=random) < (FAR_SHARE if start_block else 0.0)
    far = far.to(rows.device)
    start, count = start_block * episodes.frames_per_block, blocks * episodes.frames_per_block
    frames = torch.arange(start, start + count, device=rows.device)
    return Segment(
        start,
        episodes.latents[rows, start : start + count].float().transpose(1, 2),
        _condition(episodes, rows, far, frames),
        action_windows(episodes.keyboard[rows], episodes.mouse[rows], frames),
        _start_pixels(episodes.start_images[torch.where(far, other_rows, rows)]),
        episodes.pose[rows][:, TIME_FACTOR * frames],
        episodes.frames_per_block,
    )


def draw_at_rest(
    episodes: LatentEpisodes, batch_size: int, blocks: int, random: torch.Generator
) -> Segment | None:
    """Draw segments of any length without input, which repeat a settled view.

    Returns
    -------
    None if no episode has a pause that is long enough.
    """
    still = (episodes.keyboard == 0).all(-1) & (episodes.mouse == 0).all(-1)
    settled = still[:, 1:].unfold(1, TIME_FACTOR * SETTLED_FRAMES, TIME_FACTOR).all(-1).nonzero()
    if not len(settled):
        return None
    rows, frame = settled[torch.randint(len(settled), (batch_size,), generator=random)].unbind(1)
    other_rows = _random_episodes(episodes, batch_size, random)
    far = (torch.rand(batch_size, generator=random) < FAR_SHARE).to(rows.device)
    count = blocks * episodes.frames_per_block
    frames = torch.arange(NEAR_FRAMES, NEAR_FRAMES + count, device=rows.device)
    view = episodes.latents[rows, frame + SETTLED_FRAMES].float()
    location = episodes.pose[rows, TIME_FACTOR * (frame + SETTLED_FRAMES)]
    keys, axes = episodes.keyboard.shape[-1], episodes.mouse.shape[-1]
    return Segment(
        NEAR_FRAMES,
        view.unsqueeze(2).expand(-1, -1, count, -1, -1),
        _condition(episodes, rows, far, frames),
        ActionWindows(
            episodes.keyboard.new_zeros(batch_size, count, WINDOW_ROWS, keys),
            episodes.mouse.new_zeros(batch_size, count, WINDOW_ROWS, axes),
        ),
        _start_pixels(episodes.start_images[torch.where(far, other_rows, rows)]),
        location[:, None].expand(-1, count, -1),
        episodes.frames_per_block,
    )


def continue_segment(
    episodes: LatentEpisodes,
    history: Tensor,
    keyboard: Tensor,
    mouse: Tensor,
    start_images: Tensor,
    blocks: int,
) -> Segment:
    """Make a segment of given latents and then `blocks` blocks whose truth is unknown (zeros).

    The condition is the limit, as after minutes of play.

    Parameters
    ----------
    episodes
        Provide the limit of the condition.
    history
        Latents of the first blocks, [B, C, F, h, w].
    keyboard
        Actions from the first row on that the first frame sees, [B, N, keys].
    mouse
        The same for the mouse, [B, N, 2] or [B, N, 0].
    start_images
        uint8 [B, H, W, 3].
    blocks
        Number of unknown blocks.
    """
    batch_size, unknown_frames = len(history), blocks * episodes.frames_per_block
    count = history.shape[2] + unknown_frames
    frames = torch.arange(NEAR_FRAMES, NEAR_FRAMES + count, device=history.device)
    rows = torch.zeros_like(frames[:1]).expand(batch_size)
    unknown = history.new_zeros(*history.shape[:2], unknown_frames, *history.shape[3:])
    return Segment(
        NEAR_FRAMES,
        torch.cat([history, unknown], 2),
        _condition(episodes, rows, rows == 0, frames),
        action_windows(keyboard, mouse, frames - NEAR_FRAMES + 3),
        _start_pixels(start_images),
        history.new_zeros(batch_size, count, episodes.pose.shape[-1]),
        episodes.frames_per_block,
    )


def _random_episodes(episodes: LatentEpisodes, count: int, random: torch.Generator) -> Tensor:
    """Draw episode numbers, the same ones on every device."""
    rows = torch.randint(len(episodes.latents), (count,), generator=random)
    return rows.to(episodes.latents.device)


def _start_pixels(images: Tensor) -> Tensor:
    """Convert uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [-1, 1]."""
    return to_pixels(images.unsqueeze(1)).squeeze(2)


def _condition(episodes: LatentEpisodes, rows: Tensor, far: Tensor, frames: Tensor) -> Tensor:
    """Return mask and condition of these frames, [B, 4 + C, F, h, w]."""
    near = (frames < NEAR_FRAMES)[None] & ~far[:, None]
    condition = episodes.condition[rows][:, frames.clamp(max=NEAR_FRAMES - 1)].float()
    limit = episodes.condition_limit.float()
    condition = torch.where(near[..., None, None, None], condition, limit)
    mask = (frames == 0).float().view(1, -1, 1, 1, 1)
    mask = mask.expand(*condition.shape[:2], MASK_CHANNELS, *condition.shape[3:])
    return torch.cat([mask, condition], 2).transpose(1, 2)


def action_windows(keyboard: Tensor, mouse: Tensor, frames: Tensor) -> ActionWindows:
    """Return the rows of actions that each latent frame f sees: 4f - 12 to 4f - 1.

    Row 0 stands for rows before the first.
    """
    row = torch.arange(WINDOW_ROWS, device=frames.device)
    index = (TIME_FACTOR * frames[:, None] - WINDOW_ROWS + row).clamp(min=0)
    return ActionWindows(keyboard[:, index], mouse[:, index])
