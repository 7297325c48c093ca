"""What a world is made of: frozen, validated when built, geometry derived once.

Lengths in latent frames unless a name says otherwise. Every size that the networks, the caches
and the pipeline use follows from these; none is written down twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from glassworld.errors import SpecError

SPACE_FACTOR = 8  # pixels per latent, each way
TIME_FACTOR = 4  # pixel frames per latent frame, after the first

# Per-channel statistics of the Wan 2.1 latents.
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


def require(condition: bool, message: str) -> None:
    """Raise `SpecError(message)` unless the condition holds."""
    if not condition:
        raise SpecError(message)


@dataclass(frozen=True)
class VAESpec:
    """The causal VAE. `width` is the base width; stage i is `width * multiples[i]` wide."""

    width: int = 96
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2  # per stage in the encoder; the decoder has one more
    temporal: tuple[bool, ...] = (False, True, True)  # which downsamplings halve time too
    latent_channels: int = 16
    mean: tuple[float, ...] = WAN_MEAN
    std: tuple[float, ...] = WAN_STD

    def __post_init__(self) -> None:
        require(self.width > 0 and self.residual_blocks > 0, "VAE: sizes must be positive")
        require(
            len(self.mean) == len(self.std) == self.latent_channels,
            f"VAE: need mean and std of {self.latent_channels} latent channels",
        )

    @cached_property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage, from full resolution down."""
        return tuple(self.width * multiple for multiple in self.multiples)

    @cached_property
    def encoder_reach(self) -> int:
        """How many latent frames back a latent can depend on pixels (28 as released).

        Each causal convolution reaches two frames back at its own frame rate; a temporal
        downsampling reaches two frames of the rate it halves.
        """
        reach, rate = 2, 1  # the input convolution; pixel frames per frame at this depth
        for index in range(len(self.multiples)):
            reach += rate * 2 * 2 * self.residual_blocks
            if index < len(self.temporal) and self.temporal[index]:
                reach += 2 * rate
                rate *= 2
        reach += rate * 2 * (4 + 1)  # two middle blocks and the head
        return -(-reach // TIME_FACTOR)
