"""The VAE's streaming decoder: each latent frame becomes four frames, a clip's first only one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from glassworld.models.vae.blocks import (
    MiddleBlock,
    ResidualBlock,
    Upsample,
    VAEHead,
    latent_statistics,
)
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache, conv1x1, name_causal_layers
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import VAESpec


class Decoder(nn.Module):
    """Middle, then stages of residual blocks, each but the last followed by an upsampling."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        widths = spec.stage_widths[::-1]
        self.conv1 = CausalConv(spec.latent_channels, widths[0])
        self.middle = MiddleBlock(widths[0])
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for index, outputs in enumerate(widths):
            for _ in range(spec.residual_blocks + 1):
                self.stages.append(ResidualBlock(inputs, outputs))
                inputs = outputs
            if index < len(spec.temporal):
                self.stages.append(Upsample(outputs, spec.temporal[::-1][index]))
                inputs = outputs // 2
        self.head = VAEHead(widths[-1], 3)

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, h, w, latent channels]` to `[b, frames, 8h, 8w, 3]`."""
        with tag(tags.DEC_CONV1):
            x = self.conv1(x, cache)
        with tag(tags.DEC_MIDDLE):
            x = self.middle(x, cache)
        with tag(tags.DEC_UPSAMPLE):
            for stage in self.stages:
                x = stage(x, cache)
        with tag(tags.DEC_HEAD):
            return self.head(x, cache)


class VAEDecoder(StreamingDecoder):
    """Normalized latents to pixels."""

    fused = False  # set once its parts run by our kernels

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.conv2 = nn.Conv2d(spec.latent_channels, spec.latent_channels, 1)
        self.decoder = Decoder(spec)
        name_causal_layers(self)
        self.cached_layers = sum(isinstance(layer, CausalConv) for layer in self.modules())

    def forward(self, latents: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Decode a clip, or its next latent frames, at once.

        `latents`: `[b, c, t, h, w]`. Returns pixels in [-1, 1], `[b, 3, frames, 8h, 8w]`, with
        4t - 3 frames for the start of a clip (always so without a cache), 4t after it.
        """
        x = self.decoder(self.project(self.denormalize(latents)), cache)
        if cache is not None:
            cache.first = False
        return x.clamp(-1, 1).permute(0, 4, 1, 2, 3)

    def preprocess(self, latents: Tensor) -> Tensor:
        """Denormalize latents and apply the first 1x1 convolution."""
        with tag(tags.DECODE_PRE):
            x = self.denormalize(latents)
        with tag(tags.DECODE_CONV2):
            return self.project(x)

    def decode_frame(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """Return pixels about [-1, 1], not yet clipped."""
        with self.eagerly_until_settled(cache):
            pixels: Tensor = self.decoder(x, cache)
        return pixels

    def eagerly_until_settled(self, cache: FeatureCache) -> AbstractContextManager[None]:
        """Return a context that runs a clip's first two latent frames without the compiler.

        Their layers find no past in the cache yet: each frame would be compiled as a version of
        its own, which takes long and is used once a session.
        """
        if self.compiled and len(cache.frames) < self.cached_layers:
            return torch.compiler.set_stance("force_eager")
        return nullcontext()

    def denormalize(self, latents: Tensor) -> Tensor:
        """Return latents * std + mean, with channels last, `[b, t, h, w, c]`."""
        x = latents.permute(0, 2, 3, 4, 1)
        mean, std = latent_statistics(self.spec, x.dtype, x.device)
        return (x * std + mean).contiguous()

    def project(self, x: Tensor) -> Tensor:
        """Apply the decoder's first 1x1 convolution."""
        return conv1x1(x, self.conv2)

    def to_bytes(self, pixels: Tensor) -> Tensor:
        """Return (x + 1) * 127.5, clipped and truncated as the reference implementation does."""
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).clamp(0, 255).to(torch.uint8)
