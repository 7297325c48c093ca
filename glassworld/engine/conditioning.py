"""The inputs of the network beside the noisy latents: the start image and the actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glassworld.engine.actions.track import ActionSpace, ActionTrack, Rows
from glassworld.engine.runtime.transfer import to_device
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.specs import TIME_FACTOR


@dataclass
class ImageLatents:
    """The latents of the video "the image, then gray", encoded as far as blocks need them.

    The encoder's receptive field is finite: after `encoder_receptive_field + 2` latent frames the
    latents stay the same to the bit, so no more are ever computed, however long the run.
    """

    pixels: Tensor  # [1, 3, 1, H, W] in [-1, 1]
    memory: FeatureCache
    latents: Tensor | None = None  # [1, c, frames so far, h, w]

    def missing(self, end: int, encoder: VAEEncoder) -> int:
        """Return how many latent frames must be encoded before frame `end` can be read."""
        done = 0 if self.latents is None else self.latents.shape[2]
        return max(0, min(end, encoder.spec.encoder_receptive_field + 2) - done)

    def encode(self, end: int, encoder: VAEEncoder) -> None:
        """Encode up to latent frame `end`."""
        count = self.missing(end, encoder)
        if count == 0:
            return
        shape = (1, 3, TIME_FACTOR, *self.pixels.shape[-2:])
        gray = self.pixels.new_zeros(shape)
        parts = [] if self.latents is None else [self.latents]
        if self.latents is None:
            parts.append(encoder(self.pixels, self.memory))
            count -= 1
        parts += [encoder(gray, self.memory) for _ in range(count)]
        self.latents = torch.cat(parts, 2)
        if self.latents.shape[2] == encoder.spec.encoder_receptive_field + 2:
            self.memory = FeatureCache()  # a fifth of a released session, and of no more use

    def condition(self, start: int, frames: int) -> Tensor:
        """Return the condition of latent frames `start` on: `[1, 4 + c, frames, h, w]`.

        A mask of four channels, 1 on the run's first latent frame, then the image latents, which
        past the encoder's receptive field are the last ones again.
        """
        assert self.latents is not None
        last = self.latents.shape[2] - 1
        if start + frames <= last + 1:
            latents = self.latents[:, :, start : start + frames]
        else:
            index = [min(frame, last) for frame in range(start, start + frames)]
            latents = torch.cat([self.latents[:, :, frame : frame + 1] for frame in index], 2)
        mask = torch.zeros_like(latents[:, :1]).expand(-1, TIME_FACTOR, -1, -1, -1).clone()
        if start == 0:
            mask[:, :, 0] = 1
        return torch.cat([mask, latents], 1)

    def copy(self) -> ImageLatents:
        """Return latents that can be encoded further on their own."""
        return ImageLatents(self.pixels, self.memory.copy(), self.latents)


@dataclass
class ActionHistory:
    """The actions of a session so far: the rows that blocks to come can still see.

    `keyboard` `[n, K]` and `mouse` `[n, 2]` (or None) are the rows of pixel frames `first` on.
    """

    keyboard: Rows
    mouse: Rows | None
    first: int = 0

    @staticmethod
    def of(track: ActionTrack | None, space: ActionSpace) -> ActionHistory:
        """Start with all rows of a track; without one, with none."""
        if track is not None:
            return ActionHistory(track.keyboard, track.mouse)
        mouse = np.zeros((0, 2), np.float32) if space.has_mouse else None
        return ActionHistory(np.zeros((0, len(space.keyboard)), np.float32), mouse)

    def append(self, keyboard: Rows, mouse: Rows | None, keep: int) -> None:
        """Add a block's rows; of the earlier rows only the last `keep` stay."""
        dropped = max(0, len(self.keyboard) - keep)
        self.first += dropped
        self.keyboard = np.concatenate([self.keyboard[dropped:], keyboard])
        if self.mouse is not None:
            assert mouse is not None
            self.mouse = np.concatenate([self.mouse[dropped:], mouse])

    def between(self, first: int, end: int | None = None) -> ActionHistory:
        """Return the history of pixel frames `first` to `end`, as far as their rows are kept."""
        first = max(first, self.first)
        rows = slice(first - self.first, None if end is None else max(0, end - self.first))
        mouse = None if self.mouse is None else self.mouse[rows]
        return ActionHistory(self.keyboard[rows], mouse, first)

    def windows(self, start: int, frames: int, rows: int, like: Tensor) -> ActionWindows:
        """Return the actions that latent frames `start` on see: frame f the `rows` before row 4f.

        Rows before the first repeat it. On the device and of the type of `like`.
        """
        ends = TIME_FACTOR * np.arange(start, start + frames)[:, None]
        index = np.maximum(ends - rows + np.arange(rows), 0) - self.first

        def window(table: Rows) -> Tensor:
            return to_device(torch.from_numpy(table[index])[None], like.device, like.dtype)

        return ActionWindows(
            window(self.keyboard), None if self.mouse is None else window(self.mouse)
        )

    def copy(self) -> ActionHistory:
        """Return a history of the same rows, which are never written in place."""
        return ActionHistory(self.keyboard, self.mouse, self.first)
