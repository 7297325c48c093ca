"""Learned vectors that are added to others: positions, and a layer's own share of the time."""

from __future__ import annotations

import torch
from torch import nn


def normal_parameter(*shape: int) -> nn.Parameter:
    """A parameter to be learned, from N(0, 1 / width) at first.

    On the meta device nothing is drawn: torch would import its compiler for that, a second of
    every start.
    """
    vectors = torch.empty(shape)
    return nn.Parameter(vectors if vectors.is_meta else vectors.normal_(0, shape[-1] ** -0.5))
