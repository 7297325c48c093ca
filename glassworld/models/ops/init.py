"""Initial values of learned vectors that are added to activations."""

from __future__ import annotations

import torch
from torch import nn


def normal_parameter(*shape: int) -> nn.Parameter:
    """Return a parameter drawn from N(0, 1 / width), `width` being the last of `shape`.

    Nothing is drawn on the meta device: torch would import its compiler for that, which adds a
    second to every start.
    """
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else values.normal_(0, shape[-1] ** -0.5))
