"""The VAE's streaming decoder: one latent frame at a time, each to one (the first) or four."""

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

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        with tag(tags.DEC_CONV1):
            x = self.conv1(x, memory)
        with tag(tags.DEC_MIDDLE):
            x = self.middle(x, memory)
        with tag(tags.DEC_UPSAMPLE):
            for stage in self.stages:
                x = stage(x, memory)
        with tag(tags.DEC_HEAD):
            return self.head(x, memory)


class VAEDecoder(StreamingDecoder):
    """Normalised latents to pixels."""

    fused = False  # set when its parts run by kernels

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.conv2 = nn.Conv2d(spec.latent_channels, spec.latent_channels, 1)
        self.decoder = Decoder(spec)
        name_causal_layers(self)
        self.remembering = sum(isinstance(layer, CausalConv) for layer in self.modules())

    def forward(self, latents: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """Decode a clip, or its next latent frames, at once.

        `latents`: `[b, c, t, h, w]`. Returns pixels in [-1, 1], `[b, 3, frames, 8h, 8w]`, with
        4t - 3 frames for the start of a clip (always so without a memory), 4t after it.
        """
        x = self.decoder(self.project(self.denormalise(latents)), memory)
        if memory is not None:
            memory.first = False
        return x.clamp(-1, 1).permute(0, 4, 1, 2, 3)

    def preprocess(self, latents: Tensor) -> Tensor:
        with tag(tags.DECODE_PRE):
            x = self.denormalise(latents)
        with tag(tags.DECODE_CONV2):
            return self.project(x)

    def decode_frame(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Pixels about [-1, 1], not yet clipped."""
        with self.eagerly_until_settled(memory):
            pixels: Tensor = self.decoder(x, memory)
        return pixels

    def eagerly_until_settled(self, memory: FeatureCache) -> AbstractContextManager[None]:
        """The first two latent frames pass through layers that remember nothing yet: compiled,
        each would be a version of its own, made at length and used once a session."""
        if self.compiled and len(memory.frames) < self.remembering:
            return torch.compiler.set_stance("force_eager")
        return nullcontext()

    def denormalise(self, latents: Tensor) -> Tensor:
        x = latents.permute(0, 2, 3, 4, 1)
        mean, std = latent_statistics(self.spec, x.dtype, x.device)
        return (x * std + mean).contiguous()

    def project(self, x: Tensor) -> Tensor:
        return conv1x1(x, self.conv2)

    def to_bytes(self, pixels: Tensor) -> Tensor:
        """As the reference does: (x + 1) * 127.5, clipped, then truncated."""
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).clamp(0, 255).to(torch.uint8)
