"""The linear layers that every token of the transformer goes through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops import onednn
from glassworld.models.ops.packed_weights import PackedWeights


class PackedLinear(nn.Linear):
    """A linear layer, with `gelu` followed by GELU in its tanh form."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gelu: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self.gelu = gelu
        self.packed = PackedWeights()

    def forward(self, x: Tensor) -> Tensor:
        """`x`: `[..., inputs]`."""
        if onednn.supports(x, self.weight, x.numel() * self.out_features):
            weight = self.packed.get(self.weight, onednn.pack_linear_weight)
            return onednn.linear(x, weight, self.bias, self.gelu)
        x = F.linear(x, self.weight, self.bias)
        return F.gelu(x, approximate="tanh") if self.gelu else x


def feed_forward(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    """Two layers and the GELU between them, at the places that checkpoints count."""
    return [PackedLinear(inputs, hidden, gelu=True), nn.Identity(), PackedLinear(hidden, outputs)]
