"""Kernels over rows of a matrix: residual sums, layer norms with adaLN, RMS norms, float8.

One program works on one row, which stays in registers: every number is read once and written
once. Sums are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.deferred_sum import DeferredSum
from glassworld.models.kernels.launch import launch
from glassworld.models.ops.quantized import MAX_VALUE, QuantizedTensor

FLOAT8 = torch.float8_e4m3fn
MIN_ABS_MAX = tl.constexpr(1e-12)  # of a row: its scale must not be zero
PARTS = tl.constexpr(6)  # shift, scale and gate, for attention and for the feed-forward


class RowModulation(NamedTuple):
    """One part of a layer's adaLN modulation: a gate, or a shift that its scale follows."""

    modulation: Tensor  # the layer's own, [1, 6, width]
    time: Tensor  # [b, f or 1, 6, width]
    rows: int  # consecutive rows that share a timestep
    part: int


class LayerNormWeights(NamedTuple):
    """A layer norm's own scale and shift."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class ResidualSum(DeferredSum):
    """The residual stream `x`, to which `y` times the gate is to be added, in place.

    `x`, `y`: `[..., width]`, contiguous.
    """

    x: Tensor
    y: Tensor | None = None
    gate: RowModulation | None = None

    @staticmethod
    def of(x: Tensor | ResidualSum) -> ResidualSum:
        """Return `x` as a sum, of one addend if it is a tensor."""
        return ResidualSum(x) if isinstance(x, Tensor) else x

    def add_up(self) -> Tensor:
        """Add `y` to `x` in place and return `x`."""
        _launch_residual_norm(self, None, 0.0, None, None)
        return self.x


@triton.jit
def store_row(
    out, scales, row, column, inside, values, width: tl.constexpr, max_value: tl.constexpr
):
    """Store a row as it is, or with `scales` quantized so that its maximum is `max_value`."""
    if scales is not None:
        abs_max = tl.max(tl.abs(tl.where(inside, values, 0.0)))
        scale = tl.maximum(abs_max, MIN_ABS_MAX) / max_value
        tl.store(scales + row, scale)
        values *= 1 / scale
    tl.store(out + row * width + column, values.to(out.dtype.element_ty), inside)


@triton.jit
def load_modulation(
    modulation, time, row, rows, column, inside, part: tl.constexpr, width: tl.constexpr
):
    """Load one part of the modulation of a row: the layer's own plus the timestep's."""
    own = tl.load(modulation + part * width + column, inside, 0.0).to(tl.float32)
    of_time = tl.load(time + (row // rows * PARTS + part) * width + column, inside, 0.0)
    return own + of_time.to(tl.float32)


@triton.jit
def residual_norm_kernel(
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
    max_value: tl.constexpr,
):
    """Add `y` times its gate to a row of `x`; store the row's layer norm in `out` if there is one.

    Arguments that are None are left out.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    values = tl.load(x + row * width + column, inside, 0.0).to(tl.float32)
    if y is not None:
        added = tl.load(y + row * width + column, inside, 0.0).to(tl.float32)
        if gate is not None:
            added *= load_modulation(gates, gate_time, row, gate_rows, column, inside, gate, width)
        values += added
        tl.store(x + row * width + column, values.to(x.dtype.element_ty), inside)
    if out is not None:
        centered = tl.where(inside, values - tl.sum(values) / width, 0.0)
        values = centered * tl.rsqrt(tl.sum(centered * centered) / width + eps)
        if weight is not None:
            values *= tl.load(weight + column, inside, 0.0).to(tl.float32)
            values += tl.load(bias + column, inside, 0.0).to(tl.float32)
        if shift is not None:
            values *= 1 + load_modulation(
                modulation, time, row, rows, column, inside, shift + 1, width
            )
            values += load_modulation(modulation, time, row, rows, column, inside, shift, width)
        store_row(out, scales, row, column, inside, values, width, max_value)


def residual_norm(
    x: ResidualSum, norm: LayerNormWeights | RowModulation, eps: float, float8: bool = False
) -> Tensor | QuantizedTensor:
    """Add up the rows in place and return their layer norm, with the shape of `x.x`.

    With `float8` the norm comes in float8 (e4m3) with a scale for each row.
    """
    out = torch.empty_like(x.x, dtype=FLOAT8 if float8 else None)
    scales = x.x.new_empty((*out.shape[:-1], 1), dtype=torch.float32) if float8 else None
    _launch_residual_norm(x, norm, eps, out, scales)
    return out if scales is None else QuantizedTensor(out, scales)


def _launch_residual_norm(
    x: ResidualSum,
    norm: LayerNormWeights | RowModulation | None,
    eps: float,
    out: Tensor | None,
    scales: Tensor | None,
) -> None:
    width = x.x.shape[-1]
    launch(
        residual_norm_kernel,
        (x.x.numel() // width,),
        x.x,
        x.y,
        *(x.gate or (None, None, 1, None)),
        *(norm if isinstance(norm, RowModulation) else (None, None, 1, None)),
        *(norm if isinstance(norm, LayerNormWeights) else (None, None)),
        out,
        scales,
        eps,
        width=width,
        block=triton.next_power_of_2(width),
        max_value=MAX_VALUE[FLOAT8],
        num_warps=warps_per_row(width),
    )


@triton.jit
def residual_concat_kernel(
    x,
    y,
    extra,
    out,
    rows_per_extra,
    width: tl.constexpr,
    extra_width: tl.constexpr,
    block: tl.constexpr,
):
    """Add a row of `y` to `x` in place; store the sum and the `extra` of its frame in `out`."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    values = tl.load(x + row * width + column, inside, 0.0).to(tl.float32)
    values += tl.load(y + row * width + column, inside, 0.0).to(tl.float32)
    values = values.to(x.dtype.element_ty)
    tl.store(x + row * width + column, values, inside)
    start = row * (width + extra_width)
    tl.store(out + start + column, values, inside)
    in_extra = column < extra_width
    rest = tl.load(extra + row // rows_per_extra * extra_width + column, in_extra, 0.0)
    tl.store(out + start + width + column, rest, in_extra)


def residual_concat(x: Tensor, y: Tensor, extra: Tensor) -> Tensor:
    """Add `y` to `x` in place; return the sum with each frame's `extra` concatenated to its rows.

    `x`, `y`: `[b, f, positions, width]`, contiguous; `extra`: `[b, f, extra width]`. Returns
    `[b, f, positions, width + extra width]`.
    """
    *outer, positions, width = x.shape
    extra_width = extra.shape[-1]
    out = x.new_empty((*outer, positions, width + extra_width))
    launch(
        residual_concat_kernel,
        (x.numel() // width,),
        x,
        y,
        extra.to(x.dtype).contiguous(),
        out,
        positions,
        width=width,
        extra_width=extra_width,
        block=triton.next_power_of_2(max(width, extra_width)),
        num_warps=warps_per_row(width),
    )
    return out


@triton.jit
def rms_norm_kernel(x, weight, eps, width: tl.constexpr, block: tl.constexpr):
    """Normalize a row of `x` in place."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    values = tl.load(x + row * width + column, inside, 0.0).to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values) / width + eps)
    values *= tl.load(weight + column, inside, 0.0).to(tl.float32)
    tl.store(x + row * width + column, values.to(x.dtype.element_ty), inside)


def rms_norm_in_place(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize a contiguous `x` over the last axis: x / sqrt(mean(x^2) + eps) * weight."""
    width = x.shape[-1]
    launch(
        rms_norm_kernel,
        (x.numel() // width,),
        x,
        weight,
        eps,
        width=width,
        block=triton.next_power_of_2(width),
        num_warps=warps_per_row(width),
    )
    return x


@triton.jit
def gelu(x):
    """Return GELU in its tanh form: 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2 u)), here with exp2."""
    return x / (1 + tl.exp2(x * (-2.302208198 - 0.1029432397 * x * x)))


@triton.jit
def gelu_float8_kernel(
    x,
    out,
    scales,
    width: tl.constexpr,
    whole: tl.constexpr,
    rest: tl.constexpr,
    max_value: tl.constexpr,
):
    """Quantize the GELU of a row, held as `whole` numbers and the `rest`, both powers of two."""
    row = tl.program_id(0).to(tl.int64)
    x += row * width
    out += row * width
    column = tl.arange(0, whole)
    values = gelu(tl.load(x + column).to(tl.float32))
    abs_max = tl.max(tl.abs(values))
    if rest > 0:
        tail = whole + tl.arange(0, rest)
        others = gelu(tl.load(x + tail, tail < width, 0.0).to(tl.float32))
        abs_max = tl.maximum(abs_max, tl.max(tl.abs(others)))
    scale = tl.maximum(abs_max, MIN_ABS_MAX) / max_value
    tl.store(scales + row, scale)
    tl.store(out + column, (values * (1 / scale)).to(out.dtype.element_ty))
    if rest > 0:
        tl.store(out + tail, (others * (1 / scale)).to(out.dtype.element_ty), tail < width)


def gelu_float8(x: Tensor) -> QuantizedTensor:
    """Return GELU (tanh form) of the rows of a contiguous `x` `[..., width]` in float8 (e4m3)."""
    width = x.shape[-1]
    out = torch.empty_like(x, dtype=FLOAT8)
    scales = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    whole = 1 << (width.bit_length() - 1)  # 8192 of 8960: the next power would be half idle
    launch(
        gelu_float8_kernel,
        (x.numel() // width,),
        x,
        out,
        scales,
        width=width,
        whole=whole,
        rest=triton.next_power_of_2(width - whole) if width > whole else 0,
        max_value=MAX_VALUE[FLOAT8],
        num_warps=warps_per_row(width),
    )
    return QuantizedTensor(out, scales)


def warps_per_row(width: int) -> int:
    """Return how many warps hold a row: 16 numbers a thread, in two loads of 16 bytes."""
    return min(max(triton.next_power_of_2(width) // 512, 1), 8)
