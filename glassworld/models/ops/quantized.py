"""Linear layers in 8 bits: a quarter of the work where a device multiplies them that much faster.

Each output channel of a weight has a scale of its own, each token too, found when it comes. What
that costs in quality is for the benchmark to say: these layers are never used unasked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.linear import PackedLinear

WIDE = ("self_attn.qkv", "cross_attn.q", "ffn.0", "ffn.2")
MULTIPLE = 16
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


class QuantizedTensor(NamedTuple):
    """Rows `[..., width]` in 8 bits, and the scale `[..., 1]`, float32, of each."""

    rows: Tensor
    scales: Tensor


def quantize(x: Tensor, dtype: torch.dtype) -> QuantizedTensor:
    """`x` `[..., width]` in 8 bits."""
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST[dtype]
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
        """The output channels from `first` on; `x`: `[..., in]`."""
        product = self.matmul(quantize(x, self.weight.dtype), first)
        return F.gelu(product, approximate="tanh") if self.gelu else product

    def matmul(self, x: QuantizedTensor, first: int = 0) -> Tensor:
        """The product and its bias, without GELU, of an input that is in 8 bits already."""
        weight, scales = self.weight[first:], self.scales[:, first:]
        bias = None if self.bias is None else self.bias[first:]
        rows, row_scales = x.rows.flatten(0, -2), x.scales.flatten(0, -2)
        if weight.dtype is torch.int8:
            product = torch._int_mm(rows, weight.T).float() * row_scales * scales
            product = (product if bias is None else product + bias).to(self.dtype)
        else:
            half = None if bias is None else bias.to(torch.bfloat16)
            product = torch._scaled_mm(
                rows,
                weight.T,
                row_scales,
                scales,
                half,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,  # tensor cores add up by themselves; it costs no quality
            ).to(self.dtype)
        return product.unflatten(0, x.rows.shape[:-1])


def quantize_layers(layers: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Replace the wide products of transformer layers: nine tenths of their work.

    The others would win less than finding the scales of their inputs costs.
    """
    for layer in layers:
        for path in WIDE:
            linear = layer.get_submodule(path)
            if isinstance(linear, PackedLinear) and _fits(linear):
                layer.set_submodule(path, QuantizedLinear(linear, dtype))


def _fits(linear: PackedLinear) -> bool:
    """Whether devices have 8-bit products of this shape."""
    return linear.in_features % MULTIPLE == linear.out_features % MULTIPLE == 0
