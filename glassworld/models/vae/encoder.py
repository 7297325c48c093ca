"""The VAE's encoder: pixels to latents, one frame and then four at a time."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from glassworld.models.vae.blocks import (
    Downsample,
    MiddleBlock,
    ResidualBlock,
    VAEHead,
    latent_statistics,
)
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache, conv1x1, name_causal_layers
from glassworld.specs import VAESpec


class Encoder(nn.Module):
    """Stages of residual blocks, each but the last followed by a downsampling."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        widths = (spec.width, *spec.stage_widths)
        self.conv1 = CausalConv(3, widths[0])
        self.stages = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            for block in range(spec.residual_blocks):
                self.stages.append(ResidualBlock(outputs if block else inputs, outputs))
            if index < len(spec.temporal):
                self.stages.append(Downsample(outputs, spec.temporal[index]))
        self.middle = MiddleBlock(widths[-1])
        self.head = VAEHead(widths[-1], 2 * spec.latent_channels)

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        x = self.conv1(x, memory)
        for stage in self.stages:
            x = stage(x, memory)
        return self.head(self.middle(x, memory), memory)


class VAEEncoder(nn.Module):
    """Pixels to normalised latents.

    The latents of the released models are scaled by the statistics in the spec, channel by
    channel: (mean - MEAN) / STD.
    """

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.conv1 = nn.Conv2d(2 * spec.latent_channels, 2 * spec.latent_channels, 1)
        name_causal_layers(self)

    def forward(self, pixels: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """Encode the frames of a clip, or of its next chunk.

        `pixels`: `[b, 3, t, h, w]` in [-1, 1], t = 1 + 4n for the start of a clip (always so
        without a memory), 4n after it. Returns latents `[b, c, 1 + n or n, h / 8, w / 8]`.
        """
        mean, _ = self.moments(pixels, memory)
        return mean

    def moments(self, pixels: Tensor, memory: FeatureCache | None = None) -> tuple[Tensor, Tensor]:
        """The normalised mean and the logarithm of the unnormalised variance, for training."""
        x = self.encoder(pixels.permute(0, 2, 3, 4, 1).contiguous(), memory)
        if memory is not None:
            memory.first = False
        mean, log_variance = conv1x1(x, self.conv1).chunk(2, -1)
        shift, scale = latent_statistics(self.spec, mean.dtype, mean.device)
        mean = (mean - shift) / scale
        return mean.permute(0, 4, 1, 2, 3), log_variance.permute(0, 4, 1, 2, 3)
