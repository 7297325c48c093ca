"""Muon (Jordan et al., 2024): orthogonalized momentum, for matrices and convolutions.

The Muon of torch takes matrices alone and computes in bfloat16 everywhere. This one also takes
convolutions, as matrices of one row per output channel, and uses bfloat16 only where it is faster.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from glassworld.engine.runtime.device import has_fast_bfloat16

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAM_RMS = 0.2
"""Root mean square of AdamW's steps, in learning rates (Liu et al., 2025)."""


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum, scaled to the size of AdamW's steps.

    Parameters
    ----------
    weights
        Weights of two or more dimensions. All but the first are flattened.
    momentum
        Share that the running mean of the gradients keeps, with Nesterov's correction.
    weight_decay
        Decoupled weight decay, in learning rates.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(weights, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step at the `lr` of each group. Weights of one shape are computed together."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            updates = self._updates(weights, group["momentum"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _updates(self, weights: list[Tensor], momentum: float) -> list[Tensor]:
        """Return the update of each weight at a learning rate of one."""
        if not weights:
            return []
        for weight in weights:
            if "mean" not in self.state[weight]:
                self.state[weight]["mean"] = torch.zeros_like(weight)
        means = [self.state[weight]["mean"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, means, momentum)
        same_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for index, direction in enumerate(directions):
            same_shape[direction.flatten(1).shape].append(index)
        updates = list(directions)
        for shape, indices in same_shape.items():
            matrices = torch.stack([directions[index].flatten(1) for index in indices])
            matrices = orthogonalize(matrices) * (_ADAM_RMS * max(shape) ** 0.5)
            for index, update in zip(indices, matrices, strict=True):
                updates[index] = update.view_as(weights[index])
        return updates


def orthogonalize(matrices: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrices by five steps of a quintic iteration.

    Parameters
    ----------
    matrices
        [n, rows, columns].
    """
    a, b, c = _QUINTIC
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    if has_fast_bfloat16(matrices.device.type):
        x = x.bfloat16()
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x if wide is matrices else x.mT
