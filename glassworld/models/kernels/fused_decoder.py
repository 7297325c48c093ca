"""The VAE's decoder with one kernel of ours between two convolutions (see `taps`).

The parts share their parameters with the plain ones and remember the same, so that a clip can go
on in either. What has nothing to remember from yet goes through the plain code. No gradients.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassworld.models.kernels.conv_epilogue import Pending, finished, lay, pending
from glassworld.models.vae.blocks import (
    Head,
    Middle,
    ResidualBlock,
    Upsample,
    in_turn,
    phases,
)
from glassworld.models.vae.causal_conv import (
    CausalConv,
    Memory,
    convolve,
    mix_channels,
    prefer_conv3d,
)
from glassworld.models.vae.decoder import VAEDecoder

LEAST = 128
"""From how many channels on `conv3d` makes the convolutions. On an H200, where taps are laid out
already, it was quicker but for 96 channels (1.8 ms instead of 0.6) and even for 384 at 88x160."""
Frames = Tensor | Pending
"""`[b, t, h, w, c]`, the last sum perhaps left to who reads them."""


def fuse_decoder(decoder: VAEDecoder) -> None:
    """Put the fused parts in place of the plain ones. Not for a decoder that is compiled."""
    inner = decoder.decoder
    inner.middle = FusedMiddle(inner.middle)
    for index, stage in enumerate(inner.stages):
        if isinstance(stage, Upsample):
            inner.stages[index] = FusedUpsample(stage)
        elif isinstance(stage, ResidualBlock):
            inner.stages[index] = FusedResidualBlock(stage)
    inner.head = FusedHead(inner.head)
    prefer_conv3d(decoder, LEAST)
    decoder.fused = True


def remembers(memory: Memory, *layers: CausalConv) -> bool:
    return all(layer.name in memory.frames for layer in layers)


class FusedResidualBlock(ResidualBlock):
    """A residual block that leaves its last sum to the part after it."""

    def __init__(self, plain: ResidualBlock) -> None:
        nn.Module.__init__(self)
        self.norm1, self.conv1 = plain.norm1, plain.conv1
        self.norm2, self.conv2 = plain.norm2, plain.conv2
        self.shortcut = plain.shortcut
        self.conv1.laid = self.conv2.laid = True

    def forward(self, x: Frames, memory: Memory | None) -> Frames:  # type: ignore[override]
        if memory is None or not remembers(memory, self.conv1, self.conv2):
            return super().forward(finished(x), memory)
        frames = x.shape[1]
        if isinstance(x, Tensor):
            whole = x.contiguous()
            laid = lay(Pending(whole), self.norm1.gamma, self.conv1, memory)
        else:  # the sum may take the place of what it is a sum of
            whole = x.mixed.new_empty(x.shape) if x.shortcut is None else x.shortcut
            laid = lay(x, self.norm1.gamma, self.conv1, memory, whole)
        shortcut = whole if self.shortcut is None else mix_channels(whole, self.shortcut)
        inner = Pending(self.conv1.convolve_laid(laid, frames, None).contiguous(), self.conv1.bias)
        del laid  # large: gone before the next one comes, as is what that is made of
        laid = lay(inner, self.norm2.gamma, self.conv2, memory)
        del inner
        outer = self.conv2.convolve_laid(laid, frames, None).contiguous()
        return Pending(outer, self.conv2.bias, shortcut)


class FusedMiddle(Middle):
    """The middle of fused blocks."""

    def __init__(self, plain: Middle) -> None:
        nn.Module.__init__(self)
        self.residual1 = FusedResidualBlock(plain.residual1)
        self.attention = plain.attention
        self.residual2 = FusedResidualBlock(plain.residual2)

    def forward(self, x: Tensor, memory: Memory | None) -> Frames:  # type: ignore[override]
        return self.residual2(self.attention(finished(self.residual1(x, memory))), memory)


class FusedUpsample(Upsample):
    """An upsampling that leaves its pixels and its bias to the part after it."""

    def __init__(self, plain: Upsample) -> None:
        nn.Module.__init__(self)
        self.conv, self.time_conv, self.derived = plain.conv, plain.time_conv, plain.derived

    def forward(self, x: Frames, memory: Memory | None) -> Frames:  # type: ignore[override]
        if self.time_conv is None:
            whole = finished(x)
        elif memory is None or not remembers(memory, self.time_conv):
            whole = self.time_conv(finished(x), memory)
        else:
            laid = lay(pending(x), None, self.time_conv, memory)
            whole = in_turn(self.time_conv.convolve_laid(laid, x.shape[1], self.time_conv.bias))
        four = convolve(whole, self.derived.of(self.conv.weight, phases), None, 1)
        return Pending(four, self.conv.bias, phases=True)


class FusedHead(Head):
    """A head that takes a pending sum."""

    def __init__(self, plain: Head) -> None:
        nn.Module.__init__(self)
        self.norm, self.conv = plain.norm, plain.conv
        self.conv.laid = True

    def forward(self, x: Frames, memory: Memory | None) -> Tensor:
        if memory is None or not remembers(memory, self.conv):
            return super().forward(finished(x), memory)
        laid = lay(pending(x), self.norm.gamma, self.conv, memory)
        return self.conv.convolve_laid(laid, x.shape[1], self.conv.bias)
