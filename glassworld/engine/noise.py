"""Where a session's noise comes from: one CPU generator per run, whatever the device."""

from __future__ import annotations

import torch
from torch import Tensor

from glassworld.errors import InputError

LARGEST_SEED = 2**63 - 1


class NoiseSource:
    """Noise for the blocks of one session, and fresh noise between its denoising steps.

    With the length of the run known, all blocks' noise is drawn first and then the fresh noise
    in order: the released models' draw, which golden runs depend on. Without it, each block's
    noise is drawn when the block begins.
    """

    def __init__(self, seed: int, frame_shape: tuple[int, int, int], frames: int | None) -> None:
        """`frame_shape`: (channels, rows, columns) of a latent frame; `frames`: the run's."""
        if not 0 <= seed <= LARGEST_SEED:
            raise InputError(f"seed {seed}: must lie between 0 and {LARGEST_SEED}")
        self.frame_shape = frame_shape
        self.generator = torch.Generator().manual_seed(seed)
        self.run = None if frames is None else self._draw(frames)

    def block(self, start: int, frames: int) -> Tensor:
        """The noise `[1, c, frames, h, w]` of the block at the run's new frame `start`."""
        if self.run is None:
            return self._draw(frames)
        if start + frames > self.run.shape[2]:
            raise InputError(f"this session was started for {self.run.shape[2]} latent frames")
        return self.run[:, :, start : start + frames]

    def fresh(self, frames: int) -> Tensor:
        """Noise between two steps `[1, c, frames, h, w]`.

        The reference draws like a block that lies channels first in memory and is seen frames
        first; torch fills such a view in an order of its own, which golden runs depend on.
        """
        channels, rows, columns = self.frame_shape
        frames_first = torch.empty(channels, frames, rows, columns).transpose(0, 1)
        return frames_first.normal_(generator=self.generator).transpose(0, 1).unsqueeze(0)

    def copy(self) -> NoiseSource:
        """A source that will draw the same."""
        twin = object.__new__(NoiseSource)
        twin.frame_shape, twin.run = self.frame_shape, self.run
        twin.generator = torch.Generator()
        twin.generator.set_state(self.generator.get_state())
        return twin

    def _draw(self, frames: int) -> Tensor:
        channels, rows, columns = self.frame_shape
        return torch.randn(1, channels, frames, rows, columns, generator=self.generator)
