"""The layers the VAE's encoder and decoder are built from (Wan 2.1's architecture).

Activations are `[batch, time, height, width, channels]`, contiguous: for every convolution that
is a batch of channels-last pictures without a copy. A causal convolution over time and space is
one 2-D convolution over its temporal taps side by side in the channels: with the one to four
frames a streaming step has, narrow networks gain 5x to 20x on a CPU over `conv3d`, and at a
width of 96 the two are even. Weights are kept in that folded form (`fold_taps`).

Causal layers keep the end of their input in a `Memory`, so that a clip given in chunks comes out
as if it were given at once. Without a memory they start from zeros and remember nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.attention import attention

TAPS = 3  # the temporal kernel of every causal convolution


@dataclass
class Memory:
    """What the causal layers of one encoder or decoder remember between chunks.

    `frames[name]` is the end of a layer's last input, `[b, 1 or 2, h, w, c]`; a name that is
    absent stands for zeros. `first` is true until the first chunk has passed: it alone holds a
    frame that stands for itself in time instead of being one of four.
    """

    first: bool = True
    frames: dict[str, Tensor] = field(default_factory=dict)

    def copy(self) -> Memory:
        return Memory(self.first, {name: kept.clone() for name, kept in self.frames.items()})

    def keep(self, name: str, end: Tensor) -> None:
        """Remember `end`, in the storage of the last time where there is one."""
        if name in self.frames:
            self.frames[name].copy_(end)
        else:
            self.frames[name] = end.clone(memory_format=torch.contiguous_format)


def fold_taps(weight: Tensor) -> Tensor:
    """A conv3d weight `[out, in, t, h, w]` as the conv2d weight `[out, t * in, h, w]`."""
    out, channels, taps, height, width = weight.shape
    folded = weight.transpose(1, 2).reshape(out, taps * channels, height, width)
    return folded.contiguous(memory_format=torch.channels_last)


def unfold_taps(weight: Tensor, taps: int) -> Tensor:
    """The inverse of `fold_taps`."""
    out, channels, height, width = weight.shape
    return weight.reshape(out, taps, channels // taps, height, width).transpose(1, 2).contiguous()


def conv2d_frames(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 2-D convolution to every frame of `[b, t, h, w, c]`."""
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    pictures = F.conv2d(pictures, conv.weight, conv.bias, conv.stride, conv.padding)
    return pictures.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def name_causal_layers(network: nn.Module) -> None:
    """Give each causal layer its path in `network` as the name it remembers under."""
    for path, layer in network.named_modules():
        if isinstance(layer, CausalConv):
            layer.name = path


class CausalConv(nn.Conv2d):
    """A causal convolution over three frames and a `kernel x kernel` neighbourhood."""

    name = ""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(TAPS * inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:  # type: ignore[override]
        frames = x.shape[1]
        past = None if memory is None else memory.frames.get(self.name)
        if past is None and memory is None and frames == 1:
            return self.present(x)
        if past is None:
            past = x.new_zeros(x.shape[0], TAPS - 1, *x.shape[2:])
        x = torch.cat([past, x], 1)
        if memory is not None:
            memory.keep(self.name, x[:, -(TAPS - 1) :])
        taps = torch.cat([x[:, tap : tap + frames] for tap in range(TAPS)], -1)
        return conv2d_frames(taps, self)

    def present(self, x: Tensor) -> Tensor:
        """A lone picture: all before it is zero, so a third of the work is enough."""
        weight = self.weight[:, -x.shape[-1] :]
        pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
        pictures = F.conv2d(pictures, weight, self.bias, padding=self.padding)
        return pictures.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class ChannelNorm(nn.Module):
    """x / |x| * sqrt(channels) * gamma over the channels: an RMS norm without an epsilon."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.gamma.shape, self.gamma, eps=1e-24)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(inputs)
        self.conv1 = CausalConv(inputs, outputs)
        self.norm2 = ChannelNorm(outputs)
        self.conv2 = CausalConv(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        shortcut = x if self.shortcut is None else conv2d_frames(x, self.shortcut)
        x = self.conv1(F.silu(self.norm1(x)), memory)
        return self.conv2(F.silu(self.norm2(x)), memory) + shortcut


class FrameAttention(nn.Module):
    """Single-head attention among the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = conv2d_frames(self.norm(x), self.to_qkv).flatten(0, 1).flatten(1, 2)
        q, k, v = qkv.unsqueeze(1).chunk(3, -1)
        mixed = attention(q, k, v).squeeze(1).reshape(x.shape)
        return x + conv2d_frames(mixed, self.proj)


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual1 = ResidualBlock(channels, channels)
        self.attention = FrameAttention(channels)
        self.residual2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        return self.residual2(self.attention(self.residual1(x, memory)), memory)


class Head(nn.Module):
    """Norm, SiLU, convolution to the output channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(inputs)
        self.conv = CausalConv(inputs, outputs)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        return self.conv(F.silu(self.norm(x)), memory)


class Downsample(nn.Module):
    """Half the height and width; with `temporal`, also half the frames after the first one."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        self.time_conv = TimeStride(channels) if temporal else None

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        x = conv2d_frames(F.pad(x, (0, 0, 0, 1, 0, 1)), self.conv)
        return x if self.time_conv is None else self.time_conv(x, memory)


class TimeStride(CausalConv):
    """Two frames become one, seeing the frame before them; the clip's first frame stays."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel=1)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:  # type: ignore[override]
        first = memory is None or memory.first
        frames = x if memory is None or first else torch.cat([memory.frames[self.name], x], 1)
        if memory is not None:
            memory.keep(self.name, x[:, -1:])
        if frames.shape[1] == 1:
            return x
        taps = torch.cat([frames[:, :-2:2], frames[:, 1:-1:2], frames[:, 2::2]], -1)
        halved = conv2d_frames(taps, self)
        return torch.cat([x[:, :1], halved], 1) if first else halved


class Upsample(nn.Module):
    """Twice the height and width, half the channels; with `temporal`, also twice the frames."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.time_conv = TimeDouble(channels) if temporal else None

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        if self.time_conv is not None:
            x = self.time_conv(x, memory)
        b, t, h, w, c = x.shape
        doubled = x.view(b, t, h, 1, w, 1, c).expand(b, t, h, 2, w, 2, c)
        return conv2d_frames(doubled.reshape(b, t, 2 * h, 2 * w, c), self.conv)


class TimeDouble(CausalConv):
    """One frame becomes two, its output's channel halves in turn; the clip's first one stays.

    That first frame never enters the memory: the second starts from zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, kernel=1)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:  # type: ignore[override]
        first = memory is None or memory.first
        rest = x[:, 1:] if first else x
        if rest.shape[1]:
            b, t, h, w, c = rest.shape
            halves = super().forward(rest, memory).view(b, t, h, w, 2, c)
            rest = halves.permute(0, 1, 4, 2, 3, 5).reshape(b, 2 * t, h, w, c)
        return torch.cat([x[:, :1], rest], 1) if first else rest
