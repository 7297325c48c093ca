"""The linear layers that every token of the transformer goes through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops import onednn
from glassworld.models.ops.packed_weights import Derived


class Dense(nn.Linear):
    """A linear layer, with `gelu` followed by GELU in its tanh form."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gelu: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self.gelu = gelu
        self.derived = Derived()

    def forward(self, x: Tensor) -> Tensor:
        """`x`: `[..., inputs]`."""
        if onednn.suits(x, self.weight, x.numel() * self.out_features):
            weight = self.derived.of(self.weight, onednn.lay_out_product)
            return onednn.multiply(x, weight, self.bias, self.gelu)
        x = F.linear(x, self.weight, self.bias)
        return F.gelu(x, approximate="tanh") if self.gelu else x


def feed_forward(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    """Two layers and the GELU between them, at the places that checkpoints count."""
    return [Dense(inputs, hidden, gelu=True), nn.Identity(), Dense(hidden, outputs)]
