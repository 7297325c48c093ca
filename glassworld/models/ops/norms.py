"""RMS norms in few operators: on a CPU torch composes its own of a dozen."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.models.ops.onednn import runs_eagerly_on_cpu


def composes_norm(x: Tensor) -> bool:
    """Return whether to compose the norm of `x` here.

    Float32 only: half precision would be rounded between the operators.
    """
    return x.dtype is torch.float32 and runs_eagerly_on_cpu(x)


@lru_cache
def _scalar(value: float) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(value)


def rms_norm(x: Tensor, eps: float, weight: Tensor | None = None) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last axis, times `weight` if there is one."""
    if not composes_norm(x):
        return F.rms_norm(x, x.shape[-1:], None if weight is None else weight.to(x.dtype), eps)
    width = x.shape[-1]
    scale = width**0.5 if weight is None else weight * width**0.5
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * scale).div_(torch.hypot(length, _scalar((width * eps) ** 0.5)))


def rms_norm_without_eps(x: Tensor, weight: Tensor) -> Tensor:
    """Return x / |x| * sqrt(width) * weight over the last axis; zeros stay zeros."""
    width = x.shape[-1]
    if not composes_norm(x):
        return F.rms_norm(x, (width,), weight.to(x.dtype), eps=1e-24)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * (weight * width**0.5)).div_(length.clamp_min_(1e-12))
