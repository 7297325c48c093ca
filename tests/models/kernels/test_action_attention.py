"""The kernels of the action module's short attentions equal `attention`."""

from __future__ import annotations

import pytest
import torch

import tests.support.interpreted  # noqa: F401  (before anything imports Triton)
from glassworld.models.kernels.action_attention import (
    TILE,
    shared_kv_attention,
    temporal_attention,
)
from glassworld.models.ops.attention import attention
from glassworld.models.ops.norms import rms_norm
from glassworld.models.transformer.kv_cache import CacheSlots, RingKVCache
from glassworld.models.transformer.rope import rope_temporal


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize(("heads", "frames", "slots"), [(8, 3, 6), (1, 1, 3)])
def test_action_attention_equals_attention(
    temporal: bool, heads: int, frames: int, slots: int
) -> None:
    """With several sessions, more positions than a tile, more heads, and slots not yet filled."""
    positions = 3 if temporal else TILE + 2  # only the attention with shared keys has tiles of them
    sessions, head_dim, eps = 2, 16, 1e-6
    draw = torch.Generator().manual_seed(1)
    q = torch.randn(sessions, frames, positions, heads * head_dim, generator=draw)
    sequences = sessions * positions if temporal else sessions
    k, v = torch.randn(2, sequences, heads, slots, head_dim, generator=draw)
    cache = RingKVCache(k, v, 1)
    block = CacheSlots.for_block(slots - 1 - frames, frames, slots)
    tables = [rope_temporal(torch.arange(frames) + start, 8, head_dim, 1e4) for start in (3, 30)]
    rotary = tables[0].cat(tables, 2)

    heads_of_q = q.unflatten(3, (heads, head_dim)).permute(0, 2, 3, 1, 4)  # [b, p, h, f, d]
    queries = rotary.rotate(rms_norm(heads_of_q, eps))
    past = [x.reshape(sessions, -1, heads, slots - 1, head_dim) for x in cache.filled(block)]
    mixed = attention(queries, *(x.expand(-1, positions, -1, -1, -1) for x in past))
    kernel = temporal_attention if temporal else shared_kv_attention
    expected = mixed.permute(0, 3, 1, 2, 4).flatten(3)
    torch.testing.assert_close(kernel(q, eps, rotary, cache, block), expected, atol=1e-5, rtol=0)
