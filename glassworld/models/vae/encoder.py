"""The VAE's encoder: pixels to latents, one frame first and then four per latent frame."""

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

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, H, W, 3]` to `[b, latent frames, H / 8, W / 8, 2 * latent channels]`."""
        x = self.conv1(x, cache)
        for stage in self.stages:
            x = stage(x, cache)
        return self.head(self.middle(x, cache), cache)


class VAEEncoder(nn.Module):
    """Pixels to normalized latents: (mean - spec.mean) / spec.std, channel by channel."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.conv1 = nn.Conv2d(2 * spec.latent_channels, 2 * spec.latent_channels, 1)
        name_causal_layers(self)

    def forward(self, pixels: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Encode a clip, or its next chunk, as normalized latents.

        `pixels`: `[b, 3, t, h, w]` in [-1, 1], t = 1 + 4n for the start of a clip (always so
        without a cache), 4n after it. Returns latents `[b, c, 1 + n or n, h / 8, w / 8]`.
        """
        mean, _ = self.moments(pixels, cache)
        return mean

    def moments(self, pixels: Tensor, cache: FeatureCache | None = None) -> tuple[Tensor, Tensor]:
        """Return the normalized mean and the log of the unnormalized variance, for training.

        Shapes as in `forward`.
        """
        x = self.encoder(pixels.permute(0, 2, 3, 4, 1).contiguous(), cache)
        if cache is not None:
            cache.first = False
        mean, log_variance = conv1x1(x, self.conv1).chunk(2, -1)
        shift, scale = latent_statistics(self.spec, mean.dtype, mean.device)
        mean = (mean - shift) / scale
        return mean.permute(0, 4, 1, 2, 3), log_variance.permute(0, 4, 1, 2, 3)
