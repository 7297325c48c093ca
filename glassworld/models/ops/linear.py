"""The linear layers that every token of the transformer passes through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops import onednn
from glassworld.models.ops.packed_weights import PackedWeights


class PackedLinear(nn.Linear):
    """A linear layer, with `gelu` followed by GELU (tanh form).

    On a CPU it runs by oneDNN with a packed weight where that pays, elsewhere by torch.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gelu: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self.gelu = gelu
        self.packed = PackedWeights()

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., inputs]` to `[..., outputs]`."""
        if onednn.supports(x, self.weight, x.numel() * self.out_features):
            weight = self.packed.get(self.weight, onednn.pack_linear_weight)
            return onednn.linear(x, weight, self.bias, self.gelu)
        x = F.linear(x, self.weight, self.bias)
        return F.gelu(x, approximate="tanh") if self.gelu else x


def mlp_layers(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    """Return two linear layers with a GELU between them.

    The GELU is fused into the first one; an identity keeps the index that checkpoints give to the
    second one.
    """
    return [
        PackedLinear(inputs, hidden, gelu=True),
        nn.Identity(),
        PackedLinear(hidden, outputs),
    ]
