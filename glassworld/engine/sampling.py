"""Flow-matching sampling: noise levels, the steps of a run, and the noise itself.

x_t = (1 - sigma) x0 + sigma noise; the network predicts the flow noise - x0. Steps are numbers
on the host, so nothing here waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glassworld.errors import InputError

TRAINING_STEPS = 1000
MAX_SEED = 2**63 - 1

NoiseMode = Literal["run", "blocks"]
"""Draw a run's noise all first, as the reference does, or when each block begins."""


class DenoisingStep(NamedTuple):
    """A denoising step: the timestep that the network gets, and its share of noise."""

    timestep: float  # 0..1000
    sigma: float  # 0..1


@dataclass(frozen=True)
class FlowSchedule:
    """Noise levels, moved towards noise by `shift`: s' = shift s / (1 + (shift - 1) s)."""

    shift: float = 5.0

    @cached_property
    def sigmas(self) -> npt.NDArray[np.float64]:
        """The noise levels of the 1000 training steps, from 1 down, without 0."""
        even = np.linspace(1.0, 0.0, TRAINING_STEPS + 1)[:-1]
        return self.shift * even / (1 + (self.shift - 1) * even)

    @property
    def timesteps(self) -> npt.NDArray[np.float64]:
        """The timesteps of the noise levels, from 1000 down."""
        return self.sigmas * TRAINING_STEPS

    def step(self, timestep: float) -> DenoisingStep:
        """Return the step at a timestep, with the noise level of the nearest training step."""
        nearest = int(np.abs(self.timesteps - timestep).argmin())
        return DenoisingStep(float(timestep), float(self.sigmas[nearest]))

    def steps(self, listed: tuple[int, ...], warp: bool) -> tuple[DenoisingStep, ...]:
        """Return the steps of a configuration's list.

        Warped, entry k means the (1000 - k)th timestep.
        """
        if not warp:
            return tuple(self.step(entry) for entry in listed)
        timesteps = np.append(self.timesteps, 0.0)
        return tuple(self.step(timesteps[TRAINING_STEPS - entry]) for entry in listed)


def flow_to_x0(x: Tensor, flow: Tensor, step: DenoisingStep) -> Tensor:
    """Return x0 = x - sigma flow, computed in float64."""
    return (x.double() - step.sigma * flow.double()).to(x.dtype)


def renew_noise(x: Tensor, x0: Tensor, step: DenoisingStep, fresh: Tensor, eta: float) -> Tensor:
    """Return the noise to go on with after a step from `x` to `x0`.

    `eta` is the share of new noise, as in DDIM (Song et al., 2021). With 0 it is the noise in
    `x`, and the next step goes on along the flow, as Euler's method does; with 1 it is `fresh`
    alone, as the released, distilled models expect it.
    """
    if eta == 1:
        return fresh
    noise = (x - (1 - step.sigma) * x0) / step.sigma
    return math.sqrt(1 - eta**2) * noise + eta * fresh


def add_noise(x0: Tensor, noise: Tensor, step: DenoisingStep) -> Tensor:
    """Add noise to x0, up to a step's noise level."""
    return (1 - step.sigma) * x0 + step.sigma * noise


class NoiseSource:
    """Noise for the blocks of one session, and new noise between its denoising steps.

    One generator on the CPU, whatever the device. With the length of the run known, all blocks'
    noise is drawn first and then the new noise in order: the order of the released models, which
    golden runs depend on. Without it, each block's noise is drawn when the block begins.
    """

    def __init__(self, seed: int, frame_shape: tuple[int, int, int], frames: int | None) -> None:
        """Seed the generator, and draw the noise of a run of `frames` latent frames if known.

        `frame_shape`: (channels, rows, columns) of a latent frame.
        """
        self.frame_shape = frame_shape
        self.generator = torch.Generator().manual_seed(seed)
        self.run = None if frames is None else self._draw(frames)
        self.open_ended = False  # goes on past the end of the run, block by block

    def block_noise(self, start: int, frames: int) -> Tensor:
        """Return the noise `[1, c, frames, h, w]` of the block at the run's new frame `start`."""
        if self.run is not None and self.open_ended and start >= self.run.shape[2]:
            self.run = None
        self.check_left(start, frames)
        return self._draw(frames) if self.run is None else self.run[:, :, start : start + frames]

    def check_left(self, start: int, frames: int) -> None:
        """Raise `InputError` if a run of known length ends before the block at frame `start`."""
        if self.run is not None and not self.open_ended and start + frames > self.run.shape[2]:
            raise InputError(
                f"this session was started for {self.run.shape[2]} latent frames"
                "; start one for more"
            )

    def step_noise(self, frames: int) -> Tensor:
        """Draw the noise between two steps `[1, c, frames, h, w]`.

        The reference draws like a block that lies channels first in memory and is seen frames
        first; torch fills such a view in an order of its own, which golden runs depend on.
        """
        channels, rows, columns = self.frame_shape
        frames_first = torch.empty(channels, frames, rows, columns).transpose(0, 1)
        return frames_first.normal_(generator=self.generator).transpose(0, 1).unsqueeze(0)

    def copy(self) -> NoiseSource:
        """Return a source that will draw the same."""
        twin = object.__new__(NoiseSource)
        twin.frame_shape, twin.run, twin.open_ended = self.frame_shape, self.run, self.open_ended
        twin.generator = torch.Generator()
        twin.generator.set_state(self.generator.get_state())
        return twin

    def _draw(self, frames: int) -> Tensor:
        channels, rows, columns = self.frame_shape
        return torch.randn(1, channels, frames, rows, columns, generator=self.generator)
