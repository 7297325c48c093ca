"""Muon (Jordan et al., 2024): momentum made orthogonal, for matrices and convolutions.

torch's Muon takes matrices alone and computes in bfloat16 everywhere; this one takes convolutions
too, as matrices of one row per output channel, and uses bfloat16 only where it is faster.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAM_SIZE = 0.2
"""The root mean square of AdamW's steps, in learning rates (Liu et al., 2025)."""


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum, scaled to the size of AdamW's steps.

    Args:
        weights: of two dimensions or more; all but the first are taken together.
        momentum: of the gradients' running mean, with Nesterov's look ahead.
        weight_decay: decoupled, in learning rates.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(weights, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step at each group's `lr`. Weights of one shape are made orthogonal together."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            moves = self._moves(weights, group["momentum"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, moves, alpha=-group["lr"])

    def _moves(self, weights: list[Tensor], momentum: float) -> list[Tensor]:
        """Where each weight goes, at a learning rate of one."""
        if not weights:
            return []
        for weight in weights:
            if "mean" not in self.state[weight]:
                self.state[weight]["mean"] = torch.zeros_like(weight)
        means = [self.state[weight]["mean"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, means, momentum)
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for index, direction in enumerate(ahead):
            alike[direction.flatten(1).shape].append(index)
        moves = list(ahead)
        for shape, places in alike.items():
            together = torch.stack([ahead[place].flatten(1) for place in places])
            together = orthogonal(together) * (_ADAM_SIZE * max(shape) ** 0.5)
            for place, move in zip(places, together, strict=True):
                moves[place] = move.view_as(weights[place])
        return moves


def knows_bfloat16(device: str) -> bool:
    """Whether a kind of device, `cpu` or `cuda`, multiplies matrices in bfloat16 natively."""
    return device == "cuda" or torch.cpu._is_avx512_bf16_supported()


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices whose singular values are one, by a quintic iteration.

    `matrices`: [n, rows, columns]; each of them is one by itself.
    """
    a, b, c = _QUINTIC
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    if knows_bfloat16(matrices.device.type):
        x = x.bfloat16()
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x if wide is matrices else x.mT
