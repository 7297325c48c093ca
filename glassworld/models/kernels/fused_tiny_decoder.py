"""The tiny decoder with one kernel between two convolutions.

A convolution leaves its bias, the shortcut around it and the ReLU to the pass that reads its
output. Where the next convolution is the first of a memory block, that pass also puts the frame
before beside each frame, the cached one before the first, and updates the cache in place.

The fused parts share their parameters with the plain ones and cache the same features, so a clip
can continue in either. While the cache holds nothing for a layer, it runs the plain code. No
gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from glassworld.models.kernels.conv_epilogue import (
    NUM_WARPS,
    polyphase_index,
    polyphase_pixels,
    program_shape,
)
from glassworld.models.kernels.deferred_sum import DeferredSum, materialize
from glassworld.models.kernels.launch import launch
from glassworld.models.vae.blocks import polyphase_weight
from glassworld.models.vae.causal_conv import FeatureCache, conv2d_frames
from glassworld.models.vae.tiny_decoder import (
    MemoryBlock,
    TemporalGrow,
    TinyDecoder,
    TinyHead,
    TinyInput,
    UpsampleConv,
)


def fuse_tiny_decoder(decoder: TinyDecoder) -> None:
    """Replace the classes of the decoder's parts by fused ones, in place."""
    for layer in decoder.decoder.values():
        layer.__class__ = FUSED.get(type(layer), type(layer))


@dataclass(frozen=True)
class TinyConvSum(DeferredSum):
    """Frames `[b, t, h, w, c]`: a convolution's output, plus a bias, plus a shortcut, then ReLU.

    The shortcut is the first half of the channels of `[b, t, h, w, 2 * c]`. With `grown`, `conv` is
    the output of an upsampling that made so many frames of one: `[b, t / grown, h / 2 + 1,
    w / 2 + 1, 4 * grown * c]`, the channels in the order of `polyphase_weight`, for each pixel
    frame by frame. All are contiguous, and read once.
    """

    conv: Tensor
    bias: Tensor | None = None
    shortcut: Tensor | None = None
    relu: bool = True
    grown: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """The shape of the frames."""
        b, t, h, w, c = self.conv.shape
        if not self.grown:
            return b, t, h, w, c
        return b, t * self.grown, 2 * (h - 1), 2 * (w - 1), c // (4 * self.grown)

    def add_up(self) -> Tensor:
        """Return the frames `[b, t, h, w, c]`, in the storage of `conv` unless it was grown."""
        frames = self.conv.new_empty(self.shape) if self.grown else self.conv
        _launch(self, None, frames)
        return frames


@dataclass(frozen=True)
class DeferredGrow:
    """Frames `[b, t, h, w, i]` and the 1x1 convolution `[count * c, i, 1, 1]` still to apply."""

    frames: Tensor
    weight: Tensor
    count: int


def pair_with_previous(x: TinyConvSum, past: Tensor) -> Tensor:
    """Return each frame with the one before it, `[b, t, h, w, 2 * c]`.

    `past`, `[b, 1, h, w, c]` and contiguous, comes before the first frame and is replaced by the
    last one.
    """
    *shape, channels = x.shape
    pairs = x.conv.new_empty(*shape, 2 * channels)
    _launch(x, past, pairs)
    return pairs


def deferred_conv(x: Tensor, layer: nn.Conv2d, shortcut: Tensor | None = None) -> TinyConvSum:
    """Convolve `[b, t, h, w, i]` by a 3x3 `layer`; bias and shortcut are deferred."""
    return TinyConvSum(conv2d_frames(x, layer.weight, None, 1), layer.bias, shortcut)


class FusedTinyInput(TinyInput):
    """An input convolution that leaves bias and ReLU to the part after it."""

    def forward(self, x: Tensor) -> TinyConvSum:  # type: ignore[override]
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, outputs]`, deferred."""
        return deferred_conv(x, self)


class FusedMemoryBlock(MemoryBlock):
    """A memory block that takes and leaves a deferred sum."""

    def forward(self, x: TinyConvSum, cache: FeatureCache) -> TinyConvSum:  # type: ignore[override]
        """Apply the block to `[b, t, h, w, c]`."""
        past = cache.frames.get(self.name)
        if past is None:
            # The deferred ReLU changes nothing: the plain block ends in one.
            return TinyConvSum(super().forward(materialize(x), cache))
        first, second, third = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        pairs = pair_with_previous(x, past)
        y = materialize(deferred_conv(pairs, first))
        y = materialize(deferred_conv(y, second))
        return deferred_conv(y, third, pairs)


class FusedTemporalGrow(TemporalGrow):
    """A 1x1 convolution left to the upsampling after it."""

    def forward(self, x: TinyConvSum) -> DeferredGrow:  # type: ignore[override]
        """Return the frames with the convolution still to apply."""
        return DeferredGrow(materialize(x), self.conv.weight, self.count)


class FusedUpsampleConv(UpsampleConv):
    """An upsampling and the 1x1 convolution before it as one convolution: neither has a bias."""

    def forward(self, x: DeferredGrow) -> TinyConvSum:  # type: ignore[override]
        """Map `[b, t, h, w, i]` to `[b, count * t, 2h, 2w, outputs]`, deferred."""
        # The cache watches one of the two weights: they are only ever loaded together.
        weight = self.packed.get(self.weight, lambda weight: grown_weight(weight, x), "grown")
        return TinyConvSum(conv2d_frames(x.frames, weight, None, 1), relu=False, grown=x.count)


class FusedTinyHead(TinyHead):
    """A head that takes a deferred sum."""

    def forward(self, x: TinyConvSum) -> Tensor:  # type: ignore[override]
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, 3]`."""
        return conv2d_frames(materialize(replace(x, relu=True)), self.weight, self.bias, 1)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    TinyInput: FusedTinyInput,
    MemoryBlock: FusedMemoryBlock,
    TemporalGrow: FusedTemporalGrow,
    UpsampleConv: FusedUpsampleConv,
    TinyHead: FusedTinyHead,
}


def grown_weight(weight: Tensor, x: DeferredGrow) -> Tensor:
    """Return the `polyphase_weight` of a 3x3 weight `[o, c, 3, 3]` after the 1x1 convolution.

    Its shape is `[4 * count * o, i, 2, 2]`.
    """
    grow = x.weight.float().flatten(1).unflatten(0, (x.count, -1))
    both = torch.einsum("ockl,fci->foikl", weight.float(), grow).flatten(0, 1)
    return polyphase_weight(both).to(weight.dtype)


def _launch(x: TinyConvSum, past: Tensor | None, out: Tensor) -> None:
    b, t, h, w, c = x.shape
    tile, width = program_shape(c)
    with torch.cuda.device_of(out):
        launch(
            tiny_conv_epilogue_kernel,
            (triton.cdiv(h * w, tile), b),
            x.conv,
            x.bias,
            x.shortcut,
            past,
            out,
            pixels=h * w,
            columns=w,
            frames=t,
            channels=c,
            grown=x.grown,
            relu=x.relu,
            tile=tile,
            width=width,
            num_warps=NUM_WARPS,
        )


@triton.jit
def tiny_conv_epilogue_kernel(
    conv,
    bias,
    shortcut,
    past,
    out,
    pixels,
    columns,
    frames: tl.constexpr,
    channels: tl.constexpr,
    grown: tl.constexpr,
    relu: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    """Work on `tile` pixels in all frames of one clip; arguments that are None are left out."""
    batch = tl.program_id(1)
    pixel = (tl.program_id(0) * tile + tl.arange(0, tile))[:, None]
    channel = tl.arange(0, width)[None, :]
    in_channels = channel < channels
    inside = (pixel < pixels) & in_channels
    size = tl.cast(pixels, tl.int64) * channels
    offset = pixel * channels + channel
    paired = offset + pixel * channels

    sources: tl.constexpr = grown if grown else 1  # frames that lie side by side
    if grown:
        source = conv + polyphase_index(pixel, columns) * (grown * channels) + channel
        source_size = tl.cast(polyphase_pixels(pixels, columns), tl.int64) * (grown * channels)
    else:
        source = conv + offset
        source_size = size
    if bias is not None:
        added = tl.load(bias + channel, in_channels, 0.0).to(tl.float32)
    if past is not None:
        end = past + batch * size + offset
        before = tl.load(end, inside)
        tl.debug_barrier()  # all threads have read the cache before any writes to it

    for frame in tl.static_range(frames):
        index = batch * frames + frame
        group = source + (index // sources) * source_size + (frame % sources) * channels
        numbers = tl.load(group, inside, 0.0).to(tl.float32)
        if bias is not None:
            numbers += added
        if shortcut is not None:
            numbers += tl.load(shortcut + index * 2 * size + paired, inside, 0.0).to(tl.float32)
        if relu:
            numbers = tl.where(numbers < 0, 0.0, numbers)  # NaN stays NaN
        rounded = numbers.to(out.dtype.element_ty)
        if past is None:
            tl.store(out + index * size + offset, rounded, inside)
        else:
            target = out + index * 2 * size + paired
            tl.store(target, rounded, inside)
            tl.store(target + channels, before, inside)
            before = rounded
    if past is not None:
        tl.store(end, before, inside)
