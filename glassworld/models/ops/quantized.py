"""Linear layers in 8 bits: a quarter of the work where a device multiplies them that much faster.

Each output channel of a weight has its own scale, and so has each token, found at run time. The
benchmark measures what that costs in quality; these layers are used only on request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.linear import PackedLinear

QUANTIZED_LAYERS = ("self_attn.qkv", "cross_attn.q", "ffn.0", "ffn.2")
MULTIPLE = 16  # devices have 8-bit matmuls for widths that are multiples of this
MAX_VALUE = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


class QuantizedTensor(NamedTuple):
    """Rows `[..., width]` in 8 bits, and the scale `[..., 1]`, float32, of each."""

    rows: Tensor
    scales: Tensor


def quantize(x: Tensor, dtype: torch.dtype) -> QuantizedTensor:
    """Quantize `x` `[..., width]` row by row to `dtype`, symmetrically (absolute maximum)."""
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / MAX_VALUE[dtype]
    x = x / scales
    return QuantizedTensor((x.round() if dtype is torch.int8 else x).to(dtype), scales)


class QuantizedLinear(nn.Module):
    """A linear layer whose weight and inputs are int8 or float8 (e4m3)."""

    weight: Tensor
    scales: Tensor

    def __init__(self, linear: PackedLinear, dtype: torch.dtype) -> None:
        super().__init__()
        weight, scales = quantize(linear.weight, dtype)
        self.register_buffer("weight", weight)  # [out, in]
        self.register_buffer("scales", scales.T.contiguous())  # [1, out]
        self.bias, self.gelu, self.dtype = linear.bias, linear.gelu, linear.weight.dtype

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Return the output channels from `first` on for `x` `[..., in]`."""
        y = self.matmul(quantize(x, self.weight.dtype), first)
        return F.gelu(y, approximate="tanh") if self.gelu else y

    def matmul(self, x: QuantizedTensor, first: int = 0) -> Tensor:
        """Return x W^T + bias, without GELU, for an input that is quantized already."""
        weight, scales = self.weight[first:], self.scales[:, first:]
        bias = None if self.bias is None else self.bias[first:]
        rows, row_scales = x.rows.flatten(0, -2), x.scales.flatten(0, -2)
        if weight.dtype is torch.int8:
            y = torch._int_mm(rows, weight.T).float() * row_scales * scales
            y = (y if bias is None else y + bias).to(self.dtype)
        else:
            y = torch._scaled_mm(
                rows,
                weight.T,
                row_scales,
                scales,
                None if bias is None else bias.to(torch.bfloat16),
                out_dtype=torch.bfloat16,
                use_fast_accum=True,  # tensor cores accumulate by themselves; quality is the same
            ).to(self.dtype)
        return y.unflatten(0, x.rows.shape[:-1])


def quantize_layers(layers: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Quantize the wide linear layers of transformer layers in place: nine tenths of their work.

    The others would save less than finding the scales of their inputs costs.
    """
    for layer in layers:
        for path in QUANTIZED_LAYERS:
            linear = layer.get_submodule(path)
            if isinstance(linear, PackedLinear) and _is_aligned(linear):
                layer.set_submodule(path, QuantizedLinear(linear, dtype))


def _is_aligned(linear: PackedLinear) -> bool:
    """Return whether devices have 8-bit matmuls of this shape."""
    return linear.in_features % MULTIPLE == linear.out_features % MULTIPLE == 0
