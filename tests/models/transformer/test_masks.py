"""Attention in training: by what each token sees, and spelled out where gradients are wanted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from glassworld.models.transformer.attention import (
    QKV,
    attention,
    block_masked_attention,
    unfused_attention,
)
from glassworld.models.transformer.masks import mask_blocks

FRAMES = 5


@given(rows=st.lists(st.integers(1, 2**FRAMES - 1), min_size=FRAMES, max_size=FRAMES))
def test_attending_by_sights_equals_attending_under_a_mask(rows: list[int]) -> None:
    visible = torch.tensor([[bool(row >> frame & 1) for frame in range(FRAMES)] for row in rows])
    per_frame = 2
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, per_frame * FRAMES, 4, generator=draw)
    mask = visible.repeat_interleave(per_frame, 0).repeat_interleave(per_frame, 1)
    torch.testing.assert_close(
        block_masked_attention(QKV(q, k, v), mask_blocks(visible, per_frame)),
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
    )


def test_neighbours_are_taken_together() -> None:
    block_of_two = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    first, second = mask_blocks(block_of_two, 10)
    assert first == (slice(0, 20), (slice(0, 20),))
    assert second == (slice(20, 30), (slice(0, 30),))


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, False, True]])])
def test_spelled_out_attention_has_the_values_and_gradients_of_the_fused_one(
    mask: Tensor | None,
) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = ((2, 1, 4, 8), (2, 1, 3, 8), (2, 1, 3, 8))
    given = [torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes]
    results = []
    for attend in (unfused_attention, F.scaled_dot_product_attention):
        seen = attend(*given, mask)
        results.append((seen, *torch.autograd.grad(seen.square().sum(), given)))
    torch.testing.assert_close(*results)
    torch.testing.assert_close(attention(*given, mask), results[0][0])
