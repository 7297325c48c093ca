"""The VAE decoder as the released code computes it: channels first, one `conv3d` after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from glassworld.models.vae.blocks import (
    ChannelNorm,
    FrameAttention,
    ResidualBlock,
    Upsample,
    VAEHead,
    latent_statistics,
)
from glassworld.models.vae.causal_conv import TAPS, CausalConv, FeatureCache, unfold_taps
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag


class EagerConv(nn.Module):
    """A `CausalConv` over planes `[b, c, t, h, w]`, padded by copies."""

    def __init__(self, own: CausalConv) -> None:
        super().__init__()
        self.name, self.bias = own.name, own.bias
        self.weight = nn.Parameter(unfold_taps(own.weight, TAPS), requires_grad=False)

    def forward(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Compute the layer."""
        past = memory.frames.get(self.name)
        if past is None:
            past = x.new_zeros(*x.shape[:2], TAPS - 1, *x.shape[3:])
        x = torch.cat([past, x], 2)
        memory.keep(self.name, x[:, :, 1 - TAPS :])
        return F.conv3d(F.pad(x, (self.weight.shape[-1] // 2,) * 4), self.weight, self.bias)


class EagerNorm(nn.Module):
    """A `ChannelNorm` over planes or images, by `normalize`."""

    def __init__(self, own: ChannelNorm) -> None:
        super().__init__()
        self.gamma = own.gamma

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        gamma = self.gamma.view(-1, *(1,) * (x.dim() - 2))
        return F.normalize(x, dim=1) * x.shape[1] ** 0.5 * gamma


class EagerResidual(nn.Module):
    """A `ResidualBlock` over planes."""

    def __init__(self, own: ResidualBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = EagerNorm(own.norm1), EagerNorm(own.norm2)
        self.conv1, self.conv2 = EagerConv(own.conv1), EagerConv(own.conv2)
        self.shortcut = own.shortcut

    def forward(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Compute the layer."""
        shortcut = x
        if self.shortcut is not None:
            shortcut = F.conv3d(x, self.shortcut.weight.unsqueeze(2), self.shortcut.bias)
        x = self.conv1(F.silu(self.norm1(x)), memory)
        return self.conv2(F.silu(self.norm2(x)), memory) + shortcut


class EagerFrameAttention(nn.Module):
    """A `FrameAttention` over planes."""

    def __init__(self, own: FrameAttention) -> None:
        super().__init__()
        self.norm, self.to_qkv, self.proj = EagerNorm(own.norm), own.to_qkv, own.proj

    def forward(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Compute the layer."""
        images = rearrange(x, "b c t h w -> (b t) c h w")
        qkv = self.to_qkv(self.norm(images)).flatten(2).transpose(1, 2).unsqueeze(1)
        q, k, v = qkv.contiguous().chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        mixed = self.proj(mixed.reshape(images.shape))
        return x + rearrange(mixed, "(b t) c h w -> b c t h w", b=len(x))


class EagerUpsample(nn.Module):
    """An `Upsample` over planes: repeats pixels, then convolves all of them."""

    def __init__(self, own: Upsample) -> None:
        super().__init__()
        self.time_conv = None if own.time_conv is None else EagerConv(own.time_conv)
        self.weight = nn.Parameter(own.conv.weight.contiguous(), requires_grad=False)
        self.bias = own.conv.bias

    def forward(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Compute the layer."""
        if self.time_conv is not None and not memory.first:
            halves = self.time_conv(x, memory).unflatten(1, (2, -1))
            x = torch.stack([halves[:, 0], halves[:, 1]], 3).flatten(2, 3)
        images = rearrange(x, "b c t h w -> (b t) c h w")
        large = F.interpolate(images.float(), scale_factor=2, mode="nearest-exact")
        mixed = F.conv2d(large.type_as(x), self.weight, self.bias, padding=1)
        return rearrange(mixed, "(b t) c h w -> b c t h w", b=len(x))


class EagerHead(nn.Module):
    """A `VAEHead` over planes."""

    def __init__(self, own: VAEHead) -> None:
        super().__init__()
        self.norm, self.conv = EagerNorm(own.norm), EagerConv(own.conv)

    def forward(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Compute the layer."""
        return self.conv(F.silu(self.norm(x)), memory)


class EagerDecoder(StreamingDecoder):
    """Replaces a `VAEDecoder` in a pipeline, with its weights."""

    def __init__(self, own: VAEDecoder) -> None:
        super().__init__()
        self.own, decoder = own, own.decoder
        self.conv1, self.head = EagerConv(decoder.conv1), EagerHead(decoder.head)
        middle = decoder.middle
        self.middle = nn.ModuleList(
            [
                EagerResidual(middle.residual1),
                EagerFrameAttention(middle.attention),
                EagerResidual(middle.residual2),
            ]
        )
        self.stages = nn.ModuleList(
            EagerUpsample(stage) if isinstance(stage, Upsample) else EagerResidual(stage)
            for stage in cast(Iterable[Upsample | ResidualBlock], decoder.stages)
        )

    def preprocess(self, latents: Tensor) -> Tensor:
        """Denormalize latents and apply the first 1x1 convolution."""
        mean, std = latent_statistics(self.own.spec, latents.dtype, latents.device)
        with tag(tags.DECODE_PRE):
            planes = latents * std.view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)
        with tag(tags.DECODE_CONV2):
            planes = F.conv3d(planes, self.own.conv2.weight.unsqueeze(2), self.own.conv2.bias)
        return planes.permute(0, 2, 3, 4, 1)  # a view: nothing is copied

    def decode_frame(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """Decode one latent frame."""
        planes = x.permute(0, 4, 1, 2, 3)
        with tag(tags.DEC_CONV1):
            planes = self.conv1(planes, memory)
        with tag(tags.DEC_MIDDLE):
            for part in self.middle:
                planes = part(planes, memory)
        with tag(tags.DEC_UPSAMPLE):
            for stage in self.stages:
                planes = stage(planes, memory)
        with tag(tags.DEC_HEAD):
            return self.head(planes, memory).permute(0, 2, 3, 4, 1)

    def to_bytes(self, pixels: Tensor) -> Tensor:
        """Convert pixels as the own decoder does."""
        return self.own.to_bytes(pixels)
