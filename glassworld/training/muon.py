"""Muon (Jordan et al., 2024): momentum made orthogonal, for matrices and convolutions.

torch's Muon takes matrices alone and computes in bfloat16 everywhere; this one takes convolutions
too, as matrices of one row per output channel, and uses bfloat16 only where it is faster.
"""

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
        """Take one step at each group's `lr`."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "mean" not in state:
                    state["mean"] = torch.zeros_like(weight)
                mean = state["mean"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(mean, group["momentum"]).flatten(1)
                size = _ADAM_SIZE * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonal(ahead).view_as(weight), alpha=-group["lr"] * size)


def knows_bfloat16(device: str) -> bool:
    """Whether a kind of device, `cpu` or `cuda`, multiplies matrices in bfloat16 natively."""
    return device == "cuda" or torch.cpu._is_avx512_bf16_supported()


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are one, by a quintic iteration."""
    a, b, c = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    if knows_bfloat16(matrix.device.type):
        x = x.bfloat16()
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrix.dtype)
    return x if wide is matrix else x.T
