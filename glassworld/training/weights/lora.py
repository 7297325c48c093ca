"""LoRA (Hu et al., 2021): train a product of two thin matrices beside each frozen matrix.

Each linear layer in the transformer's layers computes W x + B A x with a frozen W [out, in] and
trained A [rank, in] and B [out, rank]. B starts at zero, so that the first step computes what the
world computed. `merge_lora` adds B A to W: the result has the layers and the size of before.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.linear import PackedLinear
from glassworld.models.transformer.dit import DiT

FACTORS = ("lora_a", "lora_b")
"""Last part of the names of the trained matrices."""


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained update of low rank.

    Parameters
    ----------
    base
        The layer. Its weights are frozen.
    rank
        Rank of the update; a matrix with a smaller side gets one of that rank.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        rank = min(rank, base.in_features, base.out_features)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.normal_(self.lora_a, std=base.in_features**-0.5)

    @property
    def weight(self) -> Tensor:
        """W + B A, for callers that read some rows of a layer."""
        return torch.addmm(self.base.weight, self.lora_b, self.lora_a)

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`, with the layer's own GELU if it has one."""
        y = F.linear(x, self.base.weight, self.base.bias)
        y = y + F.linear(F.linear(x, self.lora_a), self.lora_b)
        has_gelu = isinstance(self.base, PackedLinear) and self.base.gelu
        return F.gelu(y, approximate="tanh") if has_gelu else y

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the layer with B A added to its weight."""
        self.base.weight.copy_(self.weight)
        return self.base


def add_lora(dit: DiT, rank: int) -> None:
    """Freeze a transformer and give every linear layer of its layers an update of a rank."""
    dit.requires_grad_(False)
    for parent, name, child in _linear_layers(dit, nn.Linear):
        setattr(parent, name, LoRALinear(cast(nn.Linear, child), rank))


def merge_lora(dit: DiT) -> None:
    """Replace the layers that `add_lora` made by ordinary ones that compute the same."""
    for parent, name, child in _linear_layers(dit, LoRALinear):
        setattr(parent, name, cast(LoRALinear, child).merged())


def is_lora_factor(name: str) -> bool:
    """Tell whether a parameter of this name is a matrix of an update."""
    return name.rpartition(".")[2] in FACTORS


def _linear_layers(dit: DiT, kind: type[nn.Module]) -> list[tuple[nn.Module, str, nn.Module]]:
    """Return parent, name and module of each layer of a kind within the transformer's layers."""
    return [
        (parent, name, child)
        for parent in dit.blocks.modules()
        if not isinstance(parent, LoRALinear)
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
