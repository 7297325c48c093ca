"""Where a network may take a processor's quicker ways to the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def runs_as_written(x: Tensor) -> bool:
    """Whether `x` is worked on by a processor, operator by operator: no gradients, no compiler."""
    eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return eager and x.device.type == "cpu"
