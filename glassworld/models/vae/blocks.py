"""The layers of the VAE's encoder and decoder (Wan 2.1's architecture).

Activations are `[batch, time, height, width, channels]`; see `causal_conv` for their causality.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.attention import attention
from glassworld.models.ops.norms import rms_norm_without_eps
from glassworld.models.ops.packed_weights import PackedWeights
from glassworld.models.vae.causal_conv import (
    CausalConv,
    FeatureCache,
    conv1x1,
    conv2d_frames,
    pack_conv_weight,
)
from glassworld.specs import VAESpec


class ChannelNorm(nn.Module):
    """An RMS norm over the channels without an epsilon: x / |x| * sqrt(channels) * gamma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `[..., channels]`."""
        return rms_norm_without_eps(x, self.gamma)


@lru_cache
def latent_statistics(
    spec: VAESpec, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of each latent channel, copied to a device once."""
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(values, dtype=dtype, device=device) for values in (spec.mean, spec.std)
        )
    return mean, std


def norm_silu(x: Tensor, norm: ChannelNorm) -> Tensor:
    """Apply the norm and SiLU, in place where there are no gradients."""
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and convolution, with a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(inputs)
        self.conv1 = CausalConv(inputs, outputs)
        self.norm2 = ChannelNorm(outputs)
        self.conv2 = CausalConv(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, outputs]`."""
        shortcut = x if self.shortcut is None else conv1x1(x, self.shortcut)
        x = self.conv1(norm_silu(x, self.norm1), cache)
        x = self.conv2(norm_silu(x, self.norm2), cache)
        return x + shortcut if torch.is_grad_enabled() else x.add_(shortcut)


class FrameAttention(nn.Module):
    """Single-head attention among the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each frame of `[b, t, h, w, c]`."""
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

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Apply the block to `[b, t, h, w, c]`."""
        return self.residual2(self.attention(self.residual1(x, cache)), cache)


class VAEHead(nn.Module):
    """Norm, SiLU and convolution to the output channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(inputs)
        self.conv = CausalConv(inputs, outputs)

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, outputs]`."""
        return self.conv(norm_silu(x, self.norm), cache)


class Downsample(nn.Module):
    """Half the height and width; with `temporal`, also half the frames after the first one."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        self.time_conv = TemporalDownsample(channels) if temporal else None

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, h, w, c]` to `[b, t or about t / 2, h / 2, w / 2, c]`."""
        x = conv2d_frames(F.pad(x, (0, 0, 0, 1, 0, 1)), self.conv.weight, self.conv.bias, stride=2)
        return x if self.time_conv is None else self.time_conv(x, cache)


class TemporalDownsample(CausalConv):
    """A stride of two over time: two frames become one; the clip's first frame stays as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel=1)

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:  # type: ignore[override]
        """Map `[b, t, h, w, c]` to `[b, t / 2, h, w, c]`, after the frame in the cache."""
        first = cache is None or cache.first
        frames = x if cache is None or first else torch.cat([cache.frames[self.name], x], 1)
        if cache is not None:
            cache.keep(self.name, x[:, -1:])
        if frames.shape[1] == 1:
            return x
        taps = torch.cat([frames[:, :-2:2], frames[:, 1:-1:2], frames[:, 2::2]], -1)
        halved = conv1x1(taps, self)
        return torch.cat([x[:, :1], halved], 1) if first else halved


def polyphase_weight(weight: Tensor) -> Tensor:
    """Return the 2x2 weight that equals nearest upsampling and a 3x3 convolution.

    After nearest upsampling a 3x3 neighborhood covers two rows and two columns of the original;
    taps that fall on the same pixel are summed. `[out, in, 3, 3]` becomes `[4 * out, in, 2, 2]`:
    the four output pixels (phases) of each input pixel, those of the upper row first.
    """
    first, second = [[1.0, 0, 0], [0, 1, 1]], [[1.0, 1, 0], [0, 0, 1]]
    phases = weight.new_tensor([first, second])  # [pixel, original row, row of the kernel]
    summed = torch.einsum("oikl,pmk,qnl->pqoimn", weight, phases, phases)
    return summed.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def interleave_phases(x: Tensor, channels: int) -> Tensor:
    """Return the output of a convolution with `polyphase_weight` as images of twice the size.

    `x`: `[b, t, h + 1, w + 1, 4 * channels]`, contiguous, where an output pixel of the lower row
    or the right column lies one further down or right than its neighbors. Returns
    `[b, t, 2h, 2w, channels]`.
    """
    b, t, rows, columns, _ = x.shape
    batch, time, row, column, _ = x.stride()
    pixels = x.as_strided(
        (b, t, rows - 1, 2, columns - 1, 2, channels),
        (batch, time, row, row + 2 * channels, column, column + channels, 1),
    )
    return pixels.reshape(b, t, 2 * (rows - 1), 2 * (columns - 1), channels)


class Upsample(nn.Module):
    """Twice the height and width, half the channels; with `temporal`, also twice the frames."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.time_conv = TemporalUpsample(channels) if temporal else None
        self.packed = PackedWeights()

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, h, w, c]` to `[b, t or about 2t, 2h, 2w, c / 2]`."""
        if self.time_conv is not None:
            x = self.time_conv(x, cache)
        assert self.conv.bias is not None
        weight = self.packed.get(self.conv.weight, polyphase_weight)
        weight = pack_conv_weight(weight, x, 1, self.packed)
        bias = self.packed.get(self.conv.bias, lambda bias: bias.repeat(4), "bias")
        return interleave_phases(conv2d_frames(x, weight, bias, 1), self.conv.out_channels)


class TemporalUpsample(CausalConv):
    """One frame becomes two, the halves of the output's channels; the clip's first one stays.

    That first frame never enters the cache: the second one starts from zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, kernel=1)

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:  # type: ignore[override]
        """Map `[b, t, h, w, c]` to `[b, 2t, h, w, c]`; at the start of a clip to 2t - 1 frames."""
        first = cache is None or cache.first
        rest = x[:, 1:] if first else x
        if rest.shape[1]:
            rest = interleave_frames(super().forward(rest, cache))
        return torch.cat([x[:, :1], rest], 1) if first else rest


def interleave_frames(x: Tensor) -> Tensor:
    """Return the halves of the channels `[b, t, h, w, 2 * c]` as frames `[b, 2 * t, h, w, c]`."""
    b, t, h, w, _ = x.shape
    return x.view(b, t, h, w, 2, -1).permute(0, 1, 4, 2, 3, 5).reshape(b, 2 * t, h, w, -1)
