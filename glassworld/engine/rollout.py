"""A run from its first block to its last, and the reports on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from torch import Tensor

from glassworld.engine.actions.track import ActionTrack
from glassworld.engine.media.images import Frames
from glassworld.engine.pipeline import BlockOutput


@dataclass(frozen=True)
class BlockReport:
    """The report that `World.generate` gives its caller after each block."""

    index: int
    total: int
    frames: Frames  # uint8 [n, H, W, 3]
    seconds: float  # since the block before it, decoding included


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds of a rollout."""

    first_block: float  # from the call until the first block's frames
    blocks: tuple[float, ...]  # per block, decoding included


@dataclass(frozen=True, repr=False)
class Rollout:
    """A generated run."""

    frames: Frames  # uint8 [N, H, W, 3]
    latents: Tensor  # [1, c, T, h, w] float32 on the CPU, initial latents included
    actions: ActionTrack  # the rows of the new frames, one per pixel frame
    timings: Timings

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        blocks = len(self.timings.blocks)
        return f"Rollout({count} frames of {height}x{width}, {blocks} blocks)"


def collect_blocks(
    blocks: Generator[BlockOutput],
    total: int,
    began: float,
    on_block: Callable[[BlockReport], bool | None] | None,
) -> tuple[list[Frames], list[Tensor], Timings]:
    """Take up to `total` blocks as they come; return their frames, latents and times."""
    frames: list[Frames] = []
    latents: list[Tensor] = []
    seconds: list[float] = []
    first_block, end = 0.0, time.perf_counter()
    with closing(blocks):
        for index, block in enumerate(blocks):
            frames.append(block.frames()[0].numpy())
            latents.append(block.latents.float().cpu())
            start, end = end, time.perf_counter()
            seconds.append(end - start)
            first_block = first_block or end - began
            report = BlockReport(index, total, frames[-1], seconds[-1])
            if on_block is not None and on_block(report) is False:
                break
    return frames, latents, Timings(first_block, tuple(seconds))
