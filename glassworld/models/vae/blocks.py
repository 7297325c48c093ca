"""The layers the VAE's encoder and decoder are built from (Wan 2.1's architecture).

Activations are `[batch, time, height, width, channels]`; see `vae_convs` for their causality.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.norms import rms_norm_without_eps
from glassworld.models.ops.packed_weights import PackedWeights
from glassworld.models.transformer.attention import attention
from glassworld.models.vae.causal_conv import (
    CausalConv,
    FeatureCache,
    conv1x1,
    conv2d_frames,
    pack_conv_weight,
)
from glassworld.specs import VAESpec


class ChannelNorm(nn.Module):
    """x / |x| * sqrt(channels) * gamma over the channels: an RMS norm without an epsilon."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm_without_eps(x, self.gamma)


@lru_cache
def latent_statistics(
    spec: VAESpec, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and spread of the latents, channel by channel; copied to a device once."""
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(each, dtype=dtype, device=device) for each in (spec.mean, spec.std)
        )
    return mean, std


def norm_silu(x: Tensor, norm: ChannelNorm) -> Tensor:
    """Norm and SiLU; without gradients in one storage."""
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(inputs)
        self.conv1 = CausalConv(inputs, outputs)
        self.norm2 = ChannelNorm(outputs)
        self.conv2 = CausalConv(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        shortcut = x if self.shortcut is None else conv1x1(x, self.shortcut)
        x = self.conv1(norm_silu(x, self.norm1), memory)
        x = self.conv2(norm_silu(x, self.norm2), memory)
        return x + shortcut if torch.is_grad_enabled() else x.add_(shortcut)


class FrameAttention(nn.Module):
    """Single-head attention among the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = conv1x1(self.norm(x), self.to_qkv).flatten(0, 1).flatten(1, 2)
        q, k, v = qkv.unsqueeze(1).chunk(3, -1)
        mixed = attention(q, k, v).squeeze(1).reshape(x.shape)
        return x + conv1x1(mixed, self.proj)


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual1 = ResidualBlock(channels, channels)
        self.attention = FrameAttention(channels)
        self.residual2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        return self.residual2(self.attention(self.residual1(x, memory)), memory)


class VAEHead(nn.Module):
    """Norm, SiLU, convolution to the output channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(inputs)
        self.conv = CausalConv(inputs, outputs)

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        return self.conv(norm_silu(x, self.norm), memory)


class Downsample(nn.Module):
    """Half the height and width; with `temporal`, also half the frames after the first one."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        self.time_conv = TemporalDownsample(channels) if temporal else None

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        x = conv2d_frames(F.pad(x, (0, 0, 0, 1, 0, 1)), self.conv.weight, self.conv.bias, stride=2)
        return x if self.time_conv is None else self.time_conv(x, memory)


class TemporalDownsample(CausalConv):
    """Two frames become one, seeing the frame before them; the clip's first frame stays."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel=1)

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:  # type: ignore[override]
        first = memory is None or memory.first
        frames = x if memory is None or first else torch.cat([memory.frames[self.name], x], 1)
        if memory is not None:
            memory.keep(self.name, x[:, -1:])
        if frames.shape[1] == 1:
            return x
        taps = torch.cat([frames[:, :-2:2], frames[:, 1:-1:2], frames[:, 2::2]], -1)
        halved = conv1x1(taps, self)
        return torch.cat([x[:, :1], halved], 1) if first else halved


def polyphase_weight(weight: Tensor) -> Tensor:
    """A 3x3 weight for pictures of twice the size as a 2x2 one that makes four pixels of each.

    Of nearest upsampling, a 3x3 neighbourhood holds two rows and two columns of the original;
    those that fall together are added: `[out, in, 3, 3]` to `[4 * out, in, 2, 2]`, the output
    pixels of the upper row first.
    """
    first, second = [[1.0, 0, 0], [0, 1, 1]], [[1.0, 1, 0], [0, 0, 1]]
    falls = weight.new_tensor([first, second])  # [pixel, original row, row of the kernel]
    mixed = torch.einsum("oikl,pmk,qnl->pqoimn", weight, falls, falls)
    return mixed.flatten(0, 2).contiguous(memory_format=torch.channels_last)


class Upsample(nn.Module):
    """Twice the height and width, half the channels; with `temporal`, also twice the frames."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.time_conv = TemporalUpsample(channels) if temporal else None
        self.packed = PackedWeights()

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:
        if self.time_conv is not None:
            x = self.time_conv(x, memory)
        assert self.conv.bias is not None
        weight = pack_conv_weight(
            self.packed.get(self.conv.weight, polyphase_weight), x, 1, self.packed
        )
        bias = self.packed.get(self.conv.bias, lambda bias: bias.repeat(4), "bias")
        four = conv2d_frames(x, weight, bias, 1)
        return interleave_phases(four, self.conv.out_channels)


def interleave_phases(four: Tensor, channels: int) -> Tensor:
    """The pixels `polyphase_weight` made as pictures of twice the size.

    `four`: `[b, t, h + 1, w + 1, 4 * channels]`, contiguous, where an output pixel of the lower
    row or the right column stands one further down or right than its neighbours.
    """
    b, t, rows, columns, _ = four.shape
    batch, time, row, column, _ = four.stride()
    pixels = four.as_strided(
        (b, t, rows - 1, 2, columns - 1, 2, channels),
        (batch, time, row, row + 2 * channels, column, column + channels, 1),
    )
    return pixels.reshape(b, t, 2 * (rows - 1), 2 * (columns - 1), channels)


class TemporalUpsample(CausalConv):
    """One frame becomes two, its output's channel halves in turn; the clip's first one stays.

    That first frame never enters the memory: the second starts from zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, kernel=1)

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:  # type: ignore[override]
        first = memory is None or memory.first
        rest = x[:, 1:] if first else x
        if rest.shape[1]:
            rest = interleave_frames(super().forward(rest, memory))
        return torch.cat([x[:, :1], rest], 1) if first else rest


def interleave_frames(halves: Tensor) -> Tensor:
    """The two halves of the channels `[b, t, h, w, 2 * c]` as frames `[b, 2 * t, h, w, c]`."""
    b, t, h, w, _ = halves.shape
    return halves.view(b, t, h, w, 2, -1).permute(0, 1, 4, 2, 3, 5).reshape(b, 2 * t, h, w, -1)
