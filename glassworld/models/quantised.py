"""Linear layers in 8 bits: a quarter of the work where a device multiplies them that much faster.

Each output channel of a weight has a scale of its own, each token too, found when it comes. What
that costs in quality is for the benchmark to say: these layers are never used unasked.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.dense import Dense

MULTIPLE = 16
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rows of `x` `[n, width]` in 8 bits, and the scale `[n, 1]`, float32, of each."""
    x = x.float()
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST[dtype]
    x = x / scale
    return (x.round() if dtype is torch.int8 else x).to(dtype), scale


class QuantisedLinear(nn.Module):
    """A linear layer whose weight and inputs are int8 or float8 (e4m3)."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: Dense, dtype: torch.dtype) -> None:
        super().__init__()
        weight, scale = quantise(linear.weight, dtype)
        self.register_buffer("weight", weight)  # [out, in]
        self.register_buffer("scale", scale)  # [out, 1]
        self.bias, self.gelu = linear.bias, linear.gelu

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """The output channels from `first` on; `x`: `[..., in]`."""
        weight, scale = self.weight[first:], self.scale[first:]
        rows, row_scale = quantise(x.flatten(0, -2), weight.dtype)
        if weight.dtype is torch.int8:
            product = torch._int_mm(rows, weight.T).float() * row_scale * scale.T
        else:
            product = torch._scaled_mm(
                rows, weight.T, row_scale, scale.T.contiguous(), out_dtype=torch.bfloat16
            )
        if self.bias is not None:
            product = product + self.bias[first:]
        product = product.to(x.dtype).unflatten(0, x.shape[:-1])
        return F.gelu(product, approximate="tanh") if self.gelu else product


def quantise_layers(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace the linear layers inside `network` that every token goes through."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, Dense) and _fits(layer):
                setattr(parent, name, QuantisedLinear(layer, dtype))


def _fits(linear: Dense) -> bool:
    """Whether devices have 8-bit products of this shape."""
    return linear.in_features % MULTIPLE == linear.out_features % MULTIPLE == 0
