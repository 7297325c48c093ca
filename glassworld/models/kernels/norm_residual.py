"""Kernels over rows of a matrix: residuals, layer norms, RMS norms, 8 bits.

One program works on one row, which stays in registers: every number is read once and written
once. Sums are made in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.launch import launch
from glassworld.models.ops.quantized import MAX_VALUE, QuantizedTensor

EIGHT_BITS = torch.float8_e4m3fn
SMALLEST = tl.constexpr(1e-12)  # of what a row is scaled by
PARTS = tl.constexpr(6)  # shift, scale and gate, for attention and for the feed-forward


class Moments(NamedTuple):
    """What timesteps do to rows: the part `part` is a gate, or a shift and behind it the scale."""

    modulation: Tensor  # the layer's own, [1, 6, width]
    time: Tensor  # [b, f or 1, 6, width]
    rows: int  # that share a timestep, in order
    part: int


class Affine(NamedTuple):
    """A layer norm's own scale and shift."""

    weight: Tensor
    bias: Tensor


class Pending(NamedTuple):
    """Rows that are not yet added up: `x`, plus `y` times the gate. Adding up is done in `x`.

    `x`, `y`: `[..., width]`, contiguous.
    """

    x: Tensor
    y: Tensor | None = None
    gate: Moments | None = None


def pending(x: Tensor | Pending) -> Pending:
    return Pending(x) if isinstance(x, Tensor) else x


def finished(x: Tensor | Pending) -> Tensor:
    """The rows, added up."""
    if isinstance(x, Tensor):
        return x
    _add_and_norm(x, None, 0.0, None, None)
    return x.x


@triton.jit
def store_row(out, scales, row, at, inside, values, width: tl.constexpr, largest: tl.constexpr):
    """Write a row: as it is, or with `scales` in 8 bits of which `largest` is the largest."""
    if scales is not None:
        most = tl.max(tl.abs(tl.where(inside, values, 0.0)))
        scale = tl.maximum(most, SMALLEST) / largest
        tl.store(scales + row, scale)
        values *= 1 / scale
    tl.store(out + row * width + at, values.to(out.dtype.element_ty), inside)


@triton.jit
def moment(modulation, time, row, rows, at, inside, part: tl.constexpr, width: tl.constexpr):
    """One part of what timesteps do to a row."""
    own = tl.load(modulation + part * width + at, inside, 0.0).to(tl.float32)
    of_time = tl.load(time + (row // rows * PARTS + part) * width + at, inside, 0.0)
    return own + of_time.to(tl.float32)


@triton.jit
def add_and_norm_kernel(
    x,
    y,
    gates,
    gate_time,
    gate_rows,
    gate: tl.constexpr,
    modulation,
    time,
    rows,
    shift: tl.constexpr,
    weight,
    bias,
    out,
    scales,
    eps,
    width: tl.constexpr,
    block: tl.constexpr,
    largest: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    values = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    if y is not None:
        added = tl.load(y + row * width + at, inside, 0.0).to(tl.float32)
        if gate is not None:
            added *= moment(gates, gate_time, row, gate_rows, at, inside, gate, width)
        values += added
        tl.store(x + row * width + at, values.to(x.dtype.element_ty), inside)
    if out is not None:
        centred = tl.where(inside, values - tl.sum(values) / width, 0.0)
        values = centred * tl.rsqrt(tl.sum(centred * centred) / width + eps)
        if weight is not None:
            values *= tl.load(weight + at, inside, 0.0).to(tl.float32)
            values += tl.load(bias + at, inside, 0.0).to(tl.float32)
        if shift is not None:
            values *= 1 + moment(modulation, time, row, rows, at, inside, shift + 1, width)
            values += moment(modulation, time, row, rows, at, inside, shift, width)
        store_row(out, scales, row, at, inside, values, width, largest)


def add_and_norm(
    x: Pending, norm: Affine | Moments, eps: float, eight_bits: bool = False
) -> Tensor | QuantizedTensor:
    """Add up the rows in place; returns their layer norm, in the form of `x.x`.

    With `eight_bits` in float8 (e4m3) with a scale for each row.
    """
    out = torch.empty_like(x.x, dtype=EIGHT_BITS if eight_bits else None)
    scales = x.x.new_empty((*out.shape[:-1], 1), dtype=torch.float32) if eight_bits else None
    _add_and_norm(x, norm, eps, out, scales)
    return out if scales is None else QuantizedTensor(out, scales)


def _add_and_norm(
    x: Pending, norm: Affine | Moments | None, eps: float, out: Tensor | None, scales: Tensor | None
) -> None:
    width = x.x.shape[-1]
    launch(
        add_and_norm_kernel,
        (x.x.numel() // width,),
        x.x,
        x.y,
        *(x.gate or (None, None, 1, None)),
        *(norm if isinstance(norm, Moments) else (None, None, 1, None)),
        *(norm if isinstance(norm, Affine) else (None, None)),
        out,
        scales,
        eps,
        width=width,
        block=triton.next_power_of_2(width),
        largest=MAX_VALUE[EIGHT_BITS],
        num_warps=warps(width),
    )


@triton.jit
def widen_kernel(
    x, y, more, out, rows_of_more, width: tl.constexpr, added: tl.constexpr, block: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    values = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    values += tl.load(y + row * width + at, inside, 0.0).to(tl.float32)
    values = values.to(x.dtype.element_ty)
    tl.store(x + row * width + at, values, inside)
    end = row * (width + added)
    tl.store(out + end + at, values, inside)
    rest = tl.load(more + row // rows_of_more * added + at, at < added, 0.0)
    tl.store(out + end + width + at, rest, at < added)


def add_and_widen(x: Tensor, y: Tensor, more: Tensor) -> Tensor:
    """Add `y` to `x` in place; returns the sum, behind each row the `more` of its frame.

    `x`, `y`: `[b, f, positions, width]`, contiguous; `more`: `[b, f, added]`, no wider.
    """
    *outer, positions, width = x.shape
    added = more.shape[-1]
    out = x.new_empty((*outer, positions, width + added))
    launch(
        widen_kernel,
        (x.numel() // width,),
        x,
        y,
        more.to(x.dtype).contiguous(),
        out,
        positions,
        width=width,
        added=added,
        block=triton.next_power_of_2(max(width, added)),
        num_warps=warps(width),
    )
    return out


@triton.jit
def rms_kernel(x, weight, eps, width: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    values = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values) / width + eps)
    values *= tl.load(weight + at, inside, 0.0).to(tl.float32)
    tl.store(x + row * width + at, values.to(x.dtype.element_ty), inside)


def rms_norm_in_place(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis of a contiguous `x`; returns it."""
    width = x.shape[-1]
    launch(
        rms_kernel,
        (x.numel() // width,),
        x,
        weight,
        eps,
        width=width,
        block=triton.next_power_of_2(width),
        num_warps=warps(width),
    )
    return x


@triton.jit
def gelu(x):
    """In its tanh form, where 0.5 (1 + tanh(u)) is 1 / (1 + exp(-2 u)), here by a power of two."""
    return x / (1 + tl.exp2(x * (-2.302208198 - 0.1029432397 * x * x)))


@triton.jit
def gelu_kernel(
    x,
    out,
    scales,
    width: tl.constexpr,
    whole: tl.constexpr,
    rest: tl.constexpr,
    largest: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    x += row * width
    out += row * width
    at = tl.arange(0, whole)
    values = gelu(tl.load(x + at).to(tl.float32))
    most = tl.max(tl.abs(values))
    if rest > 0:
        behind = whole + tl.arange(0, rest)
        others = gelu(tl.load(x + behind, behind < width, 0.0).to(tl.float32))
        most = tl.maximum(most, tl.max(tl.abs(others)))
    scale = tl.maximum(most, SMALLEST) / largest
    tl.store(scales + row, scale)
    tl.store(out + at, (values * (1 / scale)).to(out.dtype.element_ty))
    if rest > 0:
        tl.store(out + behind, (others * (1 / scale)).to(out.dtype.element_ty), behind < width)


def gelu_to_eight_bits(x: Tensor) -> QuantizedTensor:
    """GELU in its tanh form of the rows of a contiguous `x` `[..., width]`, in float8 (e4m3)."""
    width = x.shape[-1]
    out = torch.empty_like(x, dtype=EIGHT_BITS)
    scales = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    whole = 1 << (width.bit_length() - 1)  # 8192 of 8960: the next power would be half idle
    launch(
        gelu_kernel,
        (x.numel() // width,),
        x,
        out,
        scales,
        width=width,
        whole=whole,
        rest=triton.next_power_of_2(width - whole) if width > whole else 0,
        largest=MAX_VALUE[EIGHT_BITS],
        num_warps=warps(width),
    )
    return QuantizedTensor(out, scales)


def warps(width: int) -> int:
    """Of 32 threads, for a row: 16 numbers a thread, in two loads of 16 bytes."""
    return min(max(triton.next_power_of_2(width) // 512, 1), 8)
