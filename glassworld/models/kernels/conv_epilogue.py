"""Everything between two convolutions of the VAE's decoder, in one pass over the memory.

A convolution leaves its bias, and the shortcut around it, to the pass that reads its output. That
pass adds them, applies norm and SiLU in float32, stacks the taps of the next causal convolution
with the cached frames in front, and updates the cache in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.deferred_sum import DeferredSum
from glassworld.models.kernels.launch import launch
from glassworld.models.vae.causal_conv import TAPS, CausalConv, FeatureCache

NUMEL_PER_PROGRAM = 2048  # elements of a frame: 16 a thread, in some 64 registers
NUM_WARPS = 4


@dataclass(frozen=True)
class ConvSum(DeferredSum):
    """Frames `[b, t, h, w, c]`: a convolution's output `conv`, plus a bias, plus a shortcut.

    With `polyphase`, `conv` is `[b, t, h / 2 + 1, w / 2 + 1, 4 * c]`, the output of a convolution
    with `polyphase_weight` (see `interleave_phases`). All are contiguous.
    """

    conv: Tensor
    bias: Tensor | None = None
    shortcut: Tensor | None = None
    polyphase: bool = False

    @staticmethod
    def of(x: Tensor | ConvSum) -> ConvSum:
        """Return `x` as a sum, of one addend if it is a tensor."""
        return ConvSum(x.contiguous()) if isinstance(x, Tensor) else x

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """The shape of the frames."""
        b, t, h, w, c = self.conv.shape
        return (b, t, 2 * (h - 1), 2 * (w - 1), c // 4) if self.polyphase else (b, t, h, w, c)

    def add_up(self) -> Tensor:
        """Return the frames `[b, t, h, w, c]` in new storage."""
        total = self.conv.new_empty(self.shape)
        _launch(self, total)
        return total


def conv_epilogue(
    x: ConvSum,
    gamma: Tensor | None,
    layer: CausalConv,
    cache: FeatureCache,
    total: Tensor | None = None,
) -> Tensor:
    """Add up, apply norm and SiLU, and stack the taps of `layer`, which has frames in the cache.

    Without a `gamma` there is neither norm nor SiLU; a `total`, of the shape of `x`, receives the
    sum. Returns the input of `layer.convolve_stacked`. The cached frames are contiguous, as they
    come into being, and are updated in place.
    """
    b, t, h, w, c = x.shape
    count = t if layer.uses_conv3d else layer.frames_per_conv(t)
    taps = count + TAPS - 1
    shape = (b, taps, h, w, c) if layer.uses_conv3d else (b, t // count, h, w, taps * c)
    stacked = x.conv.new_empty(shape)
    _launch(
        x,
        total,
        gamma=gamma,
        past=cache.frames[layer.name],
        stacked=stacked,
        frames_per_conv=count,
        conv3d=layer.uses_conv3d,
    )
    return stacked


def _launch(x: ConvSum, total: Tensor | None, **stacking: Any) -> None:
    b, t, h, w, c = x.shape
    tile, width = program_shape(c)
    only_adding = {
        "gamma": None,
        "past": None,
        "stacked": None,
        "frames_per_conv": 1,
        "conv3d": False,
    }
    with torch.cuda.device_of(x.conv):
        launch(
            conv_epilogue_kernel,
            (triton.cdiv(h * w, tile), b),
            x.conv,
            x.bias,
            x.shortcut,
            total,
            pixels=h * w,
            columns=w,
            frames=t,
            channels=c,
            polyphase=x.polyphase,
            tile=tile,
            width=width,
            num_warps=NUM_WARPS,
            **(only_adding | stacking),
        )


def program_shape(channels: int) -> tuple[int, int]:
    """Return how many pixels a program holds, and the power of two that holds their channels."""
    width = triton.next_power_of_2(channels)
    return max(NUMEL_PER_PROGRAM // width, 1), width


@triton.jit
def polyphase_index(pixel, columns):
    """Return the index of a frame's pixel in the output of a `polyphase_weight`."""
    row, column = pixel // columns, pixel % columns
    lower, right = row % 2, column % 2
    cell = (row // 2 + lower) * (columns // 2 + 1) + column // 2 + right
    return 4 * cell.to(tl.int64) + 2 * lower + right


@triton.jit
def polyphase_pixels(pixels, columns):
    """Return how many pixels a `polyphase_weight` makes of a frame, those beyond its edges too."""
    return (pixels // columns // 2 + 1) * (columns // 2 + 1) * 4


@triton.jit
def _store_taps(
    target,
    numbers,
    inside,
    row_stride,
    tap_stride,
    frame: tl.constexpr,
    rows: tl.constexpr,
    frames_per_conv: tl.constexpr,
):
    """Store a frame as every tap that sees it; `frame` counts from the first cached one."""
    for row in tl.static_range(rows):
        tap = frame - row * frames_per_conv
        if (tap >= 0) and (tap < frames_per_conv + 2):
            tl.store(target + row * row_stride + tap * tap_stride, numbers, inside)


@triton.jit
def conv_epilogue_kernel(
    conv,
    bias,
    shortcut,
    total,
    gamma,
    past,
    stacked,
    pixels,
    columns,
    frames: tl.constexpr,
    channels: tl.constexpr,
    frames_per_conv: tl.constexpr,
    conv3d: tl.constexpr,
    polyphase: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    """Work on `tile` pixels in all frames of one clip; arguments that are None are left out."""
    batch = tl.program_id(1).to(tl.int64)
    pixel = (tl.program_id(0) * tile + tl.arange(0, tile))[:, None]
    channel = tl.arange(0, width)[None, :]
    in_channels = channel < channels
    inside = (pixel < pixels) & in_channels
    size = tl.cast(pixels, tl.int64) * channels
    offset = pixel.to(tl.int64) * channels + channel

    if polyphase:
        source = conv + polyphase_index(pixel, columns) * channels + channel
        source_size = tl.cast(polyphase_pixels(pixels, columns), tl.int64) * channels
    else:
        source = conv + offset
        source_size = size
    if bias is not None:
        added = tl.load(bias + channel, in_channels, 0.0).to(tl.float32)
    if gamma is not None:
        scale = tl.load(gamma + channel, in_channels, 0.0).to(tl.float32) * tl.sqrt(channels * 1.0)

    if stacked is not None:
        rows: tl.constexpr = frames // frames_per_conv
        taps: tl.constexpr = frames_per_conv + 2
        if conv3d:
            target, tap_stride = stacked + offset, size
        else:
            target = stacked + pixel.to(tl.int64) * (taps * channels) + channel
            tap_stride = channels
        row_stride = size * taps
        target += batch * rows * row_stride
        end = past + batch * 2 * size + offset
        older = tl.load(end, inside)
        newer = tl.load(end + size, inside)
        tl.debug_barrier()  # all threads have read the cache before any writes to it
        _store_taps(target, older, inside, row_stride, tap_stride, 0, rows, frames_per_conv)
        _store_taps(target, newer, inside, row_stride, tap_stride, 1, rows, frames_per_conv)
        if frames == 1:
            tl.store(end, newer, inside)

    for frame in tl.static_range(frames):
        index = batch * frames + frame
        numbers = tl.load(source + index * source_size, inside, 0.0).to(tl.float32)
        if bias is not None:
            numbers += added
        if shortcut is not None:
            numbers += tl.load(shortcut + index * size + offset, inside, 0.0).to(tl.float32)
        if total is not None:
            tl.store(total + index * size + offset, numbers, inside)
        if gamma is not None:
            length = tl.sqrt(tl.sum(numbers * numbers, 1))[:, None]
            numbers = numbers * (1 / tl.maximum(length, 1e-12)) * scale
            numbers = numbers * tl.sigmoid(numbers)
        if stacked is not None:
            rounded = numbers.to(stacked.dtype.element_ty)
            _store_taps(
                target, rounded, inside, row_stride, tap_stride, frame + 2, rows, frames_per_conv
            )
            if frame >= frames - 2:
                tl.store(end + (frame + 2 - frames) * size, rounded, inside)
