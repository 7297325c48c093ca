"""Attention spelled out equals torch's fused attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.models.ops.attention import attention, math_attention


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, False, True]])])
def test_math_attention_has_the_values_and_gradients_of_the_fused_one(
    mask: Tensor | None,
) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = ((2, 1, 4, 8), (2, 1, 3, 8), (2, 1, 3, 8))
    q, k, v = (torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes)
    results = []
    for attend in (math_attention, F.scaled_dot_product_attention):
        mixed = attend(q, k, v, mask)
        results.append((mixed, *torch.autograd.grad(mixed.square().sum(), (q, k, v))))
    torch.testing.assert_close(*results)
    torch.testing.assert_close(attention(q, k, v, mask), results[0][0])
