"""A run from its first block to its last: block by block, or collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glassworld.engine.actions.track import ActionTrack, join_tracks
from glassworld.engine.media.html import video_html
from glassworld.engine.media.images import Frames
from glassworld.engine.pipeline import BlockOutput
from glassworld.specs import WorldSpec


@dataclass(frozen=True, repr=False)
class BlockReport:
    """One block of a run: its frames, its latents and its actions.

    `World.stream` yields one after each block, and `World.generate` gives it to `on_block`.
    """

    index: int
    total: int
    frames: Frames  # uint8 [n, H, W, 3]
    latents: Tensor  # [1, c, f, h, w] float32 on the CPU
    actions: ActionTrack  # one row per pixel frame
    seconds: float  # to generate it, decoding included

    def __repr__(self) -> str:
        return f"BlockReport({self.index + 1} of {self.total}, {len(self.frames)} frames)"


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
    frame_rate: int = 12  # content frames per second

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        blocks = len(self.timings.blocks)
        return f"Rollout({count} frames of {height}x{width}, {blocks} blocks)"

    def _repr_html_(self) -> str:
        """Return the video, for a notebook."""
        return f"<p>{self!r}</p>{video_html(self.frames, self.frame_rate)}"


def until_stopped(blocks: int, stop: Callable[[], bool] | None) -> Iterator[int]:
    """Yield the indices of `blocks` blocks, until `stop` returns True before one of them."""
    for index in range(blocks):
        if stop is not None and stop():
            return
        yield index


def report_blocks(
    blocks: Generator[BlockOutput], total: int, track: ActionTrack, frame: int
) -> Generator[BlockReport]:
    """Yield a report of each block; `frame` is the row of `track` of the first one's first frame.

    The time that the caller takes over a report counts for no block.
    """
    with closing(blocks):
        start = time.perf_counter()
        for index, block in enumerate(blocks):
            frames, latents = block.frames()[0].numpy(), block.latents.float().cpu()
            seconds = time.perf_counter() - start
            actions = track.rows(frame, frame + len(frames))
            yield BlockReport(index, total, frames, latents, actions, seconds)
            frame += len(frames)
            start = time.perf_counter()


def collect_blocks(
    reports: Generator[BlockReport],
    spec: WorldSpec,
    num_latent_frames: int,
    initial: Tensor | None,
    began: float,
    on_block: Callable[[BlockReport], bool | None] | None,
) -> Rollout:
    """Return the rollout of all blocks, or of those until `on_block` returned False.

    `num_latent_frames`: of all blocks, without the `initial` ones. `began`: when the caller asked
    for the run.
    """
    # Filled block by block: to join the blocks at the end would take the memory twice.
    frames = np.empty((spec.pixel_frames(num_latent_frames), spec.height, spec.width, 3), np.uint8)
    latents = [] if initial is None else [initial.float().cpu()]
    actions: list[ActionTrack] = []
    seconds: list[float] = []
    first_block, count = 0.0, 0
    with closing(reports):
        for report in reports:
            frames[count : count + len(report.frames)] = report.frames
            count += len(report.frames)
            latents.append(report.latents)
            actions.append(report.actions)
            seconds.append(report.seconds)
            first_block = first_block or time.perf_counter() - began
            if on_block is not None and on_block(report) is False:
                break
    return Rollout(
        frames=frames[:count],
        latents=torch.cat(latents, 2),
        actions=join_tracks(actions),
        timings=Timings(first_block, tuple(seconds)),
        frame_rate=spec.frame_rate,
    )
