"""The VAE's decoder with one kernel of ours between two convolutions (see `taps`).

The parts share their parameters with the plain ones and remember the same, so that a clip can go
on in either. What has nothing to remember from yet goes through the plain code. No gradients.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassworld.models.kernels.conv_epilogue import Pending, conv_epilogue, finished, pending
from glassworld.models.vae.blocks import (
    MiddleBlock,
    ResidualBlock,
    Upsample,
    VAEHead,
    interleave_frames,
    polyphase_weight,
)
from glassworld.models.vae.causal_conv import (
    CausalConv,
    FeatureCache,
    apply_conv_policy,
    conv1x1,
    conv2d_frames,
)
from glassworld.models.vae.decoder import VAEDecoder

Frames = Tensor | Pending
"""`[b, t, h, w, c]`, the last sum perhaps left to who reads them."""


def fuse_decoder(decoder: VAEDecoder) -> None:
    """Put the fused parts in place of the plain ones. Not for a decoder that is compiled."""
    inner = decoder.decoder
    inner.middle = FusedMiddleBlock(inner.middle)
    for index, stage in enumerate(inner.stages):
        if isinstance(stage, Upsample):
            inner.stages[index] = FusedUpsample(stage)
        elif isinstance(stage, ResidualBlock):
            inner.stages[index] = FusedResidualBlock(stage)
    inner.head = FusedVAEHead(inner.head)
    apply_conv_policy(decoder, fused=True)
    decoder.fused = True


def remembers(memory: FeatureCache, *layers: CausalConv) -> bool:
    return all(layer.name in memory.frames for layer in layers)


class FusedResidualBlock(ResidualBlock):
    """A residual block that leaves its last sum to the part after it."""

    def __init__(self, plain: ResidualBlock) -> None:
        nn.Module.__init__(self)
        self.norm1, self.conv1 = plain.norm1, plain.conv1
        self.norm2, self.conv2 = plain.norm2, plain.conv2
        self.shortcut = plain.shortcut
        self.conv1.epilogue_fused = self.conv2.epilogue_fused = True

    def forward(self, x: Frames, memory: FeatureCache | None) -> Frames:  # type: ignore[override]
        if memory is None or not remembers(memory, self.conv1, self.conv2):
            return super().forward(finished(x), memory)
        frames = x.shape[1]
        if isinstance(x, Tensor):
            whole = x.contiguous()
            laid = conv_epilogue(Pending(whole), self.norm1.gamma, self.conv1, memory)
        else:  # the sum may take the place of what it is a sum of
            whole = x.mixed.new_empty(x.shape) if x.shortcut is None else x.shortcut
            laid = conv_epilogue(x, self.norm1.gamma, self.conv1, memory, whole)
        shortcut = whole if self.shortcut is None else conv1x1(whole, self.shortcut)
        inner = Pending(
            self.conv1.convolve_stacked(laid, frames, None).contiguous(), self.conv1.bias
        )
        del laid  # large: gone before the next one comes, as is what that is made of
        laid = conv_epilogue(inner, self.norm2.gamma, self.conv2, memory)
        del inner
        outer = self.conv2.convolve_stacked(laid, frames, None).contiguous()
        return Pending(outer, self.conv2.bias, shortcut)


class FusedMiddleBlock(MiddleBlock):
    """The middle of fused blocks."""

    def __init__(self, plain: MiddleBlock) -> None:
        nn.Module.__init__(self)
        self.residual1 = FusedResidualBlock(plain.residual1)
        self.attention = plain.attention
        self.residual2 = FusedResidualBlock(plain.residual2)

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Frames:  # type: ignore[override]
        return self.residual2(self.attention(finished(self.residual1(x, memory))), memory)


class FusedUpsample(Upsample):
    """An upsampling that leaves its pixels and its bias to the part after it."""

    def __init__(self, plain: Upsample) -> None:
        nn.Module.__init__(self)
        self.conv, self.time_conv, self.packed = (
            plain.conv,
            plain.time_conv,
            plain.packed,
        )

    def forward(self, x: Frames, memory: FeatureCache | None) -> Frames:  # type: ignore[override]
        if self.time_conv is None:
            whole = finished(x)
        elif memory is None or not remembers(memory, self.time_conv):
            whole = self.time_conv(finished(x), memory)
        else:
            laid = conv_epilogue(pending(x), None, self.time_conv, memory)
            whole = interleave_frames(
                self.time_conv.convolve_stacked(laid, x.shape[1], self.time_conv.bias)
            )
        four = conv2d_frames(whole, self.packed.get(self.conv.weight, polyphase_weight), None, 1)
        return Pending(four, self.conv.bias, polyphase=True)


class FusedVAEHead(VAEHead):
    """A head that takes a pending sum."""

    def __init__(self, plain: VAEHead) -> None:
        nn.Module.__init__(self)
        self.norm, self.conv = plain.norm, plain.conv
        self.conv.epilogue_fused = True

    def forward(self, x: Frames, memory: FeatureCache | None) -> Tensor:
        if memory is None or not remembers(memory, self.conv):
            return super().forward(finished(x), memory)
        laid = conv_epilogue(pending(x), self.norm.gamma, self.conv, memory)
        return self.conv.convolve_stacked(laid, x.shape[1], self.conv.bias)
