"""Attention under a block-causal mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from glassworld.models.transformer.attention import QKV, block_masked_attention
from glassworld.models.transformer.masks import mask_blocks

FRAMES = 5


@given(rows=st.lists(st.integers(1, 2**FRAMES - 1), min_size=FRAMES, max_size=FRAMES))
def test_block_masked_attention_equals_attention_under_the_mask(rows: list[int]) -> None:
    visible = torch.tensor([[bool(row >> frame & 1) for frame in range(FRAMES)] for row in rows])
    per_frame = 2
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, per_frame * FRAMES, 4, generator=draw)
    mask = visible.repeat_interleave(per_frame, 0).repeat_interleave(per_frame, 1)
    torch.testing.assert_close(
        block_masked_attention(QKV(q, k, v), mask_blocks(visible, per_frame)),
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
    )


def test_mask_blocks_join_neighboring_frames() -> None:
    block_of_two = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    first, second = mask_blocks(block_of_two, 10)
    assert first == (slice(0, 20), (slice(0, 20),))
    assert second == (slice(20, 30), (slice(0, 30),))
