"""The tiny decoder with one kernel of ours between two convolutions.

A convolution leaves its bias, the shortcut around it and the ReLU to the pass that reads its
output. That pass lays the frames out for the next convolution: beside the frame before, the
remembered one before the first, where the next is a memory block's; and remembers the last.

The parts are the plain ones with another way forward: they keep their weights and remember the
same, so that a clip can go on in either. What has nothing to remember from yet goes through the
plain code. No gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from glassworld.models.kernels.conv_epilogue import (
    WARPS,
    shape_of_programs,
    size_upsampled,
    upsampled,
)
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
    """Let the decoder's parts go the fused way, in place."""
    for layer in decoder.decoder.values():
        layer.__class__ = FUSED.get(type(layer), type(layer))


@dataclass(frozen=True)
class Convolved:
    """Frames `[b, t, h, w, c]` as a convolution left them, to be read once.

    `mixed` lacks a bias `[c]`, then a shortcut, the first half of the channels of
    `[b, t, h, w, 2 * c]`, then a ReLU. With `grown` it is an upsampling's that made so many frames
    of one: `[b, t / grown, h / 2 + 1, w / 2 + 1, 4 * grown * c]`, the channels in the order of
    `vae_layers.polyphase_weight`, for each pixel frame by frame. All are contiguous.
    """

    mixed: Tensor
    bias: Tensor | None = None
    shortcut: Tensor | None = None
    relu: bool = True
    grown: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of the frames."""
        b, t, h, w, c = self.mixed.shape
        if not self.grown:
            return b, t, h, w, c
        return b, t * self.grown, 2 * (h - 1), 2 * (w - 1), c // (4 * self.grown)


@dataclass(frozen=True)
class DeferredGrow:
    """Frames `[b, t, h, w, i]` that a 1x1 convolution `[count * c, i, 1, 1]` is to grow."""

    frames: Tensor
    weight: Tensor
    count: int


def finished(x: Convolved) -> Tensor:
    """The frames `[b, t, h, w, c]`: in the place of what was convolved, unless it was grown."""
    frames = x.mixed.new_empty(x.shape) if x.grown else x.mixed
    _launch(x, None, frames)
    return frames


def beside_the_last(x: Convolved, past: Tensor) -> Tensor:
    """Each frame and the one before it, `[b, t, h, w, 2 * c]`.

    `past`, `[b, 1, h, w, c]` and contiguous, comes before the first and then becomes the last.
    """
    *shape, channels = x.shape
    pairs = x.mixed.new_empty(*shape, 2 * channels)
    _launch(x, past, pairs)
    return pairs


def convolved(x: Tensor, layer: nn.Conv2d, shortcut: Tensor | None = None) -> Convolved:
    """What the layer, of 3x3, makes of `[b, t, h, w, i]`, its bias and the shortcut left out."""
    return Convolved(conv2d_frames(x, layer.weight, None, 1), layer.bias, shortcut)


class FusedTinyInput(TinyInput):
    def forward(self, x: Tensor) -> Convolved:  # type: ignore[override]
        return convolved(x, self)


class FusedMemoryBlock(MemoryBlock):
    def forward(self, x: Convolved, memory: FeatureCache) -> Convolved:  # type: ignore[override]
        past = memory.frames.get(self.name)
        if past is None:
            return Convolved(super().forward(finished(x), memory))  # another ReLU is none
        first, second, third = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        pairs = beside_the_last(x, past)
        y = finished(convolved(pairs, first))
        y = finished(convolved(y, second))
        return convolved(y, third, pairs)


class FusedTemporalGrow(TemporalGrow):
    def forward(self, x: Convolved) -> DeferredGrow:  # type: ignore[override]
        return DeferredGrow(finished(x), self.conv.weight, self.count)


class FusedUpsampleConv(UpsampleConv):
    """What the 1x1 convolution before it does, too: neither has a bias, so that they are one."""

    def forward(self, x: DeferredGrow) -> Convolved:  # type: ignore[override]
        # Weights are loaded together, so that its own tells of a change in both.
        weight = self.packed.get(self.weight, lambda weight: grown_phases(weight, x), "grown")
        four = conv2d_frames(x.frames, weight, None, 1)
        return Convolved(four, relu=False, grown=x.count)


class FusedTinyHead(TinyHead):
    def forward(self, x: Convolved) -> Tensor:  # type: ignore[override]
        return conv2d_frames(finished(replace(x, relu=True)), self.weight, self.bias, 1)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    TinyInput: FusedTinyInput,
    MemoryBlock: FusedMemoryBlock,
    TemporalGrow: FusedTemporalGrow,
    UpsampleConv: FusedUpsampleConv,
    TinyHead: FusedTinyHead,
}


def grown_phases(weight: Tensor, x: DeferredGrow) -> Tensor:
    """Return `polyphase_weight` of a 3x3 weight after the 1x1 one: `[4 * count * o, i, 2, 2]`."""
    grow = x.weight.float().flatten(1).unflatten(0, (x.count, -1))
    both = torch.einsum("ockl,fci->foikl", weight.float(), grow).flatten(0, 1)
    return polyphase_weight(both).to(weight.dtype)


def _launch(x: Convolved, past: Tensor | None, laid: Tensor) -> None:
    b, t, h, w, c = x.shape
    tile, width = shape_of_programs(c)
    with torch.cuda.device_of(laid):
        launch(
            between_tiny_convolutions,
            (triton.cdiv(h * w, tile), b),
            x.mixed,
            x.bias,
            x.shortcut,
            past,
            laid,
            pixels=h * w,
            columns=w,
            frames=t,
            channels=c,
            grown=x.grown,
            relu=x.relu,
            tile=tile,
            width=width,
            num_warps=WARPS,
        )


@triton.jit
def between_tiny_convolutions(
    mixed,
    bias,
    shortcut,
    past,
    laid,
    pixels,
    columns,
    frames: tl.constexpr,
    channels: tl.constexpr,
    grown: tl.constexpr,
    relu: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    """All frames of `tile` pixels of one picture of the batch; what is None is left out."""
    batch = tl.program_id(1)
    pixel = (tl.program_id(0) * tile + tl.arange(0, tile))[:, None]
    channel = tl.arange(0, width)[None, :]
    known = channel < channels
    inside = (pixel < pixels) & known
    size = tl.cast(pixels, tl.int64) * channels
    at = pixel * channels + channel
    paired = at + pixel * channels

    sources: tl.constexpr = grown if grown else 1  # frames that lie side by side
    if grown:
        source = mixed + upsampled(pixel, columns) * (grown * channels) + channel
        source_size = tl.cast(size_upsampled(pixels, columns), tl.int64) * (grown * channels)
    else:
        source = mixed + at
        source_size = size
    if bias is not None:
        added = tl.load(bias + channel, known, 0.0).to(tl.float32)
    if past is not None:
        end = past + batch * size + at
        before = tl.load(end, inside)
        tl.debug_barrier()  # all have read the memory before any writes to it

    for frame in tl.static_range(frames):
        index = batch * frames + frame
        group = source + (index // sources) * source_size + (frame % sources) * channels
        numbers = tl.load(group, inside, 0.0).to(tl.float32)
        if bias is not None:
            numbers += added
        if shortcut is not None:
            numbers += tl.load(shortcut + index * 2 * size + paired, inside, 0.0).to(tl.float32)
        if relu:
            numbers = tl.where(numbers < 0, 0.0, numbers)  # what is no number stays none
        rounded = numbers.to(laid.dtype.element_ty)
        if past is None:
            tl.store(laid + index * size + at, rounded, inside)
        else:
            place = laid + index * 2 * size + paired
            tl.store(place, rounded, inside)
            tl.store(place + channels, before, inside)
            before = rounded
    if past is not None:
        tl.store(end, before, inside)
