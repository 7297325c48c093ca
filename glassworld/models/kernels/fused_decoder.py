"""The VAE's decoder with one kernel between two convolutions (see `conv_epilogue`).

The fused parts share their parameters with the plain ones and cache the same features, so a clip
can continue in either. While the cache holds nothing for a layer, it runs the plain code. No
gradients.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassworld.models.kernels.conv_epilogue import ConvSum, conv_epilogue
from glassworld.models.kernels.deferred_sum import materialize
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

Frames = Tensor | ConvSum
"""`[b, t, h, w, c]`, perhaps with the last sum deferred."""


def fuse_decoder(decoder: VAEDecoder) -> None:
    """Replace the decoder's parts by fused ones, in place. Not for a compiled decoder."""
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


def has_past(cache: FeatureCache, *layers: CausalConv) -> bool:
    """Return whether the cache holds frames of all the layers."""
    return all(layer.name in cache.frames for layer in layers)


class FusedResidualBlock(ResidualBlock):
    """A residual block that leaves its last sum to the part after it."""

    def __init__(self, plain: ResidualBlock) -> None:
        nn.Module.__init__(self)
        self.norm1, self.conv1 = plain.norm1, plain.conv1
        self.norm2, self.conv2 = plain.norm2, plain.conv2
        self.shortcut = plain.shortcut
        self.conv1.epilogue_fused = self.conv2.epilogue_fused = True

    def forward(self, x: Frames, cache: FeatureCache | None) -> Frames:  # type: ignore[override]
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, outputs]`, the shortcut deferred."""
        if cache is None or not has_past(cache, self.conv1, self.conv2):
            return super().forward(materialize(x), cache)
        frames = x.shape[1]
        if isinstance(x, Tensor):
            total = x.contiguous()
            stacked = conv_epilogue(ConvSum(total), self.norm1.gamma, self.conv1, cache)
        else:  # the sum may overwrite its shortcut, which nothing else reads
            total = x.conv.new_empty(x.shape) if x.shortcut is None else x.shortcut
            stacked = conv_epilogue(x, self.norm1.gamma, self.conv1, cache, total)
        shortcut = total if self.shortcut is None else conv1x1(total, self.shortcut)
        y = self.conv1.convolve_stacked(stacked, frames, None).contiguous()
        inner = ConvSum(y, self.conv1.bias)
        del stacked, y  # large: free them before the next ones are allocated
        stacked = conv_epilogue(inner, self.norm2.gamma, self.conv2, cache)
        del inner
        outer = self.conv2.convolve_stacked(stacked, frames, None).contiguous()
        return ConvSum(outer, self.conv2.bias, shortcut)


class FusedMiddleBlock(MiddleBlock):
    """A middle block of fused residual blocks."""

    def __init__(self, plain: MiddleBlock) -> None:
        nn.Module.__init__(self)
        self.residual1 = FusedResidualBlock(plain.residual1)
        self.attention = plain.attention
        self.residual2 = FusedResidualBlock(plain.residual2)

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Frames:  # type: ignore[override]
        """Apply the block to `[b, t, h, w, c]`, the last sum deferred."""
        x = materialize(self.residual1(x, cache))
        return self.residual2(self.attention(x), cache)


class FusedUpsample(Upsample):
    """An upsampling that leaves its bias and the order of its pixels to the part after it."""

    def __init__(self, plain: Upsample) -> None:
        nn.Module.__init__(self)
        self.conv, self.time_conv, self.packed = plain.conv, plain.time_conv, plain.packed

    def forward(self, x: Frames, cache: FeatureCache | None) -> Frames:  # type: ignore[override]
        """Map `[b, t, h, w, c]` to `[b, t or 2t, 2h, 2w, c / 2]`, deferred."""
        if self.time_conv is None:
            frames = materialize(x)
        elif cache is None or not has_past(cache, self.time_conv):
            frames = self.time_conv(materialize(x), cache)
        else:
            stacked = conv_epilogue(ConvSum.of(x), None, self.time_conv, cache)
            y = self.time_conv.convolve_stacked(stacked, x.shape[1], self.time_conv.bias)
            frames = interleave_frames(y)
        weight = self.packed.get(self.conv.weight, polyphase_weight)
        return ConvSum(conv2d_frames(frames, weight, None, 1), self.conv.bias, polyphase=True)


class FusedVAEHead(VAEHead):
    """A head that takes a deferred sum."""

    def __init__(self, plain: VAEHead) -> None:
        nn.Module.__init__(self)
        self.norm, self.conv = plain.norm, plain.conv
        self.conv.epilogue_fused = True

    def forward(self, x: Frames, cache: FeatureCache | None) -> Tensor:
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, outputs]`."""
        if cache is None or not has_past(cache, self.conv):
            return super().forward(materialize(x), cache)
        stacked = conv_epilogue(ConvSum.of(x), self.norm.gamma, self.conv, cache)
        return self.conv.convolve_stacked(stacked, x.shape[1], self.conv.bias)
