"""What lies between two convolutions of the VAE's decoder, in one pass over the memory.

A convolution leaves its bias, and the shortcut around it, to the pass that reads its output. That
pass adds them up, applies norm and SiLU in float32, lays the frames out for the next causal
convolution with the remembered ones before them, and remembers the last two in their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.launch import launch
from glassworld.models.vae.causal_conv import TAPS, CausalConv, FeatureCache

HELD = 2048  # numbers of a frame in a program: 16 a thread, at some 64 registers
WARPS = 4


@dataclass(frozen=True)
class Pending:
    """Frames `[b, t, h, w, c]` that are not yet added up: `mixed`, plus a bias, plus a shortcut.

    With `polyphase`, `mixed` is `[b, t, h / 2 + 1, w / 2 + 1, 4 * c]`, the four pixels that an
    upsampling made of each of its own (see `vae_layers.interleave_phases`). All are contiguous.
    """

    mixed: Tensor
    bias: Tensor | None = None
    shortcut: Tensor | None = None
    polyphase: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of the frames, once they are added up."""
        b, t, h, w, c = self.mixed.shape
        return (b, t, 2 * (h - 1), 2 * (w - 1), c // 4) if self.polyphase else (b, t, h, w, c)


def pending(x: Tensor | Pending) -> Pending:
    return Pending(x.contiguous()) if isinstance(x, Tensor) else x


def finished(x: Tensor | Pending) -> Tensor:
    """The frames `[b, t, h, w, c]`, added up."""
    if isinstance(x, Tensor):
        return x
    total = x.mixed.new_empty(x.shape)
    _launch(x, total)
    return total


def conv_epilogue(
    x: Pending,
    gamma: Tensor | None,
    layer: CausalConv,
    memory: FeatureCache,
    total: Tensor | None = None,
) -> Tensor:
    """Add up, apply norm and SiLU, and lay out for `layer`, which must remember frames already.

    Without a `gamma` there is neither norm nor SiLU; a `total`, of the shape of `x`, gets what
    was added up. Returns what `layer.convolve_stacked` takes. The layer's memory is contiguous, as
    it comes into being, and is written in place.
    """
    b, t, h, w, c = x.shape
    at_once = t if layer.uses_conv3d else layer.at_once(t)
    seen = at_once + TAPS - 1
    shape = (b, seen, h, w, c) if layer.uses_conv3d else (b, t // at_once, h, w, seen * c)
    laid = x.mixed.new_empty(shape)
    fed = {"gamma": gamma, "past": memory.frames[layer.name], "laid": laid}
    _launch(x, total, **fed, at_once=at_once, direct=layer.uses_conv3d)
    return laid


def _launch(x: Pending, total: Tensor | None, **changes: Any) -> None:
    b, t, h, w, c = x.shape
    tile, width = shape_of_programs(c)
    laying = {"gamma": None, "past": None, "laid": None, "at_once": 1, "direct": False, **changes}
    with torch.cuda.device_of(x.mixed):
        launch(
            between_convolutions,
            (triton.cdiv(h * w, tile), b),
            x.mixed,
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
            num_warps=WARPS,
            **laying,
        )


def shape_of_programs(channels: int) -> tuple[int, int]:
    """How many pixels a program holds, and a power of two that holds their channels."""
    width = triton.next_power_of_2(channels)
    return max(HELD // width, 1), width


@triton.jit
def upsampled(pixel, columns):
    """Which of a frame's pixels in the order that `polyphase` makes them in."""
    row, column = pixel // columns, pixel % columns
    lower, right = row % 2, column % 2
    cell = (row // 2 + lower) * (columns // 2 + 1) + column // 2 + right
    return 4 * cell.to(tl.int64) + 2 * lower + right


@triton.jit
def size_upsampled(pixels, columns):
    """How many pixels `polyphase` makes of a frame, those beyond its edges included."""
    return (pixels // columns // 2 + 1) * (columns // 2 + 1) * 4


@triton.jit
def _lay_frame(
    place,
    numbers,
    inside,
    row_step,
    slot_step,
    seen: tl.constexpr,
    rows: tl.constexpr,
    at_once: tl.constexpr,
):
    """Write a frame wherever it is seen, where frame `seen` counts from the first remembered."""
    for row in tl.static_range(rows):
        slot = seen - row * at_once
        if (slot >= 0) and (slot < at_once + 2):
            tl.store(place + row * row_step + slot * slot_step, numbers, inside)


@triton.jit
def between_convolutions(
    mixed,
    bias,
    shortcut,
    total,
    gamma,
    past,
    laid,
    pixels,
    columns,
    frames: tl.constexpr,
    channels: tl.constexpr,
    at_once: tl.constexpr,
    direct: tl.constexpr,
    polyphase: tl.constexpr,
    tile: tl.constexpr,
    width: tl.constexpr,
):
    """All frames of `tile` pixels of one picture of the batch; what is None is left out."""
    batch = tl.program_id(1).to(tl.int64)
    pixel = (tl.program_id(0) * tile + tl.arange(0, tile))[:, None]
    channel = tl.arange(0, width)[None, :]
    known = channel < channels
    inside = (pixel < pixels) & known
    size = tl.cast(pixels, tl.int64) * channels
    at = pixel.to(tl.int64) * channels + channel

    if polyphase:
        source = mixed + upsampled(pixel, columns) * channels + channel
        source_size = tl.cast(size_upsampled(pixels, columns), tl.int64) * channels
    else:
        source = mixed + at
        source_size = size
    if bias is not None:
        added = tl.load(bias + channel, known, 0.0).to(tl.float32)
    if gamma is not None:
        scale = tl.load(gamma + channel, known, 0.0).to(tl.float32) * tl.sqrt(channels * 1.0)

    if laid is not None:
        rows: tl.constexpr = frames // at_once
        slots: tl.constexpr = at_once + 2
        if direct:
            place, slot_step = laid + at, size
        else:
            place, slot_step = laid + pixel.to(tl.int64) * (slots * channels) + channel, channels
        row_step = size * slots
        place += batch * rows * row_step
        end = past + batch * 2 * size + at
        older = tl.load(end, inside)
        newer = tl.load(end + size, inside)
        tl.debug_barrier()  # all have read the memory before any writes to it
        _lay_frame(place, older, inside, row_step, slot_step, 0, rows, at_once)
        _lay_frame(place, newer, inside, row_step, slot_step, 1, rows, at_once)
        if frames == 1:
            tl.store(end, newer, inside)

    for frame in tl.static_range(frames):
        index = batch * frames + frame
        numbers = tl.load(source + index * source_size, inside, 0.0).to(tl.float32)
        if bias is not None:
            numbers += added
        if shortcut is not None:
            numbers += tl.load(shortcut + index * size + at, inside, 0.0).to(tl.float32)
        if total is not None:
            tl.store(total + index * size + at, numbers, inside)
        if gamma is not None:
            length = tl.sqrt(tl.sum(numbers * numbers, 1))[:, None]
            numbers = numbers * (1 / tl.maximum(length, 1e-12)) * scale
            numbers = numbers * tl.sigmoid(numbers)
        if laid is not None:
            rounded = numbers.to(laid.dtype.element_ty)
            _lay_frame(place, rounded, inside, row_step, slot_step, frame + 2, rows, at_once)
            if frame >= frames - 2:
                tl.store(end + (frame + 2 - frames) * size, rounded, inside)
